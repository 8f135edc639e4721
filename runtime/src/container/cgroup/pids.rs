//! pids: how many processes and threads.

use oci_spec::runtime::LinuxResources;

use super::controller::{Controller, Names};
use super::folder::{Folder, Setting};
use super::layout::Version;
use super::{CgroupError, Stats};

/// The controller; the two versions agree on it.
pub(super) struct Pids;

impl Controller for Pids {
    fn names(&self) -> Names {
        Names { v1: Some("pids"), v2: Some("pids") }
    }

    fn settings(&self, _: Version, asked: &LinuxResources, _: Option<&Folder>) -> Result<Vec<Setting>, CgroupError> {
        let limit = asked.pids().map_or(0, |pids| pids.limit());
        // 0 stands for "not said", here as in other runtimes: a cgroup that nothing can run in serves nobody.
        Ok(match limit {
            0 => Vec::new(),
            ..0 => vec![Setting::new("pids.max", "max")],
            1.. => vec![Setting::new("pids.max", &limit)],
        })
    }

    fn measure(&self, folder: &Folder, stats: &mut Stats) -> Result<(), CgroupError> {
        stats.pids.current = folder.number("pids.current")?;
        stats.pids.limit = folder.number("pids.max")?;
        Ok(())
    }
}
