//! memory: how much of it, with or without swap, and what happened when there was no more.
//!
//! Two fields do nothing, since today's kernels have no knob behind them: `kernel` (a limit on the kernel's own memory
//! by itself, gone since Linux 5.4) and `useHierarchy` (always so since 5.11).

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::controller::{Controller, Names};
use super::folder::{Folder, Setting};
use super::layout::Version;
use super::stats::keyed;
use super::{CgroupError, Stats};

/// Where v1 says "no limit": the largest count of bytes that is a whole number of pages.
const V1_UNLIMITED: u64 = i64::MAX as u64 & !4095;

/// The controller.
pub(super) struct Memory;

impl Controller for Memory {
    fn names(&self) -> Names {
        Names { v1: Some("memory"), v2: Some("memory") }
    }

    fn settings(
        &self,
        version: Version,
        asked: &LinuxResources,
        standing: Option<&Folder>,
    ) -> Result<Vec<Setting>, CgroupError> {
        let Some(memory) = asked.memory() else { return Ok(Vec::new()) };
        if memory.check_before_update() == Some(true)
            && let (Some(folder), Some(limit)) = (standing, memory.limit().filter(|limit| *limit > 0))
        {
            check(folder, version, limit)?;
        }
        match version {
            Version::V1 => v1(memory, standing),
            Version::V2 => v2(memory, standing),
        }
    }

    fn measure(&self, folder: &Folder, stats: &mut Stats) -> Result<(), CgroupError> {
        let memory = &mut stats.memory;
        match folder.version {
            Version::V1 => {
                let limited = |limit: u64| (limit < V1_UNLIMITED).then_some(limit);
                memory.usage = folder.number("memory.usage_in_bytes")?;
                memory.peak = folder.number("memory.max_usage_in_bytes")?;
                memory.limit = folder.number("memory.limit_in_bytes")?.and_then(limited);
                memory.usage_with_swap = folder.number("memory.memsw.usage_in_bytes")?;
                let events = folder.read_optional("memory.oom_control")?.unwrap_or_default();
                memory.oom_kills = keyed(&events, "oom_kill");
                memory.oom_events = folder.number("memory.failcnt")?;
            }
            Version::V2 => {
                memory.usage = folder.number("memory.current")?;
                memory.peak = folder.number("memory.peak")?;
                memory.limit = folder.number("memory.max")?;
                let swap = folder.number("memory.swap.current")?;
                memory.usage_with_swap = memory.usage.zip(swap).map(|(usage, swap)| usage.saturating_add(swap));
                let events = folder.read_optional("memory.events")?.unwrap_or_default();
                memory.oom_kills = keyed(&events, "oom_kill");
                memory.oom_events = keyed(&events, "max");
            }
        }
        let detail = folder.read_optional("memory.stat")?.unwrap_or_default();
        let key = |v1, v2| keyed(&detail, if folder.version == Version::V1 { v1 } else { v2 });
        memory.anonymous = key("total_rss", "anon");
        memory.file = key("total_cache", "file");
        memory.inactive_file = key("total_inactive_file", "inactive_file");
        Ok(())
    }
}

/// Refuses a limit below what is in use already: the kernel would take it, and kill until it holds.
fn check(folder: &Folder, version: Version, limit: i64) -> Result<(), CgroupError> {
    let file = if version == Version::V1 { "memory.usage_in_bytes" } else { "memory.current" };
    match folder.number(file)? {
        Some(usage) if usage > limit as u64 => Err(CgroupError::Value {
            field: "linux.resources.memory.limit",
            value: limit.to_string(),
            reason: "less is asked for than is in use, and checkBeforeUpdate is set",
        }),
        _ => Ok(()),
    }
}

/// v1 limits memory, and memory and swap together (`memsw`); the second can never be less than the first.
fn v1(memory: &LinuxMemory, standing: Option<&Folder>) -> Result<Vec<Setting>, CgroupError> {
    let asked = |value: Option<i64>| value.filter(|value| *value != 0).map(|value| value.max(-1));
    let limit = asked(memory.limit());
    // Without a limit on memory there can be none on both that was set with it.
    let both = asked(memory.swap()).or(limit.filter(|limit| *limit == -1));
    if let (Some(limit), Some(both)) = (limit, both)
        && both != -1
        && (limit == -1 || both < limit)
    {
        return Err(swap_below_limit(both));
    }
    let limit_setting = limit.map(|limit| Setting::new("memory.limit_in_bytes", &limit));
    let both_setting = both.map(|both| {
        let setting = Setting::new("memory.memsw.limit_in_bytes", &both);
        // Kernels without swap accounting have no such file, and nothing to lift there.
        if both == -1 { setting.optional() } else { setting }
    });
    let grows = match (limit, standing) {
        (Some(-1), Some(_)) => true,
        (Some(limit), Some(folder)) => {
            folder.number("memory.memsw.limit_in_bytes")?.is_some_and(|now| limit as u64 > now)
        }
        _ => false,
    };
    // The order keeps `limit <= memsw` true after each write: up from above, down from below.
    let pair = if grows { [both_setting, limit_setting] } else { [limit_setting, both_setting] };
    let mut settings: Vec<Setting> = pair.into_iter().flatten().collect();
    let mut set = |file, value: Option<String>| settings.extend(value.map(|value| Setting::new(file, &value)));
    set("memory.soft_limit_in_bytes", asked(memory.reservation()).map(|number| number.to_string()));
    set("memory.kmem.tcp.limit_in_bytes", asked(memory.kernel_tcp()).map(|number| number.to_string()));
    set("memory.swappiness", memory.swappiness().map(|number| number.to_string()));
    set("memory.oom_control", memory.disable_oom_killer().filter(|disable| *disable).map(|_| "1".to_owned()));
    Ok(settings)
}

/// v2 limits memory, and swap by itself.
fn v2(memory: &LinuxMemory, standing: Option<&Folder>) -> Result<Vec<Setting>, CgroupError> {
    let unsupported =
        |field: &str| Err(CgroupError::Unsupported { field: format!("linux.resources.memory.{field}"), version: "v2" });
    if memory.disable_oom_killer() == Some(true) {
        return unsupported("disableOOMKiller");
    }
    if memory.swappiness().is_some() {
        return unsupported("swappiness");
    }
    if memory.kernel_tcp().is_some_and(|limit| limit > 0) {
        return unsupported("kernelTCP");
    }
    let mut settings: Vec<Setting> = swap(memory, standing)?.into_iter().collect();
    let mut set = |file, value: Option<String>| settings.extend(value.map(|value| Setting::new(file, &value)));
    let limit = memory.limit().filter(|limit| *limit != 0);
    set("memory.max", limit.map(maximum));
    set("memory.low", memory.reservation().filter(|reservation| *reservation != 0).map(maximum));
    Ok(settings)
}

/// What v2 calls `memory.swap.max`: the configuration's "memory and swap" without the memory.
fn swap(memory: &LinuxMemory, standing: Option<&Folder>) -> Result<Option<Setting>, CgroupError> {
    let limit = match (memory.limit().filter(|limit| *limit != 0), standing) {
        (None, Some(folder)) => folder.number("memory.max")?.map(|limit| limit as i64),
        (limit, _) => limit,
    };
    let file = |value: &str| Setting::new("memory.swap.max", value);
    match (limit, memory.swap().filter(|swap| *swap != 0)) {
        // Kernels without swap accounting have no such file, and nothing to lift there.
        (Some(..0), None) | (_, Some(..0)) => Ok(Some(file("max").optional())),
        (_, None) => Ok(None),
        (Some(limit), Some(both)) if limit >= 0 && both >= limit => Ok(Some(file(&(both - limit).to_string()))),
        (_, Some(both)) => Err(swap_below_limit(both)),
    }
}

fn swap_below_limit(both: i64) -> CgroupError {
    CgroupError::Value {
        field: "linux.resources.memory.swap",
        value: both.to_string(),
        reason: "it counts memory and swap together, so it needs a memory.limit, and cannot be less than that",
    }
}

fn maximum(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}
