//! What can go wrong with a machine: why there is none, and why one did not end by itself.

use std::io;
use std::time::Duration;

use kvm_ioctls::VcpuExit;

use super::Place;
use super::pc::{MOST_CPUS, WiringError};
use crate::devices::DeviceError;
use crate::devices::acpi::AcpiError;
use crate::devices::virtio::mmio::TransportError;
use crate::guest::GuestError;
use crate::kvm::KvmError;
use crate::memory::MemoryError;
use crate::snapshot::SnapshotError;
use crate::vcpu::VcpuError;

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// KVM can't be used, or gives no machine.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// It has no memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// It has no processor.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The guest can't be put inside.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// A device can't be as it was.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It can't go on from its snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The guest can't be told what its machine has.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// It shall have more devices than there are interrupt lines.
    #[error("a machine can't have {given} devices: at most {most}")]
    Devices {
        /// How many it was given.
        given: usize,
        /// How many it can have.
        most: usize,
    },
    /// A device has nothing on the host's side.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// A device can't be made.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// It shall have more processors than it can, or none.
    #[error("a machine can't have {0} processors: at least 1, at most {most}", most = MOST_CPUS)]
    Cpus(u8),
    /// A system call failed.
    #[error("cannot {attempt}")]
    Host {
        /// What was attempted.
        attempt: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl BootError {
    /// The next thing to try, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Kvm(error) => error.hint().map(str::to_owned),
            Self::Guest(error) => error.hint(),
            Self::Snapshot(error) => error.hint(),
            Self::Wiring(error) => error.hint(),
            _ => None,
        }
    }
}

/// Why a machine did not end by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Signals could not be listened for.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// Three faults, each while the one before was being handled: a PC resets.
    #[error("the guest shut down: a fault while it handled a fault (triple fault) at {0}")]
    TripleFault(Place),
    /// KVM met an instruction that it would have to interpret, and can't.
    #[error("KVM cannot interpret the guest's instruction at {0}")]
    Uninterpreted(Place),
    /// The hardware refused the guest's state.
    #[error("the processor refuses to run the guest (hardware reason {reason:#x}) at {place}")]
    Entry {
        /// What the hardware said.
        reason: u64,
        /// Where.
        place: Place,
    },
    /// It halted, and nothing will ever wake it.
    #[error("the guest halted for ever at {0}")]
    Halted(Place),
    /// An operating system wanted to start anew.
    #[error("the guest reset its machine, which ends here")]
    Reset,
    /// It took longer than allowed.
    #[error("the guest still ran after {after:?}, at {place}")]
    Timeout {
        /// How long it was allowed to.
        after: Duration,
        /// Where it was.
        place: Place,
    },
    /// It stopped for a reason that no guest of this monitor has.
    #[error("the guest stopped for an unexpected reason ({reason}) at {place}")]
    Unexpected {
        /// KVM's name for it.
        reason: String,
        /// Where.
        place: Place,
    },
    /// KVM could not run it.
    #[error("cannot run the guest")]
    Run(#[source] kvm_ioctls::Error),
    /// A device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The guest's own servant ended it.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The processor could not be read or set.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// KVM did not give the guest more of its memory.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The snapshot that was asked for could not be taken.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A system call failed.
    #[error("cannot {attempt}")]
    Host {
        /// What was attempted.
        attempt: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl RunError {
    /// The next thing to try, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Guest(error) => error.hint(),
            Self::Snapshot(error) => error.hint(),
            Self::Reset => Some("if it did not do so on purpose, its last words are on its console".to_owned()),
            Self::Timeout { .. } => Some("give it more time with --timeout, or look at what it does there".to_owned()),
            Self::Uninterpreted(_) => Some(
                "where the processor has no virtualization of its own KVM interprets kernel code, and knows only part of \
                 the instruction set; `isolab-bench doctor` tells whether this host is one"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// The status to end with, where the guest itself died of something that has one.
    pub fn status(&self) -> Option<u8> {
        match self {
            Self::Guest(error) => error.status(),
            _ => None,
        }
    }
}

/// Why a guest can't go on.
pub(super) enum Reason {
    TripleFault,
    Uninterpreted,
    Entry(u64),
    Halted,
    Other(String),
}

impl Reason {
    /// Of an exit after which there is nothing that the monitor could do in the guest's place.
    pub(super) fn of(exit: Result<VcpuExit<'_>, kvm_ioctls::Error>) -> Result<Self, RunError> {
        Ok(match exit.map_err(RunError::Run)? {
            VcpuExit::Shutdown => Self::TripleFault,
            VcpuExit::InternalError => Self::Uninterpreted,
            VcpuExit::FailEntry(reason, _) => Self::Entry(reason),
            VcpuExit::Hlt => Self::Halted,
            other => Self::Other(format!("{other:?}")),
        })
    }

    pub(super) fn at(self, place: Place) -> RunError {
        match self {
            Self::TripleFault => RunError::TripleFault(place),
            Self::Uninterpreted => RunError::Uninterpreted(place),
            Self::Entry(reason) => RunError::Entry { reason, place },
            Self::Halted => RunError::Halted(place),
            Self::Other(reason) => RunError::Unexpected { reason, place },
        }
    }
}
