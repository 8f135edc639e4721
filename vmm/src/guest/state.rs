//! What a snapshot keeps of a guest, and the guest that goes on from it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use kvm_bindings::{kvm_cpuid_entry2, kvm_sregs};
use serde::{Deserialize, Serialize};

use super::app::{App, AppState};
use super::bare::Bare;
use super::{Entry, Flow, Guest, GuestError};
use crate::machine::pc::{Wiring, check_wiring};
use crate::memory::Memory;
use crate::snapshot::state::Impossible;
use crate::vcpu::Cpu;

/// What runs inside, as far as the monitor serves it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestState {
    /// A program without a kernel.
    App(Box<AppState>),
    /// A built-in guest: all of it is in memory and registers.
    Bare(Named),
    /// An operating system: all of it is in memory, registers and devices.
    Linux(LinuxState),
}

/// The monitor serves devices, and no system calls: what they are wired to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinuxState {
    /// How often the machine had gone on from a snapshot.
    pub generation: u32,
    /// Its devices, in their order.
    pub devices: Vec<Wiring>,
}

/// A built-in guest's name and arguments, for whoever looks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// What it was told to do.
    pub guest: Bare,
}

impl GuestState {
    /// Whether a guest can be as this says, in a machine with so many bytes of memory.
    pub(crate) fn check(&self, memory: u64) -> Result<(), Impossible> {
        match self {
            Self::App(state) => state.check(memory),
            Self::Linux(state) => check_wiring(&state.devices),
            Self::Bare(_) => Ok(()),
        }
    }

    /// What kind it is, for whoever looks.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::App(_) => "app",
            Self::Bare(_) => "bare",
            Self::Linux(_) => "linux",
        }
    }
}

/// A guest, whichever it is.
#[derive(Debug)]
pub enum Any {
    /// A program without a kernel.
    App(Box<App>),
    /// A built-in guest.
    Bare(Bare),
}

impl Any {
    /// The guest of `state`, in a machine with this memory.
    pub(crate) fn of(state: &GuestState, memory: &Memory) -> Result<Self, GuestError> {
        Ok(match state {
            GuestState::App(state) => Self::App(Box::new(App::restore(state, memory)?)),
            GuestState::Bare(named) => Self::Bare(named.guest.clone()),
            GuestState::Linux(_) => return Err(GuestError::NotSaved),
        })
    }

    /// Lends a program the files of whoever asked for its machine, in place of the monitor's.
    pub(crate) fn lend(&mut self, files: &Arc<[OwnedFd; 3]>) {
        if let Self::App(app) = self {
            app.lend(files);
        }
    }

    fn guest(&mut self) -> &mut dyn Guest {
        match self {
            Self::App(app) => app.as_mut(),
            Self::Bare(bare) => bare,
        }
    }
}

impl Guest for Any {
    fn load(&mut self, memory: &Memory, reset: &kvm_sregs, cpuid: &[kvm_cpuid_entry2]) -> Result<Entry, GuestError> {
        self.guest().load(memory, reset, cpuid)
    }

    fn store(&mut self, at: u64, data: &[u8], cpu: &mut Cpu<'_>, memory: &Memory) -> Result<Flow, GuestError> {
        self.guest().store(at, data, cpu, memory)
    }

    fn reach(&self, memory: &Memory) -> u64 {
        match self {
            Self::App(app) => app.reach(memory),
            Self::Bare(bare) => bare.reach(memory),
        }
    }

    fn awaits(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::App(app) => app.awaits(),
            Self::Bare(bare) => bare.awaits(),
        }
    }

    fn save(&self) -> Result<GuestState, GuestError> {
        match self {
            Self::App(app) => app.save(),
            Self::Bare(bare) => bare.save(),
        }
    }

    fn renew(&mut self, memory: &Memory) -> Result<(), GuestError> {
        self.guest().renew(memory)
    }
}
