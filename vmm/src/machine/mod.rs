//! A machine's life: put together, run, ended.
//!
//! [`Machine::boot`] is the order in which a machine comes about. [`Paused::resume`] is what a hypervisor does all day:
//! it lets the guest run until it does something that the processor can't do alone, does that in its place, and lets it
//! run again. While the guest waits for long, the machine rests.

mod error;
pub mod overseer;
pub mod pc;
mod place;
mod rest;
mod saved;
pub mod stop;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use kvm_ioctls::{Kvm, VcpuExit, VmFd};
use tracing::{debug, info_span};

use crate::devices::Board;
use crate::guest::{Entry, Flow, Guest};
use crate::kvm::{self, Slots};
use crate::memory::{Memory, MemoryError};
use crate::units::Mib;
use crate::vcpu::{Vcpu, VcpuError};
use error::Reason;
pub use error::{BootError, RunError};
use overseer::{Moment, Overseer, Unattended, Verdict};
pub use place::Place;
pub use saved::{Saved, Standing, Template, WORKING_SET};
use stop::{Cause, Ender, Stop};

/// What a machine shall be.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// How much memory the guest has.
    pub memory: Mib,
    /// How long it may run.
    pub timeout: Option<Duration>,
}

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Status(u8),
    /// By itself: it switched its machine off, and said nothing of a status.
    Off,
    /// By a signal to the monitor.
    Signal(i32),
}

/// Makes machines.
pub struct Machine;

impl Machine {
    /// Puts a machine together, with `guest` in it, up to its first instruction. What it prints goes to `console`.
    pub fn boot<G: Guest, W: Write>(config: &Config, mut guest: G, console: W) -> Result<Paused<G, W>, BootError> {
        let memory = reserve(|| Memory::map(config.memory))?; // 1. addresses for its RAM, no page of it yet
        let kvm = Arc::new(kvm::open()?); //                  2. the hypervisor
        let vm = kvm::create_vm(&kvm)?; //                    3. an empty machine
        let mut slots = Slots::default();
        slots.extend(&vm, &memory, guest.reach(&memory))?; // 4. its RAM, before anything can be looking at it
        kvm::split_irqchip(&vm)?; //                          5. its interrupt controller, before its processor
        let (mut vcpu, cpuid) = Vcpu::create(&kvm, &vm)?; //  6. its processor, which knows what it is
        let entry = {
            let _span = info_span!(
                "guest.load",
                call = "none",
                why = "what a boot loader would do: the program, its stack, the page tables it runs under"
            )
            .entered();
            let reset = vcpu.sregs()?;
            guest.load(&memory, &reset, cpuid.as_slice())? // 7. the guest
        };
        slots.extend(&vm, &memory, guest.reach(&memory))?; // a large one needs more RAM than a first piece
        set_up(&mut vcpu, &entry)?; //                        8. the registers it starts with
        Ok(Paused { vcpu, vm, memory, guest, slots, board: Board::new(console), timeout: config.timeout, kvm })
    }
}

fn reserve(map: impl FnOnce() -> Result<Memory, MemoryError>) -> Result<Memory, MemoryError> {
    let _span = info_span!(
        "memory.map",
        call = "mmap(MAP_NORESERVE)",
        why = "addresses for the guest's RAM; a page of it is found when the guest first touches it, not now"
    )
    .entered();
    map()
}

fn set_up(vcpu: &mut Vcpu, entry: &Entry) -> Result<(), VcpuError> {
    let _span = info_span!(
        "vcpu.setup",
        call = "ioctl(KVM_SET_SREGS), ioctl(KVM_SET_REGS)",
        why = "the processor comes out of reset in 16-bit mode; firmware would take it from there, here one call does"
    )
    .entered();
    vcpu.enter(entry)
}

/// A machine that stands still. Its fields are dropped in this order: KVM lets go of the memory before it is unmapped.
pub struct Paused<G: Guest, W: Write> {
    vcpu: Vcpu,
    vm: VmFd,
    memory: Memory,
    guest: G,
    slots: Slots,
    board: Board<W>,
    timeout: Option<Duration>,
    /// The hypervisor, for the day it has to make them anew.
    kvm: Arc<Kvm>,
}

/// How far a machine has run.
enum Until {
    Ended(Ended),
    /// Its guest waits, and may have to for long.
    Idle,
}

/// How often a guest stopped, and for what.
#[derive(Debug, Default, Clone, Copy)]
struct Exits {
    ports: u64,
    stores: u64,
    loads: u64,
    interrupted: u64,
}

impl<G: Guest, W: Write> Paused<G, W> {
    /// Runs the machine to its end.
    pub fn resume(self) -> Result<Ended, RunError> {
        self.resume_under(&mut Unattended)
    }

    /// As [`Paused::resume`], with somebody who is let in between two steps whenever he asks ([`stop::Bell`]), and when the
    /// guest has said that it is ready.
    pub fn resume_under(mut self, overseer: &mut dyn Overseer<G, W>) -> Result<Ended, RunError> {
        let stop = Stop::listen(self.vcpu.fd().get_kvm_run(), self.timeout).map_err(RunError::Signals)?;
        self.run_and_close(stop, overseer)
    }

    /// As [`Paused::resume`], for one of many machines of a process, until `ender` ends it.
    pub(crate) fn resume_until(mut self, ender: &Ender) -> Result<Ended, RunError> {
        let stop = Stop::listen_to(ender, self.vcpu.fd().get_kvm_run(), self.timeout).map_err(RunError::Signals)?;
        self.run_and_close(stop, &mut Unattended)
    }

    fn run_and_close(mut self, stop: Stop, overseer: &mut dyn Overseer<G, W>) -> Result<Ended, RunError> {
        let mut exits = Exits::default();
        let mut flow = self.first_step(&mut exits);
        let ended = loop {
            match flow.and_then(|flow| self.run(flow, &stop, &mut exits, overseer)) {
                Ok(Until::Ended(ended)) => break Ok(ended),
                Ok(Until::Idle) => {
                    self = self.rest(&stop)?;
                    flow = Ok(Flow::Continue);
                }
                Err(error) => break Err(error),
            }
        };
        let flushed = self.board.flush();
        drop(stop);
        debug!(
            target: "machine.exits",
            "the guest stopped for the monitor {} times at a port, {} at a store, {} at a load; {} times it was interrupted",
            exits.ports, exits.stores, exits.loads, exits.interrupted,
        );
        self.close();
        let ended = ended?;
        flushed?;
        Ok(ended)
    }

    fn first_step(&mut self, exits: &mut Exits) -> Result<Flow, RunError> {
        let _span = info_span!(
            "guest.first_exit",
            call = "ioctl(KVM_RUN)",
            why =
                "the guest runs for the first time, until it asks for something; its first pages are found on the way"
        )
        .entered();
        self.step(exits)
    }

    /// Runs the machine on after `flow`, until it ends or has nothing to do.
    fn run(
        &mut self,
        mut flow: Flow,
        stop: &Stop,
        exits: &mut Exits,
        overseer: &mut dyn Overseer<G, W>,
    ) -> Result<Until, RunError> {
        let _span = info_span!(
            "guest.run",
            call = "ioctl(KVM_RUN), again and again",
            why = "each time the guest does what its processor can't do alone, the monitor does it in its place"
        )
        .entered();
        loop {
            if let Flow::Exit(status) = flow {
                return Ok(Until::Ended(Ended::Status(status)));
            }
            match stop.cause() {
                Some(Cause::Signal(signal)) => return Ok(Until::Ended(Ended::Signal(signal))),
                Some(Cause::Timeout) => {
                    return Err(RunError::Timeout { after: self.timeout.unwrap_or_default(), place: self.place() });
                }
                None => {}
            }
            let asked = stop::answer_bell(self.vcpu.fd().get_kvm_run());
            let moment = if flow == Flow::Ready { Some(Moment::Ready) } else { asked.then_some(Moment::Asked) };
            if let Some(moment) = moment
                && let Verdict::End(ended) = overseer.attend(self, moment)?
            {
                return Ok(Until::Ended(ended));
            }
            if flow == Flow::Idle {
                return Ok(Until::Idle);
            }
            flow = self.step(exits)?;
        }
    }

    /// Lets the guest run to its next exit, and answers that.
    fn step(&mut self, exits: &mut Exits) -> Result<Flow, RunError> {
        let reason = match self.vcpu.fd().run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                exits.ports += 1;
                return Ok(self.board.write(port, data)?);
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                exits.ports += 1;
                self.board.read(port, data);
                return Ok(Flow::Continue);
            }
            Ok(VcpuExit::MmioWrite(at, data)) => {
                exits.stores += 1;
                let mut copy = [0; 8]; // KVM hands over 8 bytes at the most; the page they lie in is needed to answer
                let length = data.len().min(copy.len());
                copy.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
                return self.answer_store(at, copy.get(..length).unwrap_or_default());
            }
            Ok(VcpuExit::MmioRead(_, data)) => {
                exits.loads += 1;
                data.fill(0xff); // as on a PC: where nobody answers, the lines are high
                return Ok(Flow::Continue);
            }
            Ok(VcpuExit::Intr) => {
                exits.interrupted += 1;
                return Ok(Flow::Continue);
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                exits.interrupted += 1;
                return Ok(Flow::Continue);
            }
            end => Reason::of(end)?,
        };
        Err(reason.at(self.place()))
    }

    fn answer_store(&mut self, at: u64, data: &[u8]) -> Result<Flow, RunError> {
        let mut cpu = self.vcpu.stopped()?;
        let flow = self.guest.store(at, data, &mut cpu, &self.memory)?;
        cpu.commit()?;
        self.slots.extend(&self.vm, &self.memory, self.guest.reach(&self.memory))?;
        Ok(flow)
    }

    fn place(&mut self) -> Place {
        Place::of(&mut self.vcpu, &self.memory)
    }

    fn close(self) {
        let _span = info_span!(
            "machine.close",
            call = "close(2), munmap(2)",
            why = "the processor, the machine and its memory go, in this order; nothing of them is left in the kernel"
        )
        .entered();
        drop(self);
    }
}
