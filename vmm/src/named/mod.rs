//! Machines with names: kept in a folder, started, stopped, saved, rolled back and cloned.
//!
//! ```text
//! ROOT/vm/
//!   .lock                         held while machines are made or removed
//!   web/
//!     machine.json                what it is: memory, what is inside, where its next start begins
//!     running                     locked by the process that runs it, for as long as that lives
//!     changing                    locked while its snapshots are made or removed
//!     socket                      where it can be asked, while it runs
//!     disks/                      what it has written to its disks (pc.rs)
//!     snapshots/
//!       before/                   state, memory, about.json, and a file for each disk
//!   web-2/                        a linked clone: a machine.json that names web@before
//! ```
//!
//! Every file and folder here comes about whole: written under a name that begins with a dot, synced, renamed. Locks are
//! the kernel's (flock(2)): they go with the process that holds them. So a process may be killed at any instant; what it
//! leaves begins with a dot, means nothing, and is removed by the next that comes by.

mod clone;
mod pc;
mod record;
mod store;
mod tree;

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub use clone::Kind;
pub use record::{Base, Identity, Inside, Name, NameError, Record};
pub use store::{Entry, Machine, Running, Store};
pub use tree::{About, Branch};

use crate::api::ClientError;
use crate::devices::virtio::block::DiskError;
use crate::snapshot::format::FormatError;
use crate::snapshot::{SnapshotError, where_full};

/// Why something was not done to a named machine.
#[derive(Debug, thiserror::Error)]
pub enum NamedError {
    /// No such machine.
    #[error("there is no machine {0}")]
    NoMachine(Name),
    /// It has no such snapshot.
    #[error("the machine {machine} has no snapshot {snapshot}")]
    NoSnapshot {
        /// The machine.
        machine: Name,
        /// The snapshot.
        snapshot: Name,
    },
    /// It has none at all.
    #[error("the machine {0} has no snapshot")]
    NoSnapshots(Name),
    /// The name is taken.
    #[error("there is a machine {0} already")]
    MachineExists(Name),
    /// The snapshot's name is taken.
    #[error("the machine {machine} has a snapshot {snapshot} already")]
    SnapshotExists {
        /// The machine.
        machine: Name,
        /// The snapshot.
        snapshot: Name,
    },
    /// It runs, and must not.
    #[error("the machine {0} runs")]
    Runs(Name),
    /// It does not run, and must.
    #[error("the machine {0} does not run")]
    DoesNotRun(Name),
    /// Somebody else is at it.
    #[error("somebody else is changing the machine {0} right now")]
    Busy(Name),
    /// Others need it.
    #[error("cannot remove {what}: {}", few(.needed_by))]
    Needed {
        /// What.
        what: String,
        /// By whom, and for what.
        needed_by: Vec<String>,
    },
    /// What `machine.json` or `about.json` says can't be.
    #[error("cannot use {}", .0.display())]
    Garbled(PathBuf, #[source] serde_json::Error),
    /// The snapshot that is there is not the one that was cloned.
    #[error("{machine}@{snapshot} is another snapshot now than the one that this machine was cloned from")]
    Replaced {
        /// The machine.
        machine: Name,
        /// The snapshot.
        snapshot: Name,
    },
    /// A file or folder could not be reached.
    #[error("cannot {attempt} {}", .path.display())]
    Files {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The snapshot is bad, or could not be taken.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The running machine did not do what it was asked for.
    #[error(transparent)]
    Asked(#[from] ClientError),
    /// A disk can't be had.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The state of a snapshot's copy can't be written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// So many clones have no addresses.
    #[error("there are no {count} addresses from {first} on in its network")]
    Addresses {
        /// The first.
        first: String,
        /// How many.
        count: usize,
    },
    /// It did not end when it was asked to.
    #[error("the machine {0} does not end")]
    DoesNotEnd(Name),
}

impl NamedError {
    /// The next thing to try, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoMachine(_) => Some("`isolab-vm ls` shows which there are".to_owned()),
            Self::NoSnapshot { machine, .. } => Some(format!("`isolab-vm snapshots {machine}` shows which there are")),
            Self::NoSnapshots(machine) => {
                Some(format!("take one while it runs: isolab-vm snapshot {machine} SNAPSHOT"))
            }
            Self::Runs(machine) => Some(format!("stop it first: isolab-vm stop {machine}")),
            Self::DoesNotRun(machine) => Some(format!("start it first: isolab-vm start --detach {machine}")),
            Self::Needed { .. } => Some(
                "remove those first (isolab-vm rm), or have them start from another (isolab-vm rollback)".to_owned(),
            ),
            Self::Files { source, .. } => where_full(source),
            Self::Snapshot(error) => error.hint(),
            Self::Disk(error) => error.hint(),
            _ => None,
        }
    }
}

/// The first few of many reasons, and how many there are besides.
fn few(reasons: &[String]) -> String {
    let told = reasons.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    match reasons.len().saturating_sub(3) {
        0 => told,
        more => format!("{told}, and {more} more"),
    }
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NamedError {
    let path = path.to_owned();
    move |source| NamedError::Files { attempt, path, source }
}

/// Writes `bytes` to a file that comes about whole, or is replaced whole.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), NamedError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = folder.join(format!(".{file_name}.{}", std::process::id()));
    let write = || {
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(failed("write", path))
}

/// Removes files from `folder` whose writers ([`write_whole`]) were killed before they had their names.
fn remove_unwritten(folder: &Path) -> Result<(), NamedError> {
    let remove = || -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let writer = name.to_str().filter(|name| name.starts_with('.')).and_then(|name| name.rsplit_once('.'));
            if let Some(process) = writer.and_then(|(_, process)| process.parse::<u32>().ok())
                && !Path::new("/proc").join(process.to_string()).exists()
            {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    remove().map_err(failed("remove what was left in", folder))
}

/// Takes the lock that the file at `path` stands for; nothing where somebody has it. The file is made if need be.
fn lock(path: &Path) -> Result<Option<File>, NamedError> {
    let file = File::options().create(true).append(true).open(path).map_err(failed("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed("lock", path)(error)),
    }
}

/// Removes from `folder` what somebody began and never finished, by the beginning of its name.
fn remove_remains(folder: &Path, prefixes: &[&str]) -> Result<(), NamedError> {
    let remove = || -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if !prefixes.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
                continue;
            }
            let removed = if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
            match removed {
                // Somebody was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    };
    remove().map_err(failed("remove what was left in", folder))
}

/// Removes a folder so that it is gone at once or not at all: whoever dies in between leaves it under a name with a dot.
fn remove_whole(path: &Path) -> Result<(), NamedError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let gone = folder.join(format!("{REMOVED}{name}-{}", std::process::id()));
    let remove = || {
        fs::rename(path, &gone)?;
        File::open(folder)?.sync_all()?;
        fs::remove_dir_all(&gone)
    };
    remove().map_err(failed("remove", path))
}

/// How the name of a folder begins that is on its way out.
const REMOVED: &str = ".removed-";
/// How the name of a machine's folder begins that is on its way in.
const NEW: &str = ".new-";
/// How the name of a snapshot's folder begins that is on its way in.
const UNFINISHED: &str = ".unfinished-";
