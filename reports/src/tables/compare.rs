//! Two runs as tables.

use super::{Table, figures, words};
use crate::compare::{Comparison, Difference, Figure, Row, change};
use crate::units;

/// Each figure that both runs have.
pub fn comparison(comparison: &Comparison<'_>) -> Table {
    let head = vec![
        words("cell"),
        words("figure"),
        figures("A"),
        figures("B"),
        figures("B to A"),
        figures("95 % interval"),
        figures("p"),
        words("verdict"),
    ];
    let row = |row: &Row| {
        let (name, unit): (_, fn(f64) -> String) = match row.figure {
            Figure::Ready => ("start-up, median", units::time),
            Figure::Memory => ("memory of one more", units::bytes),
        };
        vec![
            row.cell.clone(),
            name.to_owned(),
            unit(row.before),
            unit(row.after),
            units::ratio(row.ratio.estimate),
            units::ratios(row.ratio.low, row.ratio.high),
            row.p.map(p_value).unwrap_or_default(),
            change(row).to_owned(),
        ]
    };
    let caption = "Each figure that both runs have. p: how often chance alone would part any of them as far (permutation test over rounds, corrected for their number by Holm).";
    Table::new(caption, head, comparison.rows.iter().map(row).collect())
}

fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

/// What differs around the figures.
pub fn differences(caption: &str, differences: &[Difference]) -> Table {
    let head = vec![words("what"), words("A"), words("B")];
    let row = |it: &Difference| vec![it.what.clone(), it.before.clone(), it.after.clone()];
    Table::new(caption, head, differences.iter().map(row).collect())
}

/// The two runs themselves.
pub fn runs(comparison: &Comparison<'_>) -> Table {
    let head = vec![
        words("run"),
        words("measured"),
        words("command"),
        figures("rounds"),
        figures("noise floor"),
        words("sources"),
    ];
    let row = |(letter, analysis): (&str, &crate::analysis::Analysis<'_>)| {
        let run = analysis.run;
        vec![
            letter.to_owned(),
            run.started.clone(),
            run.tool.command.join(" "),
            analysis.measured_rounds().to_string(),
            units::percent(analysis.floor()),
            run.tool.revision.as_ref().map_or_else(|| "unknown".to_owned(), |whole| whole.chars().take(12).collect()),
        ]
    };
    let rows = [("A", &comparison.before), ("B", &comparison.after)].map(row).into();
    Table::new("The two runs.", head, rows)
}

/// Cells that only one of the runs has.
pub fn alone(comparison: &Comparison<'_>) -> Table {
    let row = |(letter, name): &(char, String)| vec![name.clone(), letter.to_string()];
    Table::new(
        "Not compared: only one of the runs has it.",
        vec![words("cell"), words("run")],
        comparison.alone.iter().map(row).collect(),
    )
}
