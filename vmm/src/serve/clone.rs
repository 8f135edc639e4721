//! A clone, as its server sees it: a child, or a thread of the server's own.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

use crate::confine::ConfineError;
use crate::machine::stop::Ender;
use crate::machine::{BootError, Ended, Machine, RunError, Template};
use crate::memory::Loading;

/// A clone that runs, or has run. It ends with this value.
#[derive(Debug)]
pub(super) struct Clone {
    kind: Kind,
    /// Readable when it has ended.
    end: OwnedFd,
}

#[derive(Debug)]
enum Kind {
    /// Nothing once it has been waited for.
    Process(Option<Pid>),
    /// Nothing once it has been joined.
    Thread(Option<JoinHandle<u8>>, Ender),
}

/// How much a thread's stack may grow. It is what a machine's monitor needs, and several times that.
const STACK: usize = 512 << 10;

impl Clone {
    /// The clone that is a child of this process.
    pub(super) fn process(child: Pid) -> io::Result<Self> {
        Ok(Self { kind: Kind::Process(Some(child)), end: pidfd(child)? })
    }

    /// A clone in a thread of this process, with these open files.
    pub(super) fn thread(template: Arc<Template>, timeout: Option<Duration>, files: [OwnedFd; 3]) -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        let end = event.as_fd().try_clone_to_owned()?;
        let ender = Ender::default();
        let (files, told_by) = (Arc::new(files), ender.clone());
        let work = move || {
            let told = Told(event); // also when the thread panics
            let outcome = live(&template, timeout, &files, &told_by);
            let status = match files[2].try_clone() {
                Ok(errors) => status(outcome, &mut File::from(errors)),
                Err(_) => status(outcome, &mut io::sink()),
            };
            drop(told);
            status
        };
        let thread = std::thread::Builder::new().name("clone".to_owned()).stack_size(STACK).spawn(work)?;
        Ok(Self { kind: Kind::Thread(Some(thread), ender), end })
    }

    /// Readable when it has ended.
    pub(super) fn end(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    /// The process that it is, or is in.
    pub(super) fn pid(&self) -> Pid {
        match self.kind {
            Kind::Process(Some(pid)) => pid,
            _ => getpid(),
        }
    }

    /// Its status, as a shell would tell it, if it has ended.
    pub(super) fn ended(&mut self) -> Option<u8> {
        match &mut self.kind {
            Kind::Process(process) => {
                let status = match waitpid((*process)?, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::Exited(_, status)) => status as u8,
                    Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as u8,
                    Ok(_) => return None,
                    Err(_) => 125,
                };
                *process = None;
                Some(status)
            }
            Kind::Thread(thread, _) => {
                // What is left of a thread that has said so is to return.
                let said = poll(&mut [PollFd::new(self.end.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1);
                let thread = thread.take_if(|_| said)?;
                Some(thread.join().unwrap_or(125))
            }
        }
    }

    /// Ends it, without waiting for that.
    pub(super) fn stop(&self) {
        match &self.kind {
            Kind::Process(Some(pid)) => drop(kill(*pid, Signal::SIGKILL)),
            Kind::Thread(Some(thread), ender) => ender.end(thread.as_pthread_t()),
            Kind::Process(None) | Kind::Thread(None, _) => {}
        }
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        self.stop();
        match &mut self.kind {
            Kind::Process(process) => drop(process.take().map(|pid| waitpid(pid, None))),
            Kind::Thread(thread, _) => drop(thread.take().map(JoinHandle::join)),
        }
    }
}

/// Tells that a thread has ended when it is dropped.
struct Told(EventFd);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.write(1);
    }
}

/// A thread's machine, to its end.
fn live(
    template: &Template,
    timeout: Option<Duration>,
    files: &Arc<[OwnedFd; 3]>,
    ender: &Ender,
) -> Result<Ended, Failure> {
    let console = File::from(files[1].try_clone().map_err(Failure::Files)?);
    let mut machine = Machine::restore(template, Loading::Lazy, timeout, console).map_err(Failure::Boot)?;
    machine.lend(files);
    machine.resume_until(ender).map_err(Failure::Run)
}

/// How a clone failed.
pub(super) enum Failure {
    Files(io::Error),
    Boot(BootError),
    Confine(ConfineError),
    Run(RunError),
}

/// The status to end with; a failure is told to `errors`.
pub(super) fn status(ended: Result<Ended, Failure>, errors: &mut dyn Write) -> u8 {
    match ended {
        Ok(Ended::Status(status)) => status,
        Ok(Ended::Off) => 0,
        Ok(Ended::Signal(signal)) => 128_u8.saturating_add(signal as u8),
        Err(failure) => failure.tell(errors),
    }
}

impl Failure {
    /// Says so; returns the status to end with.
    fn tell(&self, errors: &mut dyn Write) -> u8 {
        let (error, hint): (&dyn std::error::Error, _) = match self {
            Self::Files(error) => (error, None),
            Self::Boot(error) => (error, error.hint()),
            Self::Confine(error) => (error, None),
            Self::Run(error) => (error, error.hint()),
        };
        let hint = hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        // Who does not listen has not to be told.
        let _ = errors.write_all(format!("error: {}\n{hint}", crate::chain(error)).as_bytes());
        match self {
            Self::Run(error) => error.status().unwrap_or(125),
            Self::Files(_) | Self::Boot(_) | Self::Confine(_) => 125,
        }
    }
}

/// A descriptor that says when a child has ended.
fn pidfd(child: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two numbers; what it returns is a new descriptor, or -1.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number as i32) })
}
