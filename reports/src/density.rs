//! What one more instance costs: slopes over the number alive, and the words that their intervals bear out.
//!
//! Resident sets divided by the number of instances answer another question: they count what instances share again for each of
//! them. The *slope* of what the host has left over the number alive is what one more costs. Other programs on the host move
//! that figure too; so what their own (anonymous) memory grew by is taken off, and what is left of them shows in the residuals.

use crate::model::{Cell, Density, Ladder, Role, Rung, Word};
use crate::stats::{Interval, Line, ols, ratio_of};
use crate::verdict::word;

/// Below this a slope's interval is too wide to say more than "more than nothing": half of the slope itself.
const SURE: f64 = 0.5;

/// By which figure instances are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// What the host has less: counts everything.
    Available,
    /// What can be told apart from the rest of the host: proportional sets and the kernel's own memory. Used where other
    /// programs moved `MemAvailable` more than the instances did.
    Accounted,
}

impl Measure {
    /// Its name in tables and on axes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Available => "memory that the host has less",
            Self::Accounted => "memory that is accounted for",
        }
    }
}

/// Everything that a report says of density.
#[derive(Clone, Debug)]
pub struct Crowd<'a> {
    /// As measured.
    pub density: &'a Density,
    /// Each cell, in the order of [`Density::cells`].
    pub cells: Vec<Climbed<'a>>,
    /// By which figure they are compared.
    pub measure: Measure,
    /// How far the A/A twin's ratio of slopes lies from 1; 0 where there is none.
    pub floor: f64,
}

/// One cell, over all its ladders.
#[derive(Clone, Debug)]
pub struct Climbed<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// Its ladders, in the order of their passes.
    pub ladders: Vec<&'a Ladder>,
    /// What the host has less, with what other programs took set aside.
    pub taken: Slope,
    /// Resident sets.
    pub rss: Slope,
    /// Proportional sets.
    pub pss: Slope,
    /// Unique sets.
    pub uss: Slope,
    /// The kernel's own memory.
    pub kernel: Slope,
    /// Proportional sets and the kernel's own memory.
    pub accounted: Slope,
    /// The figure that cells are compared by.
    pub measure: Measure,
    /// What the control groups are charged with; no points where there are none.
    pub cgroup: Slope,
    /// The kernel's part of that.
    pub cgroup_kernel: Slope,
    /// Against the baseline's slope; none for the baseline itself, or where one of the two slopes is not sure.
    pub against: Option<Against>,
}

/// A cell's slope against the baseline's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Against {
    /// The ratio of the slopes, with its 95 % interval.
    pub ratio: Interval,
    /// What it means: slower stands for heavier.
    pub word: Word,
}

/// Bytes over the number alive, from all ladders, each from its own foot; and the line through them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slope {
    /// Instances alive, and bytes.
    pub points: Vec<(f64, f64)>,
    /// Least squares; none for fewer than three points.
    pub line: Option<Line>,
}

impl Slope {
    fn of(ladders: &[&Ladder], bytes: impl Fn(&Rung, &Rung) -> Option<f64>) -> Self {
        let of_ladder = |ladder: &&Ladder| {
            let Some(foot) = ladder.rungs.first() else { return Vec::new() };
            let point = |rung: &Rung| Some((f64::from(rung.alive), bytes(rung, foot)?));
            ladder.rungs.iter().filter_map(point).collect::<Vec<_>>()
        };
        let points: Vec<_> = ladders.iter().flat_map(of_ladder).collect();
        Self { line: ols(&points), points }
    }

    /// Bytes that one more costs.
    pub fn each(&self) -> Option<f64> {
        self.line.as_ref().map(|line| line.slope.value)
    }

    /// Whether its interval is narrow enough to be leaned on: half its width is less than half the slope.
    pub fn is_sure(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.slope.high - line.slope.value < SURE * line.slope.value)
    }

    /// The line at a number alive, with the 95 % interval of the line itself; nothing but 0 without a line.
    pub fn at(&self, alive: f64) -> Interval {
        let Some(line) = &self.line else { return Interval { estimate: 0.0, low: 0.0, high: 0.0 } };
        let mean = self.points.iter().map(|(x, _)| x).sum::<f64>() / self.points.len() as f64;
        let (slope, intercept) = (&line.slope, &line.intercept);
        let estimate = intercept.value + slope.value * alive;
        // The two coefficients' errors are not independent: their covariance is minus the mean x times the slope's variance.
        let variance = intercept.error.powi(2) + (alive * alive - 2.0 * alive * mean) * slope.error.powi(2);
        let t = if slope.error > 0.0 { (slope.high - slope.value) / slope.error } else { 0.0 };
        let half = t * variance.max(0.0).sqrt();
        Interval { estimate, low: estimate - half, high: estimate + half }
    }

    /// What the points are off the line by.
    pub fn residuals(&self) -> Vec<(f64, f64)> {
        let Some(line) = &self.line else { return Vec::new() };
        let off = |(x, y): &(f64, f64)| (*x, y - line.intercept.value - line.slope.value * x);
        self.points.iter().map(off).collect()
    }
}

fn grown(of: fn(&Rung) -> u64) -> impl Fn(&Rung, &Rung) -> Option<f64> {
    move |rung, foot| Some(of(rung) as f64 - of(foot) as f64)
}

fn accounted() -> impl Fn(&Rung, &Rung) -> Option<f64> {
    grown(|rung| rung.pss_bytes.saturating_add(rung.kernel_bytes()))
}

/// What the host has less than at the foot, without what other programs took meanwhile.
fn taken(rung: &Rung, foot: &Rung) -> f64 {
    let less = foot.available_bytes as f64 - rung.available_bytes as f64;
    let others = rung.others_bytes as f64 - foot.others_bytes as f64;
    less - others
}

impl<'a> Crowd<'a> {
    /// Computes everything.
    pub fn of(density: &'a Density) -> Self {
        let mut cells: Vec<Climbed<'a>> = density
            .cells
            .iter()
            .enumerate()
            .map(|(place, cell)| {
                let mut ladders: Vec<_> = density.ladders.iter().filter(|ladder| ladder.cell == place).collect();
                ladders.sort_by_key(|ladder| ladder.pass);
                Climbed::of(cell, ladders)
            })
            .collect();
        // One that is never alive has no slope, and no say.
        let busy = cells.iter().any(|climbed| climbed.most() > 0 && !climbed.taken.is_sure());
        let measure = if busy { Measure::Accounted } else { Measure::Available };
        for climbed in &mut cells {
            climbed.measure = measure;
        }
        let floor = floor(&cells);
        let against: Vec<_> = cells.iter().map(|climbed| climbed.held_against(&cells, floor)).collect();
        for (climbed, against) in cells.iter_mut().zip(against) {
            climbed.against = against;
        }
        Self { density, cells, measure, floor }
    }

    /// The cells to compare: without the A/A twin, and without those that were never alive.
    pub fn compared(&self) -> impl Iterator<Item = &Climbed<'a>> {
        self.cells.iter().filter(|climbed| climbed.cell.role != Role::Control && climbed.most() > 0)
    }

    /// The ratio of two cells' slopes.
    pub fn ratio(above: &Climbed<'_>, below: &Climbed<'_>) -> Option<Interval> {
        ratio_of(&above.cost().line.as_ref()?.slope, &below.cost().line.as_ref()?.slope)
    }
}

/// The farther end of the twin's interval, as a share of 1.
fn floor(cells: &[Climbed<'_>]) -> f64 {
    let twin = cells.iter().find(|climbed| climbed.cell.role == Role::Control);
    let interval = twin.and_then(|twin| Crowd::ratio(twin, twin.original(cells)?));
    interval.map_or(0.0, |interval| (interval.low - 1.0).abs().max((interval.high - 1.0).abs()))
}

impl<'a> Climbed<'a> {
    fn of(cell: &'a Cell, ladders: Vec<&'a Ladder>) -> Self {
        let option = |of: fn(&Rung) -> Option<u64>| {
            // Where there is no instance there is no group either, and nothing charged to one.
            let has = ladders.iter().flat_map(|ladder| &ladder.rungs).any(|rung| of(rung).is_some());
            let bytes = move |rung: &Rung, _: &Rung| match (has, rung.alive, of(rung)) {
                (true, 0, None) => Some(0.0),
                (_, _, charged) => charged.map(|bytes| bytes as f64),
            };
            Slope::of(&ladders, bytes)
        };
        Self {
            cell,
            taken: Slope::of(&ladders, |rung, foot| Some(taken(rung, foot))),
            rss: Slope::of(&ladders, grown(|rung| rung.rss_bytes)),
            pss: Slope::of(&ladders, grown(|rung| rung.pss_bytes)),
            uss: Slope::of(&ladders, grown(|rung| rung.uss_bytes)),
            kernel: Slope::of(&ladders, grown(Rung::kernel_bytes)),
            accounted: Slope::of(&ladders, accounted()),
            measure: Measure::Available,
            cgroup: option(|rung| rung.cgroup_bytes),
            cgroup_kernel: option(|rung| rung.cgroup_kernel_bytes),
            against: None,
            ladders,
        }
    }

    /// What one more costs, by the figure that cells are compared by.
    pub fn cost(&self) -> &Slope {
        match self.measure {
            Measure::Available => &self.taken,
            Measure::Accounted => &self.accounted,
        }
    }

    /// The same by each ladder alone; nothing for a ladder of fewer than three rungs.
    pub fn by_ladder(&self) -> Vec<f64> {
        let of = |ladder: &&Ladder| match self.measure {
            Measure::Available => Slope::of(&[ladder], |rung, foot| Some(taken(rung, foot))),
            Measure::Accounted => Slope::of(&[ladder], accounted()),
        };
        self.ladders.iter().filter_map(|ladder| of(ladder).each()).collect()
    }

    /// The most instances that were ever alive.
    pub fn most(&self) -> u32 {
        self.ladders.iter().filter_map(|ladder| ladder.rungs.last()).map(|rung| rung.alive).max().unwrap_or(0)
    }

    /// Processes of one instance, at the top.
    pub fn processes(&self) -> f64 {
        let rungs = self.ladders.iter().flat_map(|ladder| &ladder.rungs);
        rungs.max_by_key(|rung| rung.alive).map_or(0.0, |rung| f64::from(rung.processes) / f64::from(rung.alive.max(1)))
    }

    /// How many one GiB has room for, with the interval; none where the slope is not sure.
    pub fn per_gib(&self) -> Option<Interval> {
        const GIB: f64 = 1_073_741_824.0;
        let slope = self.cost().line.as_ref().filter(|_| self.cost().is_sure())?.slope;
        Some(Interval { estimate: GIB / slope.value, low: GIB / slope.high, high: GIB / slope.low })
    }

    /// How many were alive when each started, and how long it took, in nanoseconds.
    pub fn starts(&self) -> Vec<(f64, f64)> {
        let of_ladder = |ladder: &&'a Ladder| {
            let starts = ladder.rungs.iter().flat_map(|rung| &rung.starts_ns);
            (0_u32..).zip(starts).map(|(alive, start)| (f64::from(alive), *start as f64)).collect::<Vec<_>>()
        };
        self.ladders.iter().flat_map(of_ladder).collect()
    }

    /// The cell that an A/A twin repeats.
    fn original<'s>(&self, cells: &'s [Climbed<'a>]) -> Option<&'s Climbed<'a>> {
        cells.iter().find(|other| other.cell.role != Role::Control && other.cell.subject == self.cell.subject)
    }

    fn held_against(&self, cells: &[Climbed<'a>], floor: f64) -> Option<Against> {
        let (below, floor) = match self.cell.role {
            Role::Baseline => return None,
            // The twin makes the floor; it can't also be judged by it.
            Role::Control => (self.original(cells)?, 0.0),
            Role::Subject | Role::Peer => (cells.iter().find(|it| it.cell.role == Role::Baseline)?, floor),
        };
        if !self.cost().is_sure() || !below.cost().is_sure() {
            return None;
        }
        let ratio = Crowd::ratio(self, below)?;
        Some(Against { ratio, word: word(&ratio, floor) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Ended;

    fn rung(alive: u32, available: u64, others: u64, pss: u64) -> Rung {
        Rung {
            alive,
            starts_ns: Vec::new(),
            processes: alive,
            rss_bytes: 10 * pss,
            pss_bytes: pss,
            uss_bytes: pss / 2,
            available_bytes: available,
            slab_bytes: 1000 * u64::from(alive),
            page_tables_bytes: 0,
            kernel_stacks_bytes: 0,
            percpu_bytes: 0,
            others_bytes: others,
            cgroup_bytes: None,
            cgroup_kernel_bytes: None,
        }
    }

    fn ladder(cell: usize, rungs: Vec<Rung>) -> Ladder {
        Ladder { cell, pass: 0, rungs, ended: Ended::Complete, reason: None, dying_groups: 0 }
    }

    fn cell(name: &str, role: Role) -> Cell {
        Cell {
            name: name.into(),
            subject: name.trim_end_matches(".again").into(),
            role,
            parallel: 1,
            about: String::new(),
            command: Vec::new(),
            version: None,
            payload: true,
        }
    }

    /// The heavy one costs 4,000 bytes each, the light one 1,000; while it is measured other programs take 50 each time.
    fn density(noise: u64) -> Density {
        let rungs = |each: u64| {
            [0_u64, 1, 2, 4, 8]
                .map(|n| rung(n as u32, 1 << 30, 0, each * n))
                .into_iter()
                .enumerate()
                .map(move |(place, mut rung)| {
                    let others = 50 * place as u64;
                    rung.others_bytes = others;
                    let off = if place % 2 == 0 { noise } else { 0 };
                    rung.available_bytes -= each * u64::from(rung.alive) + others + off;
                    rung
                })
                .collect::<Vec<_>>()
        };
        Density {
            most: 8,
            passes: 1,
            budget_s: 9,
            touched_bytes: 0,
            reserve_bytes: 0,
            ksm: false,
            cells: vec![
                cell("process", Role::Baseline),
                cell("process.again", Role::Control),
                cell("vm", Role::Subject),
            ],
            ladders: vec![ladder(0, rungs(1000)), ladder(1, rungs(1000)), ladder(2, rungs(4000))],
        }
    }

    #[test]
    fn a_slope_is_what_one_more_costs_whatever_other_programs_took_meanwhile() {
        let density = density(0);
        let crowd = Crowd::of(&density);
        let each: Vec<f64> = crowd.cells.iter().filter_map(|climbed| climbed.taken.each()).collect();
        assert!((each[0] - 1000.0).abs() < 1e-6 && (each[2] - 4000.0).abs() < 1e-6, "{each:?}");
        assert_eq!(crowd.measure, Measure::Available);
        let against = crowd.cells[2].against.expect("a sure slope");
        assert!((against.ratio.estimate - 4.0).abs() < 1e-6 && against.word == Word::Slower, "{against:?}");
        assert_eq!(crowd.cells[1].against.expect("the twin").word, Word::NoDifference);
        let fit = crowd.cells[2].per_gib().expect("a sure slope");
        assert!((fit.estimate - 268_435.456).abs() < 1e-3, "{fit:?}");
    }

    #[test]
    fn where_the_host_moves_more_than_the_instances_what_is_accounted_for_is_compared() {
        let density = density(60_000);
        let crowd = Crowd::of(&density);
        assert!(!crowd.cells[0].taken.is_sure());
        assert_eq!(crowd.measure, Measure::Accounted);
        assert_eq!(crowd.cells[0].cost().each().map(f64::round), Some(2000.0));
    }

    #[test]
    fn the_band_is_narrowest_in_the_middle_and_holds_the_line() {
        let slope = Slope { points: vec![(0.0, 0.0), (1.0, 1.2), (2.0, 1.8), (3.0, 3.1)], line: None };
        let slope = Slope { line: ols(&slope.points), ..slope };
        let widths = [0.0, 1.5, 3.0].map(|x| slope.at(x).high - slope.at(x).low);
        assert!(widths[1] < widths[0] && widths[1] < widths[2], "{widths:?}");
        assert!((slope.at(0.0).high - slope.line.expect("a line").intercept.high).abs() < 1e-9);
    }
}
