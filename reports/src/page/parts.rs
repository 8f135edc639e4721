//! The pieces that the page is put together from.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{GENERATOR, style};
use crate::chart::Chart;
use crate::model::Status;
use crate::tables::Table;
use crate::text::printable;

/// A whole page: its title, and what is in it.
pub(super) fn page(title: &str, content: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(GENERATOR);
                title { (title) }
                style { (PreEscaped(style())) }
            }
            body { main { (content) } }
        }
    };
    printable(&page.into_string())
}

/// A section with one chart: how to read it, the chart, its figures as tables, and the file of what it is drawn from.
pub(super) fn chart_section(chart: &Chart, guide: &Markup, tables: &Markup, samples: &str) -> Markup {
    html! {
        section aria-labelledby=(chart.slug) {
            h3 id=(chart.slug) { (chart.title) }
            (guide)
            (figure(chart))
            (twin(tables, samples))
        }
    }
}

/// A chart. On a narrow screen it keeps its size and scrolls, since small print would be no print.
pub(super) fn figure(chart: &Chart) -> Markup {
    html! {
        figure class={ "chart " (chart.slug) } tabindex="0" aria-label=(chart.title) { (PreEscaped(chart.inline())) }
    }
}

/// The tables that repeat a chart, and where each sample behind it stands.
pub(super) fn twin(tables: &Markup, samples: &str) -> Markup {
    html! { details { summary { "The same in figures" } (tables) } (drawn_from(samples)) }
}

/// A link to the file that has each sample behind a chart or table as a row.
pub(super) fn drawn_from(samples: &str) -> Markup {
    html! { p.more { "Drawn from " a href=(samples) { (samples) } ", a row for each sample." } }
}

/// A table, in a box that scrolls where a screen is narrower than it.
pub(super) fn table(table: &Table) -> Markup {
    let class = |column: usize| table.head.get(column).filter(|column| column.figures).map(|_| "n");
    html! {
        div.scroll role="region" aria-label=(table.caption) tabindex="0" {
            table {
                caption { (table.caption) }
                thead {
                    tr {
                        @for (place, column) in table.head.iter().enumerate() {
                            th scope="col" class=[class(place)] { (column.name) }
                        }
                    }
                }
                tbody {
                    @for row in &table.rows {
                        tr {
                            @for (place, text) in row.iter().enumerate() {
                                @if place == 0 { th scope="row" class=[class(place)] { (text) } }
                                @else { td class=[class(place)] { (words(text)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A text in which no line ends between the hyphens of an option and its name, nor within an interval.
fn words(text: &str) -> Markup {
    html! {
        @for (place, word) in text.split(' ').enumerate() {
            @if place > 0 { " " }
            @if word.starts_with("--") || word.starts_with('(') && word.ends_with(')') { span.flag { (word) } } @else { (word) }
        }
    }
}

/// The class of a remark.
pub(super) fn class(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Info => "info",
        Status::Warn | Status::Missing => "warn",
    }
}
