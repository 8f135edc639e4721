//! What a group of the memory controller costs the kernel before anybody is in it.
//!
//! Each such group has a map with a place for every cache that the kernel may have to shrink, and each mounted file system is one. The
//! maps are as long as there ever were caches at once since the host has booted, and become no shorter: who has had a thousand containers
//! side by side pays 160 KiB of map for each group until the next boot, beside 15 for all the rest (mm/shrinker.c). So a container's memory
//! can't be told without this figure beside it.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup::Hierarchy;
use super::read;

/// So many groups are made: enough that what else happens meanwhile is little beside them.
const GROUPS: u32 = 64;

/// Groups that are there as long as this value.
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            // Only ever empty, and nobody else knows their names.
            let _ = fs::remove_dir(path);
        }
    }
}

/// What an empty group takes of the kernel's slab, in bytes, to the next KiB; nothing where groups with that controller can't be
/// made at the top of its hierarchy, or slabs can't be looked into. Only root can do either.
pub(super) fn look(hierarchies: &[Hierarchy]) -> Option<u64> {
    let hierarchy = hierarchies.iter().find(|one| one.controllers.iter().any(|name| name == "memory"))?;
    let before = in_use()?;
    let made = make(&hierarchy.point)?;
    let bytes = in_use()?.saturating_sub(before) / u64::from(GROUPS);
    drop(made);
    Some(bytes.next_multiple_of(1024))
}

fn make(top: &Path) -> Option<Made> {
    let mut made = Made(Vec::new());
    for number in 0..GROUPS {
        let path = top.join(format!("isolab-doctor-{}-{number}", std::process::id()));
        fs::create_dir(&path).ok()?;
        made.0.push(path);
    }
    // Of version 2's groups only those have the controller to which it is handed down.
    let counts = |path: &PathBuf| path.join("memory.stat").exists();
    made.0.first().is_some_and(counts).then_some(made)
}

/// All slab objects that are in use, in bytes.
fn in_use() -> Option<u64> {
    Some(parse(&read::text("/proc/slabinfo")?))
}

/// `kmalloc-1k  6929  7120  1024 ...`: a name, objects in use, objects, the size of one (slabinfo(5)).
fn parse(slabs: &str) -> u64 {
    let bytes = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let used: u64 = fields.next()?.parse().ok()?;
        Some(used * fields.nth(1)?.parse::<u64>().ok()?)
    };
    slabs.lines().filter_map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_in_use_count_and_headings_do_not() {
        let slabs = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize> <objperslab>\n\
                     kmalloc-1k 10 16 1024 16 4 : tunables 0 0 0 : slabdata 1 1 0\nfilp 3 40 256 16 1";
        assert_eq!(parse(slabs), 10 * 1024 + 3 * 256);
    }
}
