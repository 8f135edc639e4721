//! A snapshot's folder: the files `state` and `memory`, both or neither.
//!
//! It is written beside its place, under a name that no snapshot has, synced, and renamed to its own: rename(2) is the one
//! instant at which it begins to exist. Opened, it is held by its folder's descriptor, so that both files are of one
//! snapshot also where somebody removes it and another takes its name; and its memory is locked for as long as a machine
//! shows it, so that whoever would remove it can ask whether one does.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tracing::info_span;

use super::state::{Below, State};
use super::{SnapshotError, format};
use crate::memory::{Layers, Memory, Origin};

/// The two files.
const STATE: &str = "state";
const MEMORY: &str = "memory";
/// How the name of one begins that is being written.
const UNFINISHED: &str = ".unfinished-";

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Files { attempt, path, source }
}

fn no_regular_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")
}

/// A snapshot that was opened and found whole.
#[derive(Debug)]
pub struct Snapshot {
    path: PathBuf,
    /// The machine besides its memory.
    pub state: State,
    folder: File,
    /// Its memory. Each file is locked against removal while this, or a machine that shows it, is there.
    pub(crate) memory: Layers,
    /// The files that the memory was copied from, if it was.
    origin: Option<Layers>,
}

/// How many snapshots may stand on each other. The next is whole.
const DEPTH: usize = 16;

impl Snapshot {
    /// Opens and checks the snapshot at `path`, with all that it stands on.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        Self::open_above(path, 1)
    }

    fn open_above(path: &Path, depth: usize) -> Result<Self, SnapshotError> {
        let _span = info_span!(
            "snapshot.open",
            call = "openat(2), read(2)",
            why = "the state is small and read whole; each number in it is checked before anything is made of it"
        )
        .entered();
        let folder = File::open(path).map_err(failed("open the snapshot", path))?;
        // Beneath the folder that is open, wherever its name leads by now.
        let inside = |name: &str| PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
        let open = |name: &'static str| {
            let path = path.join(name);
            let regular = |file: File| {
                if file.metadata()?.is_file() { Ok(file) } else { Err(no_regular_file()) }
            };
            // O_NOFOLLOW says so of a link.
            let no_link = |error: io::Error| {
                if error.raw_os_error() == Some(libc::ELOOP) { no_regular_file() } else { error }
            };
            OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(inside(name))
                .map_err(no_link)
                .and_then(regular)
                .map_err(failed("open", &path))
        };
        let mut bytes = Vec::new();
        let state_path = path.join(STATE);
        let most = format::LARGEST as u64 + 64;
        open(STATE)?.take(most).read_to_end(&mut bytes).map_err(failed("read", &state_path))?;
        let state = format::decode(&bytes).map_err(|error| SnapshotError::Format(state_path, error))?;
        let memory = open(MEMORY)?;
        memory.lock_shared().map_err(failed("lock", &path.join(MEMORY)))?;
        let found = memory.metadata().map_err(failed("look at", &path.join(MEMORY)))?.len();
        // Past the end of a file that is mapped there is SIGBUS, not an error.
        if found < state.memory {
            return Err(SnapshotError::Memory { path: path.to_owned(), found, said: state.memory });
        }
        let memory = match &state.below {
            None => Layers::whole(memory, state.memory),
            Some(below) => {
                let mut layers = beneath(path, below, state.memory, depth)
                    .map_err(|source| SnapshotError::Below { path: path.to_owned(), source: Box::new(source) })?;
                layers.change(memory, &below.ranges());
                layers
            }
        };
        Ok(Self { path: path.to_owned(), folder, state, memory, origin: None })
    }

    /// What a memory that is loaded from this goes on from.
    pub(crate) fn origin(&self) -> io::Result<Origin> {
        Ok(Origin { id: self.state.id.clone(), folder: self.folder.try_clone()?, depth: self.memory.depth() })
    }

    /// Copies the memory into a memory file that is sealed: not even root can write to it. Its holes stay holes.
    pub(crate) fn take_in(&mut self) -> io::Result<()> {
        let sealed = memfd_create("isolab-template", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let sealed = File::from(sealed);
        self.memory.copy_to(&sealed)?;
        let all = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(&sealed, FcntlArg::F_ADD_SEALS(all))?;
        // The others stay locked: while clones of it live, they are in use.
        self.origin = Some(std::mem::replace(&mut self.memory, Layers::whole(sealed, self.state.memory)));
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes of disk its memory takes, without that of what it stands on.
    pub fn disk(&self) -> io::Result<u64> {
        Ok(fs::metadata(self.path.join(MEMORY))?.blocks() * 512)
    }

    /// Whether a machine goes on from the snapshot at `path` right now.
    pub fn is_in_use(path: &Path) -> Result<bool, SnapshotError> {
        let path = path.join(MEMORY);
        match File::open(&path) {
            Ok(memory) => match memory.try_lock() {
                Ok(()) => Ok(false),
                Err(TryLockError::WouldBlock) => Ok(true),
                Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("open", &path)(error)),
        }
    }
}

/// The memory that a snapshot of changes stands on.
fn beneath(path: &Path, below: &Below, memory: u64, depth: usize) -> Result<Layers, SnapshotError> {
    if depth >= DEPTH {
        return Err(SnapshotError::Deep(DEPTH));
    }
    let lower = Snapshot::open_above(&path.join(&below.folder), depth + 1)?;
    if (&lower.state.id, lower.state.memory) != (&below.id, memory) {
        return Err(SnapshotError::Another { path: lower.path, wanted: below.id.clone() });
    }
    Ok(lower.memory)
}

/// How a machine's memory is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saving {
    /// All that holds anything.
    Whole,
    /// What has changed since the snapshot that the machine goes on from, or that was last so saved; all where there is
    /// none to stand on, or too many stand on each other.
    Changes,
}

/// A snapshot that is being written; removed if it is not finished.
#[derive(Debug)]
pub(crate) struct Unfinished {
    folder: PathBuf,
    place: PathBuf,
    finished: bool,
}

impl Unfinished {
    /// Begins a snapshot that shall be at `place`, where nothing is yet.
    pub(crate) fn begin(place: &Path, id: &str) -> Result<Self, SnapshotError> {
        if place.symlink_metadata().is_ok() {
            return Err(SnapshotError::Exists(place.to_owned()));
        }
        let folder = beside(place).join(format!("{UNFINISHED}{id}"));
        DirBuilder::new().mode(0o700).create(&folder).map_err(failed("make the folder", &folder))?;
        Ok(Self { folder, place: place.to_owned(), finished: false })
    }

    /// Where it is being written.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the memory; returns how many bytes that were, and what they stand on.
    pub(crate) fn write_memory(&self, memory: &Memory, saving: Saving) -> Result<(u64, Option<Below>), SnapshotError> {
        let _span = info_span!(
            "snapshot.memory",
            call = "pread(/proc/self/pagemap), pwrite(2), fdatasync(2)",
            why = "what was touched is written at its own place in the file; what was not is neither read nor written"
        )
        .entered();
        let path = self.folder.join(MEMORY);
        let file = Self::create(&path)?;
        let base = if saving == Saving::Changes { self.base(memory) } else { None };
        let write = || match base {
            None => Ok((memory.save(&file)?, None)),
            Some((id, folder)) => {
                let (written, ranges) = memory.save_changes(&file)?;
                Ok((written, Some(Below { id, folder, changed: Below::pages(&ranges) })))
            }
        };
        let written = write().and_then(|written| file.sync_data().map(|()| written));
        written.map_err(failed("write", &path))
    }

    /// The snapshot that changes of `memory` can stand on: its id, and where it is by now.
    fn base(&self, memory: &Memory) -> Option<(String, PathBuf)> {
        let origin = memory.origin();
        let origin = origin.as_ref().filter(|origin| origin.depth < DEPTH)?;
        let folder = fs::read_link(format!("/proc/self/fd/{}", origin.folder.as_raw_fd())).ok()?;
        // A folder that is gone has a name that leads nowhere, or to another.
        let (there, ours) = (fs::metadata(&folder).ok()?, origin.folder.metadata().ok()?);
        let same = (there.dev(), there.ino()) == (ours.dev(), ours.ino());
        let beside = same && folder.parent() == beside(&self.place).canonicalize().ok().as_deref();
        let name = folder.file_name().filter(|_| beside).map(|name| Path::new("..").join(name));
        same.then(|| (origin.id.clone(), name.unwrap_or(folder)))
    }

    /// Writes the state.
    pub(crate) fn write_state(&self, state: &State) -> Result<(), SnapshotError> {
        let path = self.folder.join(STATE);
        let bytes = format::encode(state).map_err(|error| SnapshotError::Format(path.clone(), error))?;
        let mut file = Self::create(&path)?;
        file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(failed("write", &path))
    }

    /// A file that nobody may change once it is written.
    fn create(path: &Path) -> Result<File, SnapshotError> {
        let options = OpenOptions::new().write(true).create_new(true).mode(0o400).to_owned();
        options.open(path).map_err(failed("make", path))
    }

    /// Gives it its name: from here on it is there. Returns where.
    pub(crate) fn finish(mut self) -> Result<PathBuf, SnapshotError> {
        let _span = info_span!(
            "snapshot.finish",
            call = "fsync(2), rename(2)",
            why = "a snapshot begins to exist in one instant, and only once all of it is on the disk"
        )
        .entered();
        sync(&self.folder)?;
        // RENAME_NOREPLACE: somebody may have been quicker.
        let renamed = nix::fcntl::renameat2(
            nix::fcntl::AT_FDCWD,
            &self.folder,
            nix::fcntl::AT_FDCWD,
            &self.place,
            nix::fcntl::RenameFlags::RENAME_NOREPLACE,
        );
        match renamed {
            Ok(()) => self.finished = true,
            Err(nix::errno::Errno::EEXIST) => return Err(SnapshotError::Exists(self.place.clone())),
            Err(errno) => return Err(failed("name the snapshot", &self.place)(errno.into())),
        }
        sync(beside(&self.place))?;
        Ok(self.place.clone())
    }
}

/// Opens the folder and the memory of a snapshot, which is locked against removal from here on.
pub(crate) fn hold(path: &Path) -> Result<(File, File), SnapshotError> {
    let folder = File::open(path).map_err(failed("open the snapshot", path))?;
    let memory = path.join(MEMORY);
    let file = File::open(&memory).and_then(|file| file.lock_shared().map(|()| file));
    Ok((folder, file.map_err(failed("hold", &memory))?))
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The folder that a place is in.
fn beside(place: &Path) -> &Path {
    place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync(folder: &Path) -> Result<(), SnapshotError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}
