//! Several hosts as tables.

use super::{Column, Table, figures, words};
use crate::analysis::Analysis;
use crate::hosts::{Across, Hosts, Place, letter};
use crate::units;

/// The hosts themselves.
pub fn hosts(hosts: &Hosts<'_>) -> Table {
    let head = vec![
        words("host"),
        words("measured"),
        words("processor"),
        words("kernel"),
        words("KVM"),
        words("control groups"),
        words("build"),
        figures("rounds"),
        figures("noise floor"),
    ];
    let row = |(host, analysis): (usize, &Analysis<'_>)| {
        let (run, machine) = (analysis.run, &analysis.run.host);
        let emulated = if machine.emulated { ", emulated: ratios only" } else { "" };
        vec![
            letter(host),
            run.started.clone(),
            format!("{} × {}{emulated}", machine.cpus, machine.cpu),
            machine.kernel.clone(),
            machine.kvm_driver.clone().unwrap_or_else(|| "none".to_owned()),
            machine.cgroup.clone(),
            run.tool.profile.clone(),
            analysis.measured_rounds().to_string(),
            units::percent(analysis.floor()),
        ]
    };
    Table::new("The hosts.", head, hosts.runs.iter().enumerate().map(row).collect())
}

/// Start-up on each host.
pub fn hosts_startup(hosts: &Hosts<'_>) -> Table {
    let caption = "Median start-up time, and beside the host’s own process.";
    across(caption, &hosts.startup, hosts.runs.len(), units::time)
}

/// Memory of one more on each host.
pub fn hosts_memory(hosts: &Hosts<'_>) -> Table {
    let caption = "Memory of one more, and beside the host’s own process.";
    across(caption, &hosts.memory, hosts.runs.len(), units::bytes)
}

/// A figure of each subject on each host, with its ratio to the host's own baseline.
fn across(caption: &str, lines: &[Across], hosts: usize, unit: fn(f64) -> String) -> Table {
    let head: Vec<Column> =
        std::iter::once(words("subject")).chain((0..hosts).map(|host| figures(&letter(host)))).collect();
    let place = |place: &Option<Place>| {
        let Some(place) = place else { return String::new() };
        let figure = place.figure.map(unit);
        let ratio = place.ratio.as_ref().map(units::ratio_within);
        [figure, ratio].into_iter().flatten().collect::<Vec<_>>().join(", ")
    };
    let row = |line: &Across| {
        std::iter::once(line.subject.clone()).chain(line.places.iter().map(place)).collect::<Vec<String>>()
    };
    Table::new(caption, head, lines.iter().map(row).collect())
}
