//! Signals to the monitor, as a file that can be waited for beside others.
//!
//! The thread that waits for a machine takes them. No other thread shall: they are blocked before any is made, and a thread
//! inherits what its maker blocks.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::sync::Once;

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that end a machine.
const SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
/// The signal that gets a processor out of its guest.
const KICK: Signal = Signal::SIGUSR2;

/// While it lives, the calling thread and those it makes do not die of signals; one of them can wait for them.
pub(super) struct Signals {
    file: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Blocks the signals that end a machine, save those that somebody has said shall not matter.
    pub(super) fn block() -> io::Result<Self> {
        let set: SigSet = SIGNALS.into_iter().filter(|signal| !is_ignored(*signal)).collect();
        let file = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { file, before })
    }

    /// The first that has come.
    pub(super) fn take(&self) -> io::Result<Option<i32>> {
        Ok(self.file.read_signal()?.map(|signal| signal.ssi_signo as i32))
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // It can't fail: what there was before was there before.
        let _ = self.before.thread_set_mask();
    }
}

/// Whether somebody (nohup, a shell's background job) has said that this signal shall not matter.
fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: no new action is given, and the old one is written to a place of its size.
    let asked = unsafe { libc::sigaction(signal as libc::c_int, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeroes are valid, should it have failed.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Makes this process ready for [`kick`]: the signal does nothing but interrupt what it meets.
pub(super) fn expect_kicks() -> io::Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        extern "C" fn nothing(_: libc::c_int) {}
        // No SA_RESTART: that would undo what it is for.
        let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        // SAFETY: a handler that does nothing may run at any time.
        result = unsafe { sigaction(KICK, &action) }.map(drop);
    });
    result.map_err(Errno::into)
}

/// Interrupts a thread.
pub(super) fn kick(thread: libc::pthread_t) {
    // SAFETY: the thread has not been joined, says the caller. What can fail is a thread that has ended, which needs no kick.
    unsafe { libc::pthread_kill(thread, KICK as libc::c_int) };
}
