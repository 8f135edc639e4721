//! The mounts of `config.json`, turned into what the kernel's mount calls want. Pure: nothing is mounted here.
//!
//! OCI runtime specification, config.md, "Mounts": a file system or a bind, and options that are either flags of the
//! mount, its propagation, or words for the file system itself.

use std::ffi::{CString, NulError};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use oci_spec::runtime::Mount;

use super::bundle::Bundle;
use super::namespaces::Namespaces;
use super::sys::mount::{Change, attribute};

/// One mount, ready to be made.
#[derive(Debug)]
pub(crate) struct MountPlan {
    /// Where, as a path inside the container.
    pub(crate) destination: PathBuf,
    pub(crate) kind: Kind,
    /// Attributes of this mount alone.
    pub(crate) change: Change,
    /// Attributes of this mount and of all below it (the options `rro`, `rnosuid`, ...).
    pub(crate) deep_change: Change,
    /// How mounts made later spread into or out of this one, in the order given.
    pub(crate) propagation: Vec<Propagation>,
    /// Whether it begins with what the image has at the destination (`tmpcopyup`); a mode of its own was given or not.
    pub(crate) copy_up: Option<CopyUp>,
    /// Whether its files have other owners than on the disk (`idmap`), and those of the mounts below too (`ridmap`).
    pub(crate) maps_ids: Option<bool>,
    /// A bind that the runtime has made already (see `outside_binds`).
    pub(crate) ready: Option<OwnedFd>,
}

/// What a tmpfs takes over from the folder that it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyUp {
    /// What is in it.
    Content,
    /// And its own mode and owner.
    Folder,
}

/// What is mounted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file system of its own.
    New(Filesystem),
    /// Something that exists, seen at a second place.
    Bind {
        /// The existing file or folder, on the host.
        source: CString,
        /// With the mounts below it.
        recursive: bool,
    },
    /// The container's own part of the cgroup tree.
    Cgroup,
    /// What is mounted there already, changed: the mount alone, or its file system by these words too.
    Remount(Option<Vec<(CString, Option<CString>)>>),
}

/// A file system to be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filesystem {
    pub(crate) fstype: CString,
    pub(crate) source: CString,
    /// Words for the file system: a key, and a value where it has one.
    pub(crate) options: Vec<(CString, Option<CString>)>,
}

/// `mount_setattr(2)`: one propagation type, on this mount or on all below it as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Propagation {
    pub(crate) kind: MsFlags,
    pub(crate) recursive: bool,
}

/// What one option means for a mount's attributes: a name, the bits it sets, the bits it clears.
const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", attribute::RDONLY, 0),
    ("rw", 0, attribute::RDONLY),
    ("nosuid", attribute::NOSUID, 0),
    ("suid", 0, attribute::NOSUID),
    ("nodev", attribute::NODEV, 0),
    ("dev", 0, attribute::NODEV),
    ("noexec", attribute::NOEXEC, 0),
    ("exec", 0, attribute::NOEXEC),
    ("noatime", attribute::NOATIME, attribute::ATIME),
    ("atime", attribute::RELATIME, attribute::ATIME),
    ("relatime", attribute::RELATIME, attribute::ATIME),
    ("norelatime", attribute::RELATIME, attribute::ATIME),
    ("strictatime", attribute::STRICTATIME, attribute::ATIME),
    ("nostrictatime", attribute::RELATIME, attribute::ATIME),
    ("nodiratime", attribute::NODIRATIME, 0),
    ("diratime", 0, attribute::NODIRATIME),
    ("nosymfollow", attribute::NOSYMFOLLOW, 0),
    ("symfollow", 0, attribute::NOSYMFOLLOW),
];

/// What mount(8) writes into tables and the kernel does not hear of.
/// `iversion` is a flag of mount(2) only: file systems that count a file's changes don't ask for it any more.
const IGNORED: [&str; 7] = ["defaults", "silent", "loud", "nouser", "nofail", "iversion", "noiversion"];
const BINDS: [&str; 2] = ["bind", "rbind"];
const SPECIAL: [&str; 4] = ["tmpcopyup", "idmap", "ridmap", "remount"];
/// How a file system writes, whatever its type: words that each of them takes, and the kernel reads before it does.
const WRITING: [&str; 7] = ["sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"];

const PROPAGATIONS: [(&str, MsFlags); 4] = [
    ("private", MsFlags::MS_PRIVATE),
    ("shared", MsFlags::MS_SHARED),
    ("slave", MsFlags::MS_SLAVE),
    ("unbindable", MsFlags::MS_UNBINDABLE),
];

/// Every option that is not a word for the file system itself: those of one mount, those that reach all mounts below it,
/// and propagation.
pub(crate) fn known_options() -> Vec<String> {
    let plain = IGNORED.iter().chain(&BINDS).chain(&SPECIAL).chain(&WRITING);
    let mut words: Vec<String> = plain.map(ToString::to_string).collect();
    let names = ATTRIBUTES.iter().map(|(name, ..)| *name).chain(PROPAGATIONS.iter().map(|(name, _)| *name));
    words.extend(names.flat_map(|name| [name.to_owned(), format!("r{name}")]));
    words.sort();
    words
}

/// The propagation that a word names: `private`, `rprivate`, ...
pub(crate) fn propagation(word: &str) -> Option<Propagation> {
    PROPAGATIONS.iter().find_map(|(name, kind)| match word.strip_suffix(name) {
        Some("") => Some(Propagation { kind: *kind, recursive: false }),
        Some("r") => Some(Propagation { kind: *kind, recursive: true }),
        _ => None,
    })
}

/// Plans all mounts of `bundle`, in its order.
pub(crate) fn plan(bundle: &Bundle, namespaces: &Namespaces) -> Result<Vec<MountPlan>, NulError> {
    bundle.spec.mounts().iter().flatten().map(|mount| MountPlan::new(mount, bundle, namespaces)).collect()
}

impl MountPlan {
    fn new(mount: &Mount, bundle: &Bundle, namespaces: &Namespaces) -> Result<Self, NulError> {
        let mut words = Words::default();
        for option in mount.options().iter().flatten() {
            words.take(option)?;
        }
        let fstype = mount.typ().as_deref().unwrap_or("none");
        let source = mount.source().clone().unwrap_or_else(|| PathBuf::from(fstype));
        let kind = if words.remount {
            Kind::Remount((!words.bind).then(|| words.filesystem_options()))
        } else if words.bind || fstype == "bind" {
            let source = CString::new(bundle.folder.join(source).as_os_str().as_bytes())?;
            Kind::Bind { source, recursive: words.recursive_bind }
        } else if fstype == "cgroup" {
            Kind::Cgroup
        } else if fstype == "sysfs" && !may_mount_sysfs(namespaces) {
            // The kernel gives a new sysfs only to who owns the network namespace it shows; the host's can be shown.
            words.deep.set |= attribute::RDONLY;
            Kind::Bind { source: c"/sys".to_owned(), recursive: true }
        } else {
            let mut options = words.options;
            if fstype == "devpts" {
                options.retain(|option| !names_unmapped_group(option, namespaces));
            }
            if let (Some(label), "tmpfs" | "devpts") = (&bundle.file_label, fstype) {
                options.push((c"context".to_owned(), Some(CString::new(label.as_str())?)));
            }
            let source = CString::new(source.as_os_str().as_bytes())?;
            Kind::New(Filesystem { fstype: CString::new(fstype)?, source, options })
        };
        let copy_up = match &kind {
            Kind::New(made) if words.copy_up => {
                let dressed = made.options.iter().any(|(key, _)| key.as_c_str() == c"mode");
                Some(if dressed { CopyUp::Content } else { CopyUp::Folder })
            }
            _ => None,
        };
        Ok(Self {
            destination: inside(mount.destination()),
            kind,
            change: words.change,
            deep_change: words.deep,
            propagation: words.propagation,
            copy_up,
            maps_ids: words.maps_ids,
            ready: None,
        })
    }

    /// Whether the destination is exactly this folder.
    pub(crate) fn is_at(&self, path: &str) -> bool {
        self.destination == Path::new(path)
    }
}

/// The path without `.`, `..` and doubled slashes, from the root. (What symbolic links make of it is the kernel's affair:
/// it resolves the rest inside the root, see `rootfs.rs`.)
fn inside(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

fn may_mount_sysfs(namespaces: &Namespaces) -> bool {
    let net = CloneFlags::CLONE_NEWNET;
    let joined = namespaces.ids.is_none() && namespaces.joined.iter().any(|join| join.kind == net);
    !namespaces.in_user_namespace() || namespaces.has_new(net) || joined
}

/// `gid=5` for a terminal's group, in a user namespace that has no group 5, would make the whole mount fail.
fn names_unmapped_group((key, value): &(CString, Option<CString>), namespaces: &Namespaces) -> bool {
    let (Some(ids), Some(value)) = (&namespaces.ids, value) else { return false };
    let group = value.to_str().ok().and_then(|text| text.parse().ok());
    key.as_c_str() == c"gid" && group.is_some_and(|group| !ids.has_group(group))
}

/// The options of one mount, sorted by what they are for.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option, and none implies another")]
struct Words {
    bind: bool,
    recursive_bind: bool,
    remount: bool,
    copy_up: bool,
    maps_ids: Option<bool>,
    change: Change,
    deep: Change,
    propagation: Vec<Propagation>,
    options: Vec<(CString, Option<CString>)>,
}

impl Words {
    fn take(&mut self, option: &str) -> Result<(), NulError> {
        let attribute = |word: &str| ATTRIBUTES.iter().find(|(name, ..)| *name == word);
        match option {
            ignored if IGNORED.contains(&ignored) => {}
            "tmpcopyup" => self.copy_up = true,
            "remount" => self.remount = true,
            "idmap" => self.maps_ids = Some(false),
            "ridmap" => self.maps_ids = Some(true),
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive_bind) = (true, true),
            _ => {
                if let Some((_, set, clear)) = attribute(option) {
                    apply(&mut self.change, *set, *clear);
                } else if let Some(propagation) = propagation(option) {
                    self.propagation.push(propagation);
                } else if let Some((_, set, clear)) = option.strip_prefix('r').and_then(attribute) {
                    apply(&mut self.deep, *set, *clear);
                } else {
                    self.options.push(match option.split_once('=') {
                        Some((key, value)) => (CString::new(key)?, Some(CString::new(value)?)),
                        None => (CString::new(option)?, None),
                    });
                }
            }
        }
        Ok(())
    }
}

impl Words {
    /// What a file system hears when it is changed: its own words, and whether anybody may write to it.
    fn filesystem_options(&self) -> Vec<(CString, Option<CString>)> {
        let readonly = self.change.set & attribute::RDONLY != 0;
        let access = if readonly { c"ro" } else { c"rw" };
        self.options.iter().cloned().chain([(access.to_owned(), None)]).collect()
    }
}

/// Adds to a change; of two opposite words the later one holds.
fn apply(change: &mut Change, set: u64, clear: u64) {
    change.set = (change.set & !clear) | set;
    change.clear = (change.clear & !set) | clear;
}

#[cfg(test)]
mod tests {
    use super::{Propagation, Words, inside, propagation};
    use crate::container::sys::mount::attribute;
    use nix::mount::MsFlags;
    use std::path::Path;

    fn words(options: &[&str]) -> Words {
        let mut words = Words::default();
        for option in options {
            words.take(option).expect("no NUL in it");
        }
        words
    }

    #[test]
    fn options_are_sorted_by_what_they_are_for() {
        let words = words(&["rbind", "ro", "nosuid", "rnoexec", "rslave", "mode=755", "newinstance"]);
        assert!(words.bind && words.recursive_bind);
        assert_eq!(words.change.set, attribute::RDONLY | attribute::NOSUID);
        assert_eq!(words.deep.set, attribute::NOEXEC);
        assert_eq!(words.propagation, [Propagation { kind: MsFlags::MS_SLAVE, recursive: true }]);
        let options = [(c"mode".to_owned(), Some(c"755".to_owned())), (c"newinstance".to_owned(), None)];
        assert_eq!(words.options, options);
    }

    #[test]
    fn of_two_opposite_options_the_later_holds() {
        let words = words(&["ro", "rw", "dev", "nodev"]);
        assert_eq!((words.change.set, words.change.clear), (attribute::NODEV, attribute::RDONLY));
    }

    #[test]
    fn an_access_time_mode_clears_the_field_first() {
        let words = words(&["strictatime"]);
        assert_eq!((words.change.set, words.change.clear), (attribute::STRICTATIME, attribute::ATIME));
    }

    #[test]
    fn a_destination_stays_below_the_root() {
        assert_eq!(inside(Path::new("/a/../../b//./c")), Path::new("/b/c"));
        assert_eq!(inside(Path::new("dev")), Path::new("/dev"));
    }

    #[test]
    fn a_propagation_is_found_by_its_word() {
        assert_eq!(propagation("rshared"), Some(Propagation { kind: MsFlags::MS_SHARED, recursive: true }));
        assert_eq!(propagation("private"), Some(Propagation { kind: MsFlags::MS_PRIVATE, recursive: false }));
        assert_eq!(propagation("xshared"), None);
    }
}
