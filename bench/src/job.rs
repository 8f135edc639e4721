//! The main job: from a request to a report.

use std::path::PathBuf;
use std::time::Instant;

use isolab_reports::folder::{self, FolderError};
use isolab_reports::model::{Outcome, Run, Stop};
use isolab_reports::{report, units};
use nix::errno::Errno;
use thiserror::Error;

use crate::host::{self, roots::Roots};
use crate::plan::{Terms, plan};
use crate::record::{Frame, record};
use crate::runner::{self, Station};
use crate::subject::{Catalogue, Choice, Lab, LabError, LeftOut, PeerPath, Peers, SelectError, Subject};
use crate::suite::{overhead, startup};
use crate::{clock, interrupt};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which suite.
    pub suite: Suite,
    /// Which subjects.
    pub subjects: Choice,
    /// Peers that are not on `PATH`.
    pub peers: Vec<PeerPath>,
    /// How many at once, each number a cell for each subject.
    pub parallel: Vec<u32>,
    /// How long, and in which order.
    pub terms: Terms,
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
}

impl Suite {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => startup::NAME,
            Self::Overhead => overhead::NAME,
        }
    }
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
    /// The record can't be written as JSON.
    #[error("cannot write the record of the run")]
    Json(#[from] serde_json::Error),
    /// A choice that the suite does not leave.
    #[error("the suite {} has its own subjects", .0.name())]
    Fixed(Suite),
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
            Self::Json(_) | Self::Signals(_) => "isolab-bench doctor".to_owned(),
            Self::Fixed(_) => "leave --subjects and --parallel away, or choose --suite startup".to_owned(),
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
    if request.suite == Suite::Overhead && (request.subjects != Choice::All || request.parallel != [1]) {
        return Err(JobError::Fixed(request.suite));
    }
    folder::check(&request.out)?;
    interrupt::listen().map_err(JobError::Signals)?;
    let run = measure(request, begun)?;
    let text = serde_json::to_vec(&run)?;
    folder::write(&request.out, &report::render(&run, &text))?;
    Ok(run)
}

fn measure(request: &Request, begun: Instant) -> Result<Run, JobError> {
    let lab = Lab::open(request.roots.clone())?;
    let peers = Peers::at(request.peers.iter().cloned());
    let catalogue = Catalogue::new(&lab, &peers);
    match request.suite {
        Suite::Startup => {
            let (subjects, left_out) = catalogue.select(&request.subjects)?;
            for it in &left_out {
                eprintln!("left out: {}: {}; {}", it.name, it.reason, it.hint);
            }
            carry_out(request, &startup::stations(&subjects, &request.parallel), left_out, begun)
        }
        Suite::Overhead => {
            let process: Box<dyn Subject> = catalogue.get("process")?;
            let bare = overhead::Bare::new(&lab);
            carry_out(request, &overhead::stations(&*process, &bare), Vec::new(), begun)
        }
    }
}

fn carry_out(
    request: &Request,
    stations: &[Station<'_>],
    left_out: Vec<LeftOut>,
    begun: Instant,
) -> Result<Run, JobError> {
    let frame = Frame {
        started: clock::date(),
        command: request.command.clone(),
        plan: plan(&request.terms, stations.len()),
        host: host::record(),
        cells: stations.iter().map(|station| station.cell.clone()).collect(),
        left_out,
    };
    let rounds = frame.plan.rounds;
    let limit = frame.plan.budget_s.map_or_else(String::new, |seconds| format!(" or {seconds} s"));
    eprintln!("measuring: {}, at most {rounds} rounds{limit}", units::count(stations.len(), "cell"));
    let measured = runner::run(stations, &frame.plan, begun);
    if measured.samples.is_empty() {
        return Err(if measured.stopped == Stop::Interrupted { JobError::Interrupted } else { JobError::NoTime });
    }
    Ok(record(frame, measured))
}

/// Whether any start of a run was proved: without one there is nothing to compare.
pub fn any_proved(run: &Run) -> bool {
    run.samples.iter().any(|sample| matches!(sample.outcome, Outcome::Ready(_)))
}
