//! What a container uses, in the kernel's own counts.

use std::fs;
use std::time::Instant;

use tracing::info_span;

use super::error::EngineError;
use super::record::Record;
use super::{Engine, State};
use crate::container::ContainerId;
use crate::container::cgroup::Stats;

/// One look at a container's counts.
#[derive(Debug, Clone)]
pub struct Usage {
    at: Instant,
    /// The counts of its cgroup.
    pub stats: Stats,
    /// Bytes that came in by its network, and that went out; nothing where it has the host's.
    pub network: Option<(u64, u64)>,
}

impl Engine {
    /// Looks at a container's counts; nothing where it does not run.
    pub fn usage(&self, record: &Record) -> Result<Option<Usage>, EngineError> {
        let _span = info_span!(
            "engine.count",
            call = "read(2)",
            why = "the kernel counts for each cgroup what its processes use; a rate is the difference of two looks"
        )
        .entered();
        let state = self.state(record)?;
        let (true, Some(running)) = (matches!(state, State::Running | State::Paused), &record.life.running) else {
            return Ok(None);
        };
        let id: ContainerId = record.id.parse()?;
        let at = Instant::now();
        let counted = self.runtime.stats(&id)?;
        Ok(Some(Usage { at, stats: counted, network: network(running.init.pid) }))
    }
}

impl Usage {
    /// How much of one processor was used between an earlier look and this one, in percent.
    pub fn cpu_since(&self, earlier: &Self) -> Option<f64> {
        let used = self.stats.cpu.usage_ns?.saturating_sub(earlier.stats.cpu.usage_ns?);
        let time = self.at.saturating_duration_since(earlier.at).as_nanos();
        (time > 0).then(|| used as f64 * 100.0 / time as f64)
    }

    /// Memory in use, in bytes, without what the kernel would drop first: as docker counts it.
    pub fn memory(&self) -> Option<u64> {
        let memory = &self.stats.memory;
        Some(memory.usage?.saturating_sub(memory.inactive_file.unwrap_or(0)))
    }

    /// The most memory that it can have: its limit, or all that the host has.
    pub fn memory_limit(&self) -> Option<u64> {
        let host = host_memory();
        match (self.stats.memory.limit, host) {
            (Some(limit), Some(host)) => Some(limit.min(host)),
            (limit, host) => limit.or(host),
        }
    }

    /// Bytes read from all disks, and written.
    pub fn disks(&self) -> (u64, u64) {
        self.stats
            .io
            .values()
            .fold((0, 0), |(read, written), disk| (read + disk.read_bytes, written + disk.written_bytes))
    }
}

fn host_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

/// The counts of a process's network (proc(5), /proc/PID/net/dev), its loopback left out.
fn network(pid: i32) -> Option<(u64, u64)> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let pid = pid.to_string();
    if namespace(&pid)? == namespace("self")? {
        return None;
    }
    Some(counts(&fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?))
}

fn counts(text: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in text.lines() {
        let Some((name, counts)) = line.split_once(':') else { continue };
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        if let (true, [received, _, _, _, _, _, _, _, sent, ..]) = (name.trim() != "lo", counts.as_slice()) {
            sums = (sums.0 + received, sums.1 + sent);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::counts;

    #[test]
    fn every_link_but_the_loopback_is_counted() {
        let text = "Inter-|   Receive                            |  Transmit\n\
                    \x20face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n\
                    \x20   lo: 900 9 0 0 0 0 0 0 900 9 0 0 0 0 0 0\n\
                    \x20 eth0: 100 1 0 0 0 0 0 0 20 2 0 0 0 0 0 0\n\
                    \x20 eth1:7 1 0 0 0 0 0 0 3 2 0 0 0 0 0 0\n";
        assert_eq!(counts(text), (107, 23));
    }
}
