//! Ratios of several hosts: one row for each subject on each host.

use super::Chart;
use super::answer::{self, Row};
use crate::hosts::{Across, Hosts, letter};

/// Start-up and memory; a host has the same colour and mark in both.
pub(crate) fn draw(hosts: &Hosts<'_>) -> [Option<Chart>; 2] {
    let rows = |lines: &[Across]| -> Vec<Row> {
        let row = |line: &Across, (host, ratio)| {
            let name = format!("{} · {}", crate::text::shortened(&line.subject, super::LETTERS), letter(host));
            Row { name, place: host, ratio }
        };
        lines.iter().flat_map(|line| line.ratios().map(|it| row(line, it)).collect::<Vec<_>>()).collect()
    };
    let floor = hosts.runs.iter().map(crate::analysis::Analysis::floor).fold(0.0, f64::max);
    [
        answer::draw(
            "hosts-startup",
            "Start-up on each host",
            "start-up time beside the host’s process, log scale",
            &rows(&hosts.startup),
            floor,
        ),
        answer::draw(
            "hosts-memory",
            "Memory of one more on each host",
            "memory of one more beside the host’s process, log scale",
            &rows(&hosts.memory),
            0.0,
        ),
    ]
}
