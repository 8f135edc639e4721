//! Who may do what to a store at the same time.
//!
//! Everybody may add: names are those of contents, so two who add the same agree. Who takes away has to know that nobody
//! is just about to use what he found unused, and waits for the others to be done. The kernel drops the locks (flock(2))
//! of a process that dies.

use std::fs::{File, OpenOptions};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{Store, io_error};
use crate::image::{Digest, ImageError};

/// While this lives, nothing is taken out of the store.
#[derive(Debug)]
pub struct Shared(#[expect(dead_code, reason = "held, and let go by its end")] Flock<File>);

/// While this lives, nobody else adds to the store or takes away from it.
#[derive(Debug)]
pub struct Exclusive(#[expect(dead_code, reason = "held, and let go by its end")] Flock<File>);

/// While this lives, these unpacked layers stay, whatever becomes of their images: a container stands on them.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "held, and let go by its end")] Vec<Flock<File>>);

impl Store {
    /// For who adds: from before it looks for what is there already, until a name or a pin leads to what it added.
    pub fn shared(&self) -> Result<Shared, ImageError> {
        self.flock("use", FlockArg::LockShared).map(Shared)
    }

    /// For who takes away. Waits for all that add.
    pub fn exclusive(&self) -> Result<Exclusive, ImageError> {
        self.flock("use", FlockArg::LockExclusive).map(Exclusive)
    }

    /// Keeps unpacked layers. Whoever runs a container holds its layers until it is gone; the descriptors are closed at
    /// exec(2).
    pub fn hold(&self, diff_ids: impl IntoIterator<Item = Digest>) -> Result<Held, ImageError> {
        let hold = |diff_id: Digest| {
            let path = self.layer_path(&diff_id);
            let folder = File::open(&path).map_err(io_error("open", &path))?;
            flock(folder, &path, FlockArg::LockShared)
        };
        Ok(Held(diff_ids.into_iter().map(hold).collect::<Result<_, _>>()?))
    }

    /// An unpacked layer that nobody holds; `None` if somebody does.
    pub(super) fn unheld(path: &Path) -> Result<Option<Flock<File>>, ImageError> {
        let folder = File::open(path).map_err(io_error("open", path))?;
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(io_error("lock", path)(errno.into())),
        }
    }

    /// Keeps others from changing the index until it is dropped.
    pub(super) fn lock_index(&self) -> Result<Flock<File>, ImageError> {
        self.flock("lock", FlockArg::LockExclusive)
    }

    fn flock(&self, name: &str, how: FlockArg) -> Result<Flock<File>, ImageError> {
        let path = self.root().join(name);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        flock(file.map_err(io_error("make", &path))?, &path, how)
    }
}

fn flock(file: File, path: &Path, how: FlockArg) -> Result<Flock<File>, ImageError> {
    Flock::lock(file, how).map_err(|(_, errno)| io_error("lock", path)(errno.into()))
}
