//! A stack of layers as the one tree that a container sees, read without mounting it.
//!
//! overlayfs shows of several directories, for each name, what the uppermost has; directories of one name are one, until
//! a layer hides what is below. [`walk`] goes through layers by the same rules, so that an ordinary user can do it too,
//! and everything comes in one order: the same layers give the same archive, the same disk.
//!
//! ```text
//! tar          the tree as an archive
//! cpio         as the archive that a kernel unpacks into its first root: an initramfs
//! squashfs     as a compressed disk that can only be read
//! ext4         as a disk that can be written
//! disk         which of them, whole or not at all
//! copy         as files of its own
//! find         one path of it
//! ```

mod copy;
mod cpio;
mod disk;
mod ext4;
mod find;
mod squashfs;
mod tar;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, minor};

use super::LayerError;
use super::described::{Described, kind_of, names, own_user};

pub(crate) use copy::copy;
pub use disk::{DiskError, DiskFormat, DiskPacking, WrittenDisk, write_disk};
pub(crate) use find::{Found, Step, find, step};
pub(crate) use tar::{archive, archive_at};

/// What is at a path of the tree.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// From the root, without a leading slash; empty for the root itself.
    pub(crate) path: &'a Path,
    pub(crate) kind: Kind,
    pub(crate) described: Described,
    /// How many names its layer has for it; some of them may be hidden.
    pub(crate) links: u64,
    folder: &'a OwnedFd,
    name: &'a OsStr,
}

/// What kind of thing it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
    Symlink,
    Character,
    Block,
    Fifo,
    /// Another name of a file that had its turn, by its first path.
    Link(PathBuf),
}

impl Entry<'_> {
    /// Where it lies on the host.
    pub(crate) fn place(&self) -> io::Result<PathBuf> {
        Ok(std::fs::read_link(format!("/proc/self/fd/{}", self.folder.as_raw_fd()))?.join(self.name))
    }

    /// Opens a file for reading.
    pub(crate) fn open(&self) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        Ok(File::from(openat(self.folder, self.name, flags, Mode::empty())?))
    }
}

/// Shows every entry of the tree, a directory before what is in it, names in the order of their bytes. `layers` are
/// folders, the uppermost first. Sockets are left out: they mean nothing without who listens.
pub(crate) fn walk<E: From<LayerError>>(
    layers: &[PathBuf],
    each: &mut dyn FnMut(&Entry<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let open = |path: &PathBuf| {
        let opened = openat(AT_FDCWD, path, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        opened.map_err(|errno| failed(path)(errno.into()))
    };
    let stack = layers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let mut walk = Walk { each, own: own_user(), linked: HashMap::new() };
    if let Some(top) = stack.first() {
        let stat = fstat(top).map_err(|errno| failed(Path::new("/"))(errno.into()))?;
        walk.one(top, OsStr::new("."), Path::new(""), &stat)?;
    }
    walk.directory(&stack, Path::new(""))
}

/// The same for one thing in a folder that is open, and for all that is in it if it is a folder itself; its path is told as
/// `path`.
pub(crate) fn walk_at<E: From<LayerError>>(
    folder: &OwnedFd,
    name: &OsStr,
    path: &Path,
    each: &mut dyn FnMut(&Entry<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let failed = |errno: nix::Error| failed(path)(errno.into());
    let stat = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
    let mut walk = Walk { each, own: own_user(), linked: HashMap::new() };
    walk.one(folder, name, path, &stat)?;
    if kind_of(&stat) == SFlag::S_IFDIR {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let inner = openat(folder, name, flags, Mode::empty()).map_err(failed)?;
        walk.directory(&[inner], path)?;
    }
    Ok(())
}

struct Walk<'a, E> {
    each: &'a mut dyn FnMut(&Entry<'_>) -> Result<(), E>,
    own: Option<u32>,
    /// The first path of each file that has several names, by its inode.
    linked: HashMap<(u64, u64), PathBuf>,
}

/// What the layers have at one name, looked at from above.
#[derive(Default)]
struct Seen {
    /// The layer that is seen, and what it has.
    top: Option<(usize, FileStat)>,
    /// The layers whose directories are one here.
    folders: Vec<usize>,
    /// Whether what layers further below have is hidden.
    closed: bool,
}

impl<E: From<LayerError>> Walk<'_, E> {
    fn directory(&mut self, stack: &[OwnedFd], path: &Path) -> Result<(), E> {
        for (name, seen) in look(stack, path)? {
            let Some((number, stat)) = seen.top else { continue };
            let below = path.join(&name);
            let Some(top) = stack.get(number) else { continue };
            self.one(top, &name, &below, &stat)?;
            if kind_of(&stat) == SFlag::S_IFDIR {
                let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let folders = seen.folders.iter().filter_map(|number| stack.get(*number));
                let opened = folders.map(|folder| openat(folder, name.as_os_str(), flags, Mode::empty()));
                let opened = opened.collect::<nix::Result<Vec<_>>>();
                self.directory(&opened.map_err(|errno| failed(&below)(errno.into()))?, &below)?;
            }
        }
        Ok(())
    }

    fn one(&mut self, folder: &OwnedFd, name: &OsStr, path: &Path, stat: &FileStat) -> Result<(), E> {
        let failed = failed(path);
        let inode = (stat.st_dev, stat.st_ino);
        let mut described = Described::read(folder, name, stat, self.own).map_err(&failed)?;
        let device = (major(stat.st_rdev) as u32, minor(stat.st_rdev) as u32);
        let first = self.linked.get(&inode).filter(|_| kind_of(stat) != SFlag::S_IFDIR);
        let kind = match (first, kind_of(stat)) {
            (Some(first), _) => Kind::Link(first.clone()),
            (None, SFlag::S_IFDIR) => Kind::Directory,
            (None, SFlag::S_IFREG) => Kind::File,
            (None, SFlag::S_IFLNK) => Kind::Symlink,
            (None, SFlag::S_IFCHR) => Kind::Character,
            (None, SFlag::S_IFBLK) => Kind::Block,
            (None, SFlag::S_IFIFO) => Kind::Fifo,
            _ => return Ok(()),
        };
        match &kind {
            Kind::File => described.size = stat.st_size.cast_unsigned(),
            Kind::Symlink => {
                described.link = Some(readlinkat(folder, name).map_err(|errno| failed(errno.into()))?);
            }
            Kind::Character | Kind::Block => described.device = Some(device),
            Kind::Link(first) => described.link = Some(first.clone().into_os_string()),
            Kind::Directory | Kind::Fifo => {}
        }
        if stat.st_nlink > 1 && !matches!(kind, Kind::Directory | Kind::Link(_)) {
            self.linked.insert(inode, path.to_owned());
        }
        (self.each)(&Entry { path, kind, described, links: stat.st_nlink, folder, name })
    }
}

/// What the directories of one path, the uppermost first, have together.
fn look(stack: &[OwnedFd], path: &Path) -> Result<BTreeMap<OsString, Seen>, LayerError> {
    let mut all: BTreeMap<OsString, Seen> = BTreeMap::new();
    for (number, folder) in stack.iter().enumerate() {
        for name in names(folder).map_err(|errno| failed(path)(errno.into()))? {
            let failed = failed(&path.join(&name));
            let seen = all.entry(name.clone()).or_default();
            if seen.closed {
                continue;
            }
            let stat = fstatat(folder, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
            let stat = stat.map_err(|errno| failed(errno.into()))?;
            if kind_of(&stat) == SFlag::S_IFDIR {
                seen.folders.push(number);
                // Nobody is below the last.
                let last = number + 1 == stack.len();
                seen.closed = !last && Described::read(folder, &name, &stat, None).map_err(&failed)?.opaque;
            } else {
                seen.closed = true;
                // A whiteout: the name is free, for all that anybody sees.
                if kind_of(&stat) == SFlag::S_IFCHR && stat.st_rdev == 0 {
                    continue;
                }
                // A directory above a file hides it.
                if seen.top.is_some() {
                    continue;
                }
            }
            seen.top.get_or_insert((number, stat));
        }
    }
    Ok(all)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> LayerError + use<> {
    let path = path.to_owned();
    move |source| LayerError::Write { path: path.clone(), source }
}
