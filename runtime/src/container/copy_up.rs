//! The option `tmpcopyup`: a new tmpfs begins with what the image has at its place (OCI runtime specification, config.md,
//! "Linux mount options").
//!
//! The files are the image's, so nothing of them is followed: each name is opened in the folder that is held open, and a
//! link is copied as a link. This is the one step of the container's process that allocates: it has to read folders, and
//! the runtime it is a copy of has one thread only.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, read, symlinkat, write};

const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Copies all that is in the folder `from`, which may be open as a place only, to the folder `to`. With `itself` also the
/// folder's own mode and owner.
pub(crate) fn copy(from: &impl AsFd, to: &impl AsFd, itself: bool) -> nix::Result<()> {
    let from = openat(from, c".", FOLDER, Mode::empty())?;
    let to = openat(to, c".", FOLDER, Mode::empty())?;
    let found = fstat(&from)?;
    copy_entries(from, &to)?;
    if itself { dress(&to, &found) } else { Ok(()) }
}

fn copy_entries(from: OwnedFd, to: &OwnedFd) -> nix::Result<()> {
    let mut folder = Dir::from_fd(from)?;
    let mut names = Vec::new();
    for entry in folder.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." && entry.file_type() != Some(Type::Socket) {
            names.push(name.to_owned());
        }
    }
    names.iter().try_for_each(|name| copy_entry(&folder, to, name))
}

fn copy_entry(from: &Dir, to: &OwnedFd, name: &CStr) -> nix::Result<()> {
    let found = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(to, name, Mode::S_IRWXU)?;
            let copy = openat(to, name, FOLDER, Mode::empty())?;
            copy_entries(openat(from, name, FOLDER, Mode::empty())?, &copy)?;
            dress(&copy, &found)
        }
        SFlag::S_IFREG => {
            let source = openat(from, name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let copy = openat(to, name, flags, Mode::S_IRUSR)?;
            copy_bytes(&source, &copy)?;
            dress(&copy, &found)
        }
        SFlag::S_IFLNK => {
            symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?;
            dress_name(to, name, &found)
        }
        _ => {
            match mknodat(to, name, kind, Mode::from_bits_truncate(found.st_mode), found.st_rdev) {
                // In a user namespace nobody makes devices, and a tmpfs does without the image's.
                Err(Errno::EPERM) => Ok(()),
                other => other.and_then(|()| dress_name(to, name, &found)),
            }
        }
    }
}

fn copy_bytes(from: &OwnedFd, to: &OwnedFd) -> nix::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        let length = match read(from, &mut buffer) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        while !rest.is_empty() {
            match write(to, rest) {
                Err(Errno::EINTR) => {}
                other => rest = rest.get(other?..).unwrap_or_default(),
            }
        }
    }
}

/// Gives an open copy the owner, the mode and the time of the original. The owner first: a change of owner takes the
/// set-user-ID bit away (chown(2)).
fn dress(copy: &OwnedFd, found: &FileStat) -> nix::Result<()> {
    fchown(copy, Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)))?;
    fchmod(copy, Mode::from_bits_truncate(found.st_mode & 0o7777))?;
    let (accessed, changed) = times(found);
    nix::sys::stat::futimens(copy, &accessed, &changed)
}

fn dress_name(folder: &OwnedFd, name: &CStr, found: &FileStat) -> nix::Result<()> {
    let (user, group) = (Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)));
    fchownat(folder, name, user, group, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let (accessed, changed) = times(found);
    utimensat(folder, name, &accessed, &changed, UtimensatFlags::NoFollowSymlink)
}

fn times(found: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(found.st_atime, found.st_atime_nsec), TimeSpec::new(found.st_mtime, found.st_mtime_nsec))
}
