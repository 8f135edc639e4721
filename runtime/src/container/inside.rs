//! Paths inside the container's root, resolved by the kernel as if that root were `/` already.
//!
//! An image can hold any symbolic link, and another container may change one while we look. openat2(2) with
//! `RESOLVE_IN_ROOT` never leaves the root, whatever the links say, and gives a descriptor to work on instead of a path to
//! be resolved a second time.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
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

/// How many links to nothing are followed one after the other; the kernel's own limit (`path_resolution(7)`).
const LINKS: u32 = 40;

/// Opens the folder at `path`, and makes it and its parents where they are missing.
pub(crate) fn folder(root: &impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    make(root, path, Node::Folder, LINKS)
}

/// Opens the place at `path` for a mount of this kind, and makes what is missing.
pub(crate) fn place(root: &impl AsFd, path: &Path, node: Node) -> nix::Result<OwnedFd> {
    make(root, path, node, LINKS)
}

fn make(root: &impl AsFd, path: &Path, node: Node, links: u32) -> nix::Result<OwnedFd> {
    let flags = if node == Node::Folder { OFlag::O_DIRECTORY } else { OFlag::empty() };
    match open(root, path, flags) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let (above, name) = split(path).ok_or(Errno::ENOENT)?;
    let parent = make(root, above, Node::Folder, links)?;
    let made = match node {
        Node::Folder => mkdirat(&parent, name, Mode::from_bits_truncate(0o755)),
        // mknod(2) of a plain file: unlike open(2) it never follows a link that lies in wait at the name.
        Node::File => mknodat(&parent, name, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0),
    };
    match made {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    match open(root, path, flags) {
        // A link to nothing, as many an image's /etc/resolv.conf is: what it names is made, inside the root like all else.
        Err(Errno::ENOENT) if links > 0 => {
            let target = readlinkat(&parent, name).map_err(|_| Errno::ENOENT)?;
            make(root, &above.join(target), node, links - 1)
        }
        other => other,
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
        symlink("../nowhere/else", root.join("etc/dangling")).expect("a link");
        symlink("/etc/dangling", root.join("far")).expect("a link");
        symlink("self", root.join("self")).expect("a link");
        place(&opened, Path::new("/far"), Node::File).expect("made inside");
        assert!(root.join("nowhere/else").is_file());
        place(&opened, Path::new("/self/x"), Node::File).expect_err("it leads to itself");
        place(&opened, Path::new("/dots/made/file"), Node::File).expect("made inside");
        assert!(root.join("made/file").is_file() && !outside.path().join("made").exists());
    }
}
