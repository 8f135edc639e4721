//! What is known of a container between two commands: who it is, what is wanted of it, and how its life went so far.
//!
//! It is one JSON file in the container's folder, below the images' root, so it outlives a reboot. Whether the container
//! runs is not written here: the kernel is asked, by the number of the first process and the time at which that began.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::{Healthcheck, RunConfig};
use super::prepare::arguments;
use super::wishes::{Restart, Wishes};
use crate::container::{ProcessId, since_epoch};
use crate::network::Published;

/// How many digits of an id are shown where space is short.
const SHORT: usize = 12;
/// docker's patience with a container that is asked to end, in seconds.
const STOP_TIMEOUT: u64 = 10;

/// The file's content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// 64 hexadecimal digits that no other container has.
    pub id: String,
    /// What people call it; no other container of this root is called so.
    pub name: String,
    /// What it was made of.
    pub image: ImageOf,
    /// What the image says to run.
    pub config: RunConfig,
    /// What the user wants otherwise.
    pub wishes: Wishes,
    /// When it was made, in nanoseconds since the epoch.
    pub created: u64,
    /// How its life went.
    #[serde(default)]
    pub life: Life,
    /// Whether the file could not be understood; then nothing but the id is known.
    #[serde(skip)]
    pub damaged: bool,
}

/// The image that a container was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOf {
    /// As the user named it.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The diff ids of the layers that it stands on, the uppermost first.
    pub layers: Vec<String>,
    /// Of these, what its parents had changed when it was cloned of them, the lowest first.
    #[serde(default)]
    pub clones: Vec<CloneLayer>,
    /// Whether it stands on one layer of its own in place of all these: a full clone.
    #[serde(default)]
    pub own: bool,
}

/// What a container had changed when another was cloned of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneLayer {
    /// The digest of its archive, uncompressed.
    pub diff_id: String,
    /// The digest of what the store holds.
    pub blob: String,
}

/// How a container's life went so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Life {
    /// When it was last started, in nanoseconds since the epoch.
    pub started: Option<u64>,
    /// When it last ended, or was first found to have ended.
    pub finished: Option<u64>,
    /// What is there while it runs.
    pub running: Option<Running>,
    /// The status it ended with; nothing where nobody was there to see it.
    pub code: Option<i32>,
    /// Whether the kernel killed a process of it for want of memory.
    pub out_of_memory: bool,
    /// Why it could not be started.
    pub error: Option<String>,
    /// How often it was started again by itself.
    pub restarts: u32,
    /// How long to wait before the next time, in milliseconds.
    pub wait: u64,
    /// Whether somebody has asked it to end: then it is not started again.
    pub stopped: bool,
    /// The process that is about to start it again.
    pub restarting: Option<ProcessId>,
    /// The command that holds it still to read its files.
    pub held: Option<ProcessId>,
    /// What its health checks said.
    pub health: Option<Health>,
    /// The ports that were last published: it has them again, if they are free.
    pub published: Vec<Published>,
}

/// What is there of a container that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// The boot that it runs in: after the next one no number here means anything.
    pub boot: String,
    /// Its first process.
    pub init: ProcessId,
    /// The process of ours that stands by, keeps its log and sees its end; nothing where there is none.
    pub keeper: Option<ProcessId>,
    /// What the network made for it, in the network's own words.
    #[serde(default)]
    pub network: Option<Value>,
}

/// What health checks said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures since the last success.
    pub failing_streak: u64,
    /// The last few, the oldest first.
    pub log: Vec<Probe>,
}

/// One health check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Probe {
    /// When it began (RFC 3339).
    pub start: String,
    /// When it ended.
    pub end: String,
    /// Its status.
    pub exit_code: i32,
    /// What it printed.
    pub output: String,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Made, and never started.
    Created,
    /// Running.
    Running,
    /// Held still.
    Paused,
    /// Ended, and about to be started again.
    Restarting,
    /// Ended.
    Exited,
    /// What is left of it cannot be used: its files are damaged.
    Dead,
}

impl State {
    /// docker's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// Whether its first process is there.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

impl Record {
    /// What is known of a container whose file cannot be understood.
    pub(super) fn damaged(id: &str, why: String) -> Self {
        Self {
            id: id.to_owned(),
            name: id.get(..SHORT).unwrap_or(id).to_owned(),
            image: ImageOf::default(),
            config: RunConfig::default(),
            wishes: Wishes::default(),
            created: 0,
            life: Life { error: Some(why), ..Life::default() },
            damaged: true,
        }
    }

    /// The digits of its id that are shown where space is short.
    pub fn short_id(&self) -> &str {
        self.id.get(..SHORT).unwrap_or(&self.id)
    }

    /// What it runs; nothing where nothing is said.
    pub fn command(&self) -> Vec<String> {
        arguments(&self.config, &self.wishes).unwrap_or_default()
    }

    /// The signal that asks it to end, as it was named.
    pub fn stop_signal(&self) -> &str {
        let image = Some(self.config.stop_signal.as_str()).filter(|name| !name.is_empty());
        self.wishes.stop_signal.as_deref().or(image).unwrap_or("SIGTERM")
    }

    /// How long it may take to end when asked.
    pub fn stop_timeout(&self) -> Duration {
        Duration::from_secs(self.wishes.stop_timeout.unwrap_or(STOP_TIMEOUT))
    }

    /// How to see whether it works, if that is to be seen.
    pub fn healthcheck(&self) -> Option<Healthcheck> {
        let image = self.config.healthcheck.clone();
        let check = match (&self.wishes.health, image) {
            (None, image) => image?,
            (Some(wish), image) => {
                let image = image.unwrap_or_default();
                let or = |wish: u64, image: u64| if wish == 0 { image } else { wish };
                Healthcheck {
                    test: if wish.test.is_empty() { image.test } else { wish.test.clone() },
                    interval: or(wish.interval, image.interval),
                    timeout: or(wish.timeout, image.timeout),
                    start_period: or(wish.start_period, image.start_period),
                    start_interval: or(wish.start_interval, image.start_interval),
                    retries: or(wish.retries, image.retries),
                }
            }
        };
        let kind = check.test.first().map(String::as_str);
        (matches!(kind, Some("CMD" | "CMD-SHELL")) && check.test.len() > 1).then_some(check)
    }

    /// Whether a process of ours has to stand by while it runs.
    pub fn wants_keeper(&self) -> bool {
        let wishes = &self.wishes;
        wishes.log == super::wishes::Log::Json
            || wishes.restart != Restart::No
            || wishes.terminal
            || wishes.interactive
            || wishes.remove
            || self.healthcheck().is_some()
    }

    /// Whether it, or its image, has this note; with this value, where one is asked for.
    pub fn has_label(&self, name: &str, value: Option<&str>) -> bool {
        let found = self.wishes.labels.get(name).or_else(|| self.config.labels.get(name));
        found.is_some_and(|found| value.is_none_or(|value| found == value))
    }

    /// The status it ended with, as a command that waited for it ends with; an end that nobody saw is none of the
    /// container's own statuses.
    pub fn code(&self) -> Option<i32> {
        self.life.code
    }

    /// Notes that it ended.
    pub(super) fn ended(&mut self, code: Option<i32>, out_of_memory: bool) {
        let life = &mut self.life;
        life.running = None;
        life.finished = Some(now());
        life.code = code;
        life.out_of_memory = out_of_memory;
    }
}

/// Now, in nanoseconds since the epoch.
pub(super) fn now() -> u64 {
    since_epoch().as_nanos() as u64
}

/// The number that the kernel gave this boot.
pub(super) fn boot_id() -> &'static str {
    static BOOT: LazyLock<String> = LazyLock::new(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    });
    &BOOT
}

/// The file in a container's folder that has what it printed.
pub(super) fn log_path(folder: &std::path::Path) -> PathBuf {
    folder.join("log.json")
}
