//! The page of criterion's results.

use maud::{DOCTYPE, PreEscaped, html};

use super::parts::{figure, table};
use super::{GENERATOR, style};
use crate::chart::Chart;
use crate::criterion::Group;
use crate::tables;
use crate::text::printable;

/// The whole page.
pub(crate) fn render_criterion(groups: &[Group], chart: Option<&Chart>) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(GENERATOR);
                title { "isolab: benchmarks" }
                style { (PreEscaped(style())) }
            }
            body {
                main {
                    header {
                        p.kicker { "isolab · criterion" }
                        h1 { "What the benchmarks say" }
                    }
                    p {
                        "Each mark is the median over criterion's samples, of which each is the mean over many iterations. The thick line is its "
                        "95 % interval, by the bootstrap; the thin one is where nine tenths of the samples lie. Two benchmarks differ "
                        "for sure only where their thick lines are apart. They ran one after another, not by turns: for a verdict on two "
                        "subjects use " code { "isolab-bench run" } "."
                    }
                    @if let Some(chart) = chart { (figure(chart)) }
                    @for group in groups { (table(&tables::benchmarks(group))) }
                }
            }
        }
    };
    printable(&page.into_string())
}
