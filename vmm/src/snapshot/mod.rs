//! Snapshots: a machine that stood still, in two files, from which any number of machines can go on.
//!
//! A machine is its memory, its processors, its devices, and what the monitor knows of its guest. Memory is large and
//! mostly untouched: it becomes a file as long as the memory, with holes ([`crate::memory`]). All the rest is small: it
//! becomes a file that describes itself and is checked before it is believed ([`mod@format`]). To go on lazily is to map
//! the first and read the second: the cost is the same for a machine of any size.
//!
//! A snapshot is never changed once it is there. It is written beside its place under another name and moved there whole
//! ([`folder`]), so that whoever dies in between leaves nothing that could be taken for one.

pub(crate) mod bundle;
mod cpu;
pub mod folder;
pub mod format;
pub mod raw;
pub mod state;
pub(crate) mod vcpu;

use std::io;
use std::path::PathBuf;

pub use cpu::CpuError;
pub(crate) use cpu::{check, check_tsc};
pub use folder::{Saving, Snapshot};
use format::FormatError;

use crate::devices::DeviceError;
use crate::devices::virtio::block::DiskError;
use crate::guest::GuestError;
use crate::kvm::KvmError;
use crate::memory::MemoryError;
use crate::vcpu::VcpuError;

/// Why a snapshot was not taken, or no machine goes on from it.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file or folder of it could not be reached.
    #[error("cannot {attempt} {}", .path.display())]
    Files {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The state file is none.
    #[error("cannot use the state in {}", .0.display())]
    Format(PathBuf, #[source] FormatError),
    /// The memory file does not hold what it should.
    #[error("cannot use the memory in {}: it is {found} bytes long, and the state says {said}", .path.display())]
    Memory {
        /// The snapshot.
        path: PathBuf,
        /// How long it is.
        found: u64,
        /// How long it should be.
        said: u64,
    },
    /// What it stands on can't be used.
    #[error("cannot use the snapshot in {}, which has only the changes since another", .path.display())]
    Below {
        /// The snapshot.
        path: PathBuf,
        /// What is wrong with the other.
        source: Box<SnapshotError>,
    },
    /// Where the other should be is a third.
    #[error("{} is another snapshot than {wanted}", .path.display())]
    Another {
        /// What is there.
        path: PathBuf,
        /// The id of the one that should be.
        wanted: String,
    },
    /// No such pile is ever written.
    #[error("more than {0} snapshots stand on each other")]
    Deep(usize),
    /// The memory could not be made to go on from what was saved.
    #[error(transparent)]
    GoOn(#[from] MemoryError),
    /// The processor can't be had here.
    #[error("cannot go on here from the snapshot")]
    Cpu(#[from] CpuError),
    /// Somebody else's machine is there.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// The clock of the machine could not be read or set.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// A processor could not be read or set.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The guest can't be kept, or can't go on.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// Of a PC, where a machine with one processor was to be made, or the other way round.
    #[error("the snapshot is of another kind of machine ({0})")]
    Kind(&'static str),
    /// A disk can't be kept.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A disk is a device of the host.
    #[error("the disk {} is a block device, of which no copy is made", .0.display())]
    BlockDevice(PathBuf),
    /// A disk is an image whose place matters.
    #[error("the disk {} stands on {}, a name that would lead elsewhere from a snapshot", .0.display(), .1.display())]
    RelativeBase(PathBuf, PathBuf),
    /// A device can't be kept.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The host has no random bytes.
    #[error("cannot get random bytes for the snapshot's name")]
    Random(#[source] io::Error),
}

/// What is to be told where a file could not be written for want of room.
pub(crate) fn where_full(error: &io::Error) -> Option<String> {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    full.then(|| "the disk is full; nothing was left behind".to_owned())
}

impl SnapshotError {
    /// The next thing to try, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Files { source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => {
                    Some("a snapshot is a folder with the files `state` and `memory`".to_owned())
                }
                _ => where_full(source),
            },
            Self::Format(_, FormatError::Version(_)) => {
                Some("take it again with this monitor, or use the monitor that wrote it".to_owned())
            }
            Self::Format(..) | Self::Memory { .. } => Some("it was changed or cut short since it was taken".to_owned()),
            Self::Cpu(_) => Some("use a host with a processor like the one it was taken on".to_owned()),
            Self::Below { source, .. } => source.hint(),
            Self::Another { .. } => Some("put the one back that was there, or take a whole one".to_owned()),
            Self::Kvm(error) => error.hint().map(str::to_owned),
            Self::Disk(error) => error.hint(),
            Self::RelativeBase(_, base) => Some(format!(
                "give it an absolute one: qemu-img rebase -u -b $(realpath {}) makes it so",
                base.display()
            )),
            _ => None,
        }
    }
}
