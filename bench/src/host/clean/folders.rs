//! Scratch folders of dead benches, what is mounted in them, and files that were never finished.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use super::super::mounts::{self, Mount};
use super::super::owner::Owner;
use super::super::roots::Roots;
use super::{Cleaned, Kind, owner_in};

/// What a file's name begins with while it is written; then its owner, then what its writer likes.
const TEMPORARY: &str = ".tmp-";

/// How deep below the data root unfinished files are looked for: beside the things they were to become, and never within
/// unpacked layers, which may hold any name and a great many.
const DEPTH: usize = 3;

/// The scratch folders whose owners are dead. A folder without an owner in its name was not made by the lab.
pub(super) fn dead_scratches(roots: &Roots) -> Vec<PathBuf> {
    // As the kernel names it in mount tables and in /proc: without symbolic links.
    let Ok(bench) = roots.runtime.join("bench").canonicalize() else { return Vec::new() };
    let is_dead = |path: &PathBuf| {
        let owner = path.file_name().and_then(|name| name.to_str()?.parse::<Owner>().ok());
        owner.is_some_and(|owner| !owner.alive())
    };
    let mut dead: Vec<_> = folders_in(&bench).into_iter().filter(is_dead).collect();
    dead.sort();
    dead
}

/// Unmounts what is mounted in these folders, the last mounted first.
pub(super) fn unmount_below(folders: &[PathBuf], cleaned: &mut Cleaned) {
    for mount in below(&mounts::table(), folders).into_iter().rev() {
        // Lazily: whoever still has a file open there keeps it, and nobody new gets in. Never through a symbolic link that
        // somebody may have put in the mount point's place.
        let outcome = umount2(&mount, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(io::Error::from);
        cleaned.note(Kind::Mount, mount.display().to_string(), outcome);
    }
}

/// Removes these folders, save those in which something is still mounted: what is beneath a mount is not ours.
pub(super) fn remove_scratches(folders: &[PathBuf], cleaned: &mut Cleaned) {
    let table = mounts::table();
    for folder in folders {
        let outcome = match below(&table, std::slice::from_ref(folder)).as_slice() {
            [] => fs::remove_dir_all(folder),
            [mount, ..] => Err(io::Error::other(format!("{} is still mounted", mount.display()))),
        };
        cleaned.note(Kind::Scratch, folder.display().to_string(), outcome);
    }
    // The folder of all benches and the runtime root above it: only where they are empty now.
    for shared in folders.first().into_iter().flat_map(|folder| folder.ancestors().skip(1).take(2)) {
        let _ = fs::remove_dir(shared);
    }
}

/// Removes the files and folders below the data root that a dead owner was still writing.
pub(super) fn remove_temporaries(roots: &Roots, cleaned: &mut Cleaned) {
    for path in temporaries(&roots.data, DEPTH) {
        let is_folder = path.symlink_metadata().is_ok_and(|file| file.is_dir());
        let outcome = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        cleaned.note(Kind::Temporary, path.display().to_string(), outcome);
    }
}

fn temporaries(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.file_name();
        if let Some(owner) = name.to_str().and_then(|name| owner_in(name, TEMPORARY)) {
            found.extend((!owner.alive()).then(|| entry.path()));
        } else if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(temporaries(&entry.path(), depth - 1));
        }
    }
    found
}

/// The folders in a folder; symbolic links are none.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Mount points in these folders, in the order in which they were mounted.
fn below(table: &[Mount], folders: &[PathBuf]) -> Vec<PathBuf> {
    let inside = |mount: &&Mount| folders.iter().any(|folder| mount.point.starts_with(folder));
    table.iter().filter(inside).map(|mount| mount.point.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(folder: &Path) -> Roots {
        Roots { runtime: folder.join("run"), data: folder.join("data") }
    }

    fn dead() -> Owner {
        let me = Owner::me().unwrap();
        Owner { start: me.start + 1, ..me }
    }

    #[test]
    fn scratch_folders_of_the_dead_go_and_those_of_the_living_and_of_strangers_stay() {
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        let (mine, theirs) = (Owner::me().unwrap().scratch(&roots.runtime), dead().scratch(&roots.runtime));
        let stranger = roots.runtime.join("bench/notes");
        for path in [&mine, &theirs, &stranger] {
            fs::create_dir_all(path.join("a/b")).unwrap();
        }
        std::os::unix::fs::symlink(&stranger, theirs.join("a/link")).unwrap();
        let found = dead_scratches(&roots);
        assert_eq!(found, [theirs.canonicalize().unwrap()]);
        let mut cleaned = Cleaned::default();
        remove_scratches(&found, &mut cleaned);
        assert!(!theirs.exists() && mine.join("a/b").exists() && stranger.join("a/b").exists());
        assert_eq!((cleaned.removed.len(), cleaned.left.len()), (1, 0));
    }

    #[test]
    fn unfinished_files_of_the_dead_go_wherever_the_store_writes() {
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        let store = roots.data.join("store/sha256");
        fs::create_dir_all(store.join("layer/deep/deeper")).unwrap();
        let left = [roots.data.join(format!(".tmp-{}", dead())), store.join(format!(".tmp-{}-layer", dead()))];
        let kept = [
            store.join(format!(".tmp-{}-layer", Owner::me().unwrap())),
            store.join(".tmp-else"),
            store.join("layer").join(format!(".tmp-{}", dead())),
        ];
        for path in left.iter().chain(&kept) {
            fs::write(path, "").unwrap();
        }
        fs::create_dir_all(store.join(format!(".tmp-{}-unpack/etc", dead()))).unwrap();
        let mut cleaned = Cleaned::default();
        remove_temporaries(&roots, &mut cleaned);
        assert_eq!((cleaned.removed.len(), cleaned.left.len()), (3, 0));
        assert!(left.iter().all(|path| !path.exists()) && kept.iter().all(|path| path.exists()));
    }

    #[test]
    fn mounts_are_found_by_the_folder_they_are_in() {
        let table = mounts::parse(
            "1 0 0:1 / /a/b rw - tmpfs t rw\n2 0 0:2 / /a/bc rw - tmpfs t rw\n3 0 0:3 / /a/b/c rw - tmpfs t rw",
        );
        assert_eq!(below(&table, &["/a/b".into()]), [Path::new("/a/b"), Path::new("/a/b/c")]);
    }

    #[test]
    fn a_root_that_is_not_there_has_nothing_in_it() {
        let roots = Roots { runtime: "/no/such".into(), data: "/no/such".into() };
        assert_eq!(dead_scratches(&roots), Vec::<PathBuf>::new());
        let mut cleaned = Cleaned::default();
        remove_temporaries(&roots, &mut cleaned);
        assert_eq!(cleaned, Cleaned::default());
    }
}
