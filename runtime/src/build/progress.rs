//! What a build tells while it goes on.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::OFlag;

/// Who hears of it, also from another thread: a program's lines come while it runs.
pub trait Progress: Sync {
    /// A step begins: the stage's name, the step's number and how many there are, the instruction.
    fn step(&self, stage: &str, number: usize, of: usize, text: &str);
    /// It had been done before.
    fn cached(&self);
    /// It is done; with the layer that came of it, and its size in bytes.
    fn done(&self, took: Duration, layer: Option<(&str, u64)>);
    /// What a user should know though it works.
    fn warn(&self, text: &str);
    /// A program of the build has printed a line, which has no end of its own.
    fn printed(&self, line: &[u8]);
}

/// Nobody.
#[derive(Debug)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: &str, _: usize, _: usize, _: &str) {}
    fn cached(&self) {}
    fn done(&self, _: Duration, _: Option<(&str, u64)>) {}
    fn warn(&self, _: &str) {}
    fn printed(&self, _: &[u8]) {}
}

/// Runs something whose programs print, and hands what they print to who hears of the build, line by line.
pub(super) fn told<T, E>(progress: &dyn Progress, run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let Some((printed, from)) = Printed::divert() else { return run() };
    std::thread::scope(|scope| {
        scope.spawn(|| read(from, progress));
        let outcome = run();
        // The pipe is closed then but for what the program may have left running, which its container does not outlive.
        printed.restore();
        outcome
    })
}

fn read(from: OwnedFd, progress: &dyn Progress) {
    let mut lines = BufReader::new(File::from(from));
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        progress.printed(line.strip_suffix(b"\n").unwrap_or(&line));
        line.clear();
    }
}

/// Standard output and error, away for a while.
struct Printed {
    out: OwnedFd,
    err: OwnedFd,
}

impl Printed {
    /// Nothing where the system allows no pipe: then it is printed as it comes. Answers where to read it, too.
    fn divert() -> Option<(Self, OwnedFd)> {
        let (from, to) = nix::unistd::pipe2(OFlag::O_CLOEXEC).ok()?;
        let keep = |descriptor: i32| {
            // F_DUPFD_CLOEXEC: the program must not inherit where the build itself speaks.
            // SAFETY: standard output and error are open for the whole life of the command.
            let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
            borrowed.try_clone_to_owned().ok()
        };
        let printed = Self { out: keep(1)?, err: keep(2)? };
        let _ = nix::unistd::dup2_stdout(&to);
        let _ = nix::unistd::dup2_stderr(&to);
        Some((printed, from))
    }

    fn restore(self) {
        let _ = nix::unistd::dup2_stdout(&self.out);
        let _ = nix::unistd::dup2_stderr(&self.err);
    }
}
