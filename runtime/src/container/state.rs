//! What is known of each container between two commands: a folder with one JSON file.
//!
//! A file is written under another name and given its own then, so a reader sees the old or the new one, never half of one. It is
//! not synced: after a power cut there is no container left that it could tell of.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;
use oci_spec::runtime::{ContainerState, Hooks, LinuxNamespace, LinuxNamespaceType, State};
use serde::{Deserialize, Serialize};
use tracing::info_span;

use super::bundle::Bundle;
use super::clock::since_epoch;
use super::id::ContainerId;
use super::intel_rdt::RdtRecord;
use super::pseudo_file::read_record;
use super::replace::replace;
use super::shared_tree::SharedTree;
use super::sys::process::{Ending, pidfd_open, pidfd_signal};

const FILE: &str = "state.json";
const NEW_FILE: &str = "state.json.new";
/// Where a created container's process listens for `start`.
const START_SOCKET: &str = "start";
/// Where CRIU writes the number of the process that it brought back.
pub(super) const RESTORED: &str = "pid";
/// The configuration as it was when the container was made; what becomes of the bundle's own later is of no effect.
const CONFIG: &str = "config.json";

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The number on the host.
    pub pid: i32,
    /// When it began, in clock ticks since boot (proc(5), stat, field 22).
    pub started: u64,
}

/// The file's content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of the specification that the bundle was written for.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// The folder that is, or is covered by, the root file system.
    #[serde(default)]
    pub rootfs: PathBuf,
    /// When the container was made, in nanoseconds since the epoch.
    #[serde(default)]
    pub created: u64,
    /// The annotations of the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<HashMap<String, String>>,
    /// The cgroup, as the cgroup module names it; nothing where the container has none.
    pub cgroup: Option<PathBuf>,
    /// The runtime process that answers for the container: while it is created, and for as long as `run` stands by. With
    /// that process dead the container is a remnant.
    pub owner: Option<ProcessId>,
    /// The container's first process; nothing before it is made.
    pub init: Option<ProcessId>,
    /// Whether that process sees only processes of the container, so that they all end with it.
    pub own_pids: bool,
    /// Whether its processes keep the keys of whoever starts them.
    #[serde(default)]
    pub session_keyring: bool,
    /// Whether it has no program to be started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nothing_to_run: bool,
    /// What it has of the processor's cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<RdtRecord>,
    /// Where its root is mounted in the tree of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_tree: Option<SharedTree>,
    /// Programs to be run after the start and after the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
}

/// Why a container's state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The name is taken.
    #[error("a container with id {0} exists already")]
    Exists(ContainerId),
    /// There is no such container.
    // These words are what containerd looks for, to tell this from any other failure.
    #[error("container {0} does not exist")]
    Missing(ContainerId),
    /// The file or its folder cannot be worked with.
    #[error("cannot {attempt} {}", .path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is no container state", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The folder of all containers.
#[derive(Debug, Clone)]
pub(crate) struct States {
    folder: PathBuf,
}

/// The folder of one container. Removed when this is dropped, unless it was kept.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    remove: bool,
}

impl States {
    /// The containers below the runtime's state root.
    pub(crate) fn below(root: &Path) -> Self {
        Self { folder: root.join("oci") }
    }

    /// Takes a name that nobody else has and writes the first record under it.
    pub(crate) fn reserve(&self, id: &ContainerId, record: &Record) -> Result<StateFolder, StateError> {
        let _span = info_span!(
            "container.reserve",
            call = "mkdir(2), rename(2)",
            why = "a name that nobody else has; if this command is killed, the next one finds by it what was left"
        )
        .entered();
        let path = self.folder.join(id.as_str());
        let failed = |errno: Errno| StateError::Io { attempt: "make", path: path.clone(), source: errno.into() };
        crate::spans::fault().map_err(failed)?;
        // 0700: the start socket lies in it. mkdir(2) is what makes the name unique, whoever tries at the same time.
        let mut private = fs::DirBuilder::new();
        private.mode(0o700);
        let made = match private.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.folder)
                .and_then(|()| private.create(&path)),
            other => other,
        };
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(StateError::Exists(id.clone())),
            Err(source) => return Err(StateError::Io { attempt: "make", path, source }),
        }
        let folder = StateFolder { path, remove: true };
        folder.write(record)?;
        Ok(folder)
    }

    /// The folder of a container that exists.
    pub(crate) fn find(&self, id: &ContainerId) -> Result<StateFolder, StateError> {
        let path = self.folder.join(id.as_str());
        if path.is_dir() { Ok(StateFolder { path, remove: false }) } else { Err(StateError::Missing(id.clone())) }
    }

    /// The names of all containers, in order.
    pub(crate) fn list(&self) -> Result<Vec<ContainerId>, StateError> {
        let failed = |source| StateError::Io { attempt: "list", path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        ids.sort();
        Ok(ids)
    }
}

impl StateFolder {
    /// Replaces the record.
    pub(crate) fn write(&self, record: &Record) -> Result<(), StateError> {
        let (new, file) = (self.path.join(NEW_FILE), self.path.join(FILE));
        let text = serde_json::to_vec(record).map_err(|source| StateError::Parse { path: file.clone(), source })?;
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&new);
        opened
            .and_then(|mut opened| opened.write_all(&text))
            .and_then(|()| replace(&new, &file))
            .map_err(|source| StateError::Io { attempt: "write", path: file, source })
    }

    /// Reads the record; nothing where the runtime died before it wrote the first one.
    pub(crate) fn read(&self) -> Result<Option<Record>, StateError> {
        let path = self.path.join(FILE);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Io { attempt: "read", path, source }),
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|source| StateError::Parse { path, source }),
        }
    }

    /// Keeps the configuration, for processes that are added later.
    pub(crate) fn keep_config(&self, text: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(CONFIG);
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(0o600).open(&path);
        opened.and_then(|mut opened| opened.write_all(text)).map_err(|source| StateError::Io {
            attempt: "write",
            path,
            source,
        })
    }

    /// The configuration that the container was made with.
    pub(crate) fn read_config(&self) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path.join(CONFIG);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some).map_err(|source| StateError::Io { attempt: "read", path, source }),
        }
    }

    /// Where the process listens for `start`.
    pub(crate) fn start_socket(&self) -> PathBuf {
        self.path.join(START_SOCKET)
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was made some time ago: a runtime that is alive writes its record at once.
    pub(crate) fn is_old(&self) -> bool {
        let age = fs::metadata(&self.path).and_then(|found| found.modified()).map(|made| made.elapsed());
        matches!(age, Ok(Ok(age)) if age > Duration::from_secs(10))
    }

    /// Leaves the folder where it is.
    pub(crate) fn keep(mut self) {
        self.remove = false;
    }

    /// Removes the folder with what this module put into it, and nothing else.
    pub(crate) fn remove(mut self) -> Result<(), StateError> {
        self.remove = false;
        self.clear().map_err(|source| StateError::Io { attempt: "remove", path: self.path.clone(), source })
    }

    fn clear(&self) -> io::Result<()> {
        self.remove_files(&[FILE, CONFIG])?;
        match fs::remove_dir(&self.path) {
            // Not even created, or never started: then there is more.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                self.remove_files(&[NEW_FILE, START_SOCKET, RESTORED])?;
                fs::remove_dir(&self.path)
            }
            // Another command has removed it at the same time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn remove_files(&self, names: &[&str]) -> io::Result<()> {
        names.iter().try_for_each(|name| match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }
}

impl Drop for StateFolder {
    fn drop(&mut self) {
        if self.remove {
            // On the way out of another error, which is the one to tell of; `prune` knows a folder that stays behind.
            let _ = self.clear();
        }
    }
}

impl ProcessId {
    /// The process with this number as it is now; nothing where there is none, or where it has ended already and only
    /// waits for its parent.
    pub fn of(pid: Pid) -> Option<Self> {
        let stat = read_record(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses, and may hold anything; fields are counted behind it.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        Some(Self { pid: pid.as_raw(), started: fields.nth(18)?.parse().ok()? })
    }

    /// How it ended, where it has and its parent has not asked yet (proc(5), stat, field 52).
    pub fn ending(&self) -> Option<Ending> {
        let stat = read_record(format!("/proc/{}/stat", self.pid)).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.trim_end().split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
        let is_it = fields.first() == Some(&"Z") && number(19) == Some(self.started);
        number(49).filter(|_| is_it).map(|code| Ending::of(code as i32))
    }

    /// A descriptor of this very process; nothing where it has ended.
    pub fn open(&self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)).ok()?;
        // Looked at after it is held: a number that was given to another before shows another beginning now.
        self.is_alive().then_some(pidfd)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> nix::Result<()> {
        pidfd_signal(&self.open().ok_or(Errno::ESRCH)?, signal)
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(Pid::from_raw(self.pid)) == Some(*self)
    }
}

impl Record {
    /// A container of this bundle that nobody has begun to make.
    pub(crate) fn new(id: &ContainerId, bundle: &Bundle, cgroup: Option<&Path>) -> Self {
        let new_pids = |one: &LinuxNamespace| one.typ() == LinuxNamespaceType::Pid && one.path().is_none();
        Self {
            oci_version: bundle.spec.version().clone(),
            id: id.to_string(),
            bundle: bundle.folder.clone(),
            rootfs: bundle.root.path.clone(),
            created: since_epoch().as_nanos() as u64,
            annotations: bundle.spec.annotations().clone(),
            cgroup: cgroup.map(Path::to_owned),
            owner: ProcessId::of(Pid::this()),
            init: None,
            own_pids: bundle.linux.namespaces().iter().flatten().any(new_pids),
            session_keyring: bundle.handed.session_keyring,
            nothing_to_run: bundle.nothing_to_run,
            rdt: None,
            shared_tree: None,
            hooks: bundle.spec.hooks().clone(),
        }
    }

    /// The state in the specification's form (runtime.md, "State").
    pub(crate) fn state(&self, status: ContainerState) -> State {
        let mut state = State::default();
        state.set_version(self.oci_version.clone()).set_id(self.id.clone()).set_bundle(self.bundle.clone());
        state.set_annotations(self.annotations.clone()).set_status(status);
        // A process that is gone has no number: it may be another's by now.
        state.set_pid(self.init.filter(|_| status != ContainerState::Stopped).map(|init| init.pid));
        state
    }

    /// The state as hooks read it.
    pub(crate) fn state_text(&self, status: ContainerState) -> String {
        serde_json::to_string(&self.state(status)).unwrap_or_default()
    }

    /// The state of the created container as hooks read it, parted where the process's number goes.
    pub(crate) fn state_around_pid(&self) -> (String, String) {
        let state = self.state_text(ContainerState::Created);
        // The number is not known yet, so the text has none: it is added as the last field.
        (format!("{},\"pid\":", state.strip_suffix('}').unwrap_or_default()), "}".to_owned())
    }

    /// Where the container is in its life. `created` looks whether it still waits for `start`.
    pub(crate) fn status(&self, created: impl FnOnce() -> bool) -> ContainerState {
        match (self.init, self.owner) {
            (Some(init), _) if !init.is_alive() => ContainerState::Stopped,
            (Some(_), _) if created() => ContainerState::Created,
            (Some(_), _) => ContainerState::Running,
            (None, Some(owner)) if owner.is_alive() => ContainerState::Creating,
            (None, _) => ContainerState::Stopped,
        }
    }

    /// Whether nobody answers for it any more: its runtime was killed on the way.
    pub(crate) fn is_remnant(&self) -> bool {
        self.owner.is_some_and(|owner| !owner.is_alive())
    }
}

#[cfg(test)]
mod tests {
    use super::{ProcessId, Record, StateError, States};
    use nix::unistd::Pid;
    use oci_spec::runtime::ContainerState;
    use std::path::PathBuf;

    fn record() -> Record {
        Record {
            oci_version: "1.0.2".to_owned(),
            id: "x".to_owned(),
            bundle: PathBuf::from("/b"),
            rootfs: PathBuf::from("/b/rootfs"),
            created: 1,
            annotations: None,
            cgroup: None,
            owner: ProcessId::of(Pid::this()),
            init: None,
            own_pids: true,
            session_keyring: false,
            nothing_to_run: false,
            rdt: None,
            shared_tree: None,
            hooks: None,
        }
    }

    #[test]
    fn a_name_is_given_once_and_free_again_after_drop() {
        let root = tempfile::tempdir().expect("a folder");
        let states = States::below(root.path());
        let id = "x".parse().expect("an id");
        let first = states.reserve(&id, &record()).expect("free");
        assert!(matches!(states.reserve(&id, &record()), Err(StateError::Exists(_))));
        assert_eq!(first.read().expect("readable"), Some(record()));
        assert_eq!(states.list().expect("a list"), std::slice::from_ref(&id));
        drop(first);
        assert!(matches!(states.find(&id), Err(StateError::Missing(_))));
    }

    #[test]
    fn a_number_used_again_is_another_process() {
        let own = ProcessId::of(Pid::this()).expect("we run");
        assert!(own.is_alive());
        assert!(!ProcessId { started: own.started + 1, ..own }.is_alive());
    }

    #[test]
    fn the_status_follows_from_who_is_alive() {
        let dead = Some(ProcessId { pid: 1, started: 1 });
        let own = ProcessId::of(Pid::this());
        let status = |owner, init, created| Record { owner, init, ..record() }.status(|| created);
        assert_eq!(status(own, None, false), ContainerState::Creating);
        assert_eq!(status(dead, None, false), ContainerState::Stopped);
        assert_eq!(status(None, own, true), ContainerState::Created);
        assert_eq!(status(None, own, false), ContainerState::Running);
        assert_eq!(status(None, dead, true), ContainerState::Stopped);
        assert!(Record { owner: dead, ..record() }.is_remnant());
    }
}
