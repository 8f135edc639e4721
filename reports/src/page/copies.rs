//! The sections of the suites `snapshot` and `clone`.

use maud::{Markup, html};

use super::parts::{chart_section, drawn_from, figure, table, twin};
use crate::analysis::Analysis;
use crate::chart::{Chart, Charts};
use crate::copies::{Costed, Costs};
use crate::model::{Act, Stop, Sweep};
use crate::stats::FEWEST_ROUNDS;
use crate::{tables, units};

pub(super) fn sections(analysis: &Analysis<'_>, charts: &Charts) -> Markup {
    html! {
        @if let Some(costs) = &analysis.snapshot { (snapshot(costs, charts)) }
        @if let Some(costs) = &analysis.clone { (clone(costs, charts)) }
    }
}

/// How much of it was measured.
fn extent(costs: &Costs<'_>) -> Markup {
    let copies = costs.copies;
    html! {
        "Every act was made once a round, in an order of the round’s own; there were "
        (units::count(costs.rounds(), "round")) " after the warm-up"
        @match copies.stopped {
            Stop::Complete => { ". " }
            Stop::Budget => { ", as many as the time allowed. " }
            Stop::Interrupted => { "; then the user ended it. " }
        }
        "Intervals are those of medians, from resampling rounds"
        @if !costs.is_bounded() { "; of fewer than " (FEWEST_ROUNDS) " there are none" }
        "; every single act is a row of " a href="copies.csv" { "copies.csv" } ", all medians and lines are in "
        a href="costs.csv" { "costs.csv" } " and " a href="trends.csv" { "trends.csv" } ". "
    }
}

/// Where every single act is a row.
const ACTS: &str = "copies.csv";

fn snapshot(costs: &Costs<'_>, charts: &Charts) -> Markup {
    let sizes = tables::copies(
        costs,
        "Over the size of the original. Of a save: beside a plain write of as many bytes.",
        |it| it.cell.sweep == Sweep::Size,
    );
    let saved = |it: &Costed<'_>| matches!(it.cell.act, Act::Create | Act::Diff);
    let touched =
        tables::copies(costs, "Over what is written again.", |it| it.cell.sweep == Sweep::Touch && !saved(it));
    let changed =
        tables::copies(costs, "Over what was written since.", |it| it.cell.sweep == Sweep::Touch && saved(it));
    html! {
        section.suite aria-labelledby="snapshots" {
            h2 id="snapshots" { "Snapshots: what does it cost to stop, and to go on?" }
            p {
                "A machine ran, wrote to a part of its memory, and was saved, whole and with fsync(2). Others went on from that: "
                em { "lazily" } ", with the memory file mapped; " em { "eagerly" } ", after all that it holds was read; " em { "prefetched" } ", after those pages were read that a machine before it had touched; " em { "served" }
                ", as children of a process that has it already. Each proved itself by a nonce that only the first machine was told, and then wrote again to every page that "
                "it was to: the time with its writes is what a user would wait for. " (extent(costs))
            }
            (table(&tables::trends(costs)))
            @if let Some(chart) = &charts.sizes {
                (chart_section(chart, &html! { p {
                    "Both axes are logarithmic, so a line’s slope is the power by which the time grows. Level: only what was touched costs anything. "
                    "At the slope of 1: all of it does. The machines of a line have written the same share of their memory."
                } }, &table(&sizes), ACTS))
            }
            @if let Some(chart) = &charts.touched {
                (chart_section(chart, &html! { p {
                    "Where a line begins is the time until the machine runs; its slope is the price of a page that is touched for the first time. "
                    "Small marks are single machines. Where two lines cross, mapping memory stops being the quicker way."
                } }, &table(&touched), ACTS))
            }
            (pair("changes-only", "Only what has changed", &html! { p {
                "A machine went on from a snapshot, wrote to so much of its memory, and was saved once more: whole, or only what had changed since, on top of that snapshot. "
                "Each such save then went on and knew the nonce."
            } }, [&charts.changes, &None], Some(&table(&changed))))
            (pair("bytes", "Bytes, and containers", &html! { p {
                "Left: a snapshot’s files are as long as the machine’s memory, and take of the disk what was touched. "
                "Right: a container’s commit makes a layer of the files that it changed, and an image; running that starts a container with them."
            } }, [&charts.disk, &charts.commits], None))
        }
    }
}

fn clone(costs: &Costs<'_>, charts: &Charts) -> Markup {
    let of = |subject: &'static str, name: &str| {
        tables::copies(costs, name, move |it| it.cell.subject == subject && it.cell.sweep == Sweep::Touch)
    };
    let (machines, containers) = (of("microvm-app", "Clones of a machine."), of("container", "Clones of a container."));
    let rest = tables::copies(costs, "Chains, and several at once.", |it| {
        matches!(it.cell.sweep, Sweep::Depth | Sweep::Together) && it.cell.act != Act::Checkpoint
    });
    html! {
        section.suite aria-labelledby="clones" {
            h2 id="clones" { "Clones: what does sharing save, and when is it paid?" }
            p {
                "A " em { "linked" } " clone shares with its original whatever neither changes; a " em { "full" } " one has everything once more, "
                "and a full machine also reads all of its memory before it runs. Time is from the command that makes the clone to the proof that it runs, and then on until it has written "
                "again to a part of what its original had written: to pages of memory, or to files. " (extent(costs))
            }
            (table(&tables::trends(costs)))
            (pair("machines", "Clones of a machine", &html! { p {
                "Left: until the clone runs and has written so much. Right: what it then has of disk and of memory for itself. Where the lines cross, sharing no longer pays."
            } }, [&charts.machine_times, &charts.machine_bytes], Some(&table(&machines))))
            (pair("containers", "Clones of a container", &html! { p {
                "The same with files in the place of pages: the first write to a file copies all of it out of the layer below (copy-up), however little is written."
            } }, [&charts.container_times, &charts.container_bytes], Some(&table(&containers))))
            (pair("many", "Deep, and many", &html! { p {
                "Left: a clone of a clone of a clone. Level means that nobody pays for the ancestors. Right: so many made at once, each timed from its own command on."
            } }, [&charts.depth, &charts.together], Some(&table(&rest))))
        }
    }
}

/// Two charts beside each other; nothing where neither is.
fn pair(id: &str, title: &str, guide: &Markup, charts: [&Option<Chart>; 2], tables: Option<&Markup>) -> Markup {
    if charts.iter().all(|chart| chart.is_none()) {
        return html! {};
    }
    html! {
        section aria-labelledby=(id) {
            h3 id=(id) { (title) }
            (guide)
            div.pair { @for chart in charts.into_iter().flatten() { (figure(chart)) } }
            @match tables {
                Some(tables) => (twin(tables, ACTS)),
                None => (drawn_from(ACTS)),
            }
        }
    }
}
