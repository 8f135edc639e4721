//! Everything that a report says, computed once from the run: charts, page and tables only lay it out.

use crate::copies::Costs;
use crate::density::Crowd;
use crate::model::{Cell, Copies, Role, Round, Run, Timing, Verdict};
use crate::phases::{Step, all_steps, steps};
use crate::series::Series;
use crate::stats::{Interval, Outlier, Sorted, permutation_test};
use crate::verdict::{Medians, NoiseFloor, noise_floor_of, verdicts_of};

/// How many samples a 99th percentile needs before it is printed: with fewer, it is the maximum under another name.
pub const SAMPLES_FOR_P99: usize = 100;

/// A run with all that follows from it.
#[derive(Clone, Debug)]
pub struct Analysis<'a> {
    /// The run itself.
    pub run: &'a Run,
    /// A summary of each cell, in the order of [`Run::cells`].
    pub cells: Vec<Summary<'a>>,
    /// How far the A/A twin differs from the cell it repeats.
    pub noise: Option<NoiseFloor>,
    /// Each two of the compared cells, the slower first: the fastest cells' pairs first.
    pub pairs: Vec<Pair>,
    /// What instances cost in memory, where that was measured.
    pub density: Option<Crowd<'a>>,
    /// What snapshots cost, where that was measured.
    pub snapshot: Option<Costs<'a>>,
    /// What clones cost, where that was measured.
    pub clone: Option<Costs<'a>>,
}

/// Two cells.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Place of the slower one in [`Analysis::cells`].
    pub slower: usize,
    /// Place of the faster one.
    pub faster: usize,
    /// Ratio of the slower one's median start-up time to the faster one's, with its 95 % interval.
    pub interval: Interval,
}

/// Each two of the cells that start one at a time, without the A/A twin.
fn pairs(medians: &Medians<'_>, cells: &[Summary<'_>]) -> Vec<Pair> {
    let compared = |summary: &Summary<'_>| summary.cell().parallel == 1 && summary.cell().role != Role::Control;
    let median = |summary: &Summary<'_>| summary.figures.as_ref().map(|figures| figures.median.estimate);
    let cells = cells.iter().enumerate().filter(|(_, summary)| compared(summary));
    let mut cells: Vec<_> = cells.filter_map(|(place, summary)| Some((median(summary)?, place))).collect();
    cells.sort_by(|a, b| a.0.total_cmp(&b.0));
    let with_faster = |(rank, (_, slower)): (usize, &(f64, usize))| {
        let faster = cells.iter().take(rank).filter_map(|(_, faster)| {
            let interval = medians.ratio(*slower, *faster)?;
            Some(Pair { slower: *slower, faster: *faster, interval })
        });
        faster.collect::<Vec<_>>()
    };
    cells.iter().enumerate().flat_map(with_faster).collect()
}

/// What a cell came to.
#[derive(Clone, Debug)]
pub struct Summary<'a> {
    /// Its samples.
    pub series: Series<'a>,
    /// Its figures; none without a proved start.
    pub figures: Option<Figures>,
    /// Against the baseline; none for the baseline itself.
    pub verdict: Option<Verdict>,
    /// Its typical start, step by step, depth 0.
    pub steps: Vec<Step>,
    /// The same with the steps within steps.
    pub all_steps: Vec<Step>,
    /// How its starts changed over the run; none for few of them, or where several start at once.
    pub drift: Option<Drift>,
}

/// The first half of a run against the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// Median start-up time of the first half of the starts, in nanoseconds.
    pub first: f64,
    /// Median of the second half.
    pub second: f64,
    /// How often chance alone would part the two as far (permutation test).
    pub p: f64,
}

impl Drift {
    /// Fewest starts that are worth halving.
    const FEWEST: usize = 8;
    /// Most numbers that are shuffled. Of a longer run, medians of as many starts in a row each.
    const MOST: usize = 256;

    fn of(run: &Run, series: &Series<'_>) -> Option<Self> {
        if series.cell.parallel > 1 || series.ready.len() < Self::FEWEST {
            return None;
        }
        let mut starts = series.ready.clone();
        starts.sort_by_key(|start| start.round);
        let times: Vec<f64> = starts.iter().map(|start| start.timing.ready_ns as f64).collect();
        let in_a_row = times.len().div_ceil(Self::MOST);
        let blocks = times.chunks(in_a_row).filter_map(|block| Sorted::new(block.iter().copied()));
        let times: Vec<f64> = blocks.map(|block| block.median()).collect();
        let (first, second) = times.split_at(times.len() / 2);
        let median = |half: &[f64]| Sorted::new(half.iter().copied()).map(|half| half.median());
        Some(Self {
            first: median(first)?,
            second: median(second)?,
            p: permutation_test(first, second, run.plan.seed)?,
        })
    }
}

/// The figures of the proved starts after the warm-up. Times are nanoseconds, sizes bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Start-up times, ascending.
    pub ready: Sorted,
    /// Median start-up time with its 95 % interval.
    pub median: Interval,
    /// 90th percentile.
    pub p90: f64,
    /// The far end of the tail.
    pub tail: Tail,
    /// Starts past Tukey's inner, but not past his outer fences.
    pub mild: usize,
    /// Starts past the outer fences.
    pub severe: usize,
    /// Median tear-down time.
    pub teardown: f64,
    /// Median of the peak resident set.
    pub peak_rss: f64,
    /// Median CPU time in user mode.
    pub user: f64,
    /// Median CPU time in the kernel.
    pub system: f64,
}

/// What the samples can say of the tail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tail {
    /// The 99th percentile, of at least [`SAMPLES_FOR_P99`] samples.
    P99(f64),
    /// The maximum, of fewer.
    Max(f64),
}

impl Tail {
    /// Its value.
    pub fn value(self) -> f64 {
        match self {
            Self::P99(value) | Self::Max(value) => value,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::P99(_) => "p99",
            Self::Max(_) => "max",
        }
    }
}

impl<'a> Analysis<'a> {
    /// Computes everything.
    pub fn of(run: &'a Run) -> Self {
        let medians = Medians::of(run, Series::of(run), run.plan.seed);
        let noise = noise_floor_of(&medians);
        let verdicts = verdicts_of(&medians, noise.as_ref().map_or(0.0, NoiseFloor::floor));
        let summary =
            |(place, series): (usize, &Series<'a>)| Summary::of(run, series.clone(), medians.median(place), &verdicts);
        let cells: Vec<_> = medians.series.iter().enumerate().map(summary).collect();
        let pairs = pairs(&medians, &cells);
        let costs = |copies: &'a Option<Copies>| copies.as_ref().map(|copies| Costs::of(copies, run.plan.seed));
        let density = run.density.as_ref().map(Crowd::of);
        Self { run, cells, noise, pairs, density, snapshot: costs(&run.snapshot), clone: costs(&run.clone) }
    }

    /// What the suites of copies came to, each with its name.
    pub fn copies(&self) -> impl Iterator<Item = (&'static str, &Costs<'a>)> {
        let named = [("snapshot", &self.snapshot), ("clone", &self.clone)];
        named.into_iter().filter_map(|(name, costs)| Some((name, costs.as_ref()?)))
    }

    /// The cells that start one at a time, the A/A twin among them.
    pub fn single(&self) -> impl Iterator<Item = &Summary<'a>> {
        self.cells.iter().filter(|summary| summary.cell().parallel == 1)
    }

    /// The cells to compare, one at a time, without the A/A twin.
    pub fn compared(&self) -> impl Iterator<Item = &Summary<'a>> {
        self.single().filter(|summary| summary.cell().role != Role::Control)
    }

    /// The cell that the others are held against.
    pub fn baseline(&self) -> Option<&Summary<'a>> {
        self.compared().find(|summary| summary.cell().role == Role::Baseline)
    }

    /// The ratio of two cells' medians, of those in [`Analysis::pairs`].
    pub fn ratio(&self, slower: &Summary<'_>, faster: &Summary<'_>) -> Option<Interval> {
        let place = |of: &Summary<'_>| self.cells.iter().position(|cell| cell.cell().name == of.cell().name);
        let (slower, faster) = (place(slower)?, place(faster)?);
        self.pairs.iter().find(|pair| pair.slower == slower && pair.faster == faster).map(|pair| pair.interval)
    }

    /// The noise floor as a share of 1; 0 where none was measured.
    pub fn floor(&self) -> f64 {
        self.noise.as_ref().map_or(0.0, NoiseFloor::floor)
    }

    /// Measured rounds in which the host was busy with something else.
    pub fn noisy(&self) -> impl Iterator<Item = &'a Round> {
        self.run.rounds.iter().filter(|round| !round.warmup && !round.noisy.is_empty())
    }

    /// How many rounds were measured.
    pub fn measured_rounds(&self) -> usize {
        self.run.rounds.iter().filter(|round| !round.warmup).count()
    }

    /// Subjects in the order of their first cell, with their place in it: what gives each its colour.
    pub fn subjects(&self) -> Vec<&'a str> {
        let mut subjects = Vec::new();
        let density = self.run.density.iter().flat_map(|density| &density.cells);
        for cell in self.run.cells.iter().chain(density) {
            if !subjects.contains(&cell.subject.as_str()) {
                subjects.push(cell.subject.as_str());
            }
        }
        subjects
    }

    /// The place of a cell's subject in [`Analysis::subjects`].
    pub fn place(&self, cell: &Cell) -> usize {
        self.subjects().iter().position(|subject| *subject == cell.subject).unwrap_or(0)
    }

    /// Cells whose stored verdict is not what their samples give: the file was edited, or another version wrote it.
    pub fn disagreements(&self) -> Vec<&'a str> {
        let differs = |stored: &&Verdict| {
            let computed = self.cells.iter().find_map(|cell| cell.verdict.as_ref().filter(|v| v.cell == stored.cell));
            computed.is_none_or(|computed| !alike(stored, computed))
        };
        self.run.verdicts.iter().filter(differs).map(|stored| stored.cell.as_str()).collect()
    }
}

/// Equal up to the rounding of a number that went through text. Earlier versions of the lab drew intervals of fewer rounds too: of
/// what too few say anything about, only the ratio is looked at.
fn alike(stored: &Verdict, computed: &Verdict) -> bool {
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs();
    let bounds =
        || stored.word == computed.word && close(stored.low, computed.low) && close(stored.high, computed.high);
    stored.against == computed.against
        && close(stored.ratio, computed.ratio)
        && (!computed.interval().is_bounded() || bounds())
}

impl<'a> Summary<'a> {
    fn of(run: &Run, series: Series<'a>, median: Option<Interval>, verdicts: &[Verdict]) -> Self {
        Self {
            figures: median.and_then(|median| Figures::of(&series, median)),
            verdict: verdicts.iter().find(|verdict| verdict.cell == series.cell.name).cloned(),
            steps: steps(&series),
            all_steps: all_steps(&series),
            drift: Drift::of(run, &series),
            series,
        }
    }

    /// The cell.
    pub fn cell(&self) -> &'a Cell {
        self.series.cell
    }

    /// Starts after the warm-up, failed ones included.
    pub fn attempts(&self) -> usize {
        self.series.ready.len() + self.series.failed.len()
    }
}

impl Figures {
    fn of(series: &Series<'_>, median: Interval) -> Option<Self> {
        let ready = series.sorted(|timing| timing.ready_ns as f64)?;
        let fences = ready.fences();
        let outliers = |kind| ready.as_slice().iter().filter(|time| fences.label(**time) == Some(kind)).count();
        let median_of = |figure: fn(&Timing) -> f64| series.sorted(figure).map(|numbers| numbers.median());
        Some(Self {
            median,
            p90: ready.quantile(0.9),
            tail: if ready.len() >= SAMPLES_FOR_P99 { Tail::P99(ready.quantile(0.99)) } else { Tail::Max(ready.max()) },
            mild: outliers(Outlier::Mild),
            severe: outliers(Outlier::Severe),
            teardown: median_of(|timing| timing.teardown_ns as f64)?,
            peak_rss: median_of(|timing| timing.peak_rss_bytes as f64)?,
            user: median_of(|timing| timing.user_ns as f64)?,
            system: median_of(|timing| timing.system_ns as f64)?,
            ready,
        })
    }
}
