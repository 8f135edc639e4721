//! Namespaces: which views of the system are the container's own, and which are somebody else's that it joins
//! (namespaces(7)).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::sched::CloneFlags;
use nix::sys::utsname::uname;
use nix::unistd::{getegid, geteuid};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType};

use super::bundle::Bundle;

/// What the container's first process is born into, and what it enters by itself.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// New ones that `clone3` makes together with the process.
    pub(crate) born_into: CloneFlags,
    /// New ones that the process makes later: see [`Namespaces::plan`] for why.
    pub(crate) unshared_later: CloneFlags,
    /// Existing ones that the process enters, in this order.
    pub(crate) joined: Vec<Join>,
    /// An existing PID namespace. The runtime enters it, since setns(2) places only children in one.
    pub(crate) joined_pid: Option<Join>,
    /// The numbers of a new user namespace.
    pub(crate) ids: Option<IdMaps>,
    /// What to write to `/proc/self/timens_offsets`.
    pub(crate) time_offsets: Option<CString>,
    /// Whether execve(2) leads into a new time namespace: since Linux 6.3. Before, the process enters by itself, and the
    /// steps it takes after that are timed by the namespace's clock.
    pub(crate) execve_enters_time: bool,
}

/// An existing namespace.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) kind: CloneFlags,
    pub(crate) file: OwnedFd,
}

/// What to write to a new user namespace's `uid_map` and `gid_map` (`user_namespaces(7)`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IdMaps {
    pub(crate) users: String,
    pub(crate) groups: String,
    /// The kernel lets an ordinary user map groups only after setgroups(2) is forbidden in there: dropping a group could
    /// otherwise gain access that membership denies.
    pub(crate) deny_setgroups: bool,
    /// Whether it takes newuidmap(1) and newgidmap(1) to write them (see `subids`).
    pub(crate) lent: bool,
}

/// Why the namespaces cannot be as asked.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// A namespace to be joined cannot be opened.
    #[error("cannot open the {kind} namespace {}", .path.display())]
    Open {
        /// Which kind.
        kind: LinuxNamespaceType,
        /// The path given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Mounts in a tree that is the host's.
    #[error("there is no mount namespace, and who is in a user namespace may mount nothing in the host's")]
    ForeignTree,
    /// A new user namespace without any id in it.
    #[error("a new user namespace needs linux.uidMappings and linux.gidMappings")]
    NoIds,
}

impl Namespaces {
    /// Reads the wishes of `bundle`. An ordinary user who did not ask for a user namespace gets one, as nothing else can
    /// be had without.
    pub(crate) fn plan(bundle: &Bundle) -> Result<Self, NamespaceError> {
        let mut plan = Self {
            born_into: CloneFlags::empty(),
            unshared_later: CloneFlags::empty(),
            joined: Vec::new(),
            joined_pid: None,
            ids: None,
            time_offsets: time_offsets(bundle),
            execve_enters_time: is_at_least((6, 3)),
        };
        for namespace in bundle.linux.namespaces().iter().flatten() {
            let kind = flag(namespace.typ());
            match namespace.path() {
                Some(path) => plan.join(namespace.typ(), path.clone())?,
                // A cgroup namespace shows the cgroup its maker is in as the root, so it is made once the process is in its
                // own. A time namespace takes offsets only while nobody is in it; execve(2) is what enters.
                None if kind == CloneFlags::CLONE_NEWCGROUP || kind.bits() == libc::CLONE_NEWTIME => {
                    plan.unshared_later |= kind;
                }
                None => plan.born_into |= kind,
            }
        }
        // The user namespace first: it decides over the right to enter the others. The mount namespace last: entering it
        // changes what every path means.
        plan.joined.sort_by_key(|join| match join.kind {
            CloneFlags::CLONE_NEWUSER => 0,
            CloneFlags::CLONE_NEWNS => 2,
            _ => 1,
        });
        let joins_user = plan.joined_user().is_some();
        if !geteuid().is_root() && !joins_user {
            plan.born_into |= CloneFlags::CLONE_NEWUSER;
        }
        if plan.has_new(CloneFlags::CLONE_NEWUSER) {
            plan.ids = Some(IdMaps::plan(bundle)?);
        }
        Ok(plan)
    }

    /// Whether a namespace of this kind is made for the container.
    pub(crate) fn has_new(&self, kind: CloneFlags) -> bool {
        (self.born_into | self.unshared_later).contains(kind)
    }

    /// An existing user namespace that the process joins.
    pub(crate) fn joined_user(&self) -> Option<&Join> {
        self.joined.iter().find(|join| join.kind == CloneFlags::CLONE_NEWUSER)
    }

    /// The joined user namespace that shall own the new ones. Those belong to the user namespace that their maker is in, and
    /// only its root may work in them, so the process must be born by somebody who is in there already.
    pub(crate) fn born_through(&self) -> Option<&Join> {
        self.joined_user().filter(|_| !self.born_into.is_empty())
    }

    /// Whether the container's root is an ordinary user to the host.
    pub(crate) fn in_user_namespace(&self) -> bool {
        self.ids.is_some() || self.joined_user().is_some()
    }

    fn join(&mut self, kind: LinuxNamespaceType, path: PathBuf) -> Result<(), NamespaceError> {
        let file = match File::open(&path) {
            Ok(file) => OwnedFd::from(file),
            Err(source) => return Err(NamespaceError::Open { kind, path, source }),
        };
        let join = Join { kind: flag(kind), file };
        match kind {
            LinuxNamespaceType::Pid => self.joined_pid = Some(join),
            _ => self.joined.push(join),
        }
        Ok(())
    }
}

/// Whether the kernel's release is this or a later one. False where it can't be read.
fn is_at_least(wanted: (u32, u32)) -> bool {
    let Ok(name) = uname() else { return false };
    release(&name.release().to_string_lossy()).is_some_and(|found| found >= wanted)
}

/// The first two numbers of a release such as `6.1.0-56-cloud-amd64`.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The kernel's flag for a kind; the specification's type has the same numbers.
fn flag(kind: LinuxNamespaceType) -> CloneFlags {
    CloneFlags::from_bits_retain(kind as i32)
}

/// What to write to a map file for these ranges, in the form of `user_namespaces(7)`.
pub(crate) fn lines(mappings: &[LinuxIdMapping]) -> String {
    let line = |id: &LinuxIdMapping| format!("{} {} {}\n", id.container_id(), id.host_id(), id.size());
    mappings.iter().map(line).collect::<Vec<_>>().concat()
}

impl IdMaps {
    fn plan(bundle: &Bundle) -> Result<Self, NamespaceError> {
        let users = lines(bundle.linux.uid_mappings().as_deref().unwrap_or_default());
        let groups = lines(bundle.linux.gid_mappings().as_deref().unwrap_or_default());
        let ordinary = !geteuid().is_root();
        if users.is_empty() && groups.is_empty() && ordinary {
            // All that an ordinary user may map is itself; inside it is root over what it owns.
            let own = |id: u32| format!("0 {id} 1\n");
            let (users, groups) = (own(geteuid().as_raw()), own(getegid().as_raw()));
            return Ok(Self { users, groups, deny_setgroups: true, lent: false });
        }
        if users.is_empty() || groups.is_empty() {
            return Err(NamespaceError::NoIds);
        }
        let only = |mappings: &Option<Vec<LinuxIdMapping>>, own: u32| matches!(mappings.as_deref(), Some([one]) if (one.host_id(), one.size()) == (own, 1));
        let own = only(bundle.linux.uid_mappings(), geteuid().as_raw())
            && only(bundle.linux.gid_mappings(), getegid().as_raw());
        Ok(Self { users, groups, deny_setgroups: ordinary && own, lent: ordinary && !own })
    }

    /// Whether the group has a number inside.
    pub(crate) fn has_group(&self, id: u32) -> bool {
        self.groups.lines().any(|line| {
            let mut numbers = line.split(' ').map(|number| number.parse::<u64>().unwrap_or(0));
            let (first, _, size) = (numbers.next().unwrap_or(0), numbers.next(), numbers.next().unwrap_or(0));
            (first..first + size).contains(&u64::from(id))
        })
    }
}

/// A line a clock, in the form of `time_namespaces(7)`.
fn time_offsets(bundle: &Bundle) -> Option<CString> {
    let offsets = bundle.linux.time_offsets().as_ref()?;
    let line = |(clock, offset): (&String, &oci_spec::runtime::LinuxTimeOffset)| {
        format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0))
    };
    CString::new(offsets.iter().map(line).collect::<String>()).ok()
}

#[cfg(test)]
mod tests {
    use super::{IdMaps, release};

    #[test]
    fn the_release_is_read_whatever_a_distribution_appends() {
        assert_eq!(release("6.1.0-56-cloud-amd64"), Some((6, 1)));
        assert_eq!(release("6.18.5"), Some((6, 18)));
        assert_eq!(release("5.15-microsoft"), Some((5, 15)));
        assert_eq!(release("next"), None);
    }

    #[test]
    fn a_group_outside_every_range_has_no_number_inside() {
        let maps = IdMaps {
            users: String::new(),
            groups: "0 1000 1\n10 2000 5\n".to_owned(),
            deny_setgroups: false,
            lent: false,
        };
        let inside: Vec<u32> = (0..20).filter(|id| maps.has_group(*id)).collect();
        assert_eq!(inside, [0, 10, 11, 12, 13, 14]);
    }
}
