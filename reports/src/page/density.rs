//! The section of the suite `density`.

use maud::{Markup, html};

use super::parts::{chart_section, figure, table, twin};
use crate::chart::Charts;
use crate::density::{Crowd, Measure};
use crate::{tables, units};

pub(super) fn section(crowd: &Crowd<'_>, charts: &Charts) -> Markup {
    html! {
        section.suite aria-labelledby="crowd" {
            h2 id="crowd" { "Density: what does one more cost?" }
            (terms(crowd))
            (table(&tables::density(crowd)))
            (lines(crowd, charts))
            (doubts(crowd, charts))
            (parts(crowd, charts))
        }
    }
}

/// What was done, in a paragraph.
fn terms(crowd: &Crowd<'_>) -> Markup {
    let density = crowd.density;
    html! {
        p {
            "Instances stayed alive side by side: none, then 1, 2, 4 and so on, up to " (density.most)
            ", each proved by its nonce, and asked for it once more at the top. "
            @if density.touched_bytes > 0 { "Each touched " (units::bytes(density.touched_bytes as f64)) " after READY. " }
            "Every subject was to be climbed " (units::count(density.passes as usize, "time")) ", in an order of each pass’s own. "
            "A ladder ends before less than " (units::bytes(density.reserve_bytes as f64)) " are available. KSM was "
            @if density.ksm { "on: equal pages of different instances are counted once." } @else { "off." }
        }
        @if crowd.measure == Measure::Accounted {
            p {
                strong { "MemAvailable could not be used: " }
                "other programs moved it more than the instances did, so its slope is not sure for every subject. What is compared instead is what can be told apart from "
                "the rest of the host: proportional sets and the kernel’s own memory (slab, page tables, stacks, per CPU). Pages that the kernel takes in other ways, "
                "as it does for a virtual machine, are not in it."
            }
        }
        @let unrested = density.ladders.iter().filter(|ladder| ladder.dying_groups > 0).count();
        @if unrested > 0 {
            p {
                strong { "Not at rest: " }
                (unrested) " of " (units::count(density.ladders.len(), "ladder"))
                " began while the kernel still had control groups that an earlier one had removed. What it puts back meanwhile makes an instance seem lighter."
            }
        }
        @if crowd.floor > 0.0 {
            p { "The noise floor is " (units::percent(crowd.floor)) ": so far may the slopes of one subject and its A/A twin lie apart." }
        }
    }
}

/// Where every rung of every ladder is a row.
const RUNGS: &str = "density.csv";

fn lines(crowd: &Crowd<'_>, charts: &Charts) -> Markup {
    let Some(chart) = &charts.density else { return html! {} };
    let guide = html! {
        p {
            "Each point is a rung of a ladder: so many alive, so much memory. The line is the least-squares fit of all passes, the shaded band its 95 % interval, "
            "and its slope is what one more costs. Where a line meets the left edge is what the first one pays for all. "
            @if crowd.measure == Measure::Available {
                "What other programs’ own memory grew by meanwhile is taken off each point."
            }
        }
    };
    chart_section(chart, &guide, &table(&tables::rungs(crowd)), RUNGS)
}

fn doubts(crowd: &Crowd<'_>, charts: &Charts) -> Markup {
    let (Some(residuals), Some(starts)) = (&charts.residuals, &charts.starts) else { return html! {} };
    html! {
        section aria-labelledby="line" {
            h3 id="line" { "Is it a line at all?" }
            p {
                "Left: what each point is off its line by. Scattered around 0 is noise; a bow means that the cost is not the same for each. "
                "Right: how long an instance took to start while so many were alive already. A level curve does not care how full the house is."
            }
            div.pair { (figure(residuals)) (figure(starts)) }
            (twin(&table(&tables::starts(crowd)), RUNGS))
        }
    }
}

fn parts(crowd: &Crowd<'_>, charts: &Charts) -> Markup {
    let Some(chart) = &charts.memory else { return html! {} };
    let guide = html! {
        p {
            "Slopes again, cut into parts: pages that only this instance has (USS), its share of pages that several have (PSS less USS), and what the kernel keeps for it: "
            "slab, page tables, stacks. The diamond is what the host has less, with its interval. The ring is the resident set, which counts every common page "
            "again for every instance: the farther it lies to the right of the bar, the more it overstates."
        }
    };
    chart_section(chart, &guide, &table(&tables::memory(crowd)), RUNGS)
}
