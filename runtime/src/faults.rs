//! Faults on purpose: the process ends, as if killed, at the entry of a step. Only in builds with the feature `fault`,
//! which are those of the tests: they show that whatever step was the last one, the next command brings the host back.
//!
//! `ISOLAB_FAULT=<span>:kill` names the step. In the container's own process the fault ends that one, in the runtime the
//! runtime.

use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The variable that names the fault.
pub const VARIABLE: &str = "ISOLAB_FAULT";

/// The span at whose entry the process ends.
static SPAN: OnceLock<String> = OnceLock::new();

/// A fault that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE} is {0:?}, but it must be the name of a span, a colon and the word kill")]
pub struct FaultError(String);

/// Reads the fault from the environment; returns whether there is one. A recorder has to be installed for it to strike:
/// that is who hears of spans.
pub fn arm() -> Result<bool, FaultError> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(false) };
    let span = span_of(&text)?;
    SPAN.get_or_init(|| span);
    Ok(true)
}

fn span_of(text: &str) -> Result<String, FaultError> {
    match text.rsplit_once(':') {
        Some((span, "kill")) if !span.is_empty() => Ok(span.to_owned()),
        _ => Err(FaultError(text.to_owned())),
    }
}

/// Called at the entry of each span.
pub(crate) fn strike(span: &str) {
    if SPAN.get().is_some_and(|chosen| chosen == span) {
        // Nothing is undone and nothing told. The first process of a PID namespace is deaf to its own signals, so it leaves
        // by the other way that has no destructors.
        let _ = kill(Pid::this(), Signal::SIGKILL);
        crate::container::exit_at_once(128 + Signal::SIGKILL as i32);
    }
}

#[cfg(test)]
mod tests {
    use super::span_of;

    #[test]
    fn a_fault_is_a_span_and_a_word() {
        assert_eq!(span_of("rootfs.pivot:kill").ok().as_deref(), Some("rootfs.pivot"));
        for wrong in ["", ":kill", "rootfs.pivot", "rootfs.pivot:maim", "kill"] {
            assert!(span_of(wrong).is_err(), "{wrong}");
        }
    }
}
