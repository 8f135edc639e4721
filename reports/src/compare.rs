//! Two runs held against each other: what changed in the figures, and what changed around them.
//!
//! A difference between two runs has more reasons than one within a run, where everything is interleaved: another kernel,
//! another build, another hour. So a change is called one only where all of these agree: the interval of the ratio lies past 5 %, past
//! both runs' noise floors and past what the bare process itself changed by, and a permutation test, corrected for the number of
//! figures, finds that chance alone would rarely part the two as far. Memory's slopes have a test of their own: every ladder of the one
//! run must lie on the same side of every ladder of the other.

use std::collections::BTreeMap;

use crate::analysis::{Analysis, Summary};
use crate::model::{Cell, Fact, Role, Run, Word};
use crate::series::Series;
use crate::stats::{Interval, Sorted, holm, permutation_test, ratio_of};
use crate::verdict::{EQUIVALENCE, Medians, word};

/// A p-value above this, corrected for the number of figures, is no evidence, whatever the interval says.
pub const SIGNIFICANT: f64 = 0.01;

/// Seeds of the second run's resamples and of the shuffles: both runs may have been planned with one seed, and the resamples of
/// two runs have nothing to do with each other.
const OTHER_SEED: u64 = 0x9d5c_f1a7_3b02_66e1;

/// Facts that differ between any two moments of one host, and say nothing of what it is.
const FLEETING: [(&str, &str); 2] = [("memory", "available"), ("memory", "swap")];

/// What two runs say of each other.
#[derive(Clone, Debug)]
pub struct Comparison<'a> {
    /// The first, which the second is held against.
    pub before: Analysis<'a>,
    /// The second.
    pub after: Analysis<'a>,
    /// What tells the two machines apart; empty where they may be one.
    pub host: Vec<Difference>,
    /// What else is not as it was: kernel, settings, versions, the lab's own build.
    pub environment: Vec<Difference>,
    /// Each figure that both runs have.
    pub rows: Vec<Row>,
    /// Cells of one run that the other has not, with the run's letter.
    pub alone: Vec<(char, String)>,
    /// A change within this share of 1 is noise: 5 %, or the wider of the runs' noise floors.
    pub floor: f64,
}

/// Something that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is.
    pub what: String,
    /// In the first run.
    pub before: String,
    /// In the second.
    pub after: String,
}

/// A figure in both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The cell.
    pub cell: String,
    /// Which of its figures.
    pub figure: Figure,
    /// In the first run, nanoseconds or bytes.
    pub before: f64,
    /// In the second.
    pub after: f64,
    /// The second to the first, with its 95 % interval.
    pub ratio: Interval,
    /// How often chance alone would part any figure as far, by Holm's correction; none for slopes, which have no single starts to shuffle.
    pub p: Option<f64>,
    /// What that means.
    pub word: Word,
}

/// Which figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Median start-up time.
    Ready,
    /// What one more instance costs.
    Memory,
}

impl<'a> Comparison<'a> {
    /// Holds `after` against `before`.
    pub fn of(before: &'a Run, after: &'a Run) -> Self {
        let (a, b) = (Analysis::of(before), Analysis::of(after));
        let floor = EQUIVALENCE.max(a.floor()).max(b.floor());
        let mut rows = ready(before, after, floor);
        rows.extend(memory(&a, &b));
        let (host, environment) = (hosts(before, after), surroundings(before, after));
        let alone = alone('A', before, after).into_iter().chain(alone('B', after, before)).collect();
        Self { before: a, after: b, host, environment, rows, alone, floor }
    }

    /// The figures that changed.
    pub fn changed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| matches!(row.word, Word::Faster | Word::Slower))
    }
}

/// Names of cells that only one of the runs has.
fn alone(letter: char, run: &Run, other: &Run) -> Vec<(char, String)> {
    let names = |run: &Run| -> Vec<String> {
        let density = run.density.iter().flat_map(|density| &density.cells);
        let named = |suite: &str, cell: &Cell| format!("{suite}: {}", cell.name);
        let starts = run.cells.iter().map(|cell| named("start-up", cell));
        starts.chain(density.map(|cell| named("density", cell))).collect()
    };
    let others = names(other);
    names(run).into_iter().filter(|name| !others.contains(name)).map(|name| (letter, name)).collect()
}

fn ready(before: &Run, after: &Run, floor: f64) -> Vec<Row> {
    let a = Medians::of(before, Series::of(before), before.plan.seed);
    let b = Medians::of(after, Series::of(after), after.plan.seed ^ OTHER_SEED);
    let row = |(place, series): (usize, &Series<'_>)| {
        let name = &series.cell.name;
        let other = b.series.iter().position(|other| other.cell.name == *name)?;
        let ratio = b.resampled(other)?.ratio(a.resampled(place)?)?;
        let p = permutation_test(&by_round(series), &by_round(b.series.get(other)?), before.plan.seed ^ OTHER_SEED)?;
        let (before, after) = (a.median(place)?.estimate, b.median(other)?.estimate);
        let (cell, figure, word) = (name.clone(), Figure::Ready, Word::Inconclusive);
        Some(Row { cell, figure, before, after, ratio, p: Some(p), word })
    };
    let mut rows: Vec<Row> = a.series.iter().enumerate().filter_map(row).collect();
    let corrected = holm(&rows.iter().filter_map(|row| row.p).collect::<Vec<_>>());
    let shifts: Vec<f64> = rows.iter().map(|row| shift(before, &rows, row)).collect();
    for ((row, p), shift) in rows.iter_mut().zip(corrected).zip(shifts) {
        row.p = Some(p);
        row.word = match word(&row.ratio, floor.max(shift)) {
            Word::Faster | Word::Slower if p > SIGNIFICANT => Word::Inconclusive,
            word => word,
        };
    }
    rows
}

/// What the bare process changed by, of as many at once as a row's cell: there is nothing of ours in it, so that is the hour's, and the
/// hour's is in every other row too. None for the process itself.
fn shift(run: &Run, rows: &[Row], row: &Row) -> f64 {
    let own = run.cells.iter().find(|cell| cell.name == row.cell);
    let Some(own) = own.filter(|own| own.role != Role::Baseline) else { return 0.0 };
    bare(run, rows, own.parallel).map_or(0.0, |bare| (bare.ratio.estimate - 1.0).abs())
}

/// The start-up of so many bare processes at once.
fn bare<'r>(run: &Run, rows: &'r [Row], parallel: u32) -> Option<&'r Row> {
    let is_bare = |cell: &&Cell| cell.role == Role::Baseline && cell.parallel == parallel;
    let cell = run.cells.iter().find(is_bare)?;
    rows.iter().find(|row| row.figure == Figure::Ready && row.cell == cell.name)
}

/// One number a round, at most 256 of them: starts behind one barrier are not independent of each other, and what is shuffled
/// has to be. Of a long run, the medians of as many rounds in a row each.
fn by_round(series: &Series<'_>) -> Vec<f64> {
    const MOST: usize = 256;
    let mut rounds: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for start in &series.ready {
        rounds.entry(start.round).or_default().push(start.timing.ready_ns as f64);
    }
    let median = |numbers: &[f64]| Sorted::new(numbers.iter().copied()).map(|numbers| numbers.median());
    let rounds: Vec<f64> = rounds.values().filter_map(|times| median(times)).collect();
    rounds.chunks(rounds.len().div_ceil(MOST).max(1)).filter_map(median).collect()
}

fn memory(before: &Analysis<'_>, after: &Analysis<'_>) -> Vec<Row> {
    let (Some(a), Some(b)) = (&before.density, &after.density) else { return Vec::new() };
    if a.measure != b.measure {
        return Vec::new(); // two different figures have no ratio
    }
    let floor = EQUIVALENCE.max(a.floor).max(b.floor);
    let row = |climbed: &crate::density::Climbed<'_>| {
        let other = b.cells.iter().find(|other| other.cell.name == climbed.cell.name)?;
        if !climbed.cost().is_sure() || !other.cost().is_sure() {
            return None;
        }
        let apart = apart(&climbed.by_ladder(), &other.by_ladder());
        let (slope, other) = (climbed.cost().line.as_ref()?.slope, other.cost().line.as_ref()?.slope);
        let ratio = ratio_of(&other, &slope)?;
        Some(Row {
            cell: climbed.cell.name.clone(),
            figure: Figure::Memory,
            before: slope.value,
            after: other.value,
            ratio,
            p: None,
            word: match word(&ratio, floor) {
                Word::Faster | Word::Slower if !apart => Word::Inconclusive,
                word => word,
            },
        })
    };
    a.cells.iter().filter_map(row).collect()
}

/// Whether every figure of one side is less than every figure of the other. The rungs of a ladder share its hour, so a slope's interval
/// takes them for surer than they are; whole ladders know how much they differ.
fn apart(a: &[f64], b: &[f64]) -> bool {
    let all = |less: &[f64], more: &[f64]| less.iter().all(|one| more.iter().all(|other| one < other));
    all(a, b) || all(b, a)
}

fn hosts(before: &Run, after: &Run) -> Vec<Difference> {
    let identity = |run: &Run| {
        let host = &run.host;
        [
            ("CPU", host.cpu.clone()),
            ("CPUs", host.cpus.to_string()),
            ("memory", crate::units::bytes(host.memory_bytes as f64)),
            ("hypervisor above", host.hypervisor.clone().unwrap_or_else(|| "none".to_owned())),
            ("emulated", host.emulated.to_string()),
        ]
    };
    let pairs = identity(before).into_iter().zip(identity(after));
    pairs.filter_map(|((what, a), (_, b))| differing(what, a, b)).collect()
}

fn differing(what: &str, before: String, after: String) -> Option<Difference> {
    (before != after).then(|| Difference { what: what.to_owned(), before, after })
}

fn surroundings(before: &Run, after: &Run) -> Vec<Difference> {
    let own = |run: &Run| {
        let (host, tool) = (&run.host, &run.tool);
        let dirty = tool.dirty.map_or("", |dirty| if dirty { ", changed" } else { "" });
        [
            ("kernel", host.kernel.clone()),
            ("KVM driver", host.kvm_driver.clone().unwrap_or_else(|| "none".to_owned())),
            ("control groups", host.cgroup.clone()),
            ("lab", tool.version.clone()),
            ("revision", format!("{}{dirty}", tool.revision.clone().unwrap_or_else(|| "unknown".to_owned()))),
            ("compiler", tool.rustc.clone()),
            ("build", tool.profile.clone()),
        ]
    };
    let pairs = own(before).into_iter().zip(own(after));
    let mut differences: Vec<_> = pairs.filter_map(|((what, a), (_, b))| differing(what, a, b)).collect();
    differences.extend(facts(before, after));
    for cell in &before.cells {
        let Some(other) = after.cells.iter().find(|other| other.name == cell.name) else { continue };
        let version = |cell: &Cell| cell.version.clone().unwrap_or_else(|| "unknown".to_owned());
        differences.extend(differing(&format!("version of {}", cell.name), version(cell), version(other)));
        let command = |cell: &Cell| cell.command.join(" ");
        differences.extend(differing(&format!("command of {}", cell.name), command(cell), command(other)));
    }
    differences
}

/// What the doctor saw then and sees otherwise now. Noise is measured, and fleeting; it is in the rounds.
fn facts(before: &Run, after: &Run) -> Vec<Difference> {
    let lasting = |fact: &&Fact| {
        fact.area != "noise" && fact.area != "subject" && !FLEETING.contains(&(fact.area.as_str(), fact.name.as_str()))
    };
    let by_name = |run: &Run| -> BTreeMap<(String, String), String> {
        let facts = run.host.facts.iter().filter(lasting);
        facts.map(|fact| ((fact.area.clone(), fact.name.clone()), fact.value.clone())).collect()
    };
    let (a, b) = (by_name(before), by_name(after));
    let names: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let value = |of: &BTreeMap<_, String>, name| of.get(name).cloned().unwrap_or_else(|| "not seen".to_owned());
    names
        .into_iter()
        .filter_map(|name| differing(&format!("{}: {}", name.0, name.1), value(&a, name), value(&b, name)))
        .collect()
}

/// What the comparison comes to, in sentences.
pub fn sentences(comparison: &Comparison<'_>) -> Vec<String> {
    let changed: Vec<&Row> = comparison.changed().collect();
    let open = comparison.rows.iter().filter(|row| row.word == Word::Inconclusive).count();
    let mut sentences = vec![match (comparison.rows.len(), changed.len()) {
        (0, _) => "The two runs have no figure in common.".to_owned(),
        (all, 0) => {
            format!("0 of {} changed: no difference can be told from noise.", crate::units::count(all, "figure"))
        }
        (all, some) => format!("{some} of {} changed.", crate::units::count(all, "figure")),
    }];
    sentences.extend(changed.iter().map(|row| sentence(row)));
    sentences.extend(drift(comparison));
    if open > 0 {
        sentences.push(format!("Inconclusive: {open}. More rounds or a quieter hour would tell."));
    }
    sentences.push(if comparison.host.is_empty() {
        "Both runs are from the same host, as far as CPU, memory and hypervisor tell.".to_owned()
    } else {
        "The runs are from different hosts: what differs may be the hosts and nothing else.".to_owned()
    });
    sentences.push(match comparison.environment.len() {
        0 => "Nothing in the environment changed that the doctor looks at.".to_owned(),
        some => format!("{} in the environment changed; they are listed below.", crate::units::count(some, "thing")),
    });
    let measured = |analysis: &Analysis<'_>| analysis.density.as_ref().map(|crowd| crowd.measure);
    if let (Some(a), Some(b)) = (measured(&comparison.before), measured(&comparison.after))
        && a != b
    {
        sentences.push("Memory is not compared: in one of the runs the host was too busy for MemAvailable.".to_owned());
    }
    sentences.into_iter().map(|sentence| crate::text::printable(&sentence)).collect()
}

/// What the bare process changed by, where that is more than the noise within the runs.
fn drift(comparison: &Comparison<'_>) -> Option<String> {
    let ratio = bare(comparison.before.run, &comparison.rows, 1)?.ratio.estimate;
    ((ratio - 1.0).abs() > comparison.floor).then(|| {
        let times = crate::units::digits(ratio);
        format!(
            "The bare process itself takes {times} times as long: another subject's change counts only beyond that."
        )
    })
}

fn sentence(row: &Row) -> String {
    let (times, interval) =
        (crate::units::digits(row.ratio.estimate), crate::units::ratios(row.ratio.low, row.ratio.high));
    match row.figure {
        Figure::Ready => format!("{} takes {times} times as long to start ({interval}).", row.cell),
        Figure::Memory => format!("One more {} costs {times} times as much memory ({interval}).", row.cell),
    }
}

/// The word for a row.
pub fn change(row: &Row) -> &'static str {
    match (row.word, row.figure) {
        (Word::Slower, Figure::Ready) => "slower",
        (Word::Faster, Figure::Ready) => "faster",
        (Word::Slower, Figure::Memory) => "heavier",
        (Word::Faster, Figure::Memory) => "lighter",
        (Word::NoDifference, _) => "no difference",
        (Word::Inconclusive, _) => "inconclusive",
    }
}

/// Whether a cell has a place in a list of subjects.
pub(crate) fn place(comparison: &Comparison<'_>, row: &Row) -> usize {
    let subject = |summary: &&Summary<'_>| summary.cell().name == row.cell;
    let cell = comparison.before.cells.iter().find(subject).map(Summary::cell);
    let density = comparison.before.run.density.iter().flat_map(|density| &density.cells);
    let cell = cell.or_else(|| density.into_iter().find(|cell| cell.name == row.cell));
    cell.map_or(0, |cell| comparison.before.place(cell))
}
