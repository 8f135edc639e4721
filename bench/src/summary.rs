//! What a run came to, as a short table for a terminal.

use std::fmt::Write as _;

use isolab_reports::analysis::{Analysis, Summary};
use isolab_reports::model::{Role, Word};
use isolab_reports::stats::Interval;
use isolab_reports::units;

/// A row a cell: median start-up time, ratio to what it is held against, tear-down, and what that means.
pub fn table(analysis: &Analysis<'_>) -> String {
    let head = ["", "ready, median", "ratio", "95 % interval", "gone after", ""].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(analysis.cells.iter().map(row)).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
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
    if let Some(noise) = &analysis.noise {
        let _ = writeln!(text, "noise floor {} (the A/A twin, {})", units::percent(noise.floor()), noise.cell);
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
