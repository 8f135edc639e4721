//! Signals: what the foreground command is sent goes on to the container, and nothing is lost between two looks.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::sys::process::{LAST_SIGNAL, default_action};

/// Signals that are about this process itself and mean nothing to the container: news of children, of a pipe without a
/// reader, and the faults that only the process at fault can have.
const OWN: [Signal; 9] = [
    Signal::SIGCHLD,
    Signal::SIGPIPE,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGABRT,
    Signal::SIGTRAP,
    Signal::SIGSYS,
];

/// All signals that are sent on, blocked and readable; the mask from before comes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    descriptor: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Blocks and collects. Before the container's process is made, so that no signal falls between.
    pub(crate) fn collect() -> nix::Result<Self> {
        let mut relayed = SigSet::all();
        for signal in OWN {
            relayed.remove(signal);
        }
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&relayed), Some(&mut before))?;
        let descriptor = SignalFd::with_flags(&relayed, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { descriptor, before })
    }

    /// The next signal that has come, by number.
    pub(crate) fn next(&self) -> nix::Result<Option<i32>> {
        match self.descriptor.read_signal() {
            Ok(found) => Ok(found.map(|info| info.ssi_signo as i32)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The mask from before.
    pub(crate) fn before(&self) -> SigSet {
        self.before
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Nothing can fail here that a caller could mend: the set is a valid one.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

/// Gives every signal its default action, as an ignored one stays ignored through `execve`: SIGPIPE, which the Rust runtime
/// ignores at every program's start, and without which a shell's `yes | head` would never end; and whatever the shell or the
/// service that started us ignores, which is no business of the container's.
pub(crate) fn restore_defaults() {
    for signal in 1..=LAST_SIGNAL {
        // SIGKILL and SIGSTOP refuse, and have no other action anyway.
        let _ = default_action(signal);
    }
}
