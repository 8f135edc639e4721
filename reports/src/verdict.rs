//! Each cell against the baseline, in words that its interval bears out.
//!
//! The effect is the ratio of median start-up times; its interval comes from resampling whole rounds, so that what
//! disturbed both cells in a round cancels. Warm-up rounds and failed starts take no part. What counts as a difference
//! at all is measured in the same run: the A/A twin shows how far a cell differs from itself.

use std::collections::BTreeMap;

use crate::model::{Cell, Role, Run, Verdict, Word};
use crate::series::Series;
use crate::stats::{Interval, Resampled, Statistic};

/// Within this of 1, a ratio is no difference worth a word, however sure it is.
pub const EQUIVALENCE: f64 = 0.05;

/// How far a cell differs from itself: the smallest difference that this run could tell from nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseFloor {
    /// Name of the A/A twin.
    pub cell: String,
    /// Name of the cell it repeats.
    pub against: String,
    /// Ratio of the medians of the two, with its 95 % interval.
    pub interval: Interval,
}

impl NoiseFloor {
    /// The floor itself, as a share of 1: how far from 1 the farther end of the interval lies.
    pub fn floor(&self) -> f64 {
        (self.interval.low - 1.0).abs().max((self.interval.high - 1.0).abs())
    }

    /// Whether the interval holds 1, as it must where order and clock are fair.
    pub fn holds_one(&self) -> bool {
        self.interval.low <= 1.0 && 1.0 <= self.interval.high
    }
}

/// Every cell that has something to be held against, in the order of [`Run::cells`].
///
/// A cell is held against the baseline's cell with as many starts at once; the A/A twin against the cell it repeats. A cell without a
/// single proved start after the warm-up has no verdict, and none that too few rounds say anything about.
pub fn verdicts(run: &Run) -> Vec<Verdict> {
    let medians = Medians::of(run, Series::of(run), run.plan.seed);
    let floor = noise_floor_of(&medians).map_or(0.0, |noise| noise.floor());
    let mut verdicts = verdicts_of(&medians, floor);
    verdicts.retain(|verdict| verdict.interval().is_bounded());
    verdicts
}

/// Each cell's samples, and its median over the run's resamples.
pub(crate) struct Medians<'a> {
    pub(crate) series: Vec<Series<'a>>,
    resampled: Vec<Option<Resampled>>,
}

impl<'a> Medians<'a> {
    /// Resamples all cells at once.
    pub(crate) fn of(run: &Run, series: Vec<Series<'a>>, seed: u64) -> Self {
        let measured = run.rounds.iter().filter(|round| !round.warmup);
        let places: BTreeMap<u32, usize> = measured.enumerate().map(|(place, round)| (round.index, place)).collect();
        let rounds: Vec<_> = series.iter().map(|series| series.rounds(&places)).collect();
        let medians: Vec<_> = rounds.iter().map(|rounds| move |weights: &[u32]| rounds.median(weights)).collect();
        let statistics: Vec<Statistic<'_>> = medians.iter().map(|it| it as _).collect();
        let resampled = Resampled::all(places.len(), seed, &statistics);
        Self { series, resampled }
    }

    /// A cell's median with its interval.
    pub(crate) fn median(&self, cell: usize) -> Option<Interval> {
        self.resampled.get(cell)?.as_ref()?.interval()
    }

    /// The ratio of two cells' medians.
    pub(crate) fn ratio(&self, above: usize, below: usize) -> Option<Interval> {
        self.resampled.get(above)?.as_ref()?.ratio(self.resampled.get(below)?.as_ref()?)
    }

    /// A cell's median over the resamples.
    pub(crate) fn resampled(&self, cell: usize) -> Option<&Resampled> {
        self.resampled.get(cell)?.as_ref()
    }
}

/// The noise floor; none where no A/A twin and its original were both started, or not often enough.
///
/// Of several twins, the one with the widest floor speaks.
pub fn noise_floor(run: &Run) -> Option<NoiseFloor> {
    noise_floor_of(&Medians::of(run, Series::of(run), run.plan.seed))
}

pub(crate) fn noise_floor_of(medians: &Medians<'_>) -> Option<NoiseFloor> {
    let series = &medians.series;
    let twins = series.iter().enumerate().filter(|(_, series)| series.cell.role == Role::Control);
    let floors = twins.filter_map(|(place, twin)| {
        let original = original_of(series, twin.cell)?;
        let interval = medians.ratio(place, original).filter(Interval::is_bounded)?;
        Some(NoiseFloor { cell: twin.cell.name.clone(), against: series.get(original)?.cell.name.clone(), interval })
    });
    floors.max_by(|a, b| a.floor().total_cmp(&b.floor()))
}

pub(crate) fn verdicts_of(medians: &Medians<'_>, floor: f64) -> Vec<Verdict> {
    let series = &medians.series;
    let verdict = |(place, one): (usize, &Series<'_>)| {
        let (against, floor) = match one.cell.role {
            Role::Baseline => return None,
            // The twin makes the floor; it can't also be judged by it.
            Role::Control => (original_of(series, one.cell)?, 0.0),
            Role::Subject | Role::Peer => (baseline_of(series, one.cell)?, floor),
        };
        let interval = medians.ratio(place, against)?;
        Some(Verdict {
            cell: one.cell.name.clone(),
            against: series.get(against)?.cell.name.clone(),
            ratio: interval.estimate,
            low: interval.low,
            high: interval.high,
            word: word(&interval, floor),
        })
    };
    series.iter().enumerate().filter_map(verdict).collect()
}

impl Verdict {
    /// The ratio with its interval.
    pub fn interval(&self) -> Interval {
        Interval { estimate: self.ratio, low: self.low, high: self.high }
    }
}

/// What an interval of a ratio means.
pub fn word(interval: &Interval, floor: f64) -> Word {
    let tolerance = EQUIVALENCE.max(floor);
    if 1.0 - tolerance <= interval.low && interval.high <= 1.0 + tolerance {
        Word::NoDifference
    } else if interval.low > 1.0 + floor {
        Word::Slower
    } else if interval.high < 1.0 - floor {
        Word::Faster
    } else {
        Word::Inconclusive
    }
}

/// The place of the cell that an A/A twin repeats: same subject, as many at once.
fn original_of(series: &[Series<'_>], twin: &Cell) -> Option<usize> {
    let alike = |cell: &Cell| cell.subject == twin.subject && cell.parallel == twin.parallel;
    series.iter().position(|series| series.cell.role != Role::Control && alike(series.cell))
}

/// The place of the baseline's cell with as many starts at once.
fn baseline_of(series: &[Series<'_>], cell: &Cell) -> Option<usize> {
    series.iter().position(|series| series.cell.role == Role::Baseline && series.cell.parallel == cell.parallel)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(low: f64, high: f64) -> Interval {
        Interval { estimate: f64::midpoint(low, high), low, high }
    }

    #[test]
    fn a_word_is_said_only_where_the_whole_interval_bears_it_out() {
        let words =
            [(1.2, 1.4), (0.6, 0.8), (0.97, 1.04), (0.9, 1.3), (1.001, 1.2)].map(|(l, h)| word(&interval(l, h), 0.0));
        let expected = [Word::Slower, Word::Faster, Word::NoDifference, Word::Inconclusive, Word::Slower];
        assert_eq!(words, expected);
    }

    #[test]
    fn no_difference_below_the_noise_floor_is_called_one() {
        assert_eq!(word(&interval(1.06, 1.09), 0.0), Word::Slower);
        assert_eq!(word(&interval(1.06, 1.09), 0.1), Word::NoDifference);
        assert_eq!(word(&interval(1.06, 1.20), 0.1), Word::Inconclusive);
        assert_eq!(word(&interval(1.11, 1.20), 0.1), Word::Slower);
    }

    #[test]
    fn the_floor_is_the_farther_end_of_the_twins_interval() {
        let noise =
            |low, high| NoiseFloor { cell: "a.again".into(), against: "a".into(), interval: interval(low, high) };
        assert!((noise(0.96, 1.02).floor() - 0.04).abs() < 1e-12);
        assert!(noise(0.96, 1.02).holds_one());
        assert!(!noise(1.01, 1.05).holds_one());
    }
}
