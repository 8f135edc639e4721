//! The run: round after round, every cell once, until the plan, the budget or the user says that it is enough.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use isolab_reports::model::{Cell, Outcome, Plan, Round, Sample, SpanText, Stop};

use crate::clock;
use crate::host::noise::Probe;
use crate::interrupt;
use crate::progress::Progress;
use crate::subject::{Started, Subject, own_spans};

/// A cell, and what is started for it.
pub struct Station<'a> {
    /// As the report names it.
    pub cell: Cell,
    /// What is started.
    pub subject: &'a dyn Subject,
}

/// What a run saw.
#[derive(Debug)]
pub struct Measured {
    /// The state of the host in each round.
    pub rounds: Vec<Round>,
    /// Every start, in the order in which it was made.
    pub samples: Vec<Sample>,
    /// What each span says of itself.
    pub spans: BTreeMap<String, SpanText>,
    /// Why measuring stopped.
    pub stopped: Stop,
}

impl Measured {
    /// What a run without rounds saw of them.
    pub fn nothing() -> Self {
        Self { rounds: Vec::new(), samples: Vec::new(), spans: BTreeMap::new(), stopped: Stop::Complete }
    }
}

/// Carries out a plan. `begun` is when the command began: its budget counts from there.
pub fn run(stations: &[Station<'_>], plan: &Plan, begun: Instant) -> Measured {
    let mut runner = Runner {
        stations,
        plan,
        begun,
        zero: clock::now(),
        longest: Duration::ZERO,
        given_up: vec![false; stations.len()],
        progress: Progress::of(plan.order.len()),
        measured: Measured { rounds: Vec::new(), samples: Vec::new(), spans: own_spans(), stopped: Stop::Complete },
    };
    runner.measured.stopped = runner.all_rounds();
    runner.progress.end();
    runner.measured
}

struct Runner<'a> {
    stations: &'a [Station<'a>],
    plan: &'a Plan,
    begun: Instant,
    /// Start of the run on the clock.
    zero: u64,
    longest: Duration,
    /// Cells that never once started in the warm-up.
    given_up: Vec<bool>,
    progress: Progress,
    measured: Measured,
}

impl Runner<'_> {
    fn all_rounds(&mut self) -> Stop {
        for (index, order) in self.plan.order.iter().enumerate() {
            // A round that would not end in time is not begun: half a round tells less than none.
            if self.budget_left().is_some_and(|left| left < self.longest) {
                return Stop::Budget;
            }
            let begun = Instant::now();
            let ended = self.round(index as u32, order);
            self.longest = self.longest.max(begun.elapsed());
            if let Some(stop) = ended {
                return stop;
            }
            if index + 1 == self.plan.warmup_rounds as usize {
                self.give_up();
            }
            self.progress.round(index + 1, self.time_left(index + 1));
        }
        Stop::Complete
    }

    /// One round: each cell once, one right after the other. No pause: after 20 ms of idling the kernel makes the next
    /// start wait for an RCU grace period, and who came first would pay for all.
    fn round(&mut self, index: u32, order: &[usize]) -> Option<Stop> {
        let probe = Probe::start();
        let start = clock::now();
        let before = self.measured.samples.len();
        let mut stop = None;
        for &cell in order {
            if interrupt::received().is_some() {
                stop = Some(Stop::Interrupted);
                break;
            }
            // Only what hangs uses up the budget within a round.
            if self.budget_left() == Some(Duration::ZERO) {
                stop = Some(Stop::Budget);
                break;
            }
            self.start(cell, index);
        }
        let duration_ns = clock::now() - start;
        let noise = probe.finish();
        if self.measured.samples.len() > before {
            self.measured.rounds.push(Round {
                index,
                warmup: index < self.plan.warmup_rounds,
                start_ns: start - self.zero,
                duration_ns,
                load1: noise.load1,
                steal: noise.steal,
                cpu_pressure: noise.cpu_pressure,
                noisy: noise.noisy,
            });
        }
        stop
    }

    fn start(&mut self, cell: usize, round: u32) {
        let Some(station) = self.stations.get(cell) else { return };
        if self.given_up.get(cell).copied().unwrap_or(true) {
            return;
        }
        let parallel = station.cell.parallel;
        let started =
            if parallel == 1 { vec![station.subject.start()] } else { station.subject.start_together(parallel) };
        for (instance, started) in (0..).zip(started) {
            let outcome = match started {
                Ok(started) => self.proved(started, parallel),
                Err(reason) => Outcome::Failed { reason },
            };
            self.measured.samples.push(Sample { cell, round, instance, outcome });
        }
    }

    fn proved(&mut self, mut started: Started, parallel: u32) -> Outcome {
        for span in started.spans {
            // The first start that takes a step explains it for all.
            let text = || SpanText { call: span.call, why: span.why };
            self.measured.spans.entry(span.name).or_insert_with(text);
        }
        if parallel > 1 {
            // Steps within steps of starts that hinder each other say little, and would be most of the file.
            started.timing.phases.retain(|phase| phase.depth == 0);
        }
        Outcome::Ready(started.timing)
    }

    /// After the warm-up: a cell that never once started is shown as failed and started no more.
    fn give_up(&mut self) {
        let mut told = BTreeSet::new();
        for (cell, station) in self.stations.iter().enumerate() {
            let mut samples = self.measured.samples.iter().filter(|sample| sample.cell == cell).peekable();
            let reason = match samples.peek().map(|sample| &sample.outcome) {
                Some(Outcome::Failed { reason }) => reason.clone(),
                _ => continue,
            };
            if samples.all(|sample| matches!(sample.outcome, Outcome::Failed { .. })) {
                let warning = format!("warning: {} is given up: {reason}", station.cell.subject);
                if told.insert(warning.clone()) {
                    self.progress.say(&warning);
                }
                if let Some(given_up) = self.given_up.get_mut(cell) {
                    *given_up = true;
                }
            }
        }
    }

    fn budget_left(&self) -> Option<Duration> {
        let budget = Duration::from_secs(self.plan.budget_s?);
        Some(budget.saturating_sub(self.begun.elapsed()))
    }

    fn time_left(&self, done: usize) -> Duration {
        let spent = Duration::from_nanos(clock::now() - self.zero);
        let rest = (self.plan.order.len() - done) as f64 / done as f64;
        let left = spent.mul_f64(rest);
        self.budget_left().map_or(left, |budget| budget.min(left))
    }
}

#[cfg(test)]
mod tests {
    use isolab_reports::model::{Role, Timing};

    use super::*;
    use crate::plan::{Terms, plan};
    use crate::subject::{About, Launch, Nonce};

    /// A subject whose starts take no time, and whose outcome is told beforehand.
    struct Fake {
        about: About,
        outcome: Result<(), &'static str>,
    }

    fn fake(name: &'static str, outcome: Result<(), &'static str>) -> Fake {
        Fake { about: About { name, role: Role::Subject, about: "", command: Vec::new(), version: None }, outcome }
    }

    impl Subject for Fake {
        fn about(&self) -> &About {
            &self.about
        }

        fn launch(&self, _: u64, _: &Nonce) -> Result<Launch, String> {
            Err("a fake is never launched".to_owned())
        }

        fn start(&self) -> Result<Started, String> {
            self.outcome.map_err(str::to_owned)?;
            let timing =
                Timing { ready_ns: 1, teardown_ns: 1, phases: Vec::new(), peak_rss_bytes: 0, user_ns: 0, system_ns: 0 };
            Ok(Started { timing, spans: Vec::new() })
        }
    }

    fn station(subject: &Fake) -> Station<'_> {
        let name = subject.about.name.to_owned();
        let cell = Cell {
            name: name.clone(),
            subject: name,
            role: Role::Subject,
            parallel: 1,
            about: String::new(),
            command: Vec::new(),
            version: None,
            payload: true,
        };
        Station { cell, subject }
    }

    fn measure(budget_s: Option<u64>) -> (Plan, Measured) {
        let (good, bad) = (fake("good", Ok(())), fake("bad", Err("never")));
        let stations = [station(&good), station(&bad)];
        let terms = Terms { suite: "test".into(), seed: 5, warmup_rounds: 2, rounds: 4, budget_s };
        let plan = plan(&terms, stations.len());
        let measured = run(&stations, &plan, Instant::now());
        (plan, measured)
    }

    #[test]
    fn what_never_starts_is_given_up_after_the_warm_up_and_never_timed() {
        let (_, measured) = measure(None);
        let of = |cell| measured.samples.iter().filter(move |sample| sample.cell == cell);
        assert_eq!(of(0).filter(|sample| matches!(sample.outcome, Outcome::Ready(_))).count(), 6);
        assert!(of(1).all(|sample| sample.outcome == Outcome::Failed { reason: "never".into() }));
        assert_eq!(of(1).count(), 2);
        assert_eq!(measured.stopped, Stop::Complete);
    }

    #[test]
    fn starts_come_in_the_order_of_the_plan() {
        let (plan, measured) = measure(None);
        let warmup: Vec<usize> = measured.samples.iter().take(4).map(|sample| sample.cell).collect();
        assert_eq!(warmup, plan.order.concat()[..4]);
        let labels: Vec<(u32, bool)> = measured.rounds.iter().map(|round| (round.index, round.warmup)).collect();
        assert_eq!(labels, [(0, true), (1, true), (2, false), (3, false), (4, false), (5, false)]);
    }

    #[test]
    fn a_budget_that_is_used_up_ends_the_run() {
        let (_, measured) = measure(Some(0));
        assert_eq!((measured.stopped, measured.samples.len(), measured.rounds.len()), (Stop::Budget, 0, 0));
    }
}
