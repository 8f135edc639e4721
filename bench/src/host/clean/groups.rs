//! Control groups that nobody lives in any more: below `isolab/` in each hierarchy, and beside it `isolab-ID` of a container.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::super::cgroup::own_groups;
use super::super::mounts::Mount;
use super::super::owner::Owner;
use super::super::read;
use super::super::roots::Roots;
use super::{BENCH, Cleaned, Kind, owner_in, processes};

/// The group that all groups of the lab are in.
const OURS: &str = "isolab";
/// How the name of a container's own begins, where its bundle asks for no other.
const ALONE: &str = "isolab-";

/// How long a group must stay empty before it counts as left: its maker is a system call away from moving in, though
/// that one may wait for a grace period of some 15 ms.
const GRACE: Duration = Duration::from_millis(250);

/// Removes the groups of dead benches, with whoever is still in them, and those that are nobody's.
pub(super) fn remove(roots: &Roots, mounts: &[Mount], cleaned: &mut Cleaned) {
    let own = read::text("/proc/self/cgroup").unwrap_or_default();
    let parents = parents(mounts, &own);
    let alone = places(mounts, &own).into_iter().flat_map(|place| below(&place)).filter(|group| id_of(group).is_some());
    let groups: Vec<_> = parents.iter().flat_map(|parent| below(parent)).chain(alone).collect();
    let (left, nobodys): (Vec<_>, Vec<_>) = groups
        .into_iter()
        .filter(|group| owner(group).is_none_or(|owner| !owner.alive()))
        .partition(|group| owner(group).is_some());
    for group in &left {
        end_members(group, cleaned);
        note(group, remove_tree(group), cleaned);
    }
    // A group without an owner in its name is a container that a user started: its state folder owns it.
    let is_free = |group: &PathBuf| !has_state(roots, group) && members(group).is_empty();
    let mut free: Vec<_> = nobodys.into_iter().filter(is_free).collect();
    if !free.is_empty() {
        thread::sleep(GRACE);
        free.retain(is_free);
    }
    for group in &free {
        note(group, remove_tree(group), cleaned);
    }
    // The parents go last, and only while no bench lives that may want them in this instant.
    if no_bench_lives(roots) {
        for parent in parents.iter().filter(|parent| below(parent).is_empty()) {
            note(parent, fs::remove_dir(parent), cleaned);
        }
    }
}

fn note(group: &Path, outcome: io::Result<()>, cleaned: &mut Cleaned) {
    cleaned.note(Kind::Group, group.display().to_string(), outcome);
}

/// Where `isolab/` is in each hierarchy.
fn parents(mounts: &[Mount], own: &str) -> BTreeSet<PathBuf> {
    places(mounts, own).into_iter().map(|place| place.join(OURS)).filter(|parent| parent.is_dir()).collect()
}

/// Where groups of the lab can be in each hierarchy: at its top, where an absolute path in a bundle leads; below this process' group,
/// where a relative one does; and beside that group, as in version 2 one with processes cannot hand controllers down.
fn places(mounts: &[Mount], own: &str) -> BTreeSet<PathBuf> {
    let own: Vec<_> = own_groups(own).into_values().map(PathBuf::from).collect();
    let bases: BTreeSet<_> = own.iter().flat_map(|group| [Some(group.as_path()), group.parent()]).flatten().collect();
    let hierarchies = mounts.iter().filter(|mount| mount.kind == "cgroup" || mount.kind == "cgroup2");
    let places = hierarchies.flat_map(|mount| {
        let below = bases.iter().map(|base| mount.point.join(base));
        below.chain([mount.point.clone()]).collect::<Vec<_>>()
    });
    places.filter(|place| place.is_dir()).collect()
}

/// The container whose own group this is, by its name.
fn id_of(group: &Path) -> Option<&str> {
    group.file_name()?.to_str()?.strip_prefix(ALONE)
}

/// The groups directly in `group`. Everything else in its folder is a file.
fn below(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn owner(group: &Path) -> Option<Owner> {
    owner_in(group.file_name()?.to_str()?, BENCH)
}

fn has_state(roots: &Roots, group: &Path) -> bool {
    let id = id_of(group).map(OsStr::new).or(group.file_name());
    id.is_some_and(|id| roots.runtime.join("oci").join(id).exists())
}

/// Processes in `group` and in all groups below it.
fn members(group: &Path) -> Vec<u32> {
    let own = read::text(group.join("cgroup.procs")).unwrap_or_default();
    let own = own.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>();
    own.into_iter().chain(below(group).iter().flat_map(|child| members(child))).collect()
}

/// Ends who is in `group`, until nobody is: a member may have started another in the meantime.
fn end_members(group: &Path, cleaned: &mut Cleaned) {
    const ROUNDS: u32 = 5;
    for _ in 0..ROUNDS {
        let members: Vec<_> = members(group).into_iter().filter_map(Owner::of).filter(|one| one.alive()).collect();
        if members.is_empty() {
            return;
        }
        for process in members {
            processes::end(process, cleaned);
        }
    }
}

/// Removes a group and those below it, deepest first. A cgroup's files go with it: only rmdir(2) works here.
fn remove_tree(group: &Path) -> io::Result<()> {
    for child in below(group) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(group) {
        // A process that was killed leaves its group a moment after it is gone from /proc.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            thread::sleep(Duration::from_millis(20));
            fs::remove_dir(group)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn no_bench_lives(roots: &Roots) -> bool {
    let scratches = fs::read_dir(roots.runtime.join("bench")).into_iter().flatten().flatten();
    let mut owners = scratches.filter_map(|entry| entry.file_name().to_str()?.parse::<Owner>().ok());
    !owners.any(Owner::alive)
}

#[cfg(test)]
mod tests {
    use super::super::super::mounts;
    use super::*;

    #[test]
    fn our_parent_is_looked_for_at_the_top_in_our_own_group_and_beside_it() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path();
        for place in ["cpu/isolab", "u/user/session/isolab", "u/user/isolab", "u/other/isolab", "t/isolab"] {
            fs::create_dir_all(tree.join(place)).unwrap();
        }
        let mount = |name: &str, kind: &str| format!("1 0 0:1 / {} rw - {kind} c rw,cpu\n", tree.join(name).display());
        let table =
            [mount("cpu", "cgroup"), mount("u", "cgroup2"), mount("u", "cgroup2"), mount("t", "tmpfs")].concat();
        let parents: Vec<_> = parents(&mounts::parse(&table), "1:cpu:/\n0::/user/session").into_iter().collect();
        assert_eq!(parents, ["cpu/isolab", "u/user/isolab", "u/user/session/isolab"].map(|place| tree.join(place)));
    }

    // A folder can pose as a cgroup file system as far as looking goes.
    fn posing(roots: &Path) -> (Roots, Vec<Mount>) {
        let roots_of = Roots { runtime: roots.join("run"), data: roots.join("data") };
        let table = format!("1 0 0:1 / {} rw - cgroup2 c rw", roots.join("cg").display());
        (roots_of, mounts::parse(&table))
    }

    fn make(place: &Path, procs: &str) {
        fs::create_dir_all(place).unwrap();
        if !procs.is_empty() {
            fs::write(place.join("cgroup.procs"), procs).unwrap();
        }
    }

    #[test]
    fn empty_groups_go_and_inhabited_owned_or_remembered_ones_stay() {
        let scratch = tempfile::tempdir().unwrap();
        let (roots, table) = posing(scratch.path());
        let ours = scratch.path().join("cg/isolab");
        let me = Owner::me().unwrap();
        make(&ours.join("empty/inner"), "");
        make(&ours.join("inhabited/inner"), &format!("{}\n", me.pid));
        make(&ours.join(format!("bench-{me}-1")), "");
        make(&ours.join(format!("bench-{}-2", Owner { start: me.start + 1, ..me })), "");
        make(&ours.join("stopped"), "");
        for alone in ["isolab-gone", "isolab-stopped", "other"] {
            make(&scratch.path().join("cg").join(alone), "");
        }
        fs::create_dir_all(roots.runtime.join("oci/stopped")).unwrap();
        let mut cleaned = Cleaned::default();
        remove(&roots, &table, &mut cleaned);
        assert_eq!(cleaned.left, []);
        let mut stay: Vec<_> = below(&ours).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        stay.sort();
        assert_eq!(stay, [&format!("bench-{me}-1"), "inhabited", "stopped"]);
        assert_eq!(cleaned.removed.len(), 3);
        let alone =
            ["isolab-gone", "isolab-stopped", "other"].map(|name| scratch.path().join("cg").join(name).exists());
        assert_eq!(alone, [false, true, true]);
    }

    #[test]
    fn the_parent_goes_once_it_is_empty_and_no_bench_lives() {
        let scratch = tempfile::tempdir().unwrap();
        let (roots, table) = posing(scratch.path());
        let ours = scratch.path().join("cg/isolab");
        let mine = Owner::me().unwrap().scratch(&roots.runtime);
        fs::create_dir_all(&ours).unwrap();
        fs::create_dir_all(&mine).unwrap();
        remove(&roots, &table, &mut Cleaned::default());
        assert!(ours.exists());
        fs::remove_dir(&mine).unwrap();
        remove(&roots, &table, &mut Cleaned::default());
        assert!(!ours.exists());
    }
}
