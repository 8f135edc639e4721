//! What a container may use at the most, and the runtime's words for it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use nix::sys::stat::{major, minor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::{EngineError, io_error};
use super::wishes::{WishError, parse_size, refused};

/// With less memory, in bytes, the kernel ends a program before it begins; where that is differs by kernel.
const LEAST_MEMORY: i64 = 512 << 10;

/// What a container may use; nothing is limited that is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory, in bytes.
    pub memory: Option<i64>,
    /// Memory and swap together, in bytes; -1 for as much swap as there is.
    pub memory_swap: Option<i64>,
    /// What the kernel tries to leave it with when memory is short, in bytes.
    pub memory_reservation: Option<i64>,
    /// Processors' time, in billionths of a processor.
    pub nano_cpus: Option<u64>,
    /// The same in microseconds of each period; -1 for all.
    pub cpu_quota: Option<i64>,
    /// The period, in microseconds.
    pub cpu_period: Option<u64>,
    /// Its weight against others that want processors (1024 is usual).
    pub cpu_shares: Option<u64>,
    /// Which processors, as a list such as `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// Which nodes of memory.
    pub cpuset_mems: Option<String>,
    /// Processes and threads; -1 for no limit.
    pub pids: Option<i64>,
    /// What disks do for it.
    pub disks: Vec<DiskLimit>,
}

/// How much a disk does for a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLimit {
    /// What is counted.
    pub kind: DiskKind,
    /// The disk.
    pub device: PathBuf,
    /// The most in a second.
    pub rate: u64,
}

/// What is counted of a disk's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskKind {
    /// Bytes read.
    ReadBytes,
    /// Bytes written.
    WriteBytes,
    /// Read operations.
    Reads,
    /// Write operations.
    Writes,
}

impl DiskKind {
    /// config-linux.md, "Block IO".
    fn key(self) -> &'static str {
        match self {
            Self::ReadBytes => "throttleReadBpsDevice",
            Self::WriteBytes => "throttleWriteBpsDevice",
            Self::Reads => "throttleReadIOPSDevice",
            Self::Writes => "throttleWriteIOPSDevice",
        }
    }
}

impl DiskLimit {
    /// Reads `/dev/DISK:RATE`.
    pub fn parse(kind: DiskKind, text: &str) -> Result<Self, WishError> {
        const EXPECTED: &str = "/dev/DISK:RATE, a rate in bytes a second (10m) or operations a second";
        let Some((device, rate)) = text.rsplit_once(':').filter(|(device, _)| device.starts_with('/')) else {
            return refused(text, EXPECTED);
        };
        let rate = match kind {
            DiskKind::ReadBytes | DiskKind::WriteBytes => parse_size(rate).ok(),
            DiskKind::Reads | DiskKind::Writes => rate.parse().ok(),
        };
        rate.map_or_else(|| refused(text, EXPECTED), |rate| Ok(Self { kind, device: device.into(), rate }))
    }

    /// Its driver's and its own number.
    fn numbers(&self) -> Option<(u64, u64)> {
        let found = fs::metadata(&self.device).ok().filter(|found| found.file_type().is_block_device())?;
        Some((major(found.rdev()), minor(found.rdev())))
    }
}

impl Limits {
    /// Refuses what could only fail at the container's start.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        if let Some(memory) = self.memory.filter(|memory| (1..LEAST_MEMORY).contains(memory)) {
            let expected = "at least 512k: with less the kernel ends a program before it begins";
            return Err(WishError { text: format!("--memory {memory}"), expected }.into());
        }
        if self.nano_cpus.is_some() && (self.cpu_quota.is_some() || self.cpu_period.is_some()) {
            let expected = "one of the two: --cpus is a quota in a period";
            return Err(WishError { text: "--cpus and --cpu-quota or --cpu-period".to_owned(), expected }.into());
        }
        for disk in &self.disks {
            fs::metadata(&disk.device).map_err(io_error("find", &disk.device))?;
            if disk.numbers().is_none() {
                let text = disk.device.display().to_string();
                return Err(WishError { text, expected: "a disk (a block device)" }.into());
            }
        }
        Ok(())
    }

    /// The same in the runtime's words (config-linux.md, "Control groups"), without what is not said.
    pub fn resources(&self) -> Map<String, Value> {
        let mut all = Map::new();
        let mut memory = Map::new();
        // Docker's habit: as much swap as memory, where only memory is said.
        let swap = self.memory_swap.or_else(|| self.memory.map(|memory| memory.saturating_mul(2)));
        for (key, value) in [("limit", self.memory), ("swap", swap), ("reservation", self.memory_reservation)] {
            memory.extend(value.map(|value| (key.to_owned(), json!(value))));
        }
        for (key, part) in [("memory", memory), ("cpu", self.processors()), ("blockIO", self.disks())] {
            if !part.is_empty() {
                all.insert(key.to_owned(), Value::Object(part));
            }
        }
        all.extend(self.pids.map(|pids| ("pids".to_owned(), json!({ "limit": if pids == 0 { -1 } else { pids } }))));
        all
    }

    fn processors(&self) -> Map<String, Value> {
        /// The period that a share of a processor is counted in, in microseconds.
        const PERIOD: u64 = 100_000;
        let mut cpu = Map::new();
        if let Some(nano) = self.nano_cpus {
            cpu.insert("quota".to_owned(), json!(nano / (1_000_000_000 / PERIOD)));
            cpu.insert("period".to_owned(), json!(PERIOD));
        }
        cpu.extend(self.cpu_quota.map(|quota| ("quota".to_owned(), json!(quota))));
        cpu.extend(self.cpu_period.map(|period| ("period".to_owned(), json!(period))));
        cpu.extend(self.cpu_shares.map(|shares| ("shares".to_owned(), json!(shares))));
        for (key, value) in [("cpus", &self.cpuset_cpus), ("mems", &self.cpuset_mems)] {
            cpu.extend(value.as_ref().map(|value| (key.to_owned(), json!(value))));
        }
        cpu
    }

    fn disks(&self) -> Map<String, Value> {
        let mut all: Map<String, Value> = Map::new();
        for disk in &self.disks {
            let Some((major, minor)) = disk.numbers() else { continue };
            let list = all.entry(disk.kind.key()).or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.push(json!({ "major": major, "minor": minor, "rate": disk.rate }));
            }
        }
        all
    }

    /// These, and where they say nothing those of before.
    #[must_use]
    pub fn over(self, before: Self) -> Self {
        // A quota in a period, or a share: what is said now stands for all three.
        let newer = self.nano_cpus.is_some() || self.cpu_quota.is_some() || self.cpu_period.is_some();
        let shares = if newer { Self::default() } else { before.clone() };
        Self {
            memory: self.memory.or(before.memory),
            memory_swap: self.memory_swap.or(before.memory_swap),
            memory_reservation: self.memory_reservation.or(before.memory_reservation),
            nano_cpus: self.nano_cpus.or(shares.nano_cpus),
            cpu_quota: self.cpu_quota.or(shares.cpu_quota),
            cpu_period: self.cpu_period.or(shares.cpu_period),
            cpu_shares: self.cpu_shares.or(before.cpu_shares),
            cpuset_cpus: self.cpuset_cpus.or(before.cpuset_cpus),
            cpuset_mems: self.cpuset_mems.or(before.cpuset_mems),
            pids: self.pids.or(before.pids),
            disks: if self.disks.is_empty() { before.disks } else { self.disks },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DiskKind, DiskLimit, Limits};
    use serde_json::{Value, json};

    #[test]
    fn limits_say_only_what_is_wanted() {
        assert_eq!(Value::Object(Limits::default().resources()), json!({}));
        let limits = Limits { memory: Some(64), nano_cpus: Some(500_000_000), pids: Some(0), ..Limits::default() };
        let expected = json!({
            "memory": { "limit": 64, "swap": 128 }, "cpu": { "quota": 50_000, "period": 100_000 }, "pids": { "limit": -1 }
        });
        assert_eq!(Value::Object(limits.resources()), expected);
    }

    #[test]
    fn a_share_and_a_quota_stand_for_each_other() {
        let quota = Limits { cpu_quota: Some(20_000), ..Limits::default() };
        assert!(Limits { nano_cpus: Some(1), cpu_period: Some(1), ..Limits::default() }.check().is_err());
        let share = Limits { nano_cpus: Some(1_000_000_000), ..Limits::default() };
        assert_eq!(quota.clone().over(share), quota);
        assert_eq!(Value::Object(quota.resources()), json!({ "cpu": { "quota": 20_000 } }));
    }

    #[test]
    fn a_disk_has_a_rate() {
        let limit = DiskLimit::parse(DiskKind::WriteBytes, "/dev/x:2m").expect("a limit");
        assert_eq!((limit.device.to_str(), limit.rate), (Some("/dev/x"), 2 << 20));
        for text in ["/dev/x", "x:2m", "/dev/x:", "/dev/x:fast"] {
            assert!(DiskLimit::parse(DiskKind::WriteBytes, text).is_err(), "{text}");
        }
        assert!(DiskLimit::parse(DiskKind::Reads, "/dev/x:1m").is_err());
        let nowhere = Limits { disks: vec![limit], ..Limits::default() };
        assert!(nowhere.check().is_err());
    }
}
