//! What can be put inside a machine.
//!
//! | guest | what it is | who serves it |
//! |---|---|---|
//! | [`bare`] | a few instructions, for teaching | the serial port, and a port that ends the machine |
//! | [`app`] | an unmodified static Linux program | the monitor, in the place of a kernel |
//! | [`linux`] | a Linux kernel and its programs | the devices of a PC ([`crate::machine`]) |
//!
//! A guest says what must lie in memory and which registers the processor starts with. From then on the monitor runs
//! it, and asks it what a store to an address without memory means.

pub mod app;
pub mod bare;
pub mod linux;
mod state;

use std::os::fd::BorrowedFd;

use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs};
pub use state::{Any, GuestState, LinuxState};
use vm_memory::GuestMemoryError;

use crate::memory::{Memory, MemoryError};
use crate::vcpu::{Cpu, VcpuError};

/// How a processor starts: what it would find in its registers after firmware and boot loader.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The general registers, the instruction pointer and the flags.
    pub regs: kvm_regs,
    /// Segments, control registers, descriptor tables.
    pub sregs: kvm_sregs,
    /// Model-specific registers, by index.
    pub msrs: Vec<(u32, u64)>,
    /// Which register sets the guest may use (`xsetbv`), if not the reset value.
    pub xcr0: Option<u64>,
}

/// How a program begins the line by which it says that it can work; behind it stands a nonce. A convention of this lab.
pub const READY: &[u8] = b"ISOLAB-READY ";

/// Whether the guest goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It runs on.
    Continue,
    /// It has just said for the first time that it is ready ([`READY`]), and runs on.
    Ready,
    /// It waits for input that has been long in coming ([`Guest::awaits`]), and asks for it once more when it runs on.
    Idle,
    /// It has ended, with this status.
    Exit(u8),
}

/// Something that runs in a machine.
pub trait Guest {
    /// Puts the guest into `memory` and says how it starts. `reset` is the processor as it comes out of reset, to build
    /// on; `cpuid` is what the guest will be told of it.
    fn load(&mut self, memory: &Memory, reset: &kvm_sregs, cpuid: &[kvm_cpuid_entry2]) -> Result<Entry, GuestError>;

    /// Answers a store to guest-physical address `at`, behind which there is no memory.
    fn store(&mut self, at: u64, data: &[u8], cpu: &mut Cpu<'_>, memory: &Memory) -> Result<Flow, GuestError>;

    /// Below which address lies all memory that the guest can touch as things are; it is asked again after each answer.
    fn reach(&self, memory: &Memory) -> u64 {
        memory.end()
    }

    /// What it waits for, where it has just been [`Flow::Idle`].
    fn awaits(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What a snapshot keeps of the guest besides memory, registers and devices.
    fn save(&self) -> Result<GuestState, GuestError> {
        Err(GuestError::NotSaved)
    }

    /// Called when the guest goes on from a snapshot: gives it what no two machines may share.
    fn renew(&mut self, _memory: &Memory) -> Result<(), GuestError> {
        Ok(())
    }
}

/// Why a guest could not be loaded, or had to be ended.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A program without a kernel.
    #[error(transparent)]
    App(#[from] app::AppError),
    /// A built-in guest was called with what it can't use.
    #[error(transparent)]
    Bare(#[from] bare::BareError),
    /// A Linux kernel can't be started.
    #[error(transparent)]
    Linux(#[from] linux::LinuxError),
    /// It stored to an address that means nothing.
    #[error("the guest stored {length} bytes to guest-physical {at:#x}, where there is neither memory nor a device")]
    Nowhere {
        /// The address.
        at: u64,
        /// How many bytes.
        length: usize,
    },
    /// Nobody has said what is to be kept of it.
    #[error("a guest of this kind can't be kept in a snapshot")]
    NotSaved,
    /// It goes on from a snapshot.
    #[error("a guest that goes on from a snapshot is not loaded again")]
    Loaded,
    /// Guest memory could not be reached.
    #[error("cannot reach guest memory")]
    Access(#[from] GuestMemoryError),
    /// Guest memory could not be laid out.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The processor could not be read or set.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
}

impl GuestError {
    /// The next thing to try, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::App(error) => error.hint(),
            Self::Bare(error) => Some(error.hint()),
            Self::Linux(error) => error.hint(),
            _ => None,
        }
    }

    /// The status to end with, where the guest itself died of something that has one.
    pub fn status(&self) -> Option<u8> {
        match self {
            Self::App(error) => error.status(),
            _ => None,
        }
    }
}
