//! Another process in a container that runs, and a look at those that are there.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tracing::info_span;

use super::Engine;
use super::document::set_variable;
use super::error::{EngineError, io_error};
use super::record::{Record, State};
use super::rights;
use super::streams::Streams;
use super::user::{identify, join_groups};
use crate::container::{Ending, Exec};

/// What another process shall be; what is not said is as for the container's first one.
#[derive(Debug, Clone, Default)]
pub struct Other {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables that are added or changed.
    pub environment: Vec<(String, String)>,
    /// As whom.
    pub user: Option<String>,
    /// Where it runs.
    pub folder: Option<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Whether it may outlive the command.
    pub detach: bool,
}

/// A process of a container, as the kernel tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its user's number.
    pub uid: u32,
    /// Its number on the host.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// How long it has used processors.
    pub used: Duration,
    /// Its program and arguments.
    pub command: String,
}

impl Engine {
    /// Runs another process in a container. Answers how it ended, or nothing where it goes on by itself.
    pub fn exec(&self, text: &str, other: &Other) -> Result<Option<Ending>, EngineError> {
        let record = self.find(text)?;
        match self.state(&record)? {
            State::Running => {}
            state => return Err(super::control::unfit("execute in", &record, state)),
        }
        let process = Some(self.process(&record, other)?);
        let asked = Exec { process, detach: other.detach, ..Exec::default() };
        let streams = other.detach.then(Streams::silence).transpose()?;
        let ending = self.runtime.exec(&record.id.parse()?, &asked);
        drop(streams);
        Ok(ending?)
    }

    /// The process in the runtime's words: the container's first one, changed.
    fn process(&self, record: &Record, other: &Other) -> Result<Value, EngineError> {
        let path = self.folder(record).join("config.json");
        let text = fs::read(&path).map_err(io_error("read", &path))?;
        let mut all: Value = serde_json::from_slice(&text).map_err(|source| EngineError::Record { path, source })?;
        let mut process = all["process"].take();
        process["args"] = json!(other.command);
        process["terminal"] = json!(other.terminal && !other.detach);
        let mut env: Vec<String> = serde_json::from_value(process["env"].take()).unwrap_or_default();
        if let Some(user) = &other.user {
            // Who was added in the container itself is known there too.
            let mut layers = vec![self.folder(record).join("upper")];
            layers.extend(self.layers(record)?);
            let mut identity = identify(user, &layers)?;
            join_groups(&mut identity, &record.wishes.groups, &layers)?;
            process["user"] = json!({ "uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups });
            process["capabilities"] = rights::capabilities(&record.wishes.rights, identity.uid == 0);
            set_variable(&mut env, "HOME", &identity.home);
        }
        if other.terminal {
            set_variable(&mut env, "TERM", "xterm");
        }
        for (name, value) in &other.environment {
            set_variable(&mut env, name, value);
        }
        process["env"] = json!(env);
        if let Some(folder) = &other.folder {
            process["cwd"] = json!(folder);
        }
        Ok(process)
    }

    /// The processes of a container that runs.
    pub fn top(&self, text: &str) -> Result<Vec<Process>, EngineError> {
        let _span = info_span!(
            "engine.top",
            call = "read(2)",
            why = "the cgroup lists its processes by the host's numbers; /proc tells the rest of each"
        )
        .entered();
        let record = self.find(text)?;
        let state = self.state(&record)?;
        if !state.is_up() {
            return Err(super::control::unfit("look into", &record, state));
        }
        let pids = self.runtime.processes(&record.id.parse()?)?;
        // One that ends while it is looked at is not there any more.
        Ok(pids.into_iter().filter_map(look_at).collect())
    }
}

fn look_at(pid: i32) -> Option<Process> {
    let file = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
    let status = fs::read_to_string(file("status")).ok()?;
    let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let stat = fs::read_to_string(file("stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100).unsigned_abs();
    let words = fs::read(file("cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ");
    let named = || format!("[{}]", field("Name:").unwrap_or_default());
    Some(Process {
        uid: field("Uid:")?.split_whitespace().next()?.parse().ok()?,
        pid,
        parent: field("PPid:")?.parse().ok()?,
        used: Duration::from_millis((number(11) + number(12)) * 1000 / ticks.max(1)),
        command: if command.is_empty() { named() } else { command },
    })
}
