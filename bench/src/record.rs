//! The record of a run, put together: `run.json`.

use std::path::Path;

use isolab_reports::model::{Cell, Copies, Density, Fact, Host, Plan, Run, SCHEMA_VERSION, Status, Tool};
use isolab_reports::verdict::verdicts;

use crate::clock;
use crate::runner::Measured;
use crate::subject::LeftOut;

/// What is known before the first start.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The date at which the run began.
    pub started: String,
    /// The command line.
    pub command: Vec<String>,
    /// What was to be measured.
    pub plan: Plan,
    /// The environment.
    pub host: Host,
    /// The cells, in the order in which plan and samples count them.
    pub cells: Vec<Cell>,
    /// What could not be measured.
    pub left_out: Vec<LeftOut>,
}

/// What other suites than those of starts saw.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// What instances alive at once cost.
    pub density: Option<Density>,
    /// What snapshots cost.
    pub snapshot: Option<Copies>,
    /// What clones cost.
    pub clone: Option<Copies>,
}

/// The whole record, with its verdicts.
pub fn record(frame: Frame, measured: Measured, beside: Beside) -> Run {
    let Frame { started, command, plan, mut host, cells, left_out } = frame;
    host.facts.extend(left_out.into_iter().map(fact));
    let mut run = Run {
        schema_version: SCHEMA_VERSION,
        started,
        finished: clock::date(),
        tool: tool(command),
        plan,
        stopped: measured.stopped,
        host,
        cells,
        rounds: measured.rounds,
        spans: measured.spans,
        samples: measured.samples,
        verdicts: Vec::new(),
        density: beside.density,
        snapshot: beside.snapshot,
        clone: beside.clone,
    };
    run.verdicts = verdicts(&run);
    run
}

/// This program, as its build script saw it, and its command line.
fn tool(mut command: Vec<String>) -> Tool {
    // By its name: where it lies tells of somebody's folders, and nothing of the run.
    if let Some(program) = command.first_mut() {
        let name = Path::new(program).file_name().map(|name| name.to_string_lossy().into_owned());
        *program = name.unwrap_or_default();
    }
    let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Tool {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: known(env!("ISOLAB_REVISION")),
        dirty: env!("ISOLAB_DIRTY").parse().ok(),
        rustc: env!("ISOLAB_RUSTC").to_owned(),
        profile: env!("ISOLAB_PROFILE").to_owned(),
        command,
    }
}

/// A report lists every fact of this area as left out.
fn fact(left_out: LeftOut) -> Fact {
    Fact {
        area: "subject".to_owned(),
        name: left_out.name.to_owned(),
        value: format!("left out: {}", left_out.reason),
        status: Status::Missing,
        hint: Some(left_out.hint),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use isolab_reports::model::{Outcome, Role, Round, Sample, Stop, Timing, Word};
    use isolab_reports::read;

    use super::*;
    use crate::plan::{Terms, plan};

    fn cell(name: &str, role: Role) -> Cell {
        Cell {
            name: name.to_owned(),
            subject: name.to_owned(),
            role,
            parallel: 1,
            about: "x".into(),
            command: vec!["x".into()],
            version: None,
            payload: true,
        }
    }

    fn host() -> Host {
        Host {
            cpu: "cpu".into(),
            cpus: 2,
            memory_bytes: 1,
            kernel: "6".into(),
            hypervisor: None,
            kvm_driver: None,
            guest_kernel_speed: None,
            cgroup: "v2".into(),
            emulated: false,
            facts: Vec::new(),
        }
    }

    fn sample(cell: usize, round: u32, ready_ns: u64) -> Sample {
        let timing =
            Timing { ready_ns, teardown_ns: 1, phases: Vec::new(), peak_rss_bytes: 1, user_ns: 1, system_ns: 1 };
        Sample { cell, round, instance: 0, outcome: Outcome::Ready(timing) }
    }

    fn round(index: u32) -> Round {
        Round {
            index,
            warmup: index < 1,
            start_ns: 0,
            duration_ns: 1,
            load1: 0.0,
            steal: 0.0,
            cpu_pressure: None,
            noisy: Vec::new(),
        }
    }

    #[test]
    fn a_record_is_what_a_report_reads() {
        let terms = Terms { suite: "startup".into(), seed: 1, warmup_rounds: 1, rounds: 8, budget_s: Some(9) };
        let cells = vec![cell("process", Role::Baseline), cell("container", Role::Subject)];
        let left_out = LeftOut { name: "runc", reason: "not on PATH".into(), hint: "install it".into() };
        let frame = Frame {
            started: clock::date(),
            command: vec!["/home/somebody/isolab-bench".into(), "run".into()],
            plan: plan(&terms, cells.len()),
            host: host(),
            cells,
            left_out: vec![left_out],
        };
        let samples = (0..9).flat_map(|index| [sample(0, index, 1000), sample(1, index, 5000)]).collect();
        let measured =
            Measured { rounds: (0..9).map(round).collect(), samples, spans: BTreeMap::new(), stopped: Stop::Complete };
        let run = record(frame, measured, Beside::default());
        assert_eq!(run.verdicts.len(), 1);
        assert_eq!((run.verdicts[0].cell.as_str(), run.verdicts[0].word), ("container", Word::Slower));
        assert_eq!(run.host.facts[0].value, "left out: not on PATH");
        assert_eq!(run.tool.command, ["isolab-bench", "run"]);
        assert_eq!(read::read(&serde_json::to_string(&run).unwrap()).unwrap(), run);
    }
}
