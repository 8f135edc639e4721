//! Hooks: programs of the bundle's author, run at set moments of a container's life with its state on their standard
//! input (OCI runtime specification, config.md, "POSIX-platform Hooks").

use std::ffi::{CString, NulError};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{dup2_stdin, pipe2, write};
use oci_spec::runtime::{ContainerState, Hook};

use super::bundle::read_version;
use super::error::ContainerError;
use super::state::Record;
use super::sys::clone::{Side, clone3, exit_now};
use super::sys::process::{Ending, Strings, close_on_exec_from, execute, pidfd_signal, reap};

/// A program to be run at one moment. Made before the container's process, which must not allocate.
#[derive(Debug)]
pub(crate) struct HookPlan {
    path: CString,
    arguments: Strings,
    environment: Strings,
    timeout: Option<Duration>,
}

/// How a hook went wrong.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be started, or waited for.
    #[error("cannot run the {moment} hook {}", .path.display())]
    Run {
        /// When it should have run.
        moment: &'static str,
        /// The program.
        path: PathBuf,
        /// What the system said.
        source: Errno,
    },
    /// It ended, but not well.
    #[error("the {moment} hook {} {outcome}", .path.display())]
    Failed {
        /// When it ran.
        moment: &'static str,
        /// The program.
        path: PathBuf,
        /// How it ended.
        outcome: Outcome,
    },
}

/// How a hook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a status that is not zero.
    Status(i32),
    /// By a signal.
    Signal(i32),
    /// Not within its time.
    TimedOut,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(formatter, "ended with status {status}"),
            Self::Signal(signal) => write!(formatter, "was ended by signal {signal}"),
            Self::TimedOut => formatter.write_str("took longer than its timeout"),
        }
    }
}

/// Plans the hooks of one moment.
pub(crate) fn plan(hooks: Option<&Vec<Hook>>) -> Result<Vec<HookPlan>, NulError> {
    let texts =
        |list: &Option<Vec<String>>| list.iter().flatten().cloned().map(CString::new).collect::<Result<Vec<_>, _>>();
    hooks
        .into_iter()
        .flatten()
        .map(|hook| {
            let path = CString::new(hook.path().as_os_str().as_bytes())?;
            let mut arguments = texts(hook.args())?;
            if arguments.is_empty() {
                arguments.push(path.clone());
            }
            let timeout = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
            Ok(HookPlan {
                path,
                arguments: Strings::new(arguments),
                environment: Strings::new(texts(hook.env())?),
                timeout,
            })
        })
        .collect()
}

/// Runs the hooks of one moment, one after the other, from the runtime.
pub(crate) fn run(moment: &'static str, hooks: &[HookPlan], state: &[u8]) -> Result<(), HookError> {
    for hook in hooks {
        let path = || PathBuf::from(hook.path.to_string_lossy().into_owned());
        match hook.run(&[state]) {
            Ok(None) => {}
            Ok(Some(outcome)) => return Err(HookError::Failed { moment, path: path(), outcome }),
            Err(source) => return Err(HookError::Run { moment, path: path(), source }),
        }
    }
    Ok(())
}

/// Runs the hooks that see the program run. What one that fails means was changed: up to version 1.2.0 of the specification
/// it is only told of; from 1.2.1 on the start has failed, and the container ends (runtime.md, "Lifecycle", 9).
pub(crate) fn run_poststart(record: &Record, warn: &dyn Fn(&str)) -> Result<(), ContainerError> {
    let running = ContainerState::Running;
    if read_version(&record.oci_version).is_none_or(|version| version < (1, 2, 1)) {
        late_hooks("poststart", record, running, warn);
        return Ok(());
    }
    let plans = plan(record.hooks.as_ref().and_then(|all| all.poststart().as_ref()))?;
    if plans.is_empty() {
        return Ok(());
    }
    Ok(run("poststart", &plans, record.state_text(running).as_bytes())?)
}

/// Hooks whose failure is told of but changes nothing: what they follow has happened already.
pub(crate) fn late_hooks(moment: &'static str, record: &Record, status: ContainerState, warn: &dyn Fn(&str)) {
    let hooks = record.hooks.as_ref().and_then(|all| match moment {
        "poststart" => all.poststart().as_ref(),
        _ => all.poststop().as_ref(),
    });
    if hooks.is_none_or(Vec::is_empty) {
        return;
    }
    let state = record.state_text(status);
    match plan(hooks) {
        Err(error) => warn(&ContainerError::from(error).to_string()),
        // One by one: a hook that fails doesn't keep the ones behind it from running.
        Ok(plans) => {
            for error in plans.chunks(1).filter_map(|one| run(moment, one, state.as_bytes()).err()) {
                warn(&error.to_string());
            }
        }
    }
}

impl HookPlan {
    /// The program's path.
    pub(crate) fn path(&self) -> &CString {
        &self.path
    }

    /// Runs the hook with the parts of `state` on its standard input. Allocates nothing, so that the container's process
    /// can call it too. `None`: it ended well.
    pub(crate) fn run(&self, state: &[&[u8]]) -> nix::Result<Option<Outcome>> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        // SAFETY: the child calls nothing that allocates or locks, and ends in execve or _exit.
        let hook = match unsafe { clone3(0, None) }? {
            Side::Parent { pidfd, .. } => pidfd,
            Side::Child => self.become_program(&reader),
        };
        drop(reader);
        for part in state {
            // A hook that does not read its input closes it; that is its right.
            if write_all(&writer, part).is_err() {
                break;
            }
        }
        drop(writer);
        self.wait(&hook)
    }

    fn become_program(&self, reader: &OwnedFd) -> ! {
        if dup2_stdin(reader).is_ok() && close_on_exec_from(3).is_ok() {
            super::signals::restore_defaults();
            // `run` holds signals back for the container. A hook that did too could not even be asked to end.
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
            execute(&self.path, &self.arguments, &self.environment, None);
        }
        exit_now(127)
    }

    fn wait(&self, hook: &OwnedFd) -> nix::Result<Option<Outcome>> {
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let mut timed_out = false;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let patience = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut [PollFd::new(hook.as_fd(), PollFlags::POLLIN)], patience) {
                Ok(0) if left.is_some_and(|left| left.is_zero()) => {
                    timed_out = true;
                    pidfd_signal(hook, Signal::SIGKILL as i32)?;
                    break;
                }
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(match reap(hook)? {
            _ if timed_out => Some(Outcome::TimedOut),
            Ending::Status(0) => None,
            Ending::Status(status) => Some(Outcome::Status(status)),
            Ending::Signal(signal) => Some(Outcome::Signal(signal)),
        })
    }
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{HookPlan, Outcome, plan};
    use oci_spec::runtime::HookBuilder;

    fn shell(script: &str, timeout: i64) -> HookPlan {
        let arguments = ["sh", "-c", script].map(str::to_owned).to_vec();
        let hook = HookBuilder::default().path("/bin/sh").args(arguments).timeout(timeout).build().expect("a hook");
        plan(Some(&vec![hook])).expect("no NUL in it").remove(0)
    }

    #[test]
    fn a_hook_reads_the_state_and_its_status_counts() {
        let good = shell("test \"$(cat)\" = 'the state'", 10).run(&[b"the ", b"state"]);
        assert_eq!(good, Ok(None));
        assert_eq!(shell("exit 3", 10).run(&[b"unread"]), Ok(Some(Outcome::Status(3))));
    }

    #[test]
    fn a_hook_that_never_ends_is_ended() {
        assert_eq!(shell("while :; do :; done", 1).run(&[]), Ok(Some(Outcome::TimedOut)));
    }
}
