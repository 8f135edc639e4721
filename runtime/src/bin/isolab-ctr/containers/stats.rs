//! `stats`: what containers use.

use std::io::IsTerminal;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use isolab_runtime::engine::{Engine, EngineError, Record, Usage};
use serde_json::{Map, Value};

use crate::format::{Listing, row};
use crate::print;
use crate::voice::Failure;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Where a terminal's cursor goes first, and how what is there is cleared (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[J";

#[derive(Args)]
pub(crate) struct Stats {
    /// Also containers that don't run
    #[arg(short, long)]
    all: bool,
    /// Look once, and be done
    #[arg(long)]
    no_stream: bool,
    /// Print ids whole
    #[arg(long)]
    no_trunc: bool,
    /// By a template, or `json`
    #[arg(long)]
    format: Option<String>,
    /// Names or ids [default: all that run]
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Stats {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let mut before = self.look(engine)?;
        loop {
            sleep(PERIOD);
            let now = self.look(engine)?;
            let rows = now.iter().map(|(record, usage)| {
                let earlier =
                    before.iter().find(|(other, _)| other.id == record.id).and_then(|(_, usage)| usage.as_ref());
                self.row(record, usage.as_ref(), earlier)
            });
            let listing = Listing { columns: COLUMNS, more: MORE, rows: rows.collect() };
            let text = listing.text(self.format.as_deref())?;
            let clear = !self.no_stream && std::io::stdout().is_terminal();
            print::text(&format!("{}{text}", if clear { CLEAR } else { "" }))?;
            if self.no_stream {
                return Ok(0);
            }
            before = now;
        }
    }

    fn look(&self, engine: &Engine) -> Result<Vec<(Record, Option<Usage>)>, Failure> {
        let records = if self.containers.is_empty() {
            engine.list()?
        } else {
            self.containers.iter().map(|name| engine.find(name)).collect::<Result<Vec<_>, EngineError>>()?
        };
        let mut all = Vec::new();
        for record in records {
            // One that ends meanwhile has no counts any more.
            let usage = engine.usage(&record).unwrap_or(None);
            if usage.is_some() || self.all || !self.containers.is_empty() {
                all.push((record, usage));
            }
        }
        Ok(all)
    }

    fn row(&self, record: &Record, usage: Option<&Usage>, earlier: Option<&Usage>) -> Map<String, Value> {
        let none = || "--".to_owned();
        let id = if self.no_trunc { record.id.clone() } else { record.short_id().to_owned() };
        let cpu = usage.and_then(|usage| usage.cpu_since(earlier?)).map_or_else(none, |cpu| format!("{cpu:.2}%"));
        let memory = usage.and_then(Usage::memory);
        let limit = usage.and_then(Usage::memory_limit);
        let binary = |bytes: Option<u64>| bytes.map_or_else(none, print::binary_size);
        let share = memory.zip(limit.filter(|limit| *limit > 0));
        let share = share.map_or_else(none, |(memory, limit)| format!("{:.2}%", memory as f64 * 100.0 / limit as f64));
        let both = |(one, other): (u64, u64)| format!("{} / {}", print::size(one), print::size(other));
        let pids = usage.and_then(|usage| usage.stats.pids.current).map_or_else(none, |count| count.to_string());
        row(&[
            ("ID", id.clone()),
            ("Container", id),
            ("Name", record.name.clone()),
            ("CPUPerc", cpu),
            ("MemUsage", format!("{} / {}", binary(memory), binary(limit))),
            ("MemPerc", share),
            ("NetIO", usage.and_then(|usage| usage.network).map_or_else(none, both)),
            ("BlockIO", usage.map(Usage::disks).map_or_else(none, both)),
            ("PIDs", pids),
        ])
    }
}

const COLUMNS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];
const MORE: &[(&str, &str)] = &[("Container", "CONTAINER")];
