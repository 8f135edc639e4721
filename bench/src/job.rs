//! The main job: from a request to a report.

use std::path::PathBuf;
use std::time::Instant;

use isolab_reports::folder::{self, FolderError, Record};
use isolab_reports::model::{Copies, CopyOutcome, Density, Fact, Host, Outcome, Run, Status, Stop};
use isolab_reports::{report, units};
use nix::errno::Errno;
use thiserror::Error;

use crate::host::{self, hybrid, roots::Roots};
use crate::plan::{Terms, plan};
use crate::record::{Beside, Frame, record};
use crate::runner::{self, Measured, Station};
use crate::subject::{Catalogue, Choice, Lab, LabError, LeftOut, PeerPath, Peers, SelectError, Subject};
use crate::suite::{copies, density, overhead, startup};
use crate::{clock, interrupt};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which suites, in the order in which they are measured.
    pub suites: Vec<Suite>,
    /// Which subjects.
    pub subjects: Choice,
    /// Peers that are not on `PATH`.
    pub peers: Vec<PeerPath>,
    /// How many at once, each number a cell for each subject.
    pub parallel: Vec<u32>,
    /// How long, and in which order.
    pub terms: Terms,
    /// How far the suite `density` goes.
    pub density: density::Terms,
    /// How far the suite `snapshot` goes.
    pub snapshot: copies::Terms,
    /// How far the suite `clone` goes.
    pub clone: copies::Terms,
    /// The lab's folders.
    pub roots: Roots,
    /// The report's folder.
    pub out: PathBuf,
    /// The command line, for the record.
    pub command: Vec<String>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// From nothing to READY.
    Startup,
    /// What the harness adds to that.
    Overhead,
    /// What instances alive at once cost in memory.
    Density,
    /// What it costs to save something that runs, and to go on from it.
    Snapshot,
    /// What linked and full clones cost.
    Clone,
}

impl Suite {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => startup::NAME,
            Self::Overhead => overhead::NAME,
            Self::Density => density::NAME,
            Self::Snapshot => copies::snapshot::NAME,
            Self::Clone => copies::clone::NAME,
        }
    }
}

/// Names of suites, separated by commas.
pub fn names(suites: &[Suite]) -> String {
    suites.iter().map(|suite| suite.name()).collect::<Vec<_>>().join(",")
}

/// Why there is no run.
#[derive(Debug, Error)]
pub enum JobError {
    /// The subjects can't be had.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The ground they stand on can't be had.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Ctrl-C could not be caught.
    #[error("cannot listen for signals")]
    Signals(#[source] Errno),
    /// The report can't be written to its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A choice that the suite does not leave.
    #[error("the suite {} has its own subjects", .0.name())]
    Fixed(Suite),
    /// The harness' own suite was to be measured beside others, which would be measured while it is.
    #[error("the suite {} is measured alone", .0.name())]
    Alone(Suite),
    /// None of the subjects can stay alive, so there is nothing to count.
    #[error("none of these subjects stays alive after READY")]
    NoneStays,
    /// Equal pages can't be merged here; why, in words.
    #[error("{0}")]
    Ksm(String),
    /// Neither of the two kinds whose copies are measured can be had.
    #[error("neither a microVM nor a container can be copied here")]
    NothingToCopy,
    /// Not one copy was made; why, in words.
    #[error("not one copy was made: {0}")]
    NothingCopied(String),
    /// Not one instance was alive; why, in words.
    #[error("not one instance was alive: {0}")]
    NothingAlive(String),
    /// There was no time for a single start.
    #[error("the time given was over before the first start")]
    NoTime,
    /// Ctrl-C came before anything was measured.
    #[error("interrupted before the first start")]
    Interrupted,
}

impl JobError {
    /// What to try next.
    pub fn hint(&self) -> String {
        match self {
            Self::Select(error) => error.hint(),
            Self::Lab(error) => error.hint().to_owned(),
            Self::Folder(error) => error.hint().to_owned(),
            Self::Signals(_) | Self::NothingCopied(_) => "isolab-bench doctor".to_owned(),
            Self::Fixed(_) => "leave --subjects and --parallel away, or choose --suite startup".to_owned(),
            Self::Alone(_) => "name it alone: --suite overhead".to_owned(),
            Self::NoneStays => "density is measured of process, container, microvm-app, runc, crun, bwrap".to_owned(),
            Self::NothingAlive(_) => "isolab-bench doctor; --reserve MIB leaves less memory untouched".to_owned(),
            Self::Ksm(_) => "leave --ksm away, or run as root on Linux 6.7 or newer".to_owned(),
            Self::NothingToCopy => "copies are made of the subjects microvm-app and container".to_owned(),
            Self::NoTime => "give it more: --budget 3m".to_owned(),
            Self::Interrupted => "nothing was measured, and nothing is left".to_owned(),
        }
    }
}

/// Measures, and writes the report. `begun` is when the budget began to run.
pub fn run(request: &Request, begun: Instant) -> Result<Run, JobError> {
    // What can be refused is refused before anything is made, and before minutes are spent.
    if let Choice::Named(names) = &request.subjects {
        Choice::check(names)?;
    }
    if request.suites.contains(&Suite::Overhead) {
        if request.suites.len() > 1 {
            return Err(JobError::Alone(Suite::Overhead));
        }
        if request.subjects != Choice::All || request.parallel != [1] {
            return Err(JobError::Fixed(Suite::Overhead));
        }
    }
    folder::check(&request.out)?;
    interrupt::listen().map_err(JobError::Signals)?;
    let run = measure(request, begun)?;
    folder::write_run(&request.out, Record::New(&run), &report::render(&run))?;
    Ok(run)
}

fn measure(request: &Request, begun: Instant) -> Result<Run, JobError> {
    let lab = Lab::open(request.roots.clone())?;
    // After the lab, and so dropped before it: what peers have mounted lies in the scratch folder, which could not be removed.
    let peers = Peers::at(request.peers.iter().cloned());
    let host = seen_by_all(request, &peers, host::record());
    let catalogue = Catalogue::new(&lab, &peers);
    if request.suites == [Suite::Overhead] {
        let process: Box<dyn Subject> = catalogue.get("process")?;
        let bare = overhead::Bare::new(&lab);
        let frame = frame(request, host, &overhead::stations(&*process, &bare), Vec::new());
        return carry_out(&frame, &overhead::stations(&*process, &bare), begun)
            .map(|run| record(frame, run, Beside::default()));
    }
    let (subjects, left_out) = catalogue.select(&request.subjects)?;
    for it in &left_out {
        eprintln!("left out: {}: {}; {}", it.name, it.reason, it.hint);
    }
    let startup = request.suites.contains(&Suite::Startup);
    let stations = if startup { startup::stations(&subjects, &request.parallel) } else { Vec::new() };
    let frame = frame(request, host, &stations, left_out);
    let measured = if startup { carry_out(&frame, &stations, begun)? } else { Measured::nothing() };
    let alone = request.suites.len() == 1;
    let mut beside = Beside::default();
    if request.suites.contains(&Suite::Density) {
        beside.density = climb(&subjects, &request.density, !alone)?;
    }
    if request.suites.contains(&Suite::Snapshot) {
        tell(Suite::Snapshot, &request.snapshot);
        beside.snapshot = copied(copies::snapshot::measure_all(&lab, &subjects, &request.snapshot), alone)?;
    }
    if request.suites.contains(&Suite::Clone) {
        tell(Suite::Clone, &request.clone);
        beside.clone = copied(copies::clone::measure_all(&lab, &subjects, &request.clone), alone)?;
    }
    Ok(record(frame, measured, beside))
}

/// The host as all subjects see it: without the second version of control groups where crun is to run beside the first.
fn seen_by_all(request: &Request, peers: &Peers, mut host: Host) -> Host {
    let wanted = match &request.subjects {
        Choice::All => true,
        Choice::Named(names) => names.iter().any(|name| name == "crun"),
    };
    if !wanted || !peers.has("crun") {
        return host;
    }
    let value = match hybrid::hide_unified() {
        Ok(false) => return host,
        Ok(true) => "version 2 is hidden from all subjects: crun starts nothing where it sees both".to_owned(),
        Err(errno) => format!("version 2 can't be hidden from crun, which starts nothing beside it: {errno}"),
    };
    let (area, name) = ("cgroup".to_owned(), "hidden".to_owned());
    host.facts.push(Fact { area, name, value, status: Status::Info, hint: None });
    host
}

fn tell(suite: Suite, terms: &copies::Terms) {
    let (rounds, seconds) = (terms.rounds, terms.budget.as_secs());
    eprintln!("measuring: {}, at most {rounds} rounds or {seconds} s", suite.name());
}

/// What a suite of copies came to. Beside other suites it may come to nothing, as density may.
fn copied(copies: Option<Copies>, alone: bool) -> Result<Option<Copies>, JobError> {
    let made = copies.as_ref().is_some_and(copies::any_done);
    if made || !alone {
        return Ok(copies);
    }
    let reason = copies.iter().flat_map(|copies| &copies.samples).find_map(|sample| match &sample.outcome {
        CopyOutcome::Failed { reason } => Some(reason.clone()),
        CopyOutcome::Done(_) => None,
    });
    Err(match (interrupt::received(), reason) {
        (Some(_), _) => JobError::Interrupted,
        (None, Some(reason)) => JobError::NothingCopied(reason),
        (None, None) => JobError::NothingToCopy,
    })
}

/// What is known before the first start.
fn frame(request: &Request, host: Host, stations: &[Station<'_>], left_out: Vec<LeftOut>) -> Frame {
    let rounds = if stations.is_empty() { 0 } else { request.terms.rounds };
    let mut plan = plan(&Terms { rounds, ..request.terms.clone() }, stations.len());
    if stations.is_empty() {
        (plan.warmup_rounds, plan.budget_s) = (0, None);
        plan.order.clear();
    }
    Frame {
        started: clock::date(),
        command: request.command.clone(),
        plan,
        host,
        cells: stations.iter().map(|station| station.cell.clone()).collect(),
        left_out,
    }
}

fn carry_out(frame: &Frame, stations: &[Station<'_>], begun: Instant) -> Result<Measured, JobError> {
    let rounds = frame.plan.rounds;
    let limit = frame.plan.budget_s.map_or_else(String::new, |seconds| format!(" or {seconds} s"));
    eprintln!("measuring: {}, at most {rounds} rounds{limit}", units::count(stations.len(), "cell"));
    let measured = runner::run(stations, &frame.plan, begun);
    if measured.samples.is_empty() {
        return Err(if measured.stopped == Stop::Interrupted { JobError::Interrupted } else { JobError::NoTime });
    }
    Ok(measured)
}

/// The suite `density`. Beside other suites it may come to nothing: the user has ended the run, or no subject can stay.
fn climb(
    subjects: &[Box<dyn Subject + '_>],
    terms: &density::Terms,
    beside: bool,
) -> Result<Option<Density>, JobError> {
    let (most, seconds) = (terms.most, terms.budget.as_secs());
    eprintln!("measuring: density, at most {most} instances alive or {seconds} s");
    let Some(density) = density::measure(subjects, terms).map_err(JobError::Ksm)? else {
        return if beside { Ok(None) } else { Err(JobError::NoneStays) };
    };
    if density::any_alive(&density) || beside {
        return Ok(Some(density));
    }
    let reason = density.ladders.iter().find_map(|ladder| ladder.reason.clone());
    Err(match (interrupt::received(), reason) {
        (Some(_), _) => JobError::Interrupted,
        (None, Some(reason)) => JobError::NothingAlive(reason),
        (None, None) => JobError::NoTime,
    })
}

/// Whether any start of a run was proved: without one there is nothing to compare.
pub fn any_proved(run: &Run) -> bool {
    run.samples.iter().any(|sample| matches!(sample.outcome, Outcome::Ready(_)))
        || run.density.as_ref().is_some_and(density::any_alive)
        || [&run.snapshot, &run.clone].into_iter().flatten().any(copies::any_done)
}
