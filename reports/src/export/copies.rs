//! Snapshots and clones as comma-separated values.

use super::csv::{line, number};
use crate::copies::{Costed, Costs, Crossing, fuller, word};
use crate::model::{Copies, CopyOutcome, Cost, Sweep};

/// Every single act of both suites, warm-up and failures included. What is not known is empty.
pub(crate) fn acts<'r>(suites: impl Iterator<Item = (&'static str, &'r Copies)>) -> String {
    let head = [
        "suite",
        "cell",
        "round",
        "warmup",
        "instance",
        "outcome",
        "ready_ns",
        "made_ns",
        "write_ns",
        "rewrite_ns",
        "disk_bytes",
        "apparent_bytes",
        "memory_bytes",
        "reason",
    ];
    let rows = suites.flat_map(|(suite, copies)| {
        copies.samples.iter().map(move |sample| {
            let (cost, reason) = match &sample.outcome {
                CopyOutcome::Done(cost) => (Some(cost), None),
                CopyOutcome::Failed { reason } => (None, Some(reason)),
            };
            let figure = |of: fn(&Cost) -> Option<u64>| cost.and_then(of).map(|it| it.to_string()).unwrap_or_default();
            line(&[
                suite.to_owned(),
                copies.cells.get(sample.cell).map(|cell| cell.name.clone()).unwrap_or_default(),
                sample.round.to_string(),
                (sample.round < copies.warmup_rounds).to_string(),
                sample.instance.to_string(),
                if cost.is_some() { "done" } else { "failed" }.to_owned(),
                figure(|cost| Some(cost.ready_ns)),
                figure(|cost| cost.made_ns),
                figure(|cost| cost.write_ns),
                figure(|cost| cost.rewrite_ns),
                figure(|cost| cost.disk_bytes),
                figure(|cost| cost.apparent_bytes),
                figure(|cost| cost.memory_bytes),
                reason.cloned().unwrap_or_default(),
            ])
        })
    });
    line(&head.map(str::to_owned)) + &rows.collect::<String>()
}

/// Each cell's figures, with all their digits.
pub(crate) fn costs<'r, 'a: 'r>(suites: impl Iterator<Item = (&'static str, &'r Costs<'a>)>) -> String {
    let head = [
        "cell",
        "suite",
        "subject",
        "act",
        "size_bytes",
        "dirty_bytes",
        "touch_bytes",
        "writes",
        "depth",
        "together",
        "done",
        "failed",
        "ready_ns",
        "ready_low_ns",
        "ready_high_ns",
        "whole_ns",
        "whole_low_ns",
        "whole_high_ns",
        "first_write_ns",
        "disk_bytes",
        "apparent_bytes",
        "memory_bytes",
        "ratio",
        "ratio_low",
        "ratio_high",
    ];
    let rows = suites.flat_map(|(suite, costs)| costs.cells.iter().map(move |costed| cost_row(suite, costs, costed)));
    line(&head.map(str::to_owned)) + &rows.collect::<String>()
}

fn cost_row(suite: &str, costs: &Costs<'_>, costed: &Costed<'_>) -> String {
    let (cell, ratio) = (costed.cell, costs.ratio(costed));
    line(&[
        cell.name.clone(),
        suite.to_owned(),
        cell.subject.clone(),
        word(cell.act).to_owned(),
        cell.size_bytes.to_string(),
        cell.dirty_bytes.to_string(),
        cell.touch_bytes.to_string(),
        cell.writes.to_string(),
        cell.depth.to_string(),
        cell.together.to_string(),
        costed.done.len().to_string(),
        costed.failed.len().to_string(),
        number(costed.ready.map(|it| it.estimate)),
        number(costed.ready.map(|it| it.low)),
        number(costed.ready.map(|it| it.high)),
        number(costed.whole.map(|it| it.estimate)),
        number(costed.whole.map(|it| it.low)),
        number(costed.whole.map(|it| it.high)),
        number(costed.first_write()),
        number(costed.disk()),
        number(costed.apparent()),
        number(costed.memory()),
        number(ratio.map(|it| it.estimate)),
        number(ratio.map(|it| it.low)),
        number(ratio.map(|it| it.high)),
    ])
}

/// Each line's coefficients, with all their digits. Over size both axes are logarithms.
pub(crate) fn trends<'r, 'a: 'r>(suites: impl Iterator<Item = (&'static str, &'r Costs<'a>)>) -> String {
    let head =
        ["trend", "over", "suite", "slope", "slope_low", "slope_high", "intercept", "r_squared", "crossing_bytes"];
    let rows = suites.flat_map(|(suite, costs)| {
        costs.trends.iter().filter_map(move |trend| {
            let fitted = trend.line.as_ref()?;
            let full = fuller(trend.key.act).filter(|_| trend.key.sweep == Sweep::Touch);
            let crossing = full.and_then(|full| costs.crossing(trend.key.subject, trend.key.act, full));
            let crossing = if let Some(Crossing::At(bytes)) = crossing { Some(bytes) } else { None };
            Some(line(&[
                trend.key.name(),
                over(trend.key.sweep).to_owned(),
                suite.to_owned(),
                number(Some(fitted.slope.value)),
                number(Some(fitted.slope.low)),
                number(Some(fitted.slope.high)),
                number(Some(fitted.intercept.value)),
                number(Some(fitted.r_squared)),
                number(crossing),
            ]))
        })
    });
    line(&head.map(str::to_owned)) + &rows.collect::<String>()
}

fn over(sweep: Sweep) -> &'static str {
    match sweep {
        Sweep::Size => "size",
        Sweep::Touch => "touch",
        Sweep::Depth => "depth",
        Sweep::Together => "together",
    }
}
