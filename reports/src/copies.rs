//! What snapshots and clones cost: medians with their intervals, lines over what is varied, and where two lines cross.
//!
//! A copy that shares is cheap to make and dear to write to; one that shares nothing is the other way round. So neither time alone says
//! anything. What counts is the *whole*: until the copy runs and has written again what it needs. Over that amount both ways are straight
//! lines, and where they cross the answer changes.

use std::collections::BTreeMap;

use crate::model::{Act, Copies, CopyCell, CopyOutcome, Cost, Sweep};
use crate::stats::{FEWEST_ROUNDS, Interval, Line, Resampled, Rounds, Sorted, Statistic, ols};

/// Everything that a report says of one of the two suites.
#[derive(Clone, Debug)]
pub struct Costs<'a> {
    /// As measured.
    pub copies: &'a Copies,
    /// Each cell, in the order of [`Copies::cells`].
    pub cells: Vec<Costed<'a>>,
    /// Cells that differ in one figure only.
    pub trends: Vec<Trend<'a>>,
}

/// One cell after the warm-up.
#[derive(Clone, Debug)]
pub struct Costed<'a> {
    /// The cell.
    pub cell: &'a CopyCell,
    /// What was done.
    pub done: Vec<&'a Cost>,
    /// What was not, and why; the warm-up's among them, as a cell that fails there is tried no more.
    pub failed: Vec<&'a str>,
    /// Median time until it was done or had proved itself, in nanoseconds, with its 95 % interval.
    pub ready: Option<Interval>,
    /// Median time until it had also written what it should.
    pub whole: Option<Interval>,
    /// The whole over all resamples, for ratios.
    resampled: Option<Resampled>,
}

/// Cells of one line: what they have in common, and the line.
#[derive(Clone, Debug)]
pub struct Trend<'a> {
    /// What they have in common.
    pub key: Key<'a>,
    /// Their places in [`Costs::cells`].
    pub cells: Vec<usize>,
    /// Over bytes written, or depth: least squares of the whole time, in nanoseconds. Over size: of the logarithm of the time until
    /// it was ready over that of the size, so that its slope is the power by which it grows. None for fewer than three points.
    pub line: Option<Line>,
}

/// What the cells of a trend have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key<'a> {
    /// What is copied.
    pub subject: &'a str,
    /// What is done.
    pub act: Act,
    /// What is varied.
    pub sweep: Sweep,
    /// Over size: one in how many bytes was written; else 1.
    pub share: u64,
}

/// Where two lines meet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Crossing {
    /// At so many bytes written, the one that shares is no longer the quicker.
    At(f64),
    /// Nowhere in what was measured: the one that shares is quicker throughout.
    Never,
    /// The one that shares nothing is quicker throughout.
    Always,
}

impl<'a> Costs<'a> {
    /// Computes everything.
    pub fn of(copies: &'a Copies, seed: u64) -> Self {
        let mut rounds: Vec<u32> = copies.samples.iter().map(|sample| sample.round).collect();
        rounds.retain(|round| *round >= copies.warmup_rounds);
        rounds.sort_unstable();
        rounds.dedup();
        let figures: Vec<_> = (0..copies.cells.len()).map(|cell| Figures::of(copies, cell, &rounds)).collect();
        let medians: Vec<_> = figures
            .iter()
            .flat_map(|it| [&it.ready, &it.whole])
            .map(|numbers| move |weights: &[u32]| numbers.median(weights))
            .collect();
        let statistics: Vec<Statistic<'_>> = medians.iter().map(|it| it as _).collect();
        let mut resampled = Resampled::all(rounds.len(), seed, &statistics).into_iter();
        let cells: Vec<Costed<'a>> = copies
            .cells
            .iter()
            .zip(figures)
            .map(|(cell, figures)| {
                let (ready, whole) = (resampled.next().flatten(), resampled.next().flatten());
                Costed {
                    cell,
                    done: figures.done,
                    failed: figures.failed,
                    ready: ready.as_ref().and_then(Resampled::interval),
                    whole: whole.as_ref().and_then(Resampled::interval),
                    resampled: whole,
                }
            })
            .collect();
        let trends = trends(&cells);
        Self { copies, cells, trends }
    }

    /// How many rounds after the warm-up there were.
    pub fn rounds(&self) -> usize {
        let rounds = self.copies.samples.iter().map(|sample| sample.round);
        rounds.filter(|round| *round >= self.copies.warmup_rounds).collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Whether there were enough rounds for intervals.
    pub fn is_bounded(&self) -> bool {
        self.rounds() >= FEWEST_ROUNDS
    }

    /// A trend by what its cells have in common.
    pub fn trend(&self, subject: &str, act: Act, sweep: Sweep) -> Option<&Trend<'a>> {
        // Over size, that with most sizes; of several, that of which most was written.
        let of = |trend: &&Trend<'_>| (trend.key.subject, trend.key.act, trend.key.sweep) == (subject, act, sweep);
        self.trends.iter().filter(of).max_by_key(|trend| (trend.cells.len(), std::cmp::Reverse(trend.key.share)))
    }

    /// The cells of a trend.
    pub fn of_trend(&self, trend: &Trend<'_>) -> impl Iterator<Item = &Costed<'a>> {
        trend.cells.iter().filter_map(|place| self.cells.get(*place))
    }

    /// The cell of the act beside which it is looked at ([`fuller`]), alike in all else; none where there is no such act.
    pub fn counterpart(&self, costed: &Costed<'_>) -> Option<&Costed<'a>> {
        let act = fuller(costed.cell.act)?;
        let alike = |other: &&Costed<'_>| {
            let of = |cell: &CopyCell| {
                (cell.sweep, cell.size_bytes, cell.dirty_bytes, cell.touch_bytes, cell.depth, cell.together)
            };
            other.cell.act == act && other.cell.subject == costed.cell.subject && of(other.cell) == of(costed.cell)
        };
        self.cells.iter().find(alike)
    }

    /// The whole time of a cell beside that of its counterpart.
    pub fn ratio(&self, costed: &Costed<'_>) -> Option<Interval> {
        let below = self.counterpart(costed)?;
        costed.resampled.as_ref()?.ratio(below.resampled.as_ref()?)
    }

    /// Where the line of the act that shares crosses that of the one that shares nothing, over what is written.
    pub fn crossing(&self, subject: &str, sharing: Act, full: Act) -> Option<Crossing> {
        let trend = self.trend(subject, sharing, Sweep::Touch)?;
        let (sharing, full) = (trend.line.as_ref()?, self.trend(subject, full, Sweep::Touch)?.line.as_ref()?);
        let most = self.of_trend(trend).map(|costed| costed.cell.touch_bytes).max()? as f64;
        let (ahead, closing) = (full.intercept.value - sharing.intercept.value, sharing.slope.value - full.slope.value);
        Some(match (ahead > 0.0, ahead - closing * most > 0.0) {
            (true, true) => Crossing::Never,
            (false, false) => Crossing::Always,
            _ => Crossing::At(ahead / closing),
        })
    }
}

impl Costed<'_> {
    /// The median of a figure, where it was measured.
    pub fn median(&self, figure: impl Fn(&Cost) -> Option<f64>) -> Option<f64> {
        Some(Sorted::new(self.done.iter().filter_map(|cost| figure(cost)))?.median())
    }

    /// By how much a first write is dearer than a second one, in nanoseconds.
    pub fn first_write(&self) -> Option<f64> {
        let writes = f64::from(self.cell.writes);
        self.median(|cost| Some((cost.write_ns? as f64 - cost.rewrite_ns? as f64) / writes).filter(|_| writes > 0.0))
    }

    /// Bytes of disk that it added.
    pub fn disk(&self) -> Option<f64> {
        self.median(|cost| cost.disk_bytes.map(|bytes| bytes as f64))
    }

    /// The same by the files' lengths.
    pub fn apparent(&self) -> Option<f64> {
        self.median(|cost| cost.apparent_bytes.map(|bytes| bytes as f64))
    }

    /// Memory of its own.
    pub fn memory(&self) -> Option<f64> {
        self.median(|cost| cost.memory_bytes.map(|bytes| bytes as f64))
    }

    /// Disk and memory together, of what was measured.
    pub fn bytes(&self) -> Option<f64> {
        match (self.disk(), self.memory()) {
            (None, None) => None,
            (disk, memory) => Some(disk.unwrap_or(0.0) + memory.unwrap_or(0.0)),
        }
    }
}

/// Until the copy runs and has written what it should.
fn whole(cost: &Cost) -> f64 {
    (cost.ready_ns + cost.write_ns.unwrap_or(0)) as f64
}

struct Figures<'a> {
    done: Vec<&'a Cost>,
    failed: Vec<&'a str>,
    ready: Rounds,
    whole: Rounds,
}

impl<'a> Figures<'a> {
    /// `rounds`: those after the warm-up; resamples count them from 0.
    fn of(copies: &'a Copies, cell: usize, rounds: &[u32]) -> Self {
        let samples = copies.samples.iter().filter(|sample| sample.cell == cell);
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for sample in samples {
            match (&sample.outcome, rounds.binary_search(&sample.round)) {
                (CopyOutcome::Failed { reason }, _) => failed.push(reason.as_str()),
                (CopyOutcome::Done(cost), Ok(round)) => done.push((round, cost)),
                (CopyOutcome::Done(_), Err(_)) => {}
            }
        }
        Self {
            failed,
            ready: Rounds::new(done.iter().map(|(round, cost)| (*round, cost.ready_ns as f64))),
            whole: Rounds::new(done.iter().map(|(round, cost)| (*round, whole(cost)))),
            done: done.into_iter().map(|(_, cost)| cost).collect(),
        }
    }
}

fn trends<'a>(cells: &[Costed<'a>]) -> Vec<Trend<'a>> {
    let mut places: BTreeMap<Key<'a>, Vec<usize>> = BTreeMap::new();
    for (place, costed) in cells.iter().enumerate() {
        let CopyCell { subject, act, sweep, size_bytes, dirty_bytes, .. } = costed.cell;
        let share = match (*sweep, *dirty_bytes) {
            (Sweep::Size, 0) => UNTOUCHED,
            (Sweep::Size, dirty_bytes) => size_bytes / dirty_bytes,
            _ => 1,
        };
        places.entry(Key { subject, act: *act, sweep: *sweep, share }).or_default().push(place);
    }
    let trend = |(key, places): (Key<'a>, Vec<usize>)| {
        let of = places.iter().filter_map(|place| cells.get(*place));
        let points: Vec<(f64, f64)> =
            of.flat_map(|costed| costed.done.iter().map(|cost| point(costed.cell, cost))).collect();
        Trend { key, line: ols(&points), cells: places }
    };
    places.into_iter().map(trend).collect()
}

/// One act as a point of its trend.
fn point(cell: &CopyCell, cost: &Cost) -> (f64, f64) {
    match cell.sweep {
        Sweep::Size => ((cell.size_bytes as f64).max(1.0).ln(), (cost.ready_ns as f64).max(1.0).ln()),
        Sweep::Touch => (cell.touch_bytes as f64, whole(cost)),
        Sweep::Depth => (f64::from(cell.depth), whole(cost)),
        Sweep::Together => (f64::from(cell.together), whole(cost)),
    }
}

impl Key<'_> {
    /// As a chart names it: `microvm-app eager`.
    pub fn name(&self) -> String {
        match (self.sweep, self.share) {
            (Sweep::Size, UNTOUCHED) => format!("{} {} · nothing written", self.subject, word(self.act)),
            (Sweep::Size, 2..) => format!("{} {} · 1 in {}", self.subject, word(self.act), self.share),
            _ => format!("{} {}", self.subject, word(self.act)),
        }
    }
}

/// The share of an original that has written nothing: one in endlessly many.
pub const UNTOUCHED: u64 = u64::MAX;

/// The act beside which one is looked at: of one that shares, that which shares nothing; of a save, a plain write.
pub fn fuller(act: Act) -> Option<Act> {
    match act {
        Act::Lazy | Act::Prefetched | Act::Served => Some(Act::Eager),
        Act::Linked => Some(Act::Full),
        Act::Diff => Some(Act::Create),
        Act::Create => Some(Act::Plain),
        _ => None,
    }
}

/// The word for an act.
pub fn word(act: Act) -> &'static str {
    match act {
        Act::Create => "create",
        Act::Plain => "plain write",
        Act::Diff => "changes",
        Act::Lazy => "lazy",
        Act::Eager => "eager",
        Act::Prefetched => "prefetched",
        Act::Served => "served",
        Act::Commit => "commit",
        Act::Checkpoint => "checkpoint",
        Act::Linked => "linked",
        Act::Full => "full",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CopySample, Stop};

    fn cell(act: Act, touch_bytes: u64) -> CopyCell {
        CopyCell {
            name: format!("vm {} {touch_bytes}", word(act)),
            subject: "vm".into(),
            act,
            sweep: Sweep::Touch,
            size_bytes: 1000,
            dirty_bytes: 500,
            touch_bytes,
            writes: touch_bytes as u32 / 10,
            depth: 1,
            together: 1,
            about: String::new(),
            command: Vec::new(),
        }
    }

    /// Linked: 100 to make and 3 a byte; full: 900 to make and 1 a byte. They cross at 400.
    fn copies(most: u64) -> Copies {
        let touches = [0, most / 2, most];
        let cells: Vec<CopyCell> =
            [Act::Linked, Act::Full].into_iter().flat_map(|act| touches.map(|touch| cell(act, touch))).collect();
        let cost = |cell: &CopyCell, round: u32| {
            let (made, each) = if cell.act == Act::Linked { (100, 3) } else { (900, 1) };
            let noise = u64::from(round % 2);
            Cost {
                ready_ns: made + noise,
                write_ns: Some(each * cell.touch_bytes),
                rewrite_ns: Some(cell.touch_bytes),
                ..Cost::default()
            }
        };
        let samples = (0..7).flat_map(|round| {
            let sample = move |(place, cell): (usize, &CopyCell)| {
                let outcome = CopyOutcome::Done(cost(cell, round));
                CopySample { cell: place, round, instance: 0, outcome }
            };
            cells.iter().enumerate().map(sample).collect::<Vec<_>>()
        });
        let samples = samples.collect();
        Copies { warmup_rounds: 1, rounds: 6, budget_s: 9, stopped: Stop::Complete, cells, samples }
    }

    #[test]
    fn lines_cross_where_sharing_no_longer_pays() {
        let copies = copies(800);
        let costs = Costs::of(&copies, 1);
        let Some(Crossing::At(bytes)) = costs.crossing("vm", Act::Linked, Act::Full) else { panic!("no crossing") };
        assert!((bytes - 400.0).abs() < 1.0, "{bytes}");
        assert_eq!(costs.rounds(), 6);
        let linked = &costs.cells[2];
        assert_eq!((linked.done.len(), linked.first_write()), (6, Some(20.0)));
        let ratio = costs.ratio(linked).expect("a counterpart");
        assert!((ratio.estimate - 2500.5 / 1700.5).abs() < 1e-9, "{ratio:?}");
        assert_eq!(costs.ratio(&costs.cells[5]), None, "a full copy has nothing fuller beside it");
    }

    #[test]
    fn where_little_is_written_sharing_always_pays() {
        let copies = copies(200);
        assert_eq!(Costs::of(&copies, 1).crossing("vm", Act::Linked, Act::Full), Some(Crossing::Never));
    }

    #[test]
    fn a_cell_that_failed_has_reasons_and_no_time() {
        let mut copies = copies(800);
        for sample in copies.samples.iter_mut().filter(|sample| sample.cell == 0) {
            sample.outcome = CopyOutcome::Failed { reason: "no room".into() };
        }
        let costs = Costs::of(&copies, 1);
        assert_eq!((costs.cells[0].ready, costs.cells[0].failed.len()), (None, 7));
    }
}
