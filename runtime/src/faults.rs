//! Faults on purpose, at the entry of a step: the process ends as if killed, or the step fails. Only in builds with the
//! feature `fault`, which are those of the tests: they show that whatever step was the last one, nothing stays behind, or
//! the next command brings the host back.
//!
//! `ISOLAB_FAULT=<span>:kill` ends the process that takes the step: the runtime, or the container's own.
//! `ISOLAB_FAULT=<span>:error` lets the step fail with EIO: in the container's own process the first thing that it does in
//! the step, in the runtime the step as a whole.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The variable that names the fault.
pub const VARIABLE: &str = "ISOLAB_FAULT";

/// What happens, and at the entry of which span.
static FAULT: OnceLock<(String, Fault)> = OnceLock::new();
/// Whether the next thing that can fail shall.
static DUE: AtomicBool = AtomicBool::new(false);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Error,
}

/// A fault that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE} is {0:?}, but it must be the name of a span, a colon, and kill or error")]
pub struct FaultError(String);

/// Reads the fault from the environment; returns whether there is one. A recorder has to be installed for it to strike:
/// that is who hears of spans.
pub fn arm() -> Result<bool, FaultError> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(false) };
    let fault = read(&text)?;
    FAULT.get_or_init(|| fault);
    Ok(true)
}

fn read(text: &str) -> Result<(String, Fault), FaultError> {
    match text.rsplit_once(':') {
        Some((span, "kill")) if !span.is_empty() => Ok((span.to_owned(), Fault::Kill)),
        Some((span, "error")) if !span.is_empty() => Ok((span.to_owned(), Fault::Error)),
        _ => Err(FaultError(text.to_owned())),
    }
}

/// Called at the entry of each span.
pub(crate) fn strike(span: &str) {
    match FAULT.get().filter(|(chosen, _)| chosen == span) {
        None => {}
        Some((_, Fault::Error)) => DUE.store(true, Ordering::Relaxed),
        Some((_, Fault::Kill)) => {
            // Nothing is undone and nothing told. The first process of a PID namespace is deaf to its own signals, so it
            // leaves by the other way that has no destructors.
            let _ = kill(Pid::this(), Signal::SIGKILL);
            crate::container::exit_at_once(128 + Signal::SIGKILL as i32);
        }
    }
}

/// Called at the end of each span: what has not failed by now won't.
pub(crate) fn pass(span: &str) {
    if FAULT.get().is_some_and(|(chosen, _)| chosen == span) {
        DUE.store(false, Ordering::Relaxed);
    }
}

/// Whether what was just done shall count as failed.
pub(crate) fn due() -> bool {
    DUE.swap(false, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::{Fault, read};

    #[test]
    fn a_fault_is_a_span_and_a_word() {
        assert_eq!(read("rootfs.pivot:kill").ok(), Some(("rootfs.pivot".to_owned(), Fault::Kill)));
        assert_eq!(read("rootfs.mask:error").ok(), Some(("rootfs.mask".to_owned(), Fault::Error)));
        for wrong in ["", ":kill", "rootfs.pivot", "rootfs.pivot:maim", "kill"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
