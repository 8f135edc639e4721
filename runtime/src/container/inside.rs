//! Paths inside the container's root, resolved by the kernel as if that root were `/` already.
//!
//! An image can hold any symbolic link, and another container may change one while we look. openat2(2) with
//! `RESOLVE_IN_ROOT` never leaves the root, whatever the links say, and gives a descriptor to work on instead of a path to
//! be resolved a second time.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};

/// Where a mount goes: both opened and made where missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    Folder,
    File,
}

/// Opens what is at `path`, as a place only (`O_PATH`): nothing is read, no device is woken.
pub(crate) fn open(root: &impl AsFd, path: &Path, more: OFlag) -> nix::Result<OwnedFd> {
    resolve(root, path, OFlag::O_PATH | more, ResolveFlag::empty())
}

/// Opens a terminal device itself, without taking it for the terminal of this process.
pub(crate) fn open_device(root: &impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    resolve(root, path, OFlag::O_RDWR | OFlag::O_NOCTTY, ResolveFlag::empty())
}

/// As [`open`], but no part of the path may be a symbolic link.
pub(crate) fn open_plain(root: &impl AsFd, path: &Path, more: OFlag) -> nix::Result<OwnedFd> {
    resolve(root, path, OFlag::O_PATH | more, ResolveFlag::RESOLVE_NO_SYMLINKS)
}

fn resolve(root: &impl AsFd, path: &Path, flags: OFlag, more: ResolveFlag) -> nix::Result<OwnedFd> {
    let how = || {
        OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | more)
    };
    // EAGAIN: somebody renamed a folder on the way while `..` was resolved; the kernel asks to try again (openat2(2)).
    for _ in 0..64 {
        match openat2(root, path, how()) {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// Opens the folder at `path`, and makes it and its parents where they are missing.
pub(crate) fn folder(root: &impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    match open(root, path, OFlag::O_DIRECTORY) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let (parent, name) = split(path).ok_or(Errno::ENOENT)?;
    let parent = folder(root, parent)?;
    match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => open(root, path, OFlag::O_DIRECTORY),
        Err(errno) => Err(errno),
    }
}

/// Opens the place at `path` for a mount of this kind, and makes what is missing.
pub(crate) fn place(root: &impl AsFd, path: &Path, node: Node) -> nix::Result<OwnedFd> {
    if node == Node::Folder {
        return folder(root, path);
    }
    match open(root, path, OFlag::empty()) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let (parent, name) = split(path).ok_or(Errno::ENOENT)?;
    let parent = folder(root, parent)?;
    // mknod(2) of a plain file: unlike open(2) it never follows a link that lies in wait at the name.
    match mknodat(&parent, name, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0) {
        Ok(()) | Err(Errno::EEXIST) => open(root, path, OFlag::empty()),
        Err(errno) => Err(errno),
    }
}

/// The folder that a path lies in, and its name there.
pub(crate) fn split(path: &Path) -> Option<(&Path, &Path)> {
    Some((path.parent()?, Path::new(path.file_name()?)))
}

/// A path for the wire of errors and spans.
pub(crate) fn shown(path: &Path) -> &str {
    std::str::from_utf8(path.as_os_str().as_bytes()).unwrap_or("(a path that is not UTF-8)")
}

/// Absolute paths of a list in the configuration; the kernel resolves them inside the root.
pub(crate) fn paths(texts: Option<&Vec<String>>) -> Vec<PathBuf> {
    texts.into_iter().flatten().map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::{Node, folder, place};
    use nix::sys::stat::fstat;
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    #[test]
    fn a_link_out_of_the_root_leads_back_into_it() {
        let outside = tempfile::tempdir().expect("a folder");
        let root = outside.path().join("root");
        fs::create_dir(&root).expect("a root");
        for (name, target) in [("absolute", "/etc"), ("relative", "../../../../etc"), ("dots", "..")] {
            symlink(target, root.join(name)).expect("a link");
        }
        fs::create_dir(root.join("etc")).expect("a folder");
        let opened = File::open(&root).expect("the root");
        for name in ["absolute", "relative"] {
            let found = folder(&opened, Path::new("/").join(name).as_path()).expect("a folder inside");
            let inode = fs::metadata(root.join("etc")).expect("its inode").ino();
            assert_eq!(fstat(&found).expect("its inode").st_ino, inode, "{name} led elsewhere");
        }
        place(&opened, Path::new("/dots/made/file"), Node::File).expect("made inside");
        assert!(root.join("made/file").is_file() && !outside.path().join("made").exists());
    }
}
