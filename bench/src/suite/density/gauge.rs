//! Reading what memory the host and the instances have: `/proc/meminfo`, `smaps_rollup`, control groups.
//!
//! No single figure tells what an instance costs. Resident sets count shared pages many times over, unique sets leave the
//! kernel's own memory out, and `MemAvailable` has the whole host in it. So all are read, at the same instant as nearly as may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use isolab_reports::model::Rung;

use crate::host::{memory, mounts, read};
use crate::subject::Held;

/// What `/proc` shows of a process, as far as a rung needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sets {
    rss: u64,
    pss: u64,
    uss: u64,
}

/// So often the host is read for one rung, and the reading in the middle counts: a program that comes or goes between looking at
/// the host and looking at the program moves one reading, not five.
const READINGS: usize = 5;

/// Between two readings.
const APART: Duration = Duration::from_millis(8);

/// Reads a rung. `held` are the instances that are alive, `keeper` is a process whose children they may be.
pub(super) fn read_rung(held: &[Held], keeper: Option<i32>, starts_ns: Vec<u64>) -> Rung {
    let ours = family(&held.iter().map(Held::pid).chain(keeper).collect());
    let Host { meminfo, others } = Host::settled(&ours);
    let of = |name: &str| meminfo.get(name).copied().unwrap_or_default();
    let sets = ours.iter().filter_map(|pid| sets_of(*pid));
    let sum = sets.fold(Sets::default(), |sum, one| Sets {
        rss: sum.rss + one.rss,
        pss: sum.pss + one.pss,
        uss: sum.uss + one.uss,
    });
    let groups = Groups::of(held);
    Rung {
        alive: held.len() as u32,
        starts_ns,
        processes: ours.len() as u32,
        rss_bytes: sum.rss,
        pss_bytes: sum.pss,
        uss_bytes: sum.uss,
        available_bytes: of("MemAvailable"),
        slab_bytes: of("Slab"),
        page_tables_bytes: of("PageTables") + of("SecPageTables"),
        kernel_stacks_bytes: of("KernelStack"),
        percpu_bytes: of("Percpu"),
        others_bytes: others,
        cgroup_bytes: groups.charged(),
        cgroup_kernel_bytes: groups.kernel(),
    }
}

/// Memory that is available, in bytes; `/proc/meminfo` in 30 µs.
pub(super) fn available() -> u64 {
    memory::meminfo().get("MemAvailable").copied().unwrap_or(u64::MAX)
}

/// What the kernel has for itself and can't give back when it is asked to, in bytes.
pub(super) fn kept_by_kernel() -> u64 {
    memory::meminfo().get("SUnreclaim").copied().unwrap_or_default()
}

/// Memory that is swapped out, in bytes.
pub(super) fn swapped() -> u64 {
    let meminfo = memory::meminfo();
    let of = |name: &str| meminfo.get(name).copied().unwrap_or_default();
    of("SwapTotal").saturating_sub(of("SwapFree"))
}

/// Has each CPU hand in what it counted by itself: without that, `/proc/meminfo` is off by up to a mebibyte a CPU. Only root may
/// ask for it; for others the counters are as they are.
fn fold_counters() {
    let _ = fs::read("/proc/sys/vm/stat_refresh");
}

/// The host at an instant.
struct Host {
    meminfo: BTreeMap<String, u64>,
    /// Anonymous memory of all processes but the instances'.
    others: u64,
}

impl Host {
    /// Of several readings the one in the middle, by what is available with what others have put back.
    fn settled(ours: &BTreeSet<i32>) -> Self {
        let mut readings: Vec<Self> = (0..READINGS).map(|_| Self::read(ours)).collect();
        readings.sort_by_key(|host| host.meminfo.get("MemAvailable").copied().unwrap_or_default() + host.others);
        readings.swap_remove(READINGS / 2)
    }

    fn read(ours: &BTreeSet<i32>) -> Self {
        thread::sleep(APART);
        fold_counters();
        let meminfo = memory::meminfo();
        let others = processes().filter(|pid| !ours.contains(pid)).filter_map(anonymous_of).sum();
        Self { meminfo, others }
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// All processes below these, these among them.
pub(in crate::suite) fn family(roots: &BTreeSet<i32>) -> BTreeSet<i32> {
    let parents: BTreeMap<i32, i32> = processes().filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    parents.keys().copied().filter(|pid| descends(*pid, roots, &parents)).collect()
}

fn descends(pid: i32, roots: &BTreeSet<i32>, parents: &BTreeMap<i32, i32>) -> bool {
    let mut at = pid;
    // Parents may change while they are read; a circle of them must not be run round for ever.
    for _ in 0..parents.len() {
        if roots.contains(&at) {
            return true;
        }
        match parents.get(&at) {
            Some(parent) => at = *parent,
            None => return false,
        }
    }
    false
}

/// Field 4 of `/proc/PID/stat`; the name before it may itself hold blanks and parentheses.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = read::text(format!("/proc/{pid}/stat"))?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Fields 2 and 3 of `/proc/PID/statm`: resident pages, and those of them that files or shared memory are behind.
fn anonymous_of(pid: i32) -> Option<u64> {
    const PAGE: u64 = 4096;
    let statm = read::text(format!("/proc/{pid}/statm"))?;
    let mut fields = statm.split_ascii_whitespace().skip(1).map(|field| field.parse::<u64>().unwrap_or_default());
    let (resident, shared) = (fields.next()?, fields.next()?);
    Some(resident.saturating_sub(shared) * PAGE)
}

fn sets_of(pid: i32) -> Option<Sets> {
    Some(Rollup::of(pid)?.sets())
}

/// `/proc/PID/smaps_rollup`: all that a process has mapped, summed up by the kernel (proc(5)).
#[derive(Debug, Default)]
pub(in crate::suite) struct Rollup(String);

impl Rollup {
    /// Nothing where there is no such process any more.
    pub(in crate::suite) fn of(pid: i32) -> Option<Self> {
        read::text(format!("/proc/{pid}/smaps_rollup")).map(Self)
    }

    /// What one of its lines says, in bytes: `Pss:    304 kB`.
    pub(in crate::suite) fn bytes(&self, name: &str) -> u64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib: Option<u64> = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok());
        kib.unwrap_or_default() * 1024
    }

    fn sets(&self) -> Sets {
        let hugetlb = self.bytes("Private_Hugetlb");
        Sets {
            rss: self.bytes("Rss") + hugetlb,
            pss: self.bytes("Pss") + hugetlb,
            uss: self.bytes("Private_Clean") + self.bytes("Private_Dirty") + hugetlb,
        }
    }
}

/// The hierarchy of control groups that counts memory.
pub(super) struct Hierarchy {
    /// Where it is mounted.
    pub(super) top: PathBuf,
    /// Whether it is the one of version 2.
    pub(super) unified: bool,
}

impl Hierarchy {
    /// This host's.
    pub(super) fn of_memory() -> Option<Self> {
        let table = mounts::table();
        let version1 = table.iter().find(|it| it.kind == "cgroup" && it.options.iter().any(|word| word == "memory"));
        let mount = version1.or_else(|| table.iter().find(|it| it.kind == "cgroup2"))?;
        Some(Self { top: mount.point.clone(), unified: version1.is_none() })
    }
}

/// The control groups of the instances in that hierarchy.
struct Groups {
    folders: Vec<PathBuf>,
    unified: bool,
}

impl Groups {
    fn of(held: &[Held]) -> Self {
        let Some(Hierarchy { top, unified }) = Hierarchy::of_memory() else {
            return Self { folders: Vec::new(), unified: false };
        };
        let inside = |path: &&PathBuf| path.starts_with(&top);
        let folders = held.iter().filter_map(|held| held.owned().iter().find(inside).cloned()).collect();
        Self { folders, unified }
    }

    fn charged(&self) -> Option<u64> {
        self.sum(|group| number(&group.join(if self.unified { "memory.current" } else { "memory.usage_in_bytes" })))
    }

    fn kernel(&self) -> Option<u64> {
        self.sum(|group| {
            if self.unified {
                kernel_of_stat(&group.join("memory.stat"))
            } else {
                number(&group.join("memory.kmem.usage_in_bytes"))
            }
        })
    }

    /// None where there is no group, or where one does not tell: a part is no sum.
    fn sum(&self, of: impl Fn(&Path) -> Option<u64>) -> Option<u64> {
        if self.folders.is_empty() { None } else { self.folders.iter().map(|group| of(group)).sum() }
    }
}

fn number(path: &Path) -> Option<u64> {
    read::text(path)?.parse().ok()
}

/// `kernel 53248`, since Linux 5.18 (Documentation/admin-guide/cgroup-v2.rst, "memory.stat").
fn kernel_of_stat(path: &Path) -> Option<u64> {
    read::text(path)?.lines().find_map(|line| line.strip_prefix("kernel ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollup_is_read_in_bytes() {
        let text = "5645-7ffe ---p 00000000 00:00 0   [rollup]\nRss:       1756 kB\nPss:        304 kB\nPss_Dirty:  116 kB\n\
                    Private_Clean:   40 kB\nPrivate_Dirty:  116 kB\nPrivate_Hugetlb: 0 kB\n";
        assert_eq!(Rollup(text.to_owned()).sets(), Sets { rss: 1756 << 10, pss: 304 << 10, uss: 156 << 10 });
        assert_eq!(Rollup::default().sets(), Sets::default());
    }

    #[test]
    fn children_of_children_belong_to_the_root_and_strangers_do_not() {
        let parents = BTreeMap::from([(10, 1), (11, 10), (12, 11), (20, 1), (30, 31), (31, 30)]);
        let roots = BTreeSet::from([10]);
        let ours: Vec<i32> = parents.keys().copied().filter(|pid| descends(*pid, &roots, &parents)).collect();
        assert_eq!(ours, [10, 11, 12]);
    }

    #[test]
    fn this_process_is_somebody_else_and_has_memory() {
        let rung = read_rung(&[], None, Vec::new());
        assert_eq!((rung.alive, rung.processes, rung.rss_bytes), (0, 0, 0));
        assert!(rung.others_bytes > 0 && rung.available_bytes > 0 && rung.kernel_bytes() > 0);
        assert_eq!(rung.cgroup_bytes, None);
    }
}
