//! One processor's thread: it lets the guest run, and does in its place what the guest's processor can't do alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kvm_ioctls::VcpuExit;
use vmm_sys_util::eventfd::EventFd;

use crate::devices::pc::{Board, Wish};
use crate::machine::error::Reason;
use crate::machine::{Ended, Place, RunError};
use crate::memory::Memory;
use crate::vcpu::Vcpu;

/// What the threads of a machine share. The first to end the machine says how.
pub(super) struct Shared {
    pub(super) board: Arc<Board>,
    pub(super) memory: Memory,
    /// All shall stand still.
    pub(super) halt: AtomicBool,
    /// Written to when the thread that waits for the machine should look.
    pub(super) notice: Arc<EventFd>,
    outcome: Mutex<Option<Result<Ended, RunError>>>,
}

impl Shared {
    pub(super) fn new(board: Arc<Board>, memory: Memory, notice: Arc<EventFd>) -> Self {
        Self { board, memory, halt: AtomicBool::new(false), notice, outcome: Mutex::new(None) }
    }

    /// How the machine ended, if it has.
    pub(super) fn take_outcome(&self) -> Option<Result<Ended, RunError>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn end(&self, how: Result<Ended, RunError>) {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(how);
        self.halt.store(true, Ordering::Release);
        // Fails only where it has been written to as often as a u64 counts: then it is seen anyway.
        let _ = self.notice.write(1);
    }
}

/// Runs the guest on this processor until the machine ends or shall stand still; returns the processor as it then is.
pub(super) fn run(mut vcpu: Vcpu, shared: &Shared) -> Vcpu {
    while !shared.halt.load(Ordering::Acquire) {
        match step(&mut vcpu, shared) {
            Ok(Wish::GoOn) => {}
            Ok(Wish::Exit(status)) => shared.end(Ok(Ended::Status(status))),
            Ok(Wish::Off) => shared.end(Ok(Ended::Off)),
            Ok(Wish::Reset) => shared.end(Err(RunError::Reset)),
            Err(error) => shared.end(Err(error)),
        }
    }
    // Only then are its registers those of one instant. Where that fails, the next who asks for them is told.
    vcpu.fd().set_kvm_immediate_exit(0);
    let _ = vcpu.settle();
    vcpu
}

/// Lets the guest run to its next exit, and answers that.
fn step(vcpu: &mut Vcpu, shared: &Shared) -> Result<Wish, RunError> {
    let reason = match vcpu.fd().run() {
        Ok(VcpuExit::IoOut(port, data)) => return Ok(shared.board.write(port, data)?),
        Ok(VcpuExit::IoIn(port, data)) => {
            shared.board.read(port, data);
            return Ok(Wish::GoOn);
        }
        Ok(VcpuExit::MmioWrite(at, data)) => {
            shared.board.bus.write(at, data);
            return Ok(Wish::GoOn);
        }
        Ok(VcpuExit::MmioRead(at, data)) => {
            shared.board.bus.read(at, data);
            return Ok(Wish::GoOn);
        }
        // An end of interrupt is told of where a line's interrupt is a level; no device here has such a line.
        Ok(VcpuExit::Intr | VcpuExit::IoapicEoi(_)) => return Ok(Wish::GoOn),
        // Somebody wants it to stand still; or it has not been woken yet.
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => return Ok(Wish::GoOn),
        end => Reason::of(end)?,
    };
    Err(reason.at(Place::of(vcpu, &shared.memory)))
}
