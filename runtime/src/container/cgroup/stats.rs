//! What the controllers have counted, in the same words for both versions.

use std::collections::BTreeMap;

/// Counts of a cgroup and everything below it. A field is `None` where the host does not count that, or has no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// CPU time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Disks, by `major:minor`.
    pub io: BTreeMap<String, DeviceIo>,
    /// Bytes in huge pages, by the size of the page.
    pub hugetlb: BTreeMap<String, u64>,
}

/// CPU time, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct CpuStats {
    /// All of it.
    pub usage_ns: Option<u64>,
    /// In programs.
    pub user_ns: Option<u64>,
    /// In the kernel.
    pub system_ns: Option<u64>,
    /// How many periods of the quota there were.
    pub periods: Option<u64>,
    /// In how many of them the quota ran out.
    pub throttled_periods: Option<u64>,
    /// For how long it had run out, in all.
    pub throttled_ns: Option<u64>,
    /// The CPUs that may be used, as a list such as `0-3,7`.
    pub cpus: Option<String>,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryStats {
    /// In use now, page cache included.
    pub usage: Option<u64>,
    /// In use now, with what is in swap.
    pub usage_with_swap: Option<u64>,
    /// The most that was in use.
    pub peak: Option<u64>,
    /// The limit; `None` for none.
    pub limit: Option<u64>,
    /// Of what is in use: programs' own memory.
    pub anonymous: Option<u64>,
    /// Of what is in use: files' content.
    pub file: Option<u64>,
    /// Of the files' content: what the kernel would drop first.
    pub inactive_file: Option<u64>,
    /// How often the limit was reached.
    pub oom_events: Option<u64>,
    /// How many processes were killed because of it.
    pub oom_kills: Option<u64>,
}

/// Processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct PidsStats {
    /// There now.
    pub current: Option<u64>,
    /// The limit; `None` for none.
    pub limit: Option<u64>,
}

/// What went to and from one disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct DeviceIo {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Operations that read.
    pub reads: u64,
    /// Operations that wrote.
    pub writes: u64,
}

/// The number behind a key, in a file of lines `key number`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    let pair = text.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == key);
    pair.and_then(|(_, number)| number.trim().parse().ok())
}
