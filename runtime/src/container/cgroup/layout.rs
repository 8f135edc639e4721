//! Where this host's cgroups are.
//!
//! cgroup v1 gives each controller (or a few together) a tree of its own; v2 has one tree for all; a *hybrid* host has
//! both, and each controller lives in one of them. /proc/self/mountinfo says which trees are mounted where, and
//! /proc/self/cgroup says where in each tree this process is: below that, and not at the top, is where it may make
//! others, if it is itself in a container.

use std::path::{Component, Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::CgroupError;
use crate::container::pseudo_file::read_text;

const MOUNTS: &str = "/proc/self/mountinfo";
const OWN: &str = "/proc/self/cgroup";

/// Which generation of the interface a hierarchy speaks (cgroups(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A tree for some controllers.
    V1,
    /// The unified tree.
    V2,
}

impl Version {
    /// `v1` or `v2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// What kind of host this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Only v1 hierarchies.
    V1,
    /// Only the unified hierarchy.
    V2,
    /// Both: each controller is in one of them.
    Hybrid,
}

/// One mounted tree of cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub(super) version: Version,
    /// What lives in it. v1: as the mount says, a tree without controller by its `name=`. v2: empty, since that differs
    /// from cgroup to cgroup.
    pub(super) controllers: Vec<String>,
    pub(super) mount: PathBuf,
    /// This process's own cgroup, below `mount`; empty at the top.
    pub(super) own: PathBuf,
}

impl Hierarchy {
    /// A v1 hierarchy of these controllers (or `name=...`), mounted at a folder, with this process at its top.
    pub fn v1(mount: impl Into<PathBuf>, controllers: &[&str]) -> Self {
        let controllers = controllers.iter().map(ToString::to_string).collect();
        Self { version: Version::V1, controllers, mount: mount.into(), own: PathBuf::new() }
    }

    /// The unified hierarchy, mounted at a folder, with this process at its top.
    pub fn v2(mount: impl Into<PathBuf>) -> Self {
        Self { version: Version::V2, controllers: Vec::new(), mount: mount.into(), own: PathBuf::new() }
    }

    /// Which generation of the interface it speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its controllers as the mount names them, a tree without controller by its `name=`; in v2 nothing.
    pub fn controllers(&self) -> &[String] {
        &self.controllers
    }

    /// Where the host has mounted it.
    pub fn mount_point(&self) -> &Path {
        &self.mount
    }

    /// The directory of the cgroup that a path names.
    pub fn directory(&self, path: &Path) -> Result<PathBuf, CgroupError> {
        Ok(components(path)?.into_iter().fold(self.base(path), |directory, part| directory.join(part)))
    }

    /// The cgroup that a path stands below: the top of the hierarchy for an absolute path; for a relative one the
    /// cgroup of this process, so that a nested runtime stays within the limits it was given.
    ///
    /// In v2 it is the *parent* of this process's cgroup: one that has processes of its own can't hand controllers down
    /// (cgroups(7), "no internal processes").
    pub(super) fn base(&self, path: &Path) -> PathBuf {
        if path.is_absolute() {
            return self.mount.clone();
        }
        match self.version {
            Version::V1 => self.mount.join(&self.own),
            Version::V2 => self.mount.join(self.own.parent().unwrap_or(Path::new(""))),
        }
    }
}

/// The cgroup hierarchies of this host.
#[derive(Debug, Clone)]
pub struct Layout {
    pub(super) hierarchies: Vec<Hierarchy>,
    /// The folders only pose as cgroupfs: files in them are made by writing them.
    pub(super) posing: bool,
}

impl Layout {
    /// Looks where cgroups are mounted and where this process is in them: two small files, whatever the host.
    pub fn detect() -> Result<Self, CgroupError> {
        let read = |path: &str| read_text(path).map_err(|source| CgroupError::Detect { path: path.into(), source });
        let hierarchies = parse(&read(MOUNTS)?, &read(OWN)?);
        if hierarchies.is_empty() {
            return Err(CgroupError::NotMounted);
        }
        Ok(Self { hierarchies, posing: false })
    }

    /// Folders that pose as cgroup hierarchies, for tests: a file there comes into being by being written, and keeps
    /// every value that was ever written to it, a line each.
    pub fn at(hierarchies: impl IntoIterator<Item = Hierarchy>) -> Self {
        Self { hierarchies: hierarchies.into_iter().collect(), posing: true }
    }

    /// Every mounted hierarchy, in the order of their mounts.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// The hierarchies of one version alone: a hybrid host looked at as if it had no other.
    #[must_use]
    pub fn only(mut self, version: Version) -> Self {
        self.hierarchies.retain(|hierarchy| hierarchy.version == version);
        self
    }

    /// v1, v2 or both.
    pub fn flavour(&self) -> Flavour {
        let has = |version| self.hierarchies.iter().any(|hierarchy| hierarchy.version == version);
        match (has(Version::V1), has(Version::V2)) {
            (true, false) => Flavour::V1,
            (false, _) => Flavour::V2,
            (true, true) => Flavour::Hybrid,
        }
    }

    /// Whether this process may make cgroups in every hierarchy. Costs a system call a hierarchy.
    pub fn writable(&self) -> bool {
        self.hierarchies.iter().all(|hierarchy| access(&hierarchy.base(Path::new("")), AccessFlags::W_OK).is_ok())
    }
}

/// The parts of a cgroup's path below its base. None of them can lead anywhere but down.
pub(super) fn components(path: &Path) -> Result<Vec<&str>, CgroupError> {
    let wrong = |reason| CgroupError::Path { path: path.to_owned(), reason };
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => {
                let part = part.to_str().ok_or_else(|| wrong("it is not UTF-8"))?;
                if part.contains(['\n', '\0']) {
                    return Err(wrong("a line break or NUL cannot stand in a cgroup's name"));
                }
                parts.push(part);
            }
            Component::ParentDir | Component::Prefix(_) => return Err(wrong("`..` could leave the hierarchy")),
        }
    }
    if parts.is_empty() {
        return Err(wrong("it names no cgroup of its own"));
    }
    Ok(parts)
}

/// Reads /proc/self/mountinfo and /proc/self/cgroup (proc(5), cgroups(7)). A line that is none of our business, or that
/// nobody could understand, is passed over.
fn parse(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    for hierarchy in mounts.lines().filter_map(|line| mounted(line, own)) {
        // One hierarchy can be mounted at many places; the first will do.
        let known =
            |other: &Hierarchy| (other.version, &other.controllers) == (hierarchy.version, &hierarchy.controllers);
        if !hierarchies.iter().any(known) {
            hierarchies.push(hierarchy);
        }
    }
    hierarchies
}

/// A line of mountinfo: `ID PARENT DEVICE ROOT MOUNTPOINT OPTIONS [TAG]... - TYPE SOURCE SUPEROPTIONS`.
fn mounted(line: &str, own: &str) -> Option<Hierarchy> {
    let (mount, system) = line.split_once(" - ")?;
    let mut system = system.split(' ');
    let (kind, options) = (system.next()?, system.nth(1)?);
    let (version, controllers) = match kind {
        "cgroup" => (Version::V1, v1_controllers(options)),
        "cgroup2" => (Version::V2, Vec::new()),
        _ => return None,
    };
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (unescape(mount.next()?), unescape(mount.next()?));
    let own = own_path(own, version, &controllers).unwrap_or("/");
    // What is mounted may be a part of the tree only; what lies outside of it cannot be reached from here.
    let own = Path::new(own).strip_prefix(&root).unwrap_or(Path::new("")).to_owned();
    let inside = own.components().all(|component| matches!(component, Component::Normal(_)));
    Some(Hierarchy { version, controllers, mount: point.into(), own: if inside { own } else { PathBuf::new() } })
}

/// The mount options that name controllers, and a tree's name; the others are about how it behaves.
fn v1_controllers(options: &str) -> Vec<String> {
    const BEHAVIOUR: [&str; 8] =
        ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods", "none"];
    let names =
        options.split(',').filter(|option| !BEHAVIOUR.contains(option) && !option.starts_with("release_agent="));
    names.map(str::to_owned).collect()
}

/// The path in the line of /proc/self/cgroup that is about a hierarchy: `ID:CONTROLLER,...:PATH`, in v2 `0::PATH`.
fn own_path<'a>(own: &'a str, version: Version, controllers: &[String]) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let same = match version {
            Version::V1 => names.split(',').any(|name| controllers.iter().any(|controller| controller == name)),
            Version::V2 => names.is_empty(),
        };
        same.then_some(path)
    })
}

/// Undoes mountinfo's escapes: a space, tab, line break or backslash is written as `\` and three octal digits.
fn unescape(text: &str) -> String {
    let mut pieces = text.split('\\');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let code = piece.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let (Some(code), Some(rest)) = (code, piece.get(3..)) {
            plain.push(char::from(code));
            plain.push_str(rest);
        } else {
            plain.push('\\');
            plain.push_str(piece);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{CgroupError, Flavour, Hierarchy, Layout, components, parse};

    const HYBRID: &str = "\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
34 31 0:33 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
35 31 0:38 / /sys/fs/cgroup/my\\040unified rw,relatime - cgroup2 cgroup2 rw
36 31 0:32 / /mnt/memory-again rw,relatime - cgroup cgroup rw,memory
";
    const OWN: &str = "9:name=systemd:/\n4:memory:/outer/job\n1:cpu,cpuacct:/\n0::/user/scope\n";

    fn mounts(hierarchies: &[Hierarchy]) -> Vec<(&str, Vec<&str>, &str)> {
        let text = |path: &'_ Path| path.to_str().map_or("", |text| text).to_owned().leak() as &str;
        hierarchies
            .iter()
            .map(|one| (text(&one.mount), one.controllers.iter().map(String::as_str).collect(), text(&one.own)))
            .collect()
    }

    #[test]
    fn a_hybrid_host_is_read_from_mountinfo() {
        let hierarchies = parse(HYBRID, OWN);
        assert_eq!(
            mounts(&hierarchies),
            [
                ("/sys/fs/cgroup/cpu,cpuacct", vec!["cpu", "cpuacct"], ""),
                ("/sys/fs/cgroup/memory", vec!["memory"], "outer/job"),
                ("/sys/fs/cgroup/systemd", vec!["name=systemd"], ""),
                ("/sys/fs/cgroup/my unified", vec![], "user/scope"),
            ]
        );
        assert_eq!(Layout { hierarchies, posing: false }.flavour(), Flavour::Hybrid);
    }

    #[test]
    fn a_relative_path_stands_below_the_own_cgroup_and_in_v2_beside_it() {
        let hierarchies = parse(HYBRID, OWN);
        let bases = |path| hierarchies.iter().map(|one| one.base(Path::new(path))).collect::<Vec<_>>();
        assert_eq!(bases("a")[1], Path::new("/sys/fs/cgroup/memory/outer/job"));
        assert_eq!(bases("a")[3], Path::new("/sys/fs/cgroup/my unified/user"));
        assert_eq!(bases("/a")[1], Path::new("/sys/fs/cgroup/memory"));
    }

    #[test]
    fn inside_a_container_the_mount_shows_only_a_part_of_the_tree() {
        let mounts_here = "40 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(mounts(&parse(mounts_here, "4:memory:/docker/abc/inner\n"))[0].2, "inner");
        assert_eq!(mounts(&parse(mounts_here, "4:memory:/elsewhere\n"))[0].2, "");
        let namespaced = "40 31 0:32 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mounts(&parse(namespaced, "0::/\n"))[0].2, "");
    }

    #[test]
    fn lines_that_nobody_understands_are_passed_over() {
        for mounts in ["", "nonsense", "1 2 3 - cgroup", " - cgroup2 x y", "1 2 3 4 - cgroup2 cgroup2 rw"] {
            assert_eq!(parse(mounts, "garbage\n:\n::"), [], "{mounts:?}");
        }
    }

    #[test]
    fn a_host_of_one_kind_is_told_from_the_other() {
        assert_eq!(Layout::at([Hierarchy::v2("/x")]).flavour(), Flavour::V2);
        assert_eq!(Layout::at([Hierarchy::v1("/x", &["cpu"])]).flavour(), Flavour::V1);
    }

    #[test]
    fn a_path_can_only_lead_down() {
        for path in ["../x", "a/../../x", "/..", "..", "", "/", "a\nb"] {
            assert!(matches!(components(Path::new(path)), Err(CgroupError::Path { .. })), "{path:?} was taken");
        }
        assert_eq!(components(Path::new("/a//b/./c")).ok(), Some(vec!["a", "b", "c"]));
    }
}
