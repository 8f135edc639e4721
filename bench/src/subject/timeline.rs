//! The steps that an engine told: JSON lines, one a finished span, with absolute `CLOCK_MONOTONIC` nanoseconds.

use isolab_reports::model::Phase;
use serde::Deserialize;

/// A finished span of an engine's, as it writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Span {
    /// `area.step`.
    pub name: String,
    /// Absolute start.
    pub start_ns: u64,
    /// Absolute end.
    pub end_ns: u64,
    /// Process that took the step.
    #[serde(default)]
    pub pid: u32,
    /// How many spans it lies within.
    #[serde(default)]
    pub depth: u32,
    /// The system call or ioctl.
    #[serde(default)]
    pub call: String,
    /// One sentence for a student.
    #[serde(default)]
    pub why: String,
}

/// Takes a timeline apart; the first line that is no span is the error.
pub(crate) fn parse(text: &str) -> Result<Vec<Span>, serde_json::Error> {
    text.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str).collect()
}

/// The steps that began before READY, as phases of a start that began at `zero`.
///
/// Between t0 and the first step the kernel made the process and the program came up: that is a phase of its own.
pub(crate) fn phases(spans: &[Span], zero: u64, ready: u64) -> Vec<Phase> {
    let mut phases: Vec<Phase> = spans.iter().filter(|span| span.start_ns < ready).map(|s| phase(s, zero)).collect();
    phases.sort_by_key(|phase| (phase.start_ns, phase.depth));
    if let Some(first) = phases.first() {
        let exec = Phase { name: EXEC.0.into(), start_ns: 0, duration_ns: first.start_ns, depth: 0, pid: first.pid };
        phases.insert(0, exec);
    }
    phases
}

/// The harness' own phases: name, call, why. This one ends where the first step that an engine tells begins ...
pub(crate) const EXEC: (&str, &str, &str) = (
    "harness.exec",
    "posix_spawn(3)",
    "the kernel makes a process, replaces its program, and the program comes up to its first step",
);

/// ... and this one where the subject tells nothing: `posix_spawn(3)` returns once the new program has replaced the old.
pub(crate) const SPAWN: (&str, &str, &str) =
    ("harness.spawn", "posix_spawn(3)", "the kernel makes a process and replaces its program by the subject's");

fn phase(span: &Span, zero: u64) -> Phase {
    Phase {
        name: span.name.as_str().into(),
        start_ns: span.start_ns.saturating_sub(zero),
        duration_ns: span.end_ns.saturating_sub(span.start_ns),
        depth: span.depth,
        pid: span.pid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
{"name":"bundle.load","start_ns":1500,"end_ns":1700,"pid":7,"depth":0,"call":"read(2)","why":"so"}
{"name":"container.clone3","start_ns":1700,"end_ns":1900,"pid":7,"depth":0,"call":"clone3(2)","why":"so","on":"x"}
{"name":"cgroup.destroy","start_ns":3000,"end_ns":3100,"pid":7,"depth":0,"call":"rmdir(2)","why":"so"}
"#;

    #[test]
    fn phases_count_from_the_start_and_end_with_ready() {
        let phases = phases(&parse(TEXT).unwrap(), 1000, 2500);
        let shape: Vec<_> = phases.iter().map(|p| (&*p.name, p.start_ns, p.duration_ns)).collect();
        assert_eq!(shape, [("harness.exec", 0, 500), ("bundle.load", 500, 200), ("container.clone3", 700, 200)]);
    }

    #[test]
    fn a_timeline_that_is_cut_short_is_an_error() {
        assert!(parse(&TEXT[..120]).is_err());
        assert_eq!(parse("\n").unwrap(), []);
        assert_eq!(phases(&[], 0, 9), []);
    }
}
