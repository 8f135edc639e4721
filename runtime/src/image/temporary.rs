//! Names for what is not finished.
//!
//! Nothing in the store is ever seen half made: it grows under a temporary name, is synced to the disk, and gets its
//! name by rename(2), which is all or nothing. The temporary name says which process makes it (`.tmp-PID-START-N`), so
//! that whoever finds it later knows whether anybody still will.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::Pid;

use crate::container::ProcessId;

const PREFIX: &str = ".tmp-";

/// A name that is nobody else's, in a folder; what is there when this is dropped is removed.
#[derive(Debug)]
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    /// Only a name: nothing is made.
    pub(crate) fn name_in(folder: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (own, number) = (Pid::this(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Without /proc nobody can tell a living process from another with its number; then nobody removes it either.
        let started = ProcessId::of(own).map_or(0, |process| process.started);
        Self(folder.join(format!("{PREFIX}{own}-{started}-{number}")))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Gives what was made its name. Answers whether it was needed: another process may have been quicker with a
    /// directory of that name, which holds the same, since names here are those of contents.
    pub(crate) fn publish(self, name: &Path) -> io::Result<bool> {
        match fs::rename(&self.0, name) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After `publish` nothing is there; after a failure that failure is what its caller has to hear of.
        drop(remove(&self.0));
    }
}

/// Removes what dead processes have left in a folder, and names it.
pub(crate) fn sweep(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let owner = entry.file_name().to_str().and_then(owner);
        if owner.is_some_and(|owner| !owner.is_alive()) {
            remove(&entry.path())?;
            removed.push(entry.path());
        }
    }
    Ok(removed)
}

/// Whether a name is one of what is not finished.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Who makes what has this name; `None` where it is not temporary, or nobody knows.
fn owner(name: &str) -> Option<ProcessId> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let (pid, started) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (started != 0).then_some(ProcessId { pid, started })
}

/// Removes what is at a path, with all that is in it; nothing is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{Temporary, owner, sweep};
    use std::fs;

    #[test]
    fn what_a_dead_process_left_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mine = Temporary::name_in(folder.path());
        fs::create_dir_all(mine.path().join("etc")).unwrap();
        // No process has begun at tick 1: that is before the first one.
        let dead = folder.path().join(".tmp-4211-1-0");
        fs::create_dir_all(dead.join("etc")).unwrap();
        for other in ["blob", ".tmp-", ".tmp-x-y-z", ".tmp-4211-0-0"] {
            fs::write(folder.path().join(other), "").unwrap();
        }
        assert_eq!(sweep(folder.path()).unwrap(), [dead]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
        drop(mine);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_name_tells_its_owner() {
        let name = Temporary::name_in("/".as_ref());
        let own = owner(name.path().file_name().unwrap().to_str().unwrap()).unwrap();
        assert_eq!(own.pid.cast_unsigned(), std::process::id());
        assert!(own.is_alive());
    }
}
