//! The schema of `run.json`: everything that one run of the lab saw, and nothing that it only concluded.
//!
//! Samples are kept raw, failures and warm-ups included, so that every figure of a report can be computed again from
//! this file alone. Times are nanoseconds on `CLOCK_MONOTONIC`; sizes are bytes. `docs/src/run-json.md` is the same schema
//! in prose.

mod copies;
mod density;
mod name;

pub use copies::{Act, Copies, CopyCell, CopyOutcome, CopySample, Cost, Sweep};
pub use density::{Density, Ended, Ladder, Rung};
pub use name::Name;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The schema version that this library writes.
///
/// Version 2 added [`Run::density`]: a reader of version 1 would call a run that only measured memory one in which nothing
/// was started. Version 3 added [`Run::snapshot`] and [`Run::clone`] for the same reason. A file of an older version is one of this
/// version without them.
pub const SCHEMA_VERSION: u32 = 3;

/// The oldest version that this library reads.
pub const OLDEST_VERSION: u32 = 1;

/// One run of the lab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// Start of the run, RFC 3339, UTC.
    pub started: String,
    /// End of the run, RFC 3339, UTC.
    pub finished: String,
    /// What made the file.
    pub tool: Tool,
    /// What was to be measured, in which order.
    pub plan: Plan,
    /// Why measuring stopped.
    pub stopped: Stop,
    /// Where it was measured.
    pub host: Host,
    /// What was measured, a cell each; samples and plan name cells by their place in this list.
    pub cells: Vec<Cell>,
    /// The state of the host in each round.
    pub rounds: Vec<Round>,
    /// What each phase's span says of itself, by span name.
    pub spans: BTreeMap<String, SpanText>,
    /// Every start, in the order in which it was made.
    pub samples: Vec<Sample>,
    /// Each cell against the baseline, as concluded when the run ended; a report computes them again.
    pub verdicts: Vec<Verdict>,
    /// What many instances alive at once cost, where that was measured; since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub density: Option<Density>,
    /// What a snapshot costs, and going on from it, where that was measured; since version 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Copies>,
    /// What a clone costs, where that was measured; since version 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone: Option<Copies>,
}

/// The program that made a run, and how it was called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Version of the lab.
    pub version: String,
    /// Git revision of the sources it was built from, where it was built in a checkout.
    pub revision: Option<String>,
    /// Whether the checkout had changes that no commit holds.
    pub dirty: Option<bool>,
    /// Version of the compiler.
    pub rustc: String,
    /// `release` or `debug`.
    pub profile: String,
    /// The command line; the program by its name.
    pub command: Vec<String>,
}

/// What was to be measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Names of the suites, separated by commas, for example `startup,density`. The rest of the plan is about the rounds of
    /// starts.
    pub suite: String,
    /// The seed of every random order.
    pub seed: u64,
    /// Rounds at the start that are kept, labelled, and left out of every statistic.
    pub warmup_rounds: u32,
    /// Rounds after those, at the most.
    pub rounds: u32,
    /// Wall-clock budget of all rounds, in seconds.
    pub budget_s: Option<u64>,
    /// For each round, warm-up included, the cells in the order in which they were to be started.
    pub order: Vec<Vec<usize>>,
}

/// Why measuring stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Every round of the plan was made.
    Complete,
    /// The time budget was used up.
    Budget,
    /// The user asked for it.
    Interrupted,
}

/// One thing that is measured: a subject, so many at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Unique name in this run: the subject's, with `@N` where N > 1 start at once, with `.again` for the A/A twin.
    pub name: String,
    /// The subject's name, for example `container`.
    pub subject: String,
    /// What part the cell plays.
    pub role: Role,
    /// How many are started at once, behind one barrier.
    pub parallel: u32,
    /// One sentence for a reader: what isolates the payload, what runs beneath it.
    pub about: String,
    /// The command line of one start, with `{}` where what differs between starts stood.
    pub command: Vec<String>,
    /// What the peer says its version is; none for our own.
    pub version: Option<String>,
    /// Whether it runs the payload, as nearly all do. One that runs something smaller shows what its mechanism costs at least, and is
    /// no answer to what starts faster. Files from before this field say nothing, and are taken to mean yes.
    #[serde(default = "yes")]
    pub payload: bool,
}

fn yes() -> bool {
    true
}

/// What part a cell plays in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What ratios are taken against: the host process.
    Baseline,
    /// One of ours.
    Subject,
    /// The A/A twin: a subject measured a second time under another name. What it differs by is noise.
    Control,
    /// Another project's program, on the same work.
    Peer,
}

/// The state of the host over one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Its number, from 0, warm-up included.
    pub index: u32,
    /// Whether it is one of the warm-up rounds.
    pub warmup: bool,
    /// Start of the round, nanoseconds since the run's start.
    pub start_ns: u64,
    /// Length of the round.
    pub duration_ns: u64,
    /// Load average over one minute at its start.
    pub load1: f64,
    /// Share of the round's CPU time that the hypervisor gave to others, 0 to 1 (`/proc/stat`, steal).
    pub steal: f64,
    /// Share of the round in which some task that is not ours waited for a CPU, 0 to 1 (PSI, `cpu some`); none where the
    /// kernel has no PSI.
    pub cpu_pressure: Option<f64>,
    /// Why the round counts as noisy, in words; empty where it does not.
    pub noisy: Vec<String>,
}

/// What a span says of itself, for the reader of a phase chart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanText {
    /// The system call or ioctl.
    pub call: String,
    /// One sentence a student can read.
    pub why: String,
}

/// One start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "name::Flat")]
pub struct Sample {
    /// Place of its cell in [`Run::cells`].
    pub cell: usize,
    /// Number of its round.
    pub round: u32,
    /// Which of the cell's `parallel` instances, from 0.
    pub instance: u32,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a start. A failure carries a reason and never a time.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The payload proved itself by its nonce.
    Ready(Timing),
    /// It did not.
    Failed {
        /// What went wrong, in words.
        reason: String,
    },
}

/// The figures of one proved start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// t0 to t1: from just before the start to the last byte of READY.
    pub ready_ns: u64,
    /// t1 to gone: from READY, by the order to exit, to the moment when nothing of the subject is left.
    pub teardown_ns: u64,
    /// The steps on the way, in order of their start.
    pub phases: Vec<Phase>,
    /// Largest resident set of a process of the subject's, in bytes (`ru_maxrss`).
    pub peak_rss_bytes: u64,
    /// CPU time in user mode of all its processes.
    pub user_ns: u64,
    /// CPU time in the kernel of all its processes.
    pub system_ns: u64,
}

/// One step of a start: a span of the engine's, or what the harness knows lies between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// `area.step`.
    pub name: Name,
    /// Start, nanoseconds after t0.
    pub start_ns: u64,
    /// Length.
    pub duration_ns: u64,
    /// How many spans it lies within: 0 for a phase of its own.
    pub depth: u32,
    /// Process that took the step, so that steps at the same time can be told apart; 0 where unknown.
    pub pid: u32,
}

/// The environment record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// CPU model, as `/proc/cpuinfo` names it.
    pub cpu: String,
    /// CPUs that the run could use.
    pub cpus: u32,
    /// Memory in all, in bytes.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// Hypervisor that the host itself runs under, where it does.
    pub hypervisor: Option<String>,
    /// Module behind `/dev/kvm`: `kvm_intel`, `kvm_amd`, `kvm_pvm`; none where there is no KVM to use.
    pub kvm_driver: Option<String>,
    /// Speed of guest kernel code against the same loop on the host, measured; 1 is native. None without KVM.
    pub guest_kernel_speed: Option<f64>,
    /// `v1`, `v2` or `hybrid`.
    pub cgroup: String,
    /// Whether the run was made inside an emulated machine, so that only ratios count.
    pub emulated: bool,
    /// Everything else that the doctor saw, in its order.
    pub facts: Vec<Fact>,
}

/// One finding of the doctor's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is about, for example `kvm`, `cgroup`, `memory`.
    pub area: String,
    /// Its name, unique in its area.
    pub name: String,
    /// What was seen.
    pub value: String,
    /// Whether that is good.
    pub status: Status,
    /// What to do about it, where it is not.
    pub hint: Option<String>,
}

/// Whether a finding is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing to do.
    Ok,
    /// A fact with no good or bad.
    Info,
    /// It works, but figures suffer or a feature is narrower.
    Warn,
    /// Something the lab could use is not there.
    Missing,
}

/// One cell against the baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Name of the cell.
    pub cell: String,
    /// Name of the cell it is held against.
    pub against: String,
    /// Ratio of the median start-up times; above 1 the cell is slower.
    pub ratio: f64,
    /// Lower end of the ratio's 95 % interval.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// What that means.
    pub word: Word,
}

/// What an interval of a ratio means, given a floor below which a difference is noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// The whole interval lies below 1, and past the noise floor.
    Faster,
    /// The whole interval lies above 1, and past the noise floor.
    Slower,
    /// The whole interval lies within 5 % of 1, or within the noise floor.
    NoDifference,
    /// Neither: more rounds would tell.
    Inconclusive,
}
