//! What a kernel would remember about the program: its memory, its open files, its signals, its limits.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use syscalls::Sysno;

use super::clocks::Clocks;
use super::space::Space;

/// The program's process number. It is alone in its machine.
pub(super) const PID: u64 = 1;
/// How many signals there are; the first is 1.
pub(super) const SIGNALS: usize = 64;
/// `SIG_DFL` and `SIG_IGN`, as sigaction(2) has them in its handler field.
pub(super) const DEFAULT: u64 = 0;
/// See [`DEFAULT`].
pub(super) const IGNORE: u64 = 1;
/// What `RLIM_INFINITY` is.
const INFINITE: u64 = u64::MAX;
/// How many limits getrlimit(2) knows.
pub(super) const LIMITS: usize = 16;

/// The program while it runs.
#[derive(Debug)]
pub(super) struct Task {
    /// Its memory.
    pub(super) space: Space,
    /// What `/proc/self/exe` leads to.
    pub(super) executable: Vec<u8>,
    /// Its name, for prctl(2).
    pub(super) name: [u8; 16],
    /// Which of the descriptors 0 to 2 it has not closed. It has no others.
    pub(super) open: [bool; 3],
    /// What those are on the host.
    pub(super) files: Files,
    /// Soft and hard limits, by resource number.
    pub(super) limits: [[u64; 2]; LIMITS],
    /// What sigaction(2) set, by signal number - 1: handler, flags, restorer, mask. Kept, never acted upon but for
    /// "default" and "ignore": no handler is ever called.
    pub(super) actions: [[u64; 4]; SIGNALS],
    /// The blocked signals.
    pub(super) mask: u64,
    /// What sigaltstack(2) set: address, flags, size.
    pub(super) alternate_stack: [u64; 3],
    /// The bases of FS (where a C library keeps its thread) and GS, as `arch_prctl(2)` set them.
    pub(super) bases: Bases,
    /// Where its restartable sequences are registered.
    pub(super) rseq: Option<u64>,
    /// How often each system call was answered `ENOSYS`.
    pub(super) unserved: BTreeMap<u64, u64>,
    /// Whether it has said that it is ready.
    pub(super) ready: Ready,
    /// How far its clocks are from the host's.
    pub(super) clocks: Clocks,
    /// Of a sleep that was interrupted: how long it still is.
    pub(super) remaining: Option<Duration>,
    /// The descriptor for which it has waited in vain, where the machine may rest for that.
    pub(super) awaited: Option<usize>,
}

/// The files behind a program's descriptors 0 to 2.
#[derive(Debug, Clone, Default)]
pub(crate) enum Files {
    /// The monitor's own three.
    #[default]
    Own,
    /// Those of whoever asked for the machine.
    Lent(Arc<[OwnedFd; 3]>),
}

impl Files {
    /// The one behind descriptor `index`, which is one of the three.
    pub(super) fn get(&self, index: usize) -> BorrowedFd<'_> {
        match self {
            Self::Lent(files) => files[index.min(2)].as_fd(),
            // SAFETY: the standard three are open for as long as the process is.
            Self::Own => unsafe { BorrowedFd::borrow_raw(index.min(2) as i32) },
        }
    }
}

/// Whether a program has said that it is ready ([`crate::guest::READY`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ready {
    /// Not yet.
    No,
    /// By the system call that is being served.
    Said,
    /// Long ago.
    Known,
}

/// The bases of the two segments that still have one in 64-bit mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Bases {
    /// FS.
    pub(super) fs: u64,
    /// GS.
    pub(super) gs: u64,
}

impl Task {
    /// A program that has just been loaded into `space`.
    pub(super) fn new(space: Space, executable: Vec<u8>, stack: &Range<u64>) -> Self {
        let mut limits = [[INFINITE; 2]; LIMITS];
        limits[libc::RLIMIT_STACK as usize] = [stack.end - stack.start; 2];
        limits[libc::RLIMIT_NOFILE as usize] = [3; 2];
        limits[libc::RLIMIT_NPROC as usize] = [1; 2];
        limits[libc::RLIMIT_CORE as usize] = [0; 2];
        let mut name = [0; 16];
        let base = executable.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        // Fifteen bytes at most: the last stays zero.
        for (kept, byte) in name.iter_mut().zip(base.iter().take(15)) {
            *kept = *byte;
        }
        Self {
            space,
            executable,
            name,
            open: [true; 3],
            files: Files::default(),
            limits,
            actions: [[0; 4]; SIGNALS],
            mask: 0,
            alternate_stack: [0, libc::SS_DISABLE as u64, 0],
            bases: Bases::default(),
            rseq: None,
            unserved: BTreeMap::new(),
            ready: Ready::No,
            clocks: Clocks::default(),
            remaining: None,
            awaited: None,
        }
    }

    /// Notes a system call that is not served. Numbers that no Linux has are counted together: a program must not fill
    /// the monitor's memory with them.
    pub(super) fn count_unserved(&mut self, number: u64) {
        let key = sysno(number).map_or(u64::MAX, |_| number);
        let count = self.unserved.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    /// The system calls that were answered `ENOSYS`, by name and count; nothing where there was none.
    pub(super) fn unserved_line(&self) -> Option<String> {
        let mut line = String::new();
        for (number, count) in &self.unserved {
            let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
            let comma = if line.is_empty() { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = match sysno(*number) {
                Some(call) => write!(line, "{comma}{} ({number}) {times}", call.name()),
                None => write!(line, "{comma}unknown numbers {times}"),
            };
        }
        (!line.is_empty()).then_some(line)
    }
}

/// The system call of this number, if x86-64 Linux has one.
pub(super) fn sysno(number: u64) -> Option<Sysno> {
    Sysno::new(usize::try_from(number).ok()?)
}
