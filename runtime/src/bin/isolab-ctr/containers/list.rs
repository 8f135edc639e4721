//! `ps`: containers in a table.

use std::time::Duration;

use clap::Args;
use isolab_runtime::container::{rfc3339, since_epoch};
use isolab_runtime::engine::{Engine, Mount, Record, State, WishError};
use serde_json::{Map, Value};

use super::namespaces;
use crate::format::{Listing, labels, row};
use crate::print;
use crate::voice::Failure;

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of docker's")]
pub(crate) struct Ps {
    /// Also containers that don't run
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print everything whole
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only the youngest
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Only so many of the youngest
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// Also how much each has written, and with its image
    #[arg(short, long)]
    size: bool,
    /// Only containers with this: id, name, status, exited, ancestor, label
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// By a template, or `json`
    #[arg(long)]
    format: Option<String>,
    /// The namespaces of each in place of the usual: their numbers, and whose they are
    #[arg(long, conflicts_with_all = ["quiet", "format"])]
    ns: bool,
}

/// What the table shows where what is written is asked for too, by docker's names.
const SIZED: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
];
/// What the usual table shows.
const COLUMNS: &[(&str, &str)] = SIZED.split_at(SIZED.len() - 1).0;
/// What it leaves out.
const MORE: &[(&str, &str)] = &[
    ("CreatedAt", "CREATED AT"),
    ("State", "STATE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Size", "SIZE"),
];

impl Ps {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let rows = self.chosen(engine)?;
        if self.quiet {
            let id = |record: &Record| format!("{}\n", self.id(record));
            print::text(&rows.iter().map(|(record, _)| id(record)).collect::<String>())?;
            return Ok(0);
        }
        if self.ns {
            namespaces::print(engine, &rows, self.no_trunc)?;
            return Ok(0);
        }
        let rows = rows.iter().map(|(record, state)| {
            let mut row = self.row(record, *state);
            if self.format.is_some() {
                let network = engine.inspect(record)?["HostConfig"]["NetworkMode"].take();
                row.insert("Networks".to_owned(), network);
            }
            if self.size || self.format.as_ref().is_some_and(|format| format.contains(".Size")) {
                let (own, whole) = engine.sizes(record)?;
                let text = format!("{} (virtual {})", print::size(own), print::size(whole));
                row.insert("Size".to_owned(), text.into());
            }
            Ok(row)
        });
        let rows = rows.collect::<Result<Vec<_>, Failure>>()?;
        let columns = if self.size { SIZED } else { COLUMNS };
        Listing { columns, more: MORE, rows }.print(self.format.as_deref())?;
        Ok(0)
    }

    fn row(&self, record: &Record, state: State) -> Map<String, Value> {
        let mounts = &record.wishes.mounts;
        let source = |mount: &Mount| mount.volume.clone().unwrap_or_else(|| mount.from.display().to_string());
        let volumes = mounts.iter().filter(|mount| mount.volume.is_some()).count();
        let mut labels_of = record.config.labels.clone();
        labels_of.extend(record.wishes.labels.clone());
        row(&[
            ("ID", self.id(record)),
            ("Image", record.image.name.clone()),
            ("Command", self.command(record)),
            ("RunningFor", format!("{} ago", span(since(record.created)))),
            ("Status", status(record, state)),
            ("Ports", ports(record)),
            ("Names", record.name.clone()),
            ("CreatedAt", rfc3339(Duration::from_nanos(record.created))),
            ("State", state.word().to_owned()),
            ("Labels", labels(&labels_of)),
            ("Mounts", mounts.iter().map(source).collect::<Vec<_>>().join(",")),
            ("LocalVolumes", volumes.to_string()),
        ])
    }

    /// The containers that are asked for, with where each is in its life.
    pub(crate) fn chosen(&self, engine: &Engine) -> Result<Vec<(Record, State)>, Failure> {
        let filters = self.filter.iter().map(|text| filter(text)).collect::<Result<Vec<_>, _>>()?;
        let by_state = filters.iter().any(|(key, _)| matches!(*key, "status" | "exited"));
        let mut rows = Vec::new();
        for record in engine.list()? {
            let state = engine.state(&record)?;
            let shown = self.all
                || self.latest
                || self.last.is_some()
                || by_state
                || state.is_up()
                || state == State::Restarting;
            if shown && fits(&record, state, &filters) {
                rows.push((record, state));
            }
        }
        rows.truncate(if self.latest { 1 } else { self.last.unwrap_or(usize::MAX) });
        Ok(rows)
    }

    fn id(&self, record: &Record) -> String {
        if self.no_trunc { record.id.clone() } else { record.short_id().to_owned() }
    }

    fn command(&self, record: &Record) -> String {
        const WIDTH: usize = 20;
        let (wishes, config) = (&record.wishes, &record.config);
        let mut words = wishes.entrypoint.clone().or_else(|| config.entrypoint.clone()).unwrap_or_default();
        match (wishes.command.is_empty(), &wishes.entrypoint) {
            (false, _) => words.extend(wishes.command.iter().cloned()),
            (true, None) => words.extend(config.cmd.iter().flatten().cloned()),
            (true, Some(_)) => {}
        }
        let text = words.join(" ");
        if self.no_trunc || text.chars().count() <= WIDTH {
            return format!("\"{text}\"");
        }
        format!("\"{}…\"", text.chars().take(WIDTH - 1).collect::<String>())
    }
}

/// What is published of it, as the network tells it.
fn ports(record: &Record) -> String {
    let network = record.life.running.as_ref().and_then(|running| running.network.as_ref());
    network.and_then(|network| network.get("PortsText")?.as_str()).unwrap_or_default().to_owned()
}

fn filter(text: &str) -> Result<(&str, &str), WishError> {
    const KEYS: [&str; 6] = ["id", "name", "status", "exited", "ancestor", "label"];
    match text.split_once('=') {
        Some((key, value)) if KEYS.contains(&key) => Ok((key, value)),
        _ => Err(WishError {
            text: text.to_owned(),
            expected: "KEY=VALUE with id, name, status, exited, ancestor or label",
        }),
    }
}

/// Values of one key are alternatives, different keys are conditions; labels are conditions each.
fn fits(record: &Record, state: State, filters: &[(&str, &str)]) -> bool {
    let holds = |key: &str, value: &str| match key {
        "id" => record.id.starts_with(value),
        "name" => record.name.contains(value),
        "status" => state.word() == value,
        "exited" => state == State::Exited && record.code().map(|code| code.to_string()).as_deref() == Some(value),
        "ancestor" => {
            let id = record.image.id.trim_start_matches("sha256:");
            record.image.name == value || record.image.name.split(':').next() == Some(value) || id.starts_with(value)
        }
        _ => {
            let (name, wanted) = value.split_once('=').map_or((value, None), |(name, wanted)| (name, Some(wanted)));
            record.has_label(name, wanted)
        }
    };
    filters.iter().all(|(key, value)| match *key {
        "label" => holds(key, value),
        key => filters.iter().filter(|(other, _)| *other == key).any(|(_, value)| holds(key, value)),
    })
}

/// docker's words: `Up 3 minutes (healthy)`, `Exited (0) 2 hours ago`. A status that nobody saw is `?`.
pub(crate) fn status(record: &Record, state: State) -> String {
    let life = &record.life;
    let code = life.code.map_or_else(|| "?".to_owned(), |code| code.to_string());
    let ago = || span(since(life.finished.unwrap_or(record.created)));
    let up = || span(since(life.started.unwrap_or(record.created)));
    match state {
        State::Created => "Created".to_owned(),
        State::Paused => format!("Up {} (Paused)", up()),
        State::Running => match &life.health {
            Some(health) if health.status == "starting" => format!("Up {} (health: starting)", up()),
            Some(health) => format!("Up {} ({})", up(), health.status),
            None => format!("Up {}", up()),
        },
        State::Restarting => format!("Restarting ({code}) {} ago", ago()),
        State::Exited => format!("Exited ({code}) {} ago", ago()),
        State::Dead => "Dead".to_owned(),
    }
}

fn since(nanoseconds: u64) -> Duration {
    since_epoch().saturating_sub(Duration::from_nanos(nanoseconds))
}

/// How long, roughly, as docker says it.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let several = |number: u64, unit: &str| format!("{number} {unit}{}", if number == 1 { "" } else { "s" });
    match seconds {
        0 => "Less than a second".to_owned(),
        1..60 => several(seconds, "second"),
        60..120 => "About a minute".to_owned(),
        120..3600 => several(seconds / 60, "minute"),
        3600..7200 => "About an hour".to_owned(),
        7200..172_800 => several(seconds / 3600, "hour"),
        172_800..1_209_600 => several(seconds / 86_400, "day"),
        1_209_600..5_184_000 => several(seconds / 604_800, "week"),
        5_184_000..63_072_000 => several(seconds / 2_592_000, "month"),
        _ => several(seconds / 31_536_000, "year"),
    }
}

#[cfg(test)]
mod tests {
    use super::span;
    use std::time::Duration;

    #[test]
    fn a_span_is_told_roughly() {
        let told = [0, 1, 59, 60, 125, 3600, 90_000, 200_000].map(|seconds| span(Duration::from_secs(seconds)));
        let expected = [
            "Less than a second",
            "1 second",
            "59 seconds",
            "About a minute",
            "2 minutes",
            "About an hour",
            "25 hours",
            "2 days",
        ];
        assert_eq!(told, expected);
    }
}
