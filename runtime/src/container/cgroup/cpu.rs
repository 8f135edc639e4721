//! cpu: shares of the CPUs, and a ceiling on their use.

use oci_spec::runtime::{LinuxCpu, LinuxResources};

use super::controller::{Controller, Names};
use super::folder::{Folder, Setting};
use super::layout::Version;
use super::stats::keyed;
use super::{CgroupError, Stats};

/// The kernel's default for `cpu.cfs_period_us`, in microseconds.
const PERIOD: u64 = 100_000;

/// The controller that divides CPU time.
pub(super) struct Cpu;

/// v1's controller that only counts CPU time; in v2 `Cpu` counts.
pub(super) struct Account;

impl Controller for Cpu {
    fn names(&self) -> Names {
        Names { v1: Some("cpu"), v2: Some("cpu") }
    }

    fn settings(
        &self,
        version: Version,
        asked: &LinuxResources,
        standing: Option<&Folder>,
    ) -> Result<Vec<Setting>, CgroupError> {
        match (asked.cpu(), version) {
            (None, _) => Ok(Vec::new()),
            (Some(cpu), Version::V1) => v1(cpu, standing),
            (Some(cpu), Version::V2) => v2(cpu, standing),
        }
    }

    fn measure(&self, folder: &Folder, stats: &mut Stats) -> Result<(), CgroupError> {
        let Some(text) = folder.read_optional("cpu.stat")? else { return Ok(()) };
        let cpu = &mut stats.cpu;
        cpu.periods = keyed(&text, "nr_periods");
        cpu.throttled_periods = keyed(&text, "nr_throttled");
        match folder.version {
            Version::V1 => cpu.throttled_ns = keyed(&text, "throttled_time"),
            Version::V2 => {
                let nanoseconds = |key| keyed(&text, key).map(|microseconds| microseconds.saturating_mul(1_000));
                cpu.throttled_ns = nanoseconds("throttled_usec");
                cpu.usage_ns = nanoseconds("usage_usec");
                cpu.user_ns = nanoseconds("user_usec");
                cpu.system_ns = nanoseconds("system_usec");
            }
        }
        Ok(())
    }
}

impl Controller for Account {
    fn names(&self) -> Names {
        Names { v1: Some("cpuacct"), v2: None }
    }

    fn settings(&self, _: Version, _: &LinuxResources, _: Option<&Folder>) -> Result<Vec<Setting>, CgroupError> {
        Ok(Vec::new())
    }

    fn measure(&self, folder: &Folder, stats: &mut Stats) -> Result<(), CgroupError> {
        stats.cpu.usage_ns = folder.number("cpuacct.usage")?;
        stats.cpu.user_ns = folder.number("cpuacct.usage_user")?;
        stats.cpu.system_ns = folder.number("cpuacct.usage_sys")?;
        Ok(())
    }
}

fn v1(cpu: &LinuxCpu, standing: Option<&Folder>) -> Result<Vec<Setting>, CgroupError> {
    let mut settings = Vec::new();
    let mut set = |file, asked: Option<String>| settings.extend(asked.map(|value| Setting::new(file, &value)));
    set("cpu.idle", cpu.idle().map(|number| number.to_string()));
    set("cpu.shares", cpu.shares().filter(|shares| *shares != 0).map(|number| number.to_string()));
    set("cpu.rt_period_us", cpu.realtime_period().filter(|period| *period != 0).map(|number| number.to_string()));
    set("cpu.rt_runtime_us", cpu.realtime_runtime().filter(|runtime| *runtime != 0).map(|number| number.to_string()));
    // A burst can't exceed the quota: one that shrinks has to go first, one that grows last.
    let shrinks = match (cpu.burst(), standing) {
        (Some(burst), Some(folder)) => folder.number("cpu.cfs_burst_us")?.is_some_and(|now| burst < now),
        _ => false,
    };
    let burst = cpu.burst().map(|number| number.to_string());
    set("cpu.cfs_burst_us", burst.clone().filter(|_| shrinks));
    // The period first: the kernel refuses a quota below 1 ms, and a period that makes the standing ratio absurd.
    set("cpu.cfs_period_us", cpu.period().filter(|period| *period != 0).map(|number| number.to_string()));
    set("cpu.cfs_quota_us", cpu.quota().filter(|quota| *quota != 0).map(|quota| quota.max(-1).to_string()));
    set("cpu.cfs_burst_us", burst.filter(|_| !shrinks));
    Ok(settings)
}

fn v2(cpu: &LinuxCpu, standing: Option<&Folder>) -> Result<Vec<Setting>, CgroupError> {
    if cpu.realtime_runtime().is_some_and(|runtime| runtime != 0)
        || cpu.realtime_period().is_some_and(|period| period != 0)
    {
        return Err(CgroupError::Unsupported {
            field: "linux.resources.cpu.realtimeRuntime".to_owned(),
            version: "v2",
        });
    }
    let mut settings = Vec::new();
    let mut set = |file, asked: Option<String>| settings.extend(asked.map(|value| Setting::new(file, &value)));
    set("cpu.idle", cpu.idle().map(|number| number.to_string()));
    set("cpu.weight", cpu.shares().filter(|shares| *shares != 0).map(|shares| weight(shares).to_string()));
    let shrinks = match (cpu.burst(), standing) {
        (Some(burst), Some(folder)) => folder.number("cpu.max.burst")?.is_some_and(|now| burst < now),
        _ => false,
    };
    let burst = cpu.burst().map(|number| number.to_string());
    set("cpu.max.burst", burst.clone().filter(|_| shrinks));
    set("cpu.max", maximum(cpu, standing)?);
    set("cpu.max.burst", burst.filter(|_| !shrinks));
    Ok(settings)
}

/// `QUOTA PERIOD`, both in microseconds; where only one of the two is asked for, the other keeps its value.
fn maximum(cpu: &LinuxCpu, standing: Option<&Folder>) -> Result<Option<String>, CgroupError> {
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_none() && period.is_none() {
        return Ok(None);
    }
    let now = match standing {
        Some(folder) if quota.is_none() || period.is_none() => folder.read_optional("cpu.max")?.unwrap_or_default(),
        _ => String::new(),
    };
    let mut now = now.split(' ').filter(|field| !field.is_empty());
    let (now_quota, now_period) =
        (now.next().unwrap_or("max"), now.next().map_or_else(|| PERIOD.to_string(), str::to_owned));
    let quota = match quota {
        None => now_quota.to_owned(),
        Some(quota) if quota < 0 => "max".to_owned(),
        Some(quota) => quota.to_string(),
    };
    Ok(Some(format!("{quota} {}", period.map_or(now_period, |period| period.to_string()))))
}

/// v1's shares (2 to 262144, 1024 by default) as v2's weight (1 to 10000, 100 by default).
///
/// The exponent is the parabola in log2(shares) through those three points, so the smallest, the default and the
/// largest of the one are those of the other; a straight line through the ends would turn the default into 39, and a
/// container with the default share would then have less than a process outside.
fn weight(shares: u64) -> u64 {
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares.max(2) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10_f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::weight;

    #[test]
    fn smallest_default_and_largest_share_are_smallest_default_and_largest_weight() {
        for (shares, expected) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn a_larger_share_never_has_a_smaller_weight() {
        let weights: Vec<u64> = (1..262_144).step_by(7).map(weight).collect();
        assert!(weights.is_sorted());
    }
}
