//! Where a start spent its time: the phases laid end to end, so that they sum to the whole.
//!
//! Spans of two processes (a runtime and the init it made) may overlap, and between spans there may be gaps. A bar must
//! neither count an instant twice nor lose one. The rule is the simplest that does neither: take the phases of depth 0 by their
//! start, and give each the part of its time that no earlier one has taken. What nobody took lies between spans.
//!
//! A typical start is the mean of the starts nearest to the median: unlike medians of each phase, its parts sum to a whole.

use std::collections::BTreeMap;

use crate::model::{Phase, Timing};
use crate::series::{Series, Start};

/// The name under which time outside every span is shown.
pub const BETWEEN: &str = "(between spans)";

/// The name under which a subject without any span is shown.
pub const WHOLE: &str = "(no spans)";

/// One in so many starts is typical: the tenth nearest to the median.
pub const TYPICAL_SHARE: usize = 10;

/// One step of a typical start.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// `area.step`, [`BETWEEN`] or [`WHOLE`].
    pub name: String,
    /// Mean over the typical starts of the time that the step took alone, in nanoseconds; a start without it counts as 0.
    pub own_ns: f64,
    /// Mean over the typical starts of the time before it that no step took, in nanoseconds; 0 within another step.
    pub gap_ns: f64,
    /// Mean of its full length over the typical starts that have it, overlap included.
    pub length_ns: f64,
    /// Mean of its start over the same, nanoseconds after t0.
    pub start_ns: f64,
    /// How many spans it lies within.
    pub depth: u32,
}

impl Step {
    /// What comes before the dot: the mechanism that the step belongs to.
    pub fn area(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }
}

/// The steps of depth 0 of a cell's typical start, in order, with what lies between them last. Empty without a proved start.
pub fn steps(series: &Series<'_>) -> Vec<Step> {
    let mut steps: Vec<Step> = all_steps(series).into_iter().filter(|step| step.depth == 0).collect();
    if let [only] = steps.as_mut_slice()
        && only.name == BETWEEN
    {
        WHOLE.clone_into(&mut only.name);
    }
    steps
}

/// The steps of every depth, in the order of their start, with what lies between those of depth 0 last.
pub fn all_steps(series: &Series<'_>) -> Vec<Step> {
    let typical = typical(series);
    let mut seen: BTreeMap<(&str, u32), Seen> = BTreeMap::new();
    for start in &typical {
        for (step, part) in parts(start.timing) {
            seen.entry(step).or_default().push(&part);
        }
    }
    let mut steps: Vec<Step> =
        seen.into_iter().map(|((name, depth), seen)| seen.step(name, depth, typical.len())).collect();
    let key = |step: &Step| (step.name == BETWEEN, step.start_ns, step.depth);
    steps.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2))
    });
    steps
}

/// The starts whose time lies nearest to the median: a tenth of all, one at the least.
fn typical<'a>(series: &Series<'a>) -> Vec<Start<'a>> {
    let Some(times) = series.sorted(|timing| timing.ready_ns as f64) else { return Vec::new() };
    let median = times.median();
    let distance = |start: &Start<'_>| (start.timing.ready_ns as f64 - median).abs();
    let mut starts = series.ready.clone();
    starts.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    starts.truncate(starts.len().div_ceil(TYPICAL_SHARE));
    starts
}

/// What one start says of one step; a step taken several times is one, with its times summed.
struct Part {
    own: u64,
    gap: u64,
    length: u64,
    start: u64,
}

/// The parts of one start by name and depth; those of depth 0 and [`BETWEEN`] sum to exactly `ready_ns`.
fn parts(timing: &Timing) -> BTreeMap<(&str, u32), Part> {
    let mut phases: Vec<&Phase> = timing.phases.iter().collect();
    phases.sort_by_key(|phase| (phase.start_ns, phase.depth));
    let mut parts: BTreeMap<(&str, u32), Part> = BTreeMap::new();
    let mut taken = 0; // nanoseconds after t0 up to which every instant has been given away
    let mut between = 0;
    for phase in phases {
        let end = phase.start_ns.saturating_add(phase.duration_ns).min(timing.ready_ns);
        let start = phase.start_ns.min(timing.ready_ns);
        let mut gap = 0;
        let own = if phase.depth == 0 {
            gap = start.saturating_sub(taken);
            between += gap;
            let own = end.saturating_sub(taken.max(start));
            taken = taken.max(end);
            own
        } else {
            end.saturating_sub(start)
        };
        let part = parts.entry((&*phase.name, phase.depth)).or_insert(Part {
            own: 0,
            gap: 0,
            length: 0,
            start: phase.start_ns,
        });
        part.own += own;
        part.gap += gap;
        part.length = part.length.saturating_add(phase.duration_ns);
    }
    between += timing.ready_ns.saturating_sub(taken);
    parts.insert((BETWEEN, 0), Part { own: between, gap: 0, length: between, start: timing.ready_ns });
    parts
}

/// What the typical starts say of one step, summed.
#[derive(Default)]
struct Seen {
    own: f64,
    gap: f64,
    length: f64,
    start: f64,
    times: u32,
}

impl Seen {
    fn push(&mut self, part: &Part) {
        self.own += part.own as f64;
        self.gap += part.gap as f64;
        self.length += part.length as f64;
        self.start += part.start as f64;
        self.times += 1;
    }

    /// The means; `starts` and `times` are at least 1, or there would be nothing seen.
    fn step(self, name: &str, depth: u32, starts: usize) -> Step {
        let times = f64::from(self.times);
        Step {
            name: name.to_owned(),
            own_ns: self.own / starts as f64,
            gap_ns: self.gap / starts as f64,
            length_ns: self.length / times,
            start_ns: self.start / times,
            depth,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn phase(name: &str, start_ns: u64, duration_ns: u64, depth: u32) -> Phase {
        Phase { name: name.into(), start_ns, duration_ns, depth, pid: 1 }
    }

    fn timing(ready_ns: u64, phases: Vec<Phase>) -> Timing {
        Timing { ready_ns, teardown_ns: 0, phases, peak_rss_bytes: 0, user_ns: 0, system_ns: 0 }
    }

    fn own(timing: &Timing) -> Vec<(&str, u64)> {
        parts(timing).into_iter().map(|((name, _), part)| (name, part.own)).collect()
    }

    #[test]
    fn an_overlap_is_given_to_the_earlier_phase_and_a_gap_to_nobody() {
        // a: 0..50, b: 30..80 (20 of them a's), nothing until 90, c: 90..100.
        let start = timing(100, vec![phase("a", 0, 50, 0), phase("b", 30, 50, 0), phase("c", 90, 10, 0)]);
        assert_eq!(own(&start), [(BETWEEN, 10), ("a", 50), ("b", 30), ("c", 10)]);
    }

    #[test]
    fn a_phase_within_another_adds_nothing_to_the_whole() {
        let start = timing(100, vec![phase("a", 0, 100, 0), phase("a.inner", 20, 30, 1)]);
        assert_eq!(own(&start), [(BETWEEN, 0), ("a", 100), ("a.inner", 30)]);
    }

    #[test]
    fn what_runs_on_past_ready_is_cut_there() {
        assert_eq!(own(&timing(100, vec![phase("a", 60, 90, 0)])), [(BETWEEN, 60), ("a", 40)]);
    }

    #[test]
    fn a_typical_start_is_the_mean_of_those_nearest_to_the_median() {
        use crate::model::{Cell, Role};
        let cell = Cell {
            name: "a".into(),
            subject: "a".into(),
            role: Role::Subject,
            parallel: 1,
            about: String::new(),
            command: Vec::new(),
            version: None,
            payload: true,
        };
        // Twenty starts of 10, 20, ... 200 ns; the two nearest to the median of 105 take 100 and 110.
        let timings: Vec<Timing> = (1..=20).map(|n| timing(n * 10, vec![phase("a", 0, n * 8, 0)])).collect();
        let ready = timings.iter().map(|timing| Start { round: 0, instance: 0, timing }).collect();
        let series = Series { cell: &cell, ready, warmup: Vec::new(), failed: Vec::new(), warmup_failed: Vec::new() };
        let own: Vec<_> = steps(&series).into_iter().map(|step| (step.name, step.own_ns)).collect();
        assert_eq!(own, [("a".to_owned(), 84.0), (BETWEEN.to_owned(), 21.0)]);
    }

    proptest! {
        #[test]
        fn the_parts_always_sum_to_the_whole(
            ready in 0..10_000_u64,
            phases in prop::collection::vec((0..12_000_u64, 0..5_000_u64), 0..20),
        ) {
            let phases = phases.iter().enumerate().map(|(i, (start, length))| phase(&format!("p{i}"), *start, *length, 0));
            let start = timing(ready, phases.collect());
            prop_assert_eq!(parts(&start).values().map(|part| part.own).sum::<u64>(), ready);
        }
    }
}
