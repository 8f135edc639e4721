//! From a directory that overlayfs has written to, to a layer's archive: the way back of [`unpack`](super::unpack).
//!
//! The upper directory of an overlay holds what was added and changed, whole, and signs of what was removed. The archive
//! says the same in its own signs (image-spec, layer.md). Its entries stand in the order of their names and hold nothing
//! of the machine that they were made on, neither inode numbers nor names of users nor times of reading, so that the same
//! tree gives the same digest.

pub(super) mod header;

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, minor};
use tar::EntryType;

use super::LayerError;
use super::described::{Described, kind_of, names, own_user};

const OPAQUE_MARK: &str = ".wh..wh..opq";

/// What a layer came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes in all its files.
    pub bytes: u64,
}

/// Writes what `upper` changes of the directories below it, the uppermost first, as an archive.
///
/// `latest` is a time in seconds since 1970 that no file may be younger than (`SOURCE_DATE_EPOCH`). Nobody may write to
/// `upper` meanwhile; sockets are left out, as they mean nothing without who listens.
pub fn diff(lower: &[PathBuf], upper: &Path, latest: Option<i64>, out: impl Write) -> Result<Changed, LayerError> {
    diff_without(lower, upper, latest, &BTreeSet::new(), out)
}

/// The same, but for some paths of `upper` and all that is below them.
pub(crate) fn diff_without(
    lower: &[PathBuf],
    upper: &Path,
    latest: Option<i64>,
    skip: &BTreeSet<PathBuf>,
    out: impl Write,
) -> Result<Changed, LayerError> {
    let failed = |source: io::Error| LayerError::Write { path: upper.to_owned(), source };
    let root = openat(AT_FDCWD, upper, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let root = root.map_err(|errno| failed(errno.into()))?;
    let stat = fstat(&root).map_err(|errno| failed(errno.into()))?;
    let mut walk = Walk { out, skip, latest, own: own_user(), linked: HashMap::new(), changed: Changed::default() };
    if root_differs(lower, &stat) {
        let described = walk.described(&root, OsStr::new("."), &stat).map_err(failed)?;
        walk.entry(&described, Path::new("./"), EntryType::Directory).map_err(failed)?;
    }
    walk.directory(&root, Path::new(""))?;
    // Two blocks of zeros end an archive.
    let ended = walk.out.write_all(&[0; 1024]).and_then(|()| walk.out.flush());
    ended.map_err(failed)?;
    Ok(walk.changed)
}

/// Whether the tree's own directory is another than it was. Where nothing was, the usual one is not worth an entry.
fn root_differs(lower: &[PathBuf], upper: &FileStat) -> bool {
    let (mode, uid, gid) = (upper.st_mode & 0o7777, upper.st_uid, upper.st_gid);
    match lower.first().and_then(|lower| fs::metadata(lower).ok()) {
        Some(lower) => (lower.mode() & 0o7777, lower.uid(), lower.gid()) != (mode, uid, gid),
        None => mode != 0o755 || own_user().unwrap_or(0) != uid,
    }
}

struct Walk<'a, W> {
    out: W,
    skip: &'a BTreeSet<PathBuf>,
    latest: Option<i64>,
    own: Option<u32>,
    /// The first name of each file that has several, by its inode.
    linked: HashMap<(u64, u64), PathBuf>,
    changed: Changed,
}

impl<W: Write> Walk<'_, W> {
    fn directory(&mut self, directory: &OwnedFd, path: &Path) -> Result<(), LayerError> {
        let failed = |source: io::Error| LayerError::Write { path: path.to_owned(), source };
        for name in names(directory).map_err(|errno| failed(errno.into()))? {
            let below = path.join(&name);
            if self.skip.contains(&below) {
                continue;
            }
            let failed = |source: io::Error| LayerError::Write { path: below.clone(), source };
            let stat = fstatat(directory, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
            let stat = stat.map_err(|errno| failed(errno.into()))?;
            if kind_of(&stat) == SFlag::S_IFDIR {
                self.subdirectory(directory, &name, &below, &stat)?;
            } else {
                self.other(directory, &name, &below, &stat).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn subdirectory(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path, stat: &FileStat) -> Result<(), LayerError> {
        let failed = |source: io::Error| LayerError::Write { path: path.to_owned(), source };
        let described = self.described(parent, name, stat).map_err(failed)?;
        let opaque = described.opaque;
        let mut slashed = path.as_os_str().to_owned();
        // An archive tells a directory by a slash at its end, too.
        slashed.push("/");
        self.entry(&described, Path::new(&slashed), EntryType::Directory).map_err(failed)?;
        if opaque {
            self.sign(&path.join(OPAQUE_MARK)).map_err(failed)?;
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = openat(parent, name, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        self.directory(&directory, path)
    }

    fn other(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path, stat: &FileStat) -> io::Result<()> {
        let kind = kind_of(stat);
        if kind == SFlag::S_IFCHR && stat.st_rdev == 0 {
            let mut sign = OsString::from(".wh.");
            sign.push(name);
            return self.sign(&path.with_file_name(sign));
        }
        if name.as_bytes().starts_with(b".wh.") {
            return Err(io::Error::other("a file of this name would be taken for the sign of a removed one"));
        }
        if kind == SFlag::S_IFSOCK {
            return Ok(());
        }
        let mut described = self.described(parent, name, stat)?;
        if stat.st_nlink > 1
            && let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino))
        {
            described.link = Some(first.clone().into_os_string());
            return self.entry(&described, path, EntryType::Link);
        }
        match kind {
            SFlag::S_IFREG => self.file(parent, name, path, described)?,
            SFlag::S_IFLNK => {
                described.link = Some(readlinkat(parent, name)?);
                self.entry(&described, path, EntryType::Symlink)?;
            }
            SFlag::S_IFIFO => self.entry(&described, path, EntryType::Fifo)?,
            SFlag::S_IFCHR | SFlag::S_IFBLK => {
                described.device = Some((major(stat.st_rdev) as u32, minor(stat.st_rdev) as u32));
                let kind = if kind == SFlag::S_IFCHR { EntryType::Char } else { EntryType::Block };
                self.entry(&described, path, kind)?;
            }
            _ => return Err(io::Error::other("a file of a kind that an archive has no entry for")),
        }
        if stat.st_nlink > 1 {
            self.linked.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        Ok(())
    }

    fn file(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path, mut described: Described) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(openat(parent, name, flags, Mode::empty())?);
        let size = file.metadata()?.len();
        described.size = size;
        self.entry(&described, path, EntryType::Regular)?;
        let copied = io::copy(&mut (&file).take(size), &mut self.out)?;
        if copied < size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
        }
        self.changed.bytes += size;
        header::pad(&mut self.out, size)
    }

    /// An empty file whose name says something. All its other properties are zero: they mean nothing.
    fn sign(&mut self, path: &Path) -> io::Result<()> {
        self.entry(&Described::default(), path, EntryType::Regular)
    }

    fn entry(&mut self, described: &Described, path: &Path, kind: EntryType) -> io::Result<()> {
        self.changed.entries += 1;
        header::write(&mut self.out, described, path.as_os_str(), kind)
    }

    fn described(&self, parent: &OwnedFd, name: &OsStr, stat: &FileStat) -> io::Result<Described> {
        let described = Described::read(parent, name, stat, self.own)?;
        let modified = self.latest.map_or(described.modified, |latest| latest.min(described.modified));
        Ok(Described { modified, ..described })
    }
}

#[cfg(test)]
mod tests;
