//! The page of several hosts.

use maud::{Markup, html};

use super::parts::{figure, page, table};
use crate::chart::Chart;
use crate::hosts::{Hosts, sentences};
use crate::tables;

/// The whole page. The charts: of start-up, and of memory.
pub(crate) fn render_hosts(hosts: &Hosts<'_>, [startup, memory]: [Option<&Chart>; 2]) -> String {
    let count = hosts.runs.len();
    let content = html! {
        header {
            p.kicker { "isolab · " (count) " hosts" }
            h1 { "What isolation costs, host by host" }
        }
        p.lead {
            "A time belongs to the host that it was measured on. What is compared here are ratios: each host’s subjects beside its own bare process, which met the same machine in the same rounds."
        }
        ul { @for sentence in sentences(hosts) { li { (sentence) } } }
        (table(&tables::hosts(hosts)))
        (part("startup", "Start-up", startup, &table(&tables::hosts_startup(hosts))))
        @if !hosts.memory.is_empty() { (part("memory", "Memory of one more", memory, &table(&tables::hosts_memory(hosts)))) }
    };
    page("isolab: hosts compared", &content)
}

fn part(id: &str, title: &str, chart: Option<&Chart>, table: &Markup) -> Markup {
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (title) }
            @if let Some(chart) = chart { (figure(chart)) }
            (table)
        }
    }
}
