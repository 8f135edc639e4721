//! Density as tables: slopes, parts, rungs, and where ladders ended.

use super::{Table, figures, words};
use crate::density::{Climbed, Crowd, Slope};
use crate::model::{Ended, Ladder, Role, Word};
use crate::stats::Sorted;
use crate::units;

/// Every cell: what one more costs, and what that is beside a process.
pub fn density(crowd: &Crowd<'_>) -> Table {
    let head = vec![
        words("cell"),
        figures("one more"),
        figures("95 % interval"),
        figures("R²"),
        figures("in one GiB"),
        figures("ratio"),
        figures("95 % interval"),
        words("verdict"),
        figures("alive"),
        figures("processes each"),
    ];
    let merged = if crowd.density.ksm { ", with equal pages merged (KSM on)" } else { "" };
    let caption = format!("Slopes by least squares of {}, over the number alive{merged}.", crowd.measure.name());
    Table::new(&caption, head, crowd.cells.iter().map(density_row).collect())
}

fn density_row(climbed: &Climbed<'_>) -> Vec<String> {
    let line = climbed.cost().line.as_ref().filter(|_| climbed.most() > 0);
    let ratio = climbed.against.as_ref().map(|against| against.ratio);
    vec![
        climbed.cell.name.clone(),
        line.map(|line| units::bytes(line.slope.value)).unwrap_or_default(),
        line.map(|line| units::byte_range(line.slope.low, line.slope.high)).unwrap_or_default(),
        line.map(|line| format!("{:.3}", line.r_squared)).unwrap_or_default(),
        climbed.per_gib().map(|fit| format!("{:.0}", fit.estimate)).unwrap_or_default(),
        ratio.map(|ratio| units::ratio(ratio.estimate)).unwrap_or_default(),
        ratio.map(|ratio| units::ratios(ratio.low, ratio.high)).unwrap_or_default(),
        verdict(climbed).to_owned(),
        climbed.most().to_string(),
        if climbed.most() > 0 { units::digits(climbed.processes()) } else { String::new() },
    ]
}

fn verdict(climbed: &Climbed<'_>) -> &'static str {
    match (&climbed.against, climbed.cell.role) {
        _ if climbed.most() == 0 => "never alive",
        (_, _) if !climbed.cost().is_sure() => "the host was too busy to tell",
        (Some(_), Role::Control) => "A/A twin",
        (Some(against), _) => match against.word {
            Word::Slower => "heavier",
            Word::Faster => "lighter",
            Word::NoDifference => "no difference",
            Word::Inconclusive => "inconclusive",
        },
        (None, Role::Baseline) => "baseline",
        (None, _) => "nothing to hold it against",
    }
}

/// One more instance by every figure that there is.
pub fn memory(crowd: &Crowd<'_>) -> Table {
    let head = vec![
        words("cell"),
        figures("USS"),
        figures("PSS"),
        figures("RSS"),
        figures("kernel"),
        figures("PSS + kernel"),
        figures("host has less"),
        figures("cgroup"),
        figures("of that kernel"),
    ];
    let row = |climbed: &Climbed<'_>| {
        let figure = |slope: &Slope| slope.each().map(units::bytes).unwrap_or_default();
        let all = [
            &climbed.uss,
            &climbed.pss,
            &climbed.rss,
            &climbed.kernel,
            &climbed.accounted,
            &climbed.taken,
            &climbed.cgroup,
            &climbed.cgroup_kernel,
        ];
        std::iter::once(climbed.cell.name.clone()).chain(all.into_iter().map(figure)).collect()
    };
    let caption =
        "What one more instance adds, by each figure: slopes over the number alive. Empty: it has no control group.";
    Table::new(caption, head, crowd.compared().map(row).collect())
}

/// The points of the lines: by how many were alive, medians of all passes.
pub fn rungs(crowd: &Crowd<'_>) -> Table {
    let points = |climbed: &Climbed<'_>| climbed.cost().points.clone();
    let mut numbers: Vec<u32> = crowd.compared().flat_map(points).map(|(alive, _)| alive as u32).collect();
    numbers.sort_unstable();
    numbers.dedup();
    // Where memory or time ended ladders, each may have a top of its own; a table of fifty columns tells nobody anything.
    numbers.retain(|number| number.is_power_of_two() || *number == crowd.density.most);
    let head =
        std::iter::once(words("cell")).chain(numbers.iter().map(|number| figures(&number.to_string()))).collect();
    let row = |climbed: &Climbed<'_>| {
        let of = |number: &u32| {
            let points = climbed.cost().points.iter().filter(|(alive, _)| *alive as u32 == *number);
            Sorted::new(points.map(|(_, bytes)| *bytes)).map(|bytes| units::bytes(bytes.median())).unwrap_or_default()
        };
        std::iter::once(climbed.cell.name.clone()).chain(numbers.iter().map(of)).collect()
    };
    let caption = format!("{} by instances alive, medians of all passes.", sentence(crowd.measure.name()));
    Table::new(&caption, head, crowd.compared().map(row).collect())
}

/// With a capital letter.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Start-up times at the foot and at the top of the ladders.
pub fn starts(crowd: &Crowd<'_>) -> Table {
    let head = vec![
        words("cell"),
        figures("among the first 8"),
        figures("in the upper half"),
        figures("ratio"),
        figures("starts"),
    ];
    let row = |climbed: &Climbed<'_>| {
        let (starts, half) = (climbed.starts(), f64::from(climbed.most()) / 2.0);
        let median = |wanted: &dyn Fn(f64) -> bool| {
            let times = starts.iter().filter(|(alive, _)| wanted(*alive)).map(|(_, time)| *time);
            Sorted::new(times).map(|times| times.median())
        };
        let (first, last) = (median(&|alive| alive < 8.0)?, median(&|alive| alive >= half)?);
        let ratio = units::ratio(last / first);
        Some(vec![climbed.cell.name.clone(), units::time(first), units::time(last), ratio, starts.len().to_string()])
    };
    Table::new(
        "Median start-up times by how many were alive already.",
        head,
        crowd.compared().filter_map(row).collect(),
    )
}

/// Ladders that ended before the most, and why.
pub fn ended(crowd: &Crowd<'_>) -> Table {
    let head = vec![words("cell"), figures("pass"), words("ended by"), words("why")];
    let row = |ladder: &&Ladder| {
        let cell = crowd.density.cells.get(ladder.cell)?;
        let pass = (ladder.pass + 1).to_string();
        Some(vec![cell.name.clone(), pass, by(ladder.ended).to_owned(), ladder.reason.clone().unwrap_or_default()])
    };
    let early = crowd.density.ladders.iter().filter(|ladder| ladder.ended != Ended::Complete);
    Table::new(
        "Ladders that ended before the most were alive.",
        head,
        early.collect::<Vec<_>>().iter().filter_map(row).collect(),
    )
}

fn by(ended: Ended) -> &'static str {
    match ended {
        Ended::Complete => "the most were alive",
        Ended::Memory => "memory",
        Ended::Budget => "time",
        Ended::Interrupted => "the user",
        Ended::Failed => "a failure",
    }
}
