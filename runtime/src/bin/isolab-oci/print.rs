//! What goes to standard output: JSON as runc's callers read it, and tables for people.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::Duration;

use isolab_runtime::container::cgroup::{DeviceIo, Stats};
use isolab_runtime::container::{ContainerEvent, ContainerId, Runtime};
use serde::Serialize;
use serde_json::{Value, json};

use crate::voice::Failure;

/// Writes a text.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let failed = |source| Failure::Write { to: "standard output".to_owned(), source };
    io::stdout().write_all(text.as_bytes()).map_err(failed)
}

/// JSON for people: over several lines.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    text(&format!("{:#}\n", to_value(value)?))
}

/// JSON for programs: one line.
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    text(&format!("{}\n", to_value(value)?))
}

fn to_value(value: &impl Serialize) -> Result<Value, Failure> {
    let failed = |error: serde_json::Error| Failure::Write { to: "standard output".to_owned(), source: error.into() };
    serde_json::to_value(value).map_err(failed)
}

/// The value without fields that are null: in the specification's files "not said" is a field that is not there.
pub(crate) fn without_nulls(value: &impl Serialize) -> Value {
    fn prune(value: Value) -> Value {
        match value {
            Value::Object(object) => object
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, prune(value)))
                .collect(),
            other => other,
        }
    }
    serde_json::to_value(value).map(prune).unwrap_or_default()
}

/// Rows under a heading, each column as wide as its widest text.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Texts, a line each.
pub(crate) fn lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    lines.into_iter().fold(String::new(), |text, line| text + line + "\n")
}

/// All containers, or only their names.
pub(crate) fn containers(runtime: &Runtime, quiet: bool) -> Result<(), Failure> {
    let all = runtime.overviews()?;
    if quiet {
        return text(&lines(all.iter().map(|one| one.id.as_str())));
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned).to_vec()];
    rows.extend(all.into_iter().map(|one| {
        let pid = one.pid.unwrap_or(0).to_string();
        vec![one.id, pid, one.status.to_string(), one.bundle.display().to_string(), one.created, one.owner]
    }));
    text(&columns(&rows))
}

/// One line of counts.
pub(crate) fn stats(id: &ContainerId, stats: &Stats) -> Result<(), Failure> {
    json_line(&json!({ "type": "stats", "id": id.as_str(), "data": shaped(stats) }))
}

/// Lines until the container ends, or nobody reads them any more.
pub(crate) fn events(runtime: &Runtime, id: &ContainerId, interval: Duration) -> Result<(), Failure> {
    let mut outcome = Ok(());
    runtime.watch(id, interval, |event| {
        outcome = match event {
            ContainerEvent::Stats(counts) => stats(id, &counts),
            ContainerEvent::OutOfMemory => json_line(&json!({ "type": "oom", "id": id.as_str() })),
        };
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    outcome
}

/// Counts in the shape that runc gives them. What the host does not count is left out; no limit is the largest number.
fn shaped(stats: &Stats) -> Value {
    let limit = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let (cpu, memory) = (&stats.cpu, &stats.memory);
    let value = json!({
        "cpu": {
            "usage": { "total": cpu.usage_ns, "kernel": cpu.system_ns, "user": cpu.user_ns },
            "throttling": {
                "periods": cpu.periods, "throttledPeriods": cpu.throttled_periods, "throttledTime": cpu.throttled_ns,
            },
        },
        "memory": {
            "cache": memory.file,
            "usage": {
                "usage": memory.usage, "max": memory.peak, "limit": limit(memory.limit), "failcnt": memory.oom_events,
            },
            "swap": { "usage": memory.usage_with_swap },
            "raw": { "anon": memory.anonymous, "file": memory.file, "inactive_file": memory.inactive_file },
        },
        // Here no limit is 0, as it is in linux.resources.
        "pids": { "current": stats.pids.current, "limit": stats.pids.limit.unwrap_or(0) },
        "blkio": {
            "ioServiceBytesRecursive": io(&stats.io, |device| (device.read_bytes, device.written_bytes)),
            "ioServicedRecursive": io(&stats.io, |device| (device.reads, device.writes)),
        },
        "hugetlb": stats.hugetlb.iter().map(|(size, usage)| (size.clone(), json!({ "usage": usage }))).collect::<Value>(),
    });
    without_nulls(&value)
}

/// A pair of counts of each device, an entry a count.
fn io(devices: &BTreeMap<String, DeviceIo>, counts: impl Fn(&DeviceIo) -> (u64, u64)) -> Value {
    let mut entries = Vec::new();
    for (device, io) in devices {
        let Some((Ok(major), Ok(minor))) =
            device.split_once(':').map(|(major, minor)| (major.parse::<u64>(), minor.parse::<u64>()))
        else {
            continue;
        };
        let (read, written) = counts(io);
        for (op, value) in [("Read", read), ("Write", written)] {
            entries.push(json!({ "major": major, "minor": minor, "op": op, "value": value }));
        }
    }
    Value::Array(entries)
}

#[cfg(test)]
mod tests {
    use super::{columns, shaped};
    use isolab_runtime::container::cgroup::{DeviceIo, Stats};
    use serde_json::json;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["ID", "PID"], ["longer", "7"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(columns(&rows), "ID      PID\nlonger  7\n");
    }

    #[test]
    fn counts_have_runcs_shape() {
        let mut stats = Stats::default();
        stats.memory.usage = Some(4096);
        stats.io.insert("8:1".to_owned(), DeviceIo { read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 });
        let shaped = shaped(&stats);
        assert_eq!(shaped["memory"]["usage"], json!({ "usage": 4096, "limit": u64::MAX }));
        assert_eq!(shaped["pids"], json!({ "limit": 0 }));
        let writes = &shaped["blkio"]["ioServicedRecursive"][1];
        assert_eq!(*writes, json!({ "major": 8, "minor": 1, "op": "Write", "value": 4 }));
    }
}
