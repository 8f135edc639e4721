//! What can keep a testbed from running a command.

use std::io;
use std::path::{Path, PathBuf};

use isolab_reports::folder::FolderError;

use super::image::ImageError;
use super::kernel::KernelError;
use super::wire::HEARTBEAT;

/// The exit status that says: try again. `EX_TEMPFAIL` of `<sysexits.h>`.
pub const STANDS: u8 = 75;

/// Why a testbed did not run its command to the end.
#[derive(Debug, thiserror::Error)]
pub enum TestbedError {
    /// The emulator is not installed.
    #[error("cannot find {0} on PATH")]
    NoEmulator(&'static str),
    /// No kernel to boot.
    #[error("cannot get a kernel for the testbed")]
    Kernel(#[from] KernelError),
    /// The machine's file system could not be made.
    #[error("cannot make the testbed's file system")]
    Image(#[from] ImageError),
    /// A system call on the way to a running machine failed.
    #[error("cannot {attempt}")]
    Host {
        /// What was attempted.
        attempt: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The emulator ended, or the kernel in it did, before the command's exit status was known.
    #[error("the testbed's machine ended before the command did\n{console}")]
    Died {
        /// The end of what its console and its emulator printed.
        console: String,
    },
    /// It never came so far as to start the command.
    #[error("the testbed's machine did not start the command within {seconds} s\n{console}")]
    NotBooted {
        /// How long it had.
        seconds: u64,
        /// The end of what its console and its emulator printed.
        console: String,
    },
    /// The command ran longer than it was given.
    #[error("the command did not end within {seconds} s, counted from the machine's start; the machine was ended")]
    TimedOut {
        /// How long it had.
        seconds: u64,
    },
    /// The emulated machine came to a stand, whatever the command was at: it did not say any more that it is there.
    #[error("the testbed's machine stands still: it has said nothing for {seconds} s, and should every {beat} s", beat = HEARTBEAT.as_secs())]
    Stands {
        /// How long nothing was heard.
        seconds: u64,
    },
    /// The first process in the machine could not go on.
    #[error("the testbed's machine could not run the command: {0}")]
    Inside(String),
    /// The machine sent what no testbed sends.
    #[error("the testbed's machine sent something that is no message")]
    Garbled(#[source] io::Error),
    /// The lab's report has no place to go.
    #[error(transparent)]
    Report(#[from] FolderError),
    /// The command's files arrived and could not be kept.
    #[error("cannot write the command's files into {}", folder.display())]
    Files {
        /// Where they belong.
        folder: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

impl TestbedError {
    /// What to try next, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoEmulator(_) => Some("sudo apt install qemu-system-x86".to_owned()),
            Self::Kernel(error) => error.hint(),
            Self::Image(error) => error.hint(),
            Self::Report(error) => Some(error.hint().to_owned()),
            Self::Died { .. } => Some("more memory may help: --memory MIB".to_owned()),
            Self::Stands { .. } => {
                Some("the emulator is at fault, not the command: run it again, with one CPU".to_owned())
            }
            Self::TimedOut { .. } => Some("--timeout TIME gives it longer".to_owned()),
            _ => None,
        }
    }

    /// What a command that fails by this ends with.
    pub const fn status(&self) -> u8 {
        match self {
            Self::Stands { .. } => STANDS,
            _ => 1,
        }
    }

    pub(super) fn host(attempt: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { attempt, source }
    }

    pub(super) fn files(folder: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Files { folder: folder.to_owned(), source }
    }
}
