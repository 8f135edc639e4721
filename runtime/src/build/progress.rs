//! What a build tells while it goes on.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::fcntl::OFlag;

/// Who hears of it.
pub trait Progress {
    /// A step begins: the stage's name, the step's number and how many there are, the instruction.
    fn step(&self, stage: &str, number: usize, of: usize, text: &str);
    /// It had been done before.
    fn cached(&self);
    /// It is done; with the layer that came of it, and its size in bytes.
    fn done(&self, took: Duration, layer: Option<(&str, u64)>);
    /// What a user should know though it works.
    fn warn(&self, text: &str);
    /// Whether what programs of the build print shall be seen.
    fn shows_output(&self) -> bool;
}

/// Nobody.
#[derive(Debug)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: &str, _: usize, _: usize, _: &str) {}
    fn cached(&self) {}
    fn done(&self, _: Duration, _: Option<(&str, u64)>) {}
    fn warn(&self, _: &str) {}
    fn shows_output(&self) -> bool {
        false
    }
}

/// Runs something whose programs print, and lets what they print be told from what the build says: on standard error,
/// each line behind a bar. Nothing of it is shown to who wants to see nothing.
pub(super) fn indented<T, E>(progress: &dyn Progress, run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let shows = progress.shows_output();
    let Some(printed) = Printed::divert(shows) else { return run() };
    let outcome = run();
    printed.restore();
    outcome
}

/// Standard output and error, away for a while.
struct Printed {
    out: OwnedFd,
    err: OwnedFd,
    reader: JoinHandle<()>,
}

impl Printed {
    /// Nothing where the system allows no pipe: then it is printed as it comes.
    fn divert(shows: bool) -> Option<Self> {
        let (from, to) = nix::unistd::pipe2(OFlag::O_CLOEXEC).ok()?;
        let keep = |descriptor: i32| {
            // F_DUPFD_CLOEXEC: the program must not inherit where the build itself speaks.
            // SAFETY: standard output and error are open for the whole life of the command.
            let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
            borrowed.try_clone_to_owned().ok()
        };
        let (out, err, mut told) = (keep(1)?, keep(2)?, File::from(keep(2)?));
        let reader = std::thread::spawn(move || {
            let mut lines = BufReader::new(File::from(from));
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                if shows {
                    let _ = told.write_all(b"  | ").and_then(|()| told.write_all(&line));
                    if line.last() != Some(&b'\n') {
                        let _ = told.write_all(b"\n");
                    }
                }
                line.clear();
            }
        });
        let _ = nix::unistd::dup2_stdout(&to);
        let _ = nix::unistd::dup2_stderr(&to);
        Some(Self { out, err, reader })
    }

    fn restore(self) {
        let _ = nix::unistd::dup2_stdout(&self.out);
        let _ = nix::unistd::dup2_stderr(&self.err);
        // The pipe is closed now but for what the program may have left running, which its container does not outlive.
        let _ = self.reader.join();
    }
}
