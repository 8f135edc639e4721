//! The suites `snapshot` and `clone`: what it costs to keep a copy of something that runs, and to go on from it.
//!
//! Cells come in *groups* that stand on one original: a snapshot is taken, and then gone on from in several ways. Each round goes
//! through all groups, in an order of its own, so that what changes on the host meanwhile meets all of them alike. A copy counts
//! only if it proves itself by what its original alone was told.

pub mod clone;
mod measure;
pub mod snapshot;

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use isolab_reports::model::{Copies, CopyCell, CopyOutcome, CopySample, Cost, Stop};
use isolab_reports::stats::Random;

use crate::interrupt;
use crate::plan::shuffled;

/// How much to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Seed of the order.
    pub seed: u64,
    /// Rounds after the warm-up, at the most.
    pub rounds: u32,
    /// Wall-clock time of the suite, at the most.
    pub budget: Duration,
    /// Whether only the smaller half of all sizes is measured.
    pub quick: bool,
}

/// What came of a cell's acts in a round, by the cell's place in its group; one for each of those made at once.
type Outcomes = Vec<(usize, CopyOutcome)>;

/// Cells that are measured together.
pub(super) struct Group<'a> {
    cells: Vec<CopyCell>,
    /// Makes each cell's act once.
    act: Box<dyn FnMut() -> Outcomes + 'a>,
}

impl<'a> Group<'a> {
    /// Cells that stand on one original, which `begin` makes the first time it is wanted. Without it none of them is made.
    fn on<T: 'a>(
        cells: Vec<CopyCell>,
        begin: impl Fn() -> Result<T, String> + 'a,
        act: impl Fn(&T) -> Outcomes + 'a,
    ) -> Self {
        let (count, original) = (cells.len(), OnceCell::new());
        let act = move || match original.get_or_init(&begin) {
            Ok(original) => act(original),
            Err(reason) => all_failed(count, reason),
        };
        Self { cells, act: Box::new(act) }
    }
}

/// One act for a benchmark of its own: its cell's name, and how long it took in nanoseconds, or why it was not done.
pub type Single<'a> = (String, Box<dyn FnMut() -> Result<u64, String> + 'a>);

/// An act of a group. The rest of the group is made with it each time, since it stands on that.
fn single(group: std::rc::Rc<std::cell::RefCell<Group<'_>>>, place: usize) -> Single<'_> {
    let name = group.borrow().cells.get(place).map(|cell| cell.name.clone()).unwrap_or_default();
    let act = move || {
        let outcomes = (group.borrow_mut().act)();
        let own = outcomes.into_iter().find(|(other, _)| *other == place).map(|(_, outcome)| outcome);
        match own.ok_or("it was not made")? {
            CopyOutcome::Done(cost) => Ok(cost.ready_ns + cost.write_ns.unwrap_or(0)),
            CopyOutcome::Failed { reason } => Err(reason),
        }
    };
    (name, Box::new(act))
}

/// Every act of some groups.
fn singles<'a>(groups: impl IntoIterator<Item = Group<'a>>) -> Vec<Single<'a>> {
    let of_group = |group: Group<'a>| {
        let places = 0..group.cells.len();
        let group = std::rc::Rc::new(std::cell::RefCell::new(group));
        places.map(|place| single(group.clone(), place)).collect::<Vec<_>>()
    };
    groups.into_iter().flat_map(of_group).collect()
}

/// Rounds that fill caches and start originals.
const WARMUP: u32 = 1;

/// Carries out rounds until there are enough, the time is over, or the user says so.
fn measure(name: &str, mut groups: Vec<Group<'_>>, terms: &Terms) -> Copies {
    let begun = Instant::now();
    let mut copies = Copies {
        warmup_rounds: WARMUP,
        rounds: terms.rounds,
        budget_s: terms.budget.as_secs(),
        stopped: Stop::Complete,
        cells: groups.iter().flat_map(|group| group.cells.clone()).collect(),
        samples: Vec::new(),
    };
    let mut random = Random::new(terms.seed);
    let mut given_up = vec![false; groups.len()];
    let mut longest = Duration::ZERO;
    let all = WARMUP + terms.rounds;
    for round in 0..all {
        // A round that would not end in time is not begun: half a round tells less than none. One is made whatever it takes: without
        // it there would be nothing to tell.
        if round > WARMUP && begun.elapsed() + longest > terms.budget {
            copies.stopped = Stop::Budget;
            break;
        }
        let round_begun = Instant::now();
        for place in shuffled(groups.len(), &mut random) {
            if interrupt::received().is_some() {
                copies.stopped = Stop::Interrupted;
                return copies;
            }
            if round > WARMUP && begun.elapsed() > terms.budget {
                copies.stopped = Stop::Budget;
                return copies;
            }
            let first = groups.iter().take(place).map(|group| group.cells.len()).sum::<usize>();
            let (Some(group), Some(given_up)) = (groups.get_mut(place), given_up.get_mut(place)) else { continue };
            if *given_up {
                continue;
            }
            let outcomes = (group.act)();
            *given_up = hopeless(name, group, &outcomes);
            copies.samples.extend(samples(first, round, outcomes));
        }
        if round >= WARMUP {
            longest = longest.max(round_begun.elapsed());
        }
    }
    copies
}

/// Whether nothing of a group worked: then it is not tried again.
fn hopeless(name: &str, group: &Group<'_>, outcomes: &Outcomes) -> bool {
    let reasons: BTreeSet<&str> = outcomes.iter().filter_map(|(_, outcome)| reason(outcome)).collect();
    let cell = group.cells.first().map_or("", |cell| cell.name.as_str());
    for reason in &reasons {
        eprintln!("{name}: {cell}: {reason}");
    }
    outcomes.iter().all(|(_, outcome)| reason(outcome).is_some())
}

fn reason(outcome: &CopyOutcome) -> Option<&str> {
    match outcome {
        CopyOutcome::Failed { reason } => Some(reason),
        CopyOutcome::Done(_) => None,
    }
}

/// Numbers the acts of each cell.
fn samples(first: usize, round: u32, outcomes: Outcomes) -> Vec<CopySample> {
    let mut made = std::collections::BTreeMap::new();
    let sample = |(place, outcome)| {
        let next = made.entry(place).or_insert(0);
        *next += 1;
        CopySample { cell: first + place, round, instance: *next - 1, outcome }
    };
    outcomes.into_iter().map(sample).collect()
}

/// What was done, or why it was not.
fn outcome(done: Result<Cost, String>) -> CopyOutcome {
    match done {
        Ok(cost) => CopyOutcome::Done(cost),
        Err(reason) => CopyOutcome::Failed { reason },
    }
}

/// All cells of a group failed for one reason.
fn all_failed(count: usize, reason: &str) -> Outcomes {
    (0..count).map(|place| (place, CopyOutcome::Failed { reason: reason.to_owned() })).collect()
}

/// Whether any act was done.
pub fn any_done(copies: &Copies) -> bool {
    copies.samples.iter().any(|sample| matches!(sample.outcome, CopyOutcome::Done(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_at_once_is_numbered_cell_by_cell() {
        let done = || CopyOutcome::Done(Cost { ready_ns: 1, ..Cost::default() });
        let samples = samples(10, 3, vec![(0, done()), (2, done()), (2, done())]);
        let of: Vec<_> = samples.iter().map(|sample| (sample.cell, sample.round, sample.instance)).collect();
        assert_eq!(of, [(10, 3, 0), (12, 3, 0), (12, 3, 1)]);
    }
}
