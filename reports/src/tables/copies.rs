//! Snapshots and clones as tables: every cell, the lines through them, what failed.

use super::{Table, figures, words};
use crate::copies::{Costed, Costs, Crossing, Trend, fuller};
use crate::model::Sweep;
use crate::units;

/// Every cell of a sweep, or of all.
pub fn copies(costs: &Costs<'_>, caption: &str, wanted: impl Fn(&Costed<'_>) -> bool) -> Table {
    let head = vec![
        words("cell"),
        figures("until it is done"),
        figures("95 % interval"),
        figures("with its writes"),
        figures("95 % interval"),
        figures("beside the plain way"),
        figures("first write"),
        figures("disk"),
        figures("apparent"),
        figures("memory"),
        figures("done"),
        figures("failed"),
    ];
    let rows = costs.cells.iter().filter(|costed| wanted(costed)).map(|costed| row(costs, costed));
    Table::new(caption, head, rows.collect())
}

fn row(costs: &Costs<'_>, costed: &Costed<'_>) -> Vec<String> {
    let bytes = |bytes: Option<f64>| bytes.map(units::bytes).unwrap_or_default();
    let ratio = costs.ratio(costed);
    let writes = costed.whole.filter(|_| costed.cell.writes > 0);
    vec![
        costed.cell.name.clone(),
        costed.ready.map(|it| units::time(it.estimate)).unwrap_or_default(),
        costed.ready.map(|it| units::times(it.low, it.high)).unwrap_or_default(),
        writes.map(|it| units::time(it.estimate)).unwrap_or_default(),
        writes.map(|it| units::times(it.low, it.high)).unwrap_or_default(),
        ratio.as_ref().map(units::ratio_within).unwrap_or_default(),
        costed.first_write().map(|it| units::time(it.max(0.0))).unwrap_or_default(),
        bytes(costed.disk()),
        bytes(costed.apparent()),
        bytes(costed.memory()),
        costed.done.len().to_string(),
        costed.failed.len().to_string(),
    ]
}

/// What each line says.
pub fn trends(costs: &Costs<'_>) -> Table {
    let head = vec![words("what"), words("over"), words("grows by"), figures("R²"), words("no longer pays")];
    let row = |trend: &Trend<'_>| {
        let line = trend.line.as_ref()?;
        let (over, grows) = match trend.key.sweep {
            Sweep::Size => (
                "its size",
                format!(
                    "size to the power of {:.2} ({:.2} to {:.2})",
                    line.slope.value, line.slope.low, line.slope.high
                )
                .replace('-', "−"),
            ),
            Sweep::Touch => {
                let mib = f64::from(1 << 20);
                let (low, high) = (line.slope.low * mib, line.slope.high * mib);
                let each = units::time(line.slope.value * mib);
                ("what it writes", format!("{each} a MiB ({})", units::times(low, high)))
            }
            Sweep::Depth => {
                let each = units::time(line.slope.value);
                ("its depth", format!("{each} a link ({})", units::times(line.slope.low, line.slope.high)))
            }
            Sweep::Together => return None,
        };
        let r_squared = format!("{:.2}", line.r_squared);
        Some(vec![trend.key.name(), over.to_owned(), grows, r_squared, crossing(costs, trend)])
    };
    let caption = "Lines by least squares. A power of 0: no matter how large; of 1: in proportion.";
    Table::new(caption, head, costs.trends.iter().filter_map(row).collect())
}

/// Up to how many bytes written the act that shares is the quicker.
fn crossing(costs: &Costs<'_>, trend: &Trend<'_>) -> String {
    let Some(full) = fuller(trend.key.act) else { return String::new() };
    if trend.key.sweep != Sweep::Touch {
        return String::new();
    }
    match costs.crossing(trend.key.subject, trend.key.act, full) {
        Some(Crossing::At(bytes)) => format!("past {}", units::bytes(bytes)),
        Some(Crossing::Never) => "in nothing that was measured".to_owned(),
        Some(Crossing::Always) => "from the first byte".to_owned(),
        None => String::new(),
    }
}

/// What was not done, and why.
pub fn uncopied<'r, 'a: 'r>(all: impl Iterator<Item = &'r Costs<'a>>) -> Table {
    let head = vec![words("cell"), figures("times"), words("reason")];
    let rows = all.flat_map(|costs| &costs.cells).flat_map(|costed| {
        let mut reasons: Vec<&str> = costed.failed.clone();
        reasons.sort_unstable();
        reasons.dedup();
        let count = |reason: &str| costed.failed.iter().filter(|other| **other == reason).count().to_string();
        let row = |reason: &str| vec![costed.cell.name.clone(), count(reason), reason.to_owned()];
        reasons.into_iter().map(row).collect::<Vec<_>>()
    });
    Table::new("Copies that failed. They have a reason and no time.", head, rows.collect())
}
