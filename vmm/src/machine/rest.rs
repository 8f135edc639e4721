//! A machine whose guest waits, and which has nothing in KVM meanwhile.
//!
//! A processor that has run once keeps much in the kernel whether it runs on or not: spare pages for page tables (KVM fills a
//! store of 40, and where it keeps the guest's page tables itself another of 40), the registers, the vector registers, a thread that
//! looks after huge pages, a folder of statistics. It was measured at half a megabyte, most of what an idle machine of a small
//! program takes at all. A program that waits for its input needs none of it. So after a while its machine *rests*: what the
//! processor holds is read, as for a snapshot, and the processor and the machine around it are closed; memory stays. When there
//! is input, or somebody rings, they are made anew, as for a machine that goes on from a snapshot. The guest can't tell.
//!
//! But its next accesses to memory are first accesses once more: KVM has to find each page again. A program with much memory
//! would lose more by that than the host gains, so only small ones rest.

use std::io::Write;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::info_span;

use super::saved::same_speed;
use super::stop::{self, Stop};
use super::{Paused, RunError};
use crate::guest::Guest;
use crate::kvm::{self, Slots};
use crate::snapshot;
use crate::snapshot::state::VcpuState;
use crate::vcpu::Vcpu;

impl<G: Guest, W: Write> Paused<G, W> {
    /// Rests until there is what the guest awaits, or the machine shall stand still or end.
    pub(super) fn rest(mut self, stop: &Stop) -> Result<Self, RunError> {
        if !self.slots.are_small() {
            wait(&self.guest);
            return Ok(self);
        }
        let _span = info_span!(
            "machine.rest",
            call = "close(2), poll(2), ioctl(KVM_CREATE_VM)",
            why = "a processor takes half a megabyte of the kernel's memory, also one that waits: meanwhile there is none"
        )
        .entered();
        let since = Instant::now(); // before its counter is read: it never goes back
        let mut processor = self.read_processor()?; //  1. what is to be kept; the rest is in memory
        stop.stands();
        let Self { vcpu, vm, memory, guest, slots: _, board, timeout, kvm } = self;
        drop((vcpu, vm)); //                            2. KVM has nothing of it any more
        wait(&guest); //                                3. until there is something to do
        let vm = kvm::create_vm(&kvm)?; //              4. as for a machine that goes on from a snapshot
        let mut slots = Slots::default();
        slots.extend(&vm, &memory, guest.reach(&memory))?;
        kvm::split_irqchip(&vm)?;
        let mut vcpu = Vcpu::create_as(&kvm, &vm, &snapshot::vcpu::cpuid(&processor)?)?;
        same_speed(&mut vcpu, processor.tsc_khz)?;
        snapshot::vcpu::pass(&mut processor, since.elapsed());
        snapshot::vcpu::write(vcpu.fd(), &processor)?;
        stop.runs(vcpu.fd().get_kvm_run());
        Ok(Self { vcpu, vm, memory, guest, slots, board, timeout, kvm })
    }

    fn read_processor(&mut self) -> Result<VcpuState, RunError> {
        self.vcpu.settle()?;
        self.board.flush()?;
        let msrs = snapshot::vcpu::msrs_to_save(&self.kvm)?;
        Ok(snapshot::vcpu::read(&mut self.vcpu, &msrs)?)
    }
}

/// A signal just before it waits may be slept through, as with [`stop::Bell`]: both are repeated.
fn wait(guest: &impl Guest) {
    let Some(input) = guest.awaits() else { return };
    let mut awaited = [PollFd::new(input, PollFlags::POLLIN)];
    while !stop::requested() && poll(&mut awaited, PollTimeout::NONE) == Err(Errno::EINTR) {}
}
