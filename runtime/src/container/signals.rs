//! Signals: what the foreground command is sent goes on to the container, and nothing is lost between two looks.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::pseudo_file::read_record;
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

/// The signals that this process ignores, a bit each.
static IGNORED: AtomicU64 = AtomicU64::new(u64::MAX);

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
///
/// Those that have a handler need no help: `execve` takes it away, as its code is gone.
pub(crate) fn restore_defaults() {
    let ignored = IGNORED.load(Ordering::Relaxed);
    for signal in (1..=LAST_SIGNAL).filter(|signal| ignored & bit(*signal) != 0) {
        // SIGKILL and SIGSTOP refuse, and have no other action anyway.
        let _ = default_action(signal);
    }
}

/// Looks up which signals this process ignores, for itself and for the copies that it makes of itself: one file instead of
/// a call for each of the 64. Before this, and where nobody can tell, any of them might be.
pub(crate) fn learn_ignored() {
    if let Some(ignored) = read_record("/proc/self/status").ok().and_then(|status| ignored_in(&status)) {
        IGNORED.store(ignored, Ordering::Relaxed);
    }
}

/// The set of ignored signals in a process' `status` (`proc_pid_status(5)`): bit 0 is signal 1.
fn ignored_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

#[cfg(test)]
mod tests {
    use super::{bit, ignored_in};

    #[test]
    fn the_ignored_signals_are_found_in_the_status() {
        let status = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t8000000000001000\nSigCgt:\t0000000000000440\n";
        let ignored = ignored_in(status).expect("a line of them");
        assert_eq!(ignored, bit(libc::SIGPIPE) | bit(64));
        assert_eq!(ignored_in("Name:\tSigIgn\n"), None);
    }
}
