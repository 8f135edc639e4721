//! A tree of files that paths are looked up in: the host's, or a container's.
//!
//! In a container's tree a stranger may be at work right now, and put a link where a folder was a moment ago. So each path is
//! looked up by the kernel below one descriptor, as if that were the root of everything (`RESOLVE_IN_ROOT`, openat2(2)):
//! whatever a link says, it leads nowhere else.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstatat};

/// As many links as the kernel follows.
const LINKS: usize = 40;

/// A tree of files.
#[derive(Debug)]
pub(super) struct Ground {
    root: OwnedFd,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Nothing,
    Folder,
    /// A file; a link, where links are not followed.
    File,
    /// A device, a pipe or a socket.
    Special,
}

impl Ground {
    /// The tree below a folder.
    pub(super) fn at(root: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { root: openat(AT_FDCWD, root, flags, Mode::empty())? })
    }

    /// What is at a path, and the place itself: its folder, opened, and its name in it. Of a link that is followed, where it
    /// leads. The folder is there, whatever is in it.
    pub(super) fn look(&self, path: &Path, follow: bool) -> io::Result<(Standing, OwnedFd, OsString)> {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            let (parent, name) = split(&path);
            let folder = self.folder(&parent)?;
            let stat = match fstatat(&folder, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => return Ok((Standing::Nothing, folder, name)),
                other => other?,
            };
            let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
            if kind == SFlag::S_IFDIR {
                return Ok((Standing::Folder, folder, name));
            }
            if kind != SFlag::S_IFLNK || !follow {
                let is_file = matches!(kind, SFlag::S_IFREG | SFlag::S_IFLNK);
                return Ok((if is_file { Standing::File } else { Standing::Special }, folder, name));
            }
            // A link is read from the folder that it is in; an absolute one begins at the root again.
            path = parent.join(readlinkat(&folder, name.as_os_str())?);
        }
        Err(Errno::ELOOP.into())
    }

    /// Opens a folder.
    pub(super) fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let plain: PathBuf = path.components().filter(|part| !matches!(part, Component::RootDir)).collect();
        let plain = if plain.as_os_str().is_empty() { Path::new(".") } else { &plain };
        let how = OpenHow::new()
            .flags(OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(openat2(&self.root, plain, how)?)
    }
}

/// A path by which this process finds an open folder.
pub(super) fn path_of(folder: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()))
}

/// The folder that something is in, and its name there; of a folder told by `.` or `..` the folder itself, and `.`.
fn split(path: &Path) -> (PathBuf, OsString) {
    match path.components().next_back() {
        Some(Component::Normal(name)) => (path.parent().unwrap_or(Path::new("/")).to_owned(), name.to_owned()),
        _ => (path.to_owned(), OsStr::new(".").to_owned()),
    }
}
