//! How a container is apart from its host, looked up in the kernel and not in its configuration: whose namespaces it is
//! in, which limits hold, what its process may do, what it sees of the file system.
//!
//! All of it is in files that anybody with the right to look can read: /proc/PID/ns (namespaces(7)), /proc/PID/status
//! and /proc/PID/mountinfo (proc(5)), and the container's cgroup.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use oci_spec::runtime::Spec;
use serde::Serialize;

use super::cgroup::InForce;
use super::error::ContainerError;
use super::id::ContainerId;
use super::lifecycle::{Runtime, open_cgroup};
use super::overview::{Status, full_status};
use super::seccomp::{Census, Profile};
use super::state::ProcessId;

/// The files of /proc/PID/ns, and what their namespaces keep apart.
const NAMESPACES: [(&str, &str); 8] = [
    ("pid", "process numbers"),
    ("net", "network"),
    ("mnt", "file systems"),
    ("ipc", "System V and POSIX queues, memory"),
    ("uts", "hostname"),
    ("user", "users and rights"),
    ("cgroup", "the view of cgroups"),
    ("time", "clocks since boot"),
];

/// What keeps a container apart.
#[derive(Debug, Clone, Serialize)]
pub struct Isolation {
    /// The container's name.
    pub id: String,
    /// The number of its first process on the host.
    pub pid: i32,
    /// Where it is in its life.
    pub status: Status,
    /// Its namespaces.
    pub namespaces: Vec<NamespaceView>,
    /// The limits in force.
    pub limits: Vec<InForce>,
    /// The five sets of capabilities of its first process, by name of the set.
    pub capabilities: BTreeMap<&'static str, Vec<String>>,
    /// Whether its programs can never gain rights by execve(2).
    pub no_new_privileges: bool,
    /// Its seccomp filters.
    pub seccomp: SeccompView,
    /// What is mounted in it.
    pub mounts: Vec<MountView>,
}

/// One namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamespaceView {
    /// Its kind, as /proc/PID/ns names it.
    pub kind: &'static str,
    /// What it keeps apart.
    pub what: &'static str,
    /// The number that the kernel knows it by.
    pub inode: u64,
    /// Whose it is.
    pub owner: Owner,
}

/// Whose namespace it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The container's alone.
    Own,
    /// The host's: nothing is kept apart.
    Host,
    /// That of these containers too.
    Shared(Vec<String>),
}

/// What seccomp does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SeccompView {
    /// 0: nothing; 1: strict; 2: filters.
    pub mode: u32,
    /// How many filters each call passes.
    pub filters: u32,
    /// What the profile of the configuration allows; nothing where there is none.
    pub profile: Option<Census>,
}

/// One mount, as the container's process sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountView {
    /// Where.
    pub destination: PathBuf,
    /// The kind of file system.
    pub kind: String,
    /// What is mounted: a device, or the word that was given for it.
    pub source: String,
    /// Whether nothing can be written through it.
    pub readonly: bool,
    /// Whether it covers something that the container must not see (`linux.maskedPaths`).
    pub masks: bool,
}

impl Runtime {
    /// Looks how a container is kept apart. It has to be there: nothing is known of one that has ended.
    pub fn isolation(&self, id: &ContainerId) -> Result<Isolation, ContainerError> {
        let (folder, record) = self.find(id)?;
        let (Some(init), Some(_held)) = (record.init, record.init.and_then(|init| init.open())) else {
            let status = oci_spec::runtime::ContainerState::Stopped;
            return Err(ContainerError::Status { attempt: "inspect", id: id.clone(), status });
        };
        let cgroup = open_cgroup(&record)?;
        let status_file = read(init.pid, "status")?;
        let mounts = read(init.pid, "mountinfo")?;
        // The kernel tells neither why something is covered nor what a filter lets through: the configuration does.
        let spec: Option<Spec> = folder.read_config()?.and_then(|text| serde_json::from_slice(&text).ok());
        let linux = spec.as_ref().and_then(|spec| spec.linux().as_ref());
        let masked = linux.and_then(|linux| linux.masked_paths().clone()).unwrap_or_default();
        let profile = spec.as_ref().and_then(Profile::of).and_then(|profile| profile.census().ok());
        let number = |key| field(&status_file, key).and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Isolation {
            id: record.id.clone(),
            pid: init.pid,
            status: full_status(&folder, &record)?,
            namespaces: self.namespaces(id, init.pid)?,
            limits: cgroup.map(|cgroup| cgroup.in_force()).transpose()?.unwrap_or_default(),
            capabilities: capabilities(&status_file),
            no_new_privileges: number("NoNewPrivs") == 1,
            seccomp: SeccompView { mode: number("Seccomp"), filters: number("Seccomp_filters"), profile },
            mounts: mounts.lines().filter_map(|line| mount(line, &masked)).collect(),
        })
    }

    fn namespaces(&self, id: &ContainerId, pid: i32) -> Result<Vec<NamespaceView>, ContainerError> {
        let mut others = Vec::new();
        for other in self.ids()?.into_iter().filter(|other| other != id) {
            // One that is deleted meanwhile shares nothing any more.
            let init = self.find(&other).ok().and_then(|(_, record)| record.init).filter(ProcessId::is_alive);
            others.extend(init.map(|init| (other, init.pid)));
        }
        let mut views = Vec::new();
        for (kind, what) in NAMESPACES {
            // A kernel without that kind has no such file.
            let Some(inode) = inode(&pid.to_string(), kind) else { continue };
            let sharing = others.iter().filter(|(_, pid)| self::inode(&pid.to_string(), kind) == Some(inode));
            let sharing: Vec<String> = sharing.map(|(other, _)| other.to_string()).collect();
            let owner = if self::inode("self", kind) == Some(inode) {
                Owner::Host
            } else if sharing.is_empty() {
                Owner::Own
            } else {
                Owner::Shared(sharing)
            };
            views.push(NamespaceView { kind, what, inode, owner });
        }
        Ok(views)
    }
}

fn read(pid: i32, name: &str) -> Result<String, ContainerError> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).map_err(|error| ContainerError::System {
        attempt: "read",
        on: path,
        source: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
    })
}

/// The number of a namespace: the link says `KIND:[NUMBER]`.
fn inode(pid: &str, kind: &str) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    link.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// The value of a line `KEY:\tVALUE` of /proc/PID/status.
fn field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

fn capabilities(status: &str) -> BTreeMap<&'static str, Vec<String>> {
    let sets = [
        ("bounding", "CapBnd"),
        ("effective", "CapEff"),
        ("permitted", "CapPrm"),
        ("inheritable", "CapInh"),
        ("ambient", "CapAmb"),
    ];
    let read = |key| field(status, key).and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
    sets.into_iter().map(|(set, key)| (set, names(read(key)))).collect()
}

/// The names of the bits of a set; one that this program does not know is told by its number.
fn names(bits: u64) -> Vec<String> {
    let name = |bit: u8| {
        let known = caps::all().into_iter().find(|known| known.index() == bit);
        known.map_or_else(|| format!("CAP_{bit}"), |known| known.to_string())
    };
    (0..64).filter(|bit| bits >> bit & 1 == 1).map(name).collect()
}

/// A line of mountinfo: `ID PARENT DEVICE ROOT MOUNTPOINT OPTIONS [TAG]... - TYPE SOURCE SUPEROPTIONS`.
fn mount(line: &str, masked: &[String]) -> Option<MountView> {
    let (mount, system) = line.split_once(" - ")?;
    let mut system = system.split(' ');
    let (kind, source, super_options) = (system.next()?, system.next()?, system.next().unwrap_or_default());
    let mut mount = mount.split(' ').skip(4);
    let (destination, options) = (mount.next()?, mount.next()?);
    let readonly = |options: &str| options.split(',').any(|option| option == "ro");
    Some(MountView {
        destination: Path::new(destination).to_owned(),
        kind: kind.to_owned(),
        source: source.to_owned(),
        readonly: readonly(options) || readonly(super_options),
        masks: masked.iter().any(|path| path == destination),
    })
}

#[cfg(test)]
mod tests {
    use super::{capabilities, field, mount, names};
    use std::path::Path;

    #[test]
    fn a_set_of_bits_is_told_by_names() {
        assert_eq!(names(0b10_0001), ["CAP_CHOWN", "CAP_KILL"]);
        assert_eq!(names(1 << 63), ["CAP_63"]);
        let sets = capabilities("Name:\tsh\nCapInh:\t0000000000000000\nCapEff:\t0000000000000020\n");
        assert_eq!(sets["effective"], ["CAP_KILL"]);
        assert!(sets["inheritable"].is_empty());
    }

    #[test]
    fn a_key_is_no_prefix_of_another() {
        let status = "Seccomp_filters:\t3\nSeccomp:\t2\n";
        assert_eq!((field(status, "Seccomp"), field(status, "Seccomp_filters")), (Some("2"), Some("3")));
    }

    #[test]
    fn a_mount_says_what_it_masks() {
        let line = "40 31 0:6 /null /proc/kcore ro,nosuid - devtmpfs udev rw,size=1k";
        let seen = mount(line, &["/proc/kcore".to_owned()]).expect("a mount");
        assert!(seen.masks && seen.readonly && seen.destination == Path::new("/proc/kcore"));
        assert_eq!((seen.kind.as_str(), seen.source.as_str()), ("devtmpfs", "udev"));
        assert!(!mount("40 31 0:6 / /tmp rw - tmpfs none rw", &[]).expect("a mount").readonly);
    }
}
