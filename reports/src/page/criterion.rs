//! The page of criterion's results.

use maud::html;

use super::parts::{figure, page, table};
use crate::chart::Chart;
use crate::criterion::Group;
use crate::tables;

/// The whole page.
pub(crate) fn render_criterion(groups: &[Group], chart: Option<&Chart>) -> String {
    let content = html! {
            header {
                p.kicker { "isolab · criterion" }
                h1 { "What the benchmarks say" }
            }
            p {
                "Each mark is the median over criterion’s samples, of which each is the mean over many iterations. The thick line is its "
                "95 % interval, by the bootstrap; the thin one is where nine tenths of the samples lie. Two benchmarks differ "
                "for sure only where their thick lines are apart. In the groups " code { "container" } ", "
                code { "pull" } ", " code { "unpack" } " and " code { "layer" } " all took turns; elsewhere one ran after another, and a verdict on two subjects is " code { "isolab-bench run" } "’s to give."
            }
            @if let Some(chart) = chart { (figure(chart)) }
            @for group in groups { (table(&tables::benchmarks(group))) }
    };
    page("isolab: benchmarks", &content)
}
