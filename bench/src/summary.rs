//! What a run came to, as a short table for a terminal.

use std::fmt::Write as _;

use isolab_reports::analysis::{Analysis, Summary};
use isolab_reports::density::{Climbed, Measure};
use isolab_reports::model::{Role, Word};
use isolab_reports::stats::Interval;
use isolab_reports::units;

/// What density came to: a row a cell; empty where it was not measured.
pub fn density(analysis: &Analysis<'_>) -> String {
    let Some(crowd) = &analysis.density else { return String::new() };
    let head = ["", "one more costs", "ratio", "95 % interval", "in one GiB", ""].map(str::to_owned);
    let mut text = lines(&std::iter::once(head).chain(crowd.cells.iter().map(density_row)).collect::<Vec<_>>());
    if crowd.measure == Measure::Accounted {
        text.push_str("other programs moved the host's memory too much; what is shown is what can be accounted for\n");
    }
    text
}

fn density_row(climbed: &Climbed<'_>) -> [String; 6] {
    let name = climbed.cell.name.clone();
    let most = climbed.most();
    let Some(line) = climbed.cost().line.as_ref().filter(|_| most > 0) else {
        let reason = climbed.ladders.iter().find_map(|ladder| ladder.reason.clone());
        return [name, "-".into(), String::new(), String::new(), String::new(), reason.unwrap_or_default()];
    };
    let sure = climbed.cost().is_sure();
    let fit = climbed.per_gib().map_or_else(String::new, |fit| format!("{:.0}", fit.estimate));
    let (ratio, interval, word) = match &climbed.against {
        Some(it) => (
            units::ratio(it.ratio.estimate),
            units::ratios(it.ratio.low, it.ratio.high),
            match (it.word, climbed.cell.role) {
                (_, Role::Control) => "A/A twin",
                (Word::Slower, _) => "heavier",
                (Word::Faster, _) => "lighter",
                (Word::NoDifference, _) => "no difference",
                (Word::Inconclusive, _) => "inconclusive",
            },
        ),
        None if !sure => (String::new(), String::new(), "the host was too busy to tell"),
        None if climbed.cell.role == Role::Baseline => (units::ratio(1.0), String::new(), "baseline"),
        None => (String::new(), String::new(), "nothing to hold it against"),
    };
    [name, units::bytes(line.slope.value), ratio, interval, fit, format!("{word}, {most} at the most")]
}

/// A row a cell: median start-up time, ratio to what it is held against, tear-down, and what that means.
pub fn table(analysis: &Analysis<'_>) -> String {
    let head = ["", "ready, median", "ratio", "95 % interval", "gone after", ""].map(str::to_owned);
    if analysis.cells.is_empty() {
        return String::new();
    }
    let mut text = lines(&std::iter::once(head).chain(analysis.cells.iter().map(row)).collect::<Vec<_>>());
    if let Some(noise) = &analysis.noise {
        let _ = writeln!(text, "noise floor {} (the A/A twin, {})", units::percent(noise.floor()), noise.cell);
    }
    text
}

/// Columns as wide as their widest.
fn lines(rows: &[[String; 6]]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (place, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Names and words begin at the left, figures end at the right.
            let _ = match place {
                0 | 5 => write!(line, "{cell:<width$}  "),
                _ => write!(line, "{cell:>width$}  "),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// A difference of two medians, in nanoseconds, with its interval: `12.3 µs to a start (95 %: 9.80 to 14.1 µs)`.
pub fn difference(added: &Interval) -> String {
    let (low, high) = (units::digits(added.low / 1e3), units::digits(added.high / 1e3));
    format!("{} µs to a start (95 %: {low} to {high} µs)", units::digits(added.estimate / 1e3))
}

fn row(summary: &Summary<'_>) -> [String; 6] {
    let series = &summary.series;
    let name = series.cell.name.clone();
    let Some(figures) = &summary.figures else {
        let reason = series.warmup_failed.first().map(|(_, reason)| format!("failed: {reason}"));
        let reason = reason.unwrap_or_else(|| "not started".to_owned());
        return [name, "-".into(), String::new(), String::new(), String::new(), reason];
    };
    let (ratio, interval, mut word) = match &summary.verdict {
        Some(verdict) => {
            let interval = units::ratios(verdict.low, verdict.high);
            (units::ratio(verdict.ratio), interval, meaning(verdict.word, series.cell.role).to_owned())
        }
        None => (units::ratio(1.0), String::new(), "baseline".to_owned()),
    };
    if !series.failed.is_empty() {
        let _ = write!(word, ", {} failed", series.failed.len());
    }
    [name, units::time(figures.median.estimate), ratio, interval, units::time(figures.teardown), word]
}

fn meaning(word: Word, role: Role) -> &'static str {
    match (word, role) {
        (Word::NoDifference, Role::Control) => "A/A twin: no difference, as it must be",
        (_, Role::Control) => "A/A twin: noise",
        (Word::Faster, _) => "faster",
        (Word::Slower, _) => "slower",
        (Word::NoDifference, _) => "no difference",
        (Word::Inconclusive, _) => "inconclusive: more rounds would tell",
    }
}
