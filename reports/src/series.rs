//! The samples of a cell, sorted into those that count, those that failed and those of the warm-up.

use std::collections::BTreeMap;

use crate::model::{Cell, Outcome, Run, Timing};
use crate::stats::{Rounds, Sorted};

/// What became of a cell's starts.
#[derive(Clone, Debug)]
pub struct Series<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// Every proved start after the warm-up, in the order in which they were made.
    pub ready: Vec<Start<'a>>,
    /// Every proved start of the warm-up: shown, never counted.
    pub warmup: Vec<Start<'a>>,
    /// Failed starts after the warm-up: the round, and the reason.
    pub failed: Vec<(u32, &'a str)>,
    /// Failed starts of the warm-up.
    pub warmup_failed: Vec<(u32, &'a str)>,
}

/// A proved start.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Number of its round, warm-up included.
    pub round: u32,
    /// Which of the cell's instances.
    pub instance: u32,
    /// Its figures.
    pub timing: &'a Timing,
}

impl<'a> Series<'a> {
    /// The series of every cell, in the order of [`Run::cells`].
    pub fn of(run: &'a Run) -> Vec<Self> {
        let warmup: BTreeMap<u32, bool> = run.rounds.iter().map(|round| (round.index, round.warmup)).collect();
        let mut all: Vec<Self> = run.cells.iter().map(Self::empty).collect();
        for sample in &run.samples {
            let Some(series) = all.get_mut(sample.cell) else { continue };
            let warmup = warmup.get(&sample.round).copied().unwrap_or(false);
            match (&sample.outcome, warmup) {
                (Outcome::Ready(timing), warmup) => {
                    let start = Start { round: sample.round, instance: sample.instance, timing };
                    if warmup { &mut series.warmup } else { &mut series.ready }.push(start);
                }
                (Outcome::Failed { reason }, true) => series.warmup_failed.push((sample.round, reason)),
                (Outcome::Failed { reason }, false) => series.failed.push((sample.round, reason)),
            }
        }
        all
    }

    fn empty(cell: &'a Cell) -> Self {
        Self { cell, ready: Vec::new(), warmup: Vec::new(), failed: Vec::new(), warmup_failed: Vec::new() }
    }

    /// Start-up times in nanoseconds, as what medians over rounds are resampled from. `places`: the rounds after the warm-up, counted
    /// from 0.
    pub fn rounds(&self, places: &BTreeMap<u32, usize>) -> Rounds {
        let starts = self.ready.iter();
        Rounds::new(starts.filter_map(|start| Some((*places.get(&start.round)?, start.timing.ready_ns as f64))))
    }

    /// Some figure of every start that counts, sorted; none without one.
    pub fn sorted(&self, figure: impl Fn(&Timing) -> f64) -> Option<Sorted> {
        Sorted::new(self.ready.iter().map(|start| figure(start.timing)))
    }

    /// Why starts failed, each reason with its count, the most frequent first.
    pub fn reasons(&self) -> Vec<(&'a str, usize)> {
        let mut counts = BTreeMap::new();
        for (_, reason) in &self.failed {
            *counts.entry(*reason).or_insert(0) += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }
}
