//! What is in force: each limit as the kernel tells it, with the file that says so.

use std::path::PathBuf;

use super::layout::Version;
use super::{Cgroup, CgroupError};

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct InForce {
    /// What is limited.
    pub limit: &'static str,
    /// The file.
    pub file: PathBuf,
    /// `v1` or `v2`: which kind of hierarchy the file is in.
    pub hierarchy: &'static str,
    /// What the kernel says there.
    pub value: String,
}

/// What is limited, and the files of v1 and v2 that say how much.
const LIMITS: [(&str, &str, &str); 14] = [
    ("memory, bytes", "memory.limit_in_bytes", "memory.max"),
    ("memory and swap, bytes", "memory.memsw.limit_in_bytes", ""),
    ("swap, bytes", "", "memory.swap.max"),
    ("memory reserved, bytes", "memory.soft_limit_in_bytes", "memory.low"),
    ("CPU time, quota in µs", "cpu.cfs_quota_us", "cpu.max"),
    ("CPU time, period in µs", "cpu.cfs_period_us", ""),
    ("CPU share", "cpu.shares", "cpu.weight"),
    ("CPUs", "cpuset.cpus", "cpuset.cpus.effective"),
    ("memory nodes", "cpuset.mems", "cpuset.mems.effective"),
    ("processes and threads", "pids.max", "pids.max"),
    ("disk share", "blkio.bfq.weight", "io.weight"),
    ("disk ceilings", "blkio.throttle.read_bps_device", "io.max"),
    ("huge pages of 2 MiB, bytes", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"),
    ("devices", "devices.list", ""),
];

impl Cgroup {
    /// Every limit that this host knows, with the value that holds.
    pub fn in_force(&self) -> Result<Vec<InForce>, CgroupError> {
        let mut found = Vec::new();
        for (limit, v1, v2) in LIMITS {
            for folder in &self.folders {
                let name = if folder.version == Version::V1 { v1 } else { v2 };
                let controller = name.split('.').next().unwrap_or_default();
                if name.is_empty() || (folder.version == Version::V1 && !folder.has(controller)) {
                    continue;
                }
                if let Some(value) = folder.read_optional(name)? {
                    let file = folder.path.join(name);
                    found.push(InForce { limit, file, hierarchy: folder.version.name(), value });
                }
            }
        }
        Ok(found)
    }
}
