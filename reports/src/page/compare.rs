//! The page of two runs.

use maud::{Markup, html};

use super::parts::{figure, page, table};
use crate::chart::Chart;
use crate::compare::{Comparison, SIGNIFICANT, sentences};
use crate::{tables, units};

/// The whole page.
pub(crate) fn render_comparison(comparison: &Comparison<'_>, chart: Option<&Chart>) -> String {
    let sentences = sentences(comparison);
    let content = html! {
            header {
                p.kicker { "isolab · two runs" }
                h1 { "What changed from A to B?" }
            }
            @if let Some((first, rest)) = sentences.split_first() {
                p.lead { (first) }
                ul { @for sentence in rest { li { (sentence) } } }
            }
            (table(&tables::runs(comparison)))
            (figures(comparison, chart))
            (around(comparison))
    };
    page("isolab: two runs compared", &content)
}

fn figures(comparison: &Comparison<'_>, chart: Option<&Chart>) -> Markup {
    html! {
        section aria-labelledby="figures" {
            h2 id="figures" { "The figures" }
            @if let Some(chart) = chart {
                p {
                    "Right of 1, B is slower or heavier than A. Within the band a difference is no larger than 5 %, or than what one subject differs from itself by. "
                    "A change is called one only if its whole interval lies outside the band (" (units::percent(comparison.floor)) " here). For start-up, p must be at most " (SIGNIFICANT) " once it is corrected for the number of figures (Holm), and the interval must lie beyond what the bare process changed by; for memory, each ladder of one run must lie on the same side of each of the other."
                }
                (figure(chart))
                (table(&tables::comparison(comparison)))
            }
            @if !comparison.alone.is_empty() { (table(&tables::alone(comparison))) }
        }
    }
}

fn around(comparison: &Comparison<'_>) -> Markup {
    html! {
        section aria-labelledby="around" {
            h2 id="around" { "What else changed" }
            @if comparison.host.is_empty() && comparison.environment.is_empty() {
                p { "Nothing that the doctor looks at." }
            }
            @if !comparison.host.is_empty() {
                (table(&tables::differences("The hosts are not the same.", &comparison.host)))
            }
            @if !comparison.environment.is_empty() {
                (table(&tables::differences("Changed in the environment.", &comparison.environment)))
            }
        }
    }
}
