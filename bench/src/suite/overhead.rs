//! What the harness itself adds to a start: the `process` subject through all of it, against the barest loop that could
//! measure the same, `posix_spawn(3)` and one blocking read(2).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use isolab_reports::model::{Outcome, Role, Run, Timing};
use isolab_reports::stats::{Interval, Rounds, percentile_interval};

use super::{cell, twin};
use crate::clock;
use crate::runner::Station;
use crate::subject::child::Ready;
use crate::subject::{About, Lab, Launch, Nonce, Started, Subject};

/// The suite's name.
pub const NAME: &str = "overhead";

/// The name of the barest loop's cell.
const BARE: &str = "process.bare";

/// The payload, started by nothing but `posix_spawn` and read.
pub struct Bare<'a> {
    lab: &'a Lab,
    about: About,
}

impl<'a> Bare<'a> {
    /// In a lab.
    pub fn new(lab: &'a Lab) -> Self {
        let about = About {
            name: BARE,
            role: Role::Subject,
            about: "The payload as a host process, started by a bare posix_spawn(3) and heard by one blocking read(2).",
            command: ["isolab-payload", "{}"].map(str::to_owned).into(),
            version: None,
        };
        Self { lab, about }
    }

    fn loop_body(&self, nonce: &Nonce) -> io::Result<Timing> {
        let (stdin, order) = io::pipe()?;
        let (answer, stdout) = io::pipe()?;
        let mut answer = File::from(OwnedFd::from(answer));
        let token = nonce.token();
        let mut said = vec![0; token.len()];
        let descriptors = vec![stdin.into(), stdout.into()];
        let folder = self.lab.scratch().path();
        let ready = Ready::new(self.lab.payload(), &[nonce.to_string()], &[], folder, descriptors)?;
        let zero = clock::now();
        let child = ready.spawn()?;
        answer.read_exact(&mut said)?;
        let ready = clock::now();
        if said != token {
            return Err(io::Error::other("it gave another nonce back"));
        }
        drop(order); // the end of its orders is the payload's end
        let (_, used) = child.wait()?;
        Ok(Timing {
            ready_ns: ready - zero,
            teardown_ns: clock::now() - ready,
            phases: Vec::new(),
            peak_rss_bytes: used.peak_rss_bytes,
            user_ns: used.user_ns,
            system_ns: used.system_ns,
        })
    }
}

impl Subject for Bare<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn launch(&self, _: u64, _: &Nonce) -> Result<Launch, String> {
        Err("the bare loop starts one at a time, and by itself".to_owned())
    }

    fn start(&self) -> Result<Started, String> {
        let timing = self.loop_body(&Nonce::new()).map_err(|error| format!("the bare loop failed: {error}"))?;
        Ok(Started { timing, spans: Vec::new() })
    }
}

/// The two, and the A/A twin of the first.
pub fn stations<'a>(process: &'a dyn Subject, bare: &'a Bare<'a>) -> Vec<Station<'a>> {
    let harness = cell(process, 1);
    vec![
        Station { cell: harness.clone(), subject: process },
        Station { cell: twin(&harness), subject: process },
        Station { cell: cell(bare, 1), subject: bare },
    ]
}

/// By how many nanoseconds the median start through the harness is longer than the bare one, with its 95 % interval.
pub fn added(run: &Run) -> Option<Interval> {
    let measured: Vec<u32> = run.rounds.iter().filter(|round| !round.warmup).map(|round| round.index).collect();
    let times = |name: &str| {
        let cell = run.cells.iter().position(|cell| cell.name == name)?;
        let starts = run.samples.iter().filter(|sample| sample.cell == cell);
        Some(Rounds::new(starts.filter_map(|sample| match &sample.outcome {
            Outcome::Ready(timing) => Some((measured.binary_search(&sample.round).ok()?, timing.ready_ns as f64)),
            Outcome::Failed { .. } => None,
        })))
    };
    let (harness, bare) = (times("process")?, times(BARE)?);
    let difference = |weights: &[u32]| Some(harness.median(weights)? - bare.median(weights)?);
    percentile_interval(measured.len(), run.plan.seed, difference)
}
