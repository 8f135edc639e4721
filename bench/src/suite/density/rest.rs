//! The host at rest, between one ladder and the next.
//!
//! The kernel goes on for seconds with taking apart what a ladder has left: its network namespaces, and its control groups. A group
//! of the memory controller that is removed stays until nothing is charged to it any more, and with it stays its map of caches, on some hosts
//! the largest part of a container (`group_cost`). A ladder that begins too early is given what is put back meanwhile: its instances
//! seem to cost half, or less than nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::gauge::{self, Hierarchy};
use crate::host::read;
use crate::interrupt;

/// How long the host may take to come to rest, at the most: two seconds after two hundred containers.
const REST: Duration = Duration::from_secs(6);

/// It is at rest when the kernel's own memory shrinks by no more than this in each of so many looks in a row, a moment apart.
const RESTING: u64 = 256 << 10;
const STILL: u32 = 3;
const APART: Duration = Duration::from_millis(120);

/// What the host is like at rest.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// Removed groups of the memory controller that are there all the same; nothing where that can't be told.
    dying: Option<u64>,
}

impl Rest {
    /// As it is now, before anything was started.
    pub fn of_now() -> Self {
        Self { dying: dying_groups() }
    }

    /// Waits until the last ladder's namespaces and groups are gone; how many more removed groups than before the kernel still has
    /// when it is given up. Those count as rest from then on: they may stay for hours, and must not be waited for again each time.
    pub fn come(&mut self) -> u32 {
        self.come_within(REST)
    }

    /// The same, for no longer than `patience`.
    pub fn come_within(&mut self, patience: Duration) -> u32 {
        let begun = Instant::now();
        let (mut before, mut still) = (gauge::kept_by_kernel(), 0);
        loop {
            let left = self.left();
            let over = begun.elapsed() >= patience || interrupt::received().is_some();
            if over || (still >= STILL && left == 0) {
                self.dying = dying_groups();
                return left;
            }
            thread::sleep(APART);
            let now = gauge::kept_by_kernel();
            still = if before.saturating_sub(now) <= RESTING { still + 1 } else { 0 };
            before = now;
        }
    }

    fn left(&self) -> u32 {
        let more = dying_groups().zip(self.dying).map(|(now, before)| now.saturating_sub(before));
        more.unwrap_or(0).try_into().unwrap_or(u32::MAX)
    }
}

/// Removed groups of the memory controller that the kernel has not taken apart yet.
fn dying_groups() -> Option<u64> {
    let Hierarchy { top, unified } = Hierarchy::of_memory()?;
    if unified {
        return dying_of_stat(&read::text(top.join("cgroup.stat"))?);
    }
    // Version 1 does not tell; but it counts all that are there, and those that are not removed have a folder.
    let all = counted(&read::text("/proc/cgroups")?)?;
    Some(all.saturating_sub(folders(&top)))
}

/// `memory 4 23 1`: a name, its hierarchy, how many groups (cgroups(7), "/proc/cgroups").
fn counted(cgroups: &str) -> Option<u64> {
    let line = cgroups.lines().find(|line| line.split_ascii_whitespace().next() == Some("memory"))?;
    line.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// `nr_dying_descendants 12` (Documentation/admin-guide/cgroup-v2.rst, "cgroup.stat").
fn dying_of_stat(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("nr_dying_descendants ")?.trim().parse().ok())
}

/// A hierarchy's groups, its top among them.
fn folders(top: &Path) -> u64 {
    let (mut count, mut open): (u64, Vec<PathBuf>) = (0, vec![top.to_owned()]);
    while let Some(folder) = open.pop() {
        count += 1;
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        open.extend(entries.filter(is_folder).map(|entry| entry.path()));
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_groups_are_counted_by_either_version() {
        let cgroups = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t3\t1\nmemory\t4\t23\t1\n";
        assert_eq!(counted(cgroups), Some(23));
        assert_eq!(counted("cpu 1 3 1"), None);
        assert_eq!(dying_of_stat("nr_descendants 18\nnr_dying_descendants 3\n"), Some(3));
        assert_eq!(dying_of_stat("nr_descendants 18\n"), None);
    }

    #[test]
    fn folders_below_folders_are_groups_too() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("isolab/one")).unwrap();
        fs::write(top.path().join("tasks"), "").unwrap();
        assert_eq!(folders(top.path()), 3);
    }

    #[test]
    fn a_host_that_nobody_has_disturbed_is_at_rest_at_once() {
        let begun = Instant::now();
        let mut rest = Rest { dying: None };
        assert_eq!(rest.come(), 0);
        assert!(begun.elapsed() <= REST + Duration::from_secs(1));
    }
}
