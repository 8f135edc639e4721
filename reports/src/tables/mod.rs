//! The figures of a report as tables, the same for page and Markdown: each chart's twin, failures, the environment.

mod compare;
mod copies;
mod criterion;
mod density;
mod hosts;

pub use compare::{alone, comparison, differences, runs};
pub use copies::{copies, trends, uncopied};
pub use criterion::benchmarks;
pub use density::{density, ended, memory, rungs, starts};
pub use hosts::{hosts, hosts_memory, hosts_startup};

use crate::analysis::{Analysis, Figures, Summary, Tail};
use crate::chart::Mapped;
use crate::model::{Cell, Fact, Role, Status};
use crate::phases::{BETWEEN, Step, WHOLE};
use crate::units;
use crate::words;

/// A table of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Names of its columns.
    pub head: Vec<Column>,
    /// Its rows, each with a cell for each column.
    pub rows: Vec<Vec<String>>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Whether it holds figures, which are read from their right end.
    pub figures: bool,
}

/// A column of words.
fn words(name: &str) -> Column {
    Column { name: name.to_owned(), figures: false }
}

/// A column of figures.
fn figures(name: &str) -> Column {
    Column { name: name.to_owned(), figures: true }
}

impl Table {
    fn new(caption: &str, head: Vec<Column>, rows: Vec<Vec<String>>) -> Self {
        Self { caption: caption.to_owned(), head, rows }
    }
}

fn tail(tail: Tail) -> String {
    format!("{} {}", tail.name(), units::time(tail.value()))
}

/// Every cell: its figures, and what they say against the baseline.
pub fn summary(analysis: &Analysis<'_>) -> Table {
    let head = vec![
        words("cell"),
        figures("median"),
        figures("95 % interval"),
        figures("p90"),
        figures("tail"),
        figures("ratio"),
        words("verdict"),
        figures("tear-down"),
        figures("CPU time"),
        figures("peak memory"),
        figures("proved"),
        figures("failed"),
    ];
    let rows = analysis.cells.iter().map(summary_row).collect();
    Table::new("Every cell. Times are medians unless named otherwise; memory is the largest resident set.", head, rows)
}

fn summary_row(cell: &Summary<'_>) -> Vec<String> {
    let figure = |of: &dyn Fn(&Figures) -> String| cell.figures.as_ref().map(of).unwrap_or_default();
    let verdict = match (&cell.verdict, cell.cell().role) {
        (Some(verdict), _) => words::of_cell(cell, verdict).to_owned(),
        (None, Role::Baseline) => "baseline".to_owned(),
        (None, _) if cell.attempts() == 0 => "left out".to_owned(),
        (None, _) if cell.figures.is_none() => "never ready".to_owned(),
        (None, _) => "nothing to hold it against".to_owned(),
    };
    vec![
        cell.cell().name.clone(),
        figure(&|f| units::time(f.median.estimate)),
        figure(&|f| units::times(f.median.low, f.median.high)),
        figure(&|f| units::time(f.p90)),
        figure(&|f| tail(f.tail)),
        cell.verdict.as_ref().map(|verdict| units::ratio(verdict.ratio)).unwrap_or_default(),
        verdict,
        figure(&|f| units::time(f.teardown)),
        figure(&|f| units::time(f.user + f.system)),
        figure(&|f| units::bytes(f.peak_rss)),
        cell.series.ready.len().to_string(),
        cell.series.failed.len().to_string(),
    ]
}

/// The twin of the phase chart: each drawn cell's steps.
pub fn phases(analysis: &Analysis<'_>) -> Vec<Table> {
    let table = |(cell, whole): Mapped<'_, '_>| {
        let head =
            vec![words("step"), words("call"), figures("begins"), figures("takes"), figures("share"), words("why")];
        let rows = cell.all_steps.iter().map(|step| phase_row(analysis, step, whole)).collect();
        Table::new(&format!("{}: a typical start of {}", cell.cell().name, units::time(whole)), head, rows)
    };
    crate::chart::phase_rows(analysis).into_iter().map(table).collect()
}

fn phase_row(analysis: &Analysis<'_>, step: &Step, whole: f64) -> Vec<String> {
    let text = analysis.run.spans.get(&step.name);
    let gap = step.name == BETWEEN || step.name == WHOLE;
    let begins = if gap { String::new() } else { units::time(step.start_ns) };
    let why = if gap { "time that no span covers" } else { text.map_or("", |text| text.why.as_str()) };
    vec![
        format!("{}{}", "· ".repeat(step.depth.min(8) as usize), step.name),
        text.map(|text| text.call.clone()).unwrap_or_default(),
        begins,
        units::time(step.own_ns),
        units::percent(if whole > 0.0 { step.own_ns / whole } else { 0.0 }),
        why.to_owned(),
    ]
}

/// The twin of the distribution chart.
pub fn distribution(analysis: &Analysis<'_>) -> Table {
    let head = vec![
        words("subject"),
        figures("starts"),
        figures("min"),
        figures("p25"),
        figures("median"),
        figures("p75"),
        figures("p90"),
        figures("tail"),
        figures("mild outliers"),
        figures("severe outliers"),
    ];
    let row = |cell: &Summary<'_>| {
        let f = cell.figures.as_ref()?;
        let quantile = |p: f64| units::time(f.ready.quantile(p));
        Some(vec![
            cell.cell().name.clone(),
            f.ready.len().to_string(),
            quantile(0.0),
            quantile(0.25),
            quantile(0.5),
            quantile(0.75),
            quantile(0.9),
            tail(f.tail),
            f.mild.to_string(),
            f.severe.to_string(),
        ])
    };
    Table::new(
        "Start-up times. Outliers are labelled (Tukey's fences) and never dropped.",
        head,
        analysis.compared().filter_map(row).collect(),
    )
}

/// The twin of the sequence chart: did a subject get slower or faster as the run went on?
pub fn drift(analysis: &Analysis<'_>) -> Table {
    let head = vec![words("subject"), figures("first half"), figures("second half"), figures("ratio"), figures("p")];
    let row = |cell: &Summary<'_>| {
        let drift = cell.drift.as_ref()?;
        Some(vec![
            cell.cell().name.clone(),
            units::time(drift.first),
            units::time(drift.second),
            units::ratio(drift.second / drift.first),
            if drift.p < 0.001 { "< 0.001".to_owned() } else { format!("{:.3}", drift.p) },
        ])
    };
    let caption = "Medians of the first and the second half of the run. p: how often chance alone would part them as far \
                   (permutation test).";
    Table::new(caption, head, analysis.compared().filter_map(row).collect())
}

/// The measured rounds in which the host was busy with something else.
pub fn noisy(analysis: &Analysis<'_>) -> Table {
    let head =
        vec![figures("round"), figures("load"), figures("steal"), figures("CPU pressure"), words("why it is noisy")];
    let row = |round: &crate::model::Round| {
        vec![
            round.index.to_string(),
            format!("{:.2}", round.load1),
            units::percent(round.steal),
            round.cpu_pressure.map_or_else(|| "unknown".to_owned(), units::percent),
            round.noisy.join("; "),
        ]
    };
    Table::new("Noisy rounds. They stay in every figure.", head, analysis.noisy().map(row).collect())
}

/// The twin of the forest plot.
pub fn ratios(analysis: &Analysis<'_>) -> Table {
    let head = vec![words("cell"), words("against"), figures("ratio"), figures("95 % interval"), words("verdict")];
    let row = |cell: &Summary<'_>| {
        let verdict = cell.verdict.as_ref()?;
        Some(vec![
            verdict.cell.clone(),
            verdict.against.clone(),
            units::ratio(verdict.ratio),
            units::ratios(verdict.low, verdict.high),
            words::of_cell(cell, verdict).to_owned(),
        ])
    };
    Table::new("Ratios of median start-up times.", head, analysis.cells.iter().filter_map(row).collect())
}

/// Each subject against each faster one.
pub fn pairs(analysis: &Analysis<'_>) -> Table {
    let mut order: Vec<usize> = Vec::new();
    for pair in &analysis.pairs {
        for place in [pair.faster, pair.slower] {
            if !order.contains(&place) {
                order.push(place);
            }
        }
    }
    let name = |place: &usize| analysis.cells.get(*place).map(|cell| cell.cell().name.clone()).unwrap_or_default();
    let ratio = |slower: usize, faster: usize| {
        let pair = analysis.pairs.iter().find(|pair| pair.slower == slower && pair.faster == faster)?;
        let interval = &pair.interval;
        // Of too few rounds none has an interval, and the ratios alone say it without a word in each of a hundred fields.
        Some(if interval.is_bounded() { units::ratio_within(interval) } else { units::ratio(interval.estimate) })
    };
    let row = |slower: &usize| {
        let ratios = order.iter().take(order.len() - 1).map(|faster| ratio(*slower, *faster).unwrap_or_default());
        std::iter::once(name(slower)).chain(ratios).collect()
    };
    let head = std::iter::once(words(""))
        .chain(order.iter().take(order.len().saturating_sub(1)).map(|place| figures(&name(place))));
    let caption = "How many times as long the subject of the row takes as that of the column, with the 95 % interval.";
    Table::new(caption, head.collect(), order.iter().skip(1).map(row).collect())
}

/// The twin of the parallel chart.
pub fn parallel(analysis: &Analysis<'_>) -> Table {
    let head = vec![
        words("subject"),
        figures("at once"),
        figures("starts"),
        figures("median"),
        figures("tail"),
        figures("against one"),
    ];
    let rows = crate::chart::ladders(analysis).into_iter().flat_map(|ladder| {
        let alone = ladder.first().map_or(f64::NAN, |(_, figures)| figures.median.estimate);
        let row = move |(cell, f): &(&Summary<'_>, &Figures)| {
            vec![
                cell.cell().subject.clone(),
                cell.cell().parallel.to_string(),
                f.ready.len().to_string(),
                units::time(f.median.estimate),
                tail(f.tail),
                units::ratio(f.median.estimate / alone),
            ]
        };
        ladder.iter().map(row).collect::<Vec<_>>()
    });
    Table::new("Start-up times of each of N starts behind one barrier.", head, rows.collect())
}

/// Failed starts after the warm-up, by cell and reason.
pub fn failures(analysis: &Analysis<'_>) -> Table {
    let head = vec![words("cell"), figures("times"), words("reason")];
    let rows = analysis.cells.iter().flat_map(|cell| {
        let row = |(reason, count): (&str, usize)| vec![cell.cell().name.clone(), count.to_string(), reason.to_owned()];
        cell.series.reasons().into_iter().map(row).collect::<Vec<_>>()
    });
    Table::new("Failed starts. They have a reason and no time.", head, rows.collect())
}

/// Subjects that were not measured, and why.
pub fn left_out(analysis: &Analysis<'_>) -> Table {
    let head = vec![words("subject"), words("why"), words("what to do")];
    // The table's own heading says "left out" already.
    let why = |fact: &Fact| fact.value.strip_prefix("left out: ").unwrap_or(&fact.value).to_owned();
    let facts = analysis.run.host.facts.iter().filter(|fact| fact.area == "subject");
    let left = facts.map(|fact| vec![fact.name.clone(), why(fact), fact.hint.clone().unwrap_or_default()]);
    let idle = analysis.cells.iter().filter(|cell| cell.attempts() == 0);
    let named = |name: &str| analysis.run.host.facts.iter().any(|fact| fact.area == "subject" && fact.name == name);
    let idle = idle.filter(|cell| !named(&cell.cell().name)).map(|cell| {
        let why = match cell.series.warmup_failed.last() {
            Some((_, reason)) => format!("failed in the warm-up: {reason}"),
            None => "the run ended before it was started".to_owned(),
        };
        vec![cell.cell().name.clone(), why, String::new()]
    });
    Table::new("Left out.", head, left.chain(idle).collect())
}

/// What was measured.
pub fn cells(analysis: &Analysis<'_>) -> Table {
    let head = vec![words("cell"), words("what it is"), words("command of one start"), words("version")];
    let row = |cell: &Cell| {
        vec![cell.name.clone(), cell.about.clone(), cell.command.join(" "), cell.version.clone().unwrap_or_default()]
    };
    let density = analysis.run.density.iter().flat_map(|density| &density.cells);
    // A subject of both suites is described once.
    let density = density.filter(|cell| analysis.run.cells.iter().all(|other| other.name != cell.name));
    let rows = analysis.run.cells.iter().chain(density).map(row).collect();
    Table::new("What was measured. {} stands for what differs between starts.", head, rows)
}

/// The environment record.
pub fn environment(analysis: &Analysis<'_>) -> Table {
    let host = &analysis.run.host;
    let row = |area: &str, name: &str, value: String| [area, name, &value, "", ""].map(str::to_owned).to_vec();
    let known = [
        row("host", "CPU", format!("{} × {}", host.cpus, host.cpu)),
        row("host", "memory", units::bytes(host.memory_bytes as f64)),
        row("host", "kernel", host.kernel.clone()),
        row("host", "hypervisor above", host.hypervisor.clone().unwrap_or_else(|| "none".to_owned())),
        row("host", "KVM driver", host.kvm_driver.clone().unwrap_or_else(|| "none".to_owned())),
        row("host", "cgroup", host.cgroup.clone()),
    ];
    let fact = |fact: &Fact| {
        let hint = fact.hint.clone().unwrap_or_default();
        vec![fact.area.clone(), fact.name.clone(), fact.value.clone(), status(fact.status).to_owned(), hint]
    };
    let facts = host.facts.iter().filter(|fact| fact.area != "subject").map(fact);
    let head = vec![words("area"), words("what"), words("seen"), words("state"), words("what to do")];
    Table::new("The machine, as the doctor saw it before the run.", head, known.into_iter().chain(facts).collect())
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Info => "",
        Status::Warn => "warning",
        Status::Missing => "missing",
    }
}
