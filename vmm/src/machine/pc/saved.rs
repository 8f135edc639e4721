//! A PC becomes a snapshot, and a snapshot a PC.
//!
//! The order is that of [`crate::machine::Machine::restore`], with more of everything: all processors are made before any
//! is written to, for their local APICs send each other messages; then the devices, whose interrupts must find them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kvm_bindings::{KVM_CLOCK_REALTIME, kvm_clock_data};
use tracing::info_span;

use super::{Console, Pc, chips, event, split_irqchip};
use crate::guest::GuestState;
use crate::kvm;
use crate::machine::saved::{Described, Saved, Template, describe, same_speed, set_clock, store};
use crate::machine::{BootError, Standing};
use crate::memory::{Loading, Memory};
use crate::snapshot::{self, SnapshotError};
use crate::units::Mib;
use crate::vcpu::Vcpu;

impl Standing for Pc {
    fn save(&mut self, place: &Path) -> Result<Saved, SnapshotError> {
        let _span = info_span!(
            "snapshot.save",
            call = "-",
            why =
                "all processors stand still: the machine is their registers, its memory, and the state of its devices"
        )
        .entered();
        let _ = self.board.flush();
        let devices = self.board.save()?;
        let guest = GuestState::Linux(crate::guest::LinuxState {});
        let size = self.memory.size();
        let state = describe(Described { processors: &mut self.vcpus, vm: &self.vm, memory: size, devices, guest })?;
        store(place, &state, &self.memory)
    }

    fn memory_size(&self) -> u64 {
        self.memory.size()
    }
}

impl Pc {
    /// Makes a machine that goes on where a snapshot of one stood, with its processors standing still. What it prints goes
    /// to `console`.
    pub fn restore(
        template: &Template,
        loading: Loading,
        timeout: Option<Duration>,
        console: Console,
    ) -> Result<Self, BootError> {
        let state = &template.snapshot().state;
        if !template.is_pc() {
            return Err(SnapshotError::Kind(state.guest.kind()).into());
        }
        let memory = Memory::map_around_gap(Mib(state.memory >> 20))?; // 1. its RAM
        memory.load(template.memory(), loading)?;
        let vm = Arc::new(kvm::create_vm(template.kvm())?); //          2. an empty machine
        kvm::register(&vm, &memory)?;
        split_irqchip(&vm)?;
        let mut vcpus = Vec::new(); //                                  3. all its processors
        for (number, cpuid) in (0..).zip(template.cpuids()) {
            vcpus.push(Vcpu::create_one_of(&vm, number, cpuid.clone())?);
        }
        for (vcpu, saved) in vcpus.iter_mut().zip(&state.vcpus) {
            snapshot::check(&saved.seen, vcpu.seen()?.as_slice()).map_err(SnapshotError::from)?;
            same_speed(vcpu, saved.tsc_khz)?;
            snapshot::vcpu::write(vcpu.fd(), saved)?; //                4. as they were
        }
        set_clock(&vm, &by_the_day(state.clock.0))?; //                 5. its clock
        let notice = Arc::new(event()?);
        let board = chips(&vm, console, &notice)?; //                   6. its devices, whose interrupts find the processors
        board.restore(&state.devices)?;
        Ok(Self { vcpus, board: Arc::new(board), vm, memory, notice, timeout })
    }
}

/// A clock that goes on by the time that has passed on the host's, where it was kept with that: an operating system takes
/// its time of day from it, and should find it right.
fn by_the_day(mut saved: kvm_clock_data) -> kvm_clock_data {
    saved.flags &= KVM_CLOCK_REALTIME;
    saved
}
