//! Placing files below a directory, so that nothing can be placed anywhere else.
//!
//! A layer comes from strangers. A path in it may hold `..`, may begin at the root, or may lead through a symbolic link
//! that the same layer has placed a moment ago. Here every path is looked up by the kernel below one descriptor, with
//! `RESOLVE_IN_ROOT` (openat2(2)): as if that directory were the root of the whole file system. The last component is
//! never followed at all.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, fstatat, futimens, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, geteuid, linkat, symlinkat, unlinkat};

use super::xattr;

/// What a file is besides its content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metadata {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) modified: (i64, i64),
    pub(crate) xattrs: Vec<(OsString, Vec<u8>)>,
}

/// A device or a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    Character(u64, u64),
    Block(u64, u64),
    Fifo,
}

/// A tree that grows below one directory. Directories get their mode and time at the end ([`Tree::finish`]): until then
/// they have to be writable, and each new file in one changes its time.
pub(crate) struct Tree {
    root: OwnedFd,
    /// The directory of the file placed last: an archive has the files of one directory beside each other.
    last: Option<(PathBuf, OwnedFd)>,
    directories: BTreeMap<PathBuf, Metadata>,
    /// Only root may give files away and make devices; anybody else owns all that he unpacks.
    privileged: bool,
    /// Whether a directory and what is none stay in each other's way.
    gentle: bool,
}

impl Tree {
    /// Stands on a directory that exists.
    pub(crate) fn at(root: &Path) -> nix::Result<Self> {
        let root = openat(AT_FDCWD, root, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { root, last: None, directories: BTreeMap::new(), privileged: geteuid().is_root(), gentle: false })
    }

    /// From now on nothing that is there gives way to something of another kind: no directory to a file, or a file to one.
    pub(crate) fn gently(self) -> Self {
        Self { gentle: true, ..self }
    }

    /// Makes a directory, or gives one that is there new properties. The empty path is the tree's own.
    pub(crate) fn directory(&mut self, path: &Path, metadata: Metadata) -> nix::Result<()> {
        if let Some(name) = path.file_name() {
            let parent = self.parent_of(path)?;
            match kind(&parent, name)? {
                Some(SFlag::S_IFDIR) => {}
                Some(_) if self.gentle => return Err(Errno::ENOTDIR),
                Some(_) => {
                    let replaces_whiteout = is_whiteout(&parent, name)?;
                    self.clear(&parent, path)?;
                    mkdirat(&parent, name, Mode::S_IRWXU)?;
                    if replaces_whiteout {
                        // "Gone, and a new one": what the lower directory had must not shine through.
                        self.opaque(path)?;
                    }
                }
                None => mkdirat(&parent, name, Mode::S_IRWXU)?,
            }
        }
        self.directories.insert(path.to_owned(), metadata);
        Ok(())
    }

    /// Writes a file. Blocks of zeros become holes.
    pub(crate) fn file(&mut self, path: &Path, content: &mut impl Read, metadata: &Metadata) -> io::Result<()> {
        let (parent, name) = self.place(path)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        copy_sparse(content, &mut file)?;
        Ok(self.describe(file.as_fd(), metadata)?)
    }

    /// Makes a symbolic link. Where it leads is of no concern: nothing here follows it out of the tree.
    pub(crate) fn symlink(&mut self, path: &Path, target: &OsStr, metadata: &Metadata) -> nix::Result<()> {
        let (parent, name) = self.place(path)?;
        symlinkat(target, &parent, name)?;
        self.describe_by_name(&parent, name, metadata)
    }

    /// Makes another name for a file of this tree.
    pub(crate) fn hard_link(&mut self, path: &Path, target: &Path) -> nix::Result<()> {
        let Some(target_name) = target.file_name() else { return Err(Errno::EPERM) };
        let target_parent = self.below(target.parent().unwrap_or(Path::new("")))?;
        // Before the new name is cleared: a link to itself would lose the file.
        match kind(&target_parent, target_name)? {
            None => return Err(Errno::ENOENT),
            Some(SFlag::S_IFDIR) => return Err(Errno::EPERM),
            Some(_) if path == target => return Ok(()),
            Some(_) => {}
        }
        let (parent, name) = self.place(path)?;
        linkat(&target_parent, target_name, &parent, name, AtFlags::empty())
    }

    /// Makes a device or a pipe. Answers whether it did: an ordinary user can make no devices.
    pub(crate) fn node(&mut self, path: &Path, node: Node, metadata: &Metadata) -> nix::Result<bool> {
        let (kind, device) = match node {
            Node::Fifo => (SFlag::S_IFIFO, 0),
            Node::Character(major, minor) => (SFlag::S_IFCHR, makedev(major, minor)),
            Node::Block(major, minor) => (SFlag::S_IFBLK, makedev(major, minor)),
        };
        if node != Node::Fifo && !self.privileged {
            return Ok(false);
        }
        let (parent, name) = self.place(path)?;
        mknodat(&parent, name, kind, Mode::S_IRUSR | Mode::S_IWUSR, device)?;
        // mknod(2) minds the umask; the node's own mode doesn't.
        let mode = Mode::from_bits_truncate(metadata.mode & 0o7777);
        nix::sys::stat::fchmodat(&parent, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
        self.describe_by_name(&parent, name, metadata)?;
        Ok(true)
    }

    /// Hides what lower layers have at a path, as overlayfs wants it told: by a character device 0:0.
    ///
    /// What this same layer has there stays: it hides the lower one already, a directory after being made opaque.
    pub(crate) fn whiteout(&mut self, path: &Path) -> nix::Result<()> {
        let parent = self.parent_of(path)?;
        let Some(name) = path.file_name() else { return Err(Errno::EINVAL) };
        match kind(&parent, name)? {
            // Everyone may make this one node (Linux 5.8): it opens nothing.
            None => mknodat(&parent, name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)),
            Some(SFlag::S_IFDIR) => self.opaque(path),
            Some(_) => Ok(()),
        }
    }

    /// Hides what lower layers have in a directory.
    pub(crate) fn opaque(&mut self, path: &Path) -> nix::Result<()> {
        let directory = self.make_below(path)?;
        // trusted.* is root's; an ordinary user's overlay is mounted with `userxattr` and looks here.
        let name = if self.privileged { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
        xattr::set(directory.as_fd(), OsStr::new(name), b"y")
    }

    /// Gives directories their mode, owner and times, the inner ones first.
    pub(crate) fn finish(self) -> nix::Result<()> {
        for (path, metadata) in self.directories.iter().rev() {
            let directory = self.below(path)?;
            self.describe(directory.as_fd(), metadata)?;
        }
        Ok(())
    }

    /// The directory above a path, made if need be, and the name in it, which is free afterwards.
    fn place<'a>(&mut self, path: &'a Path) -> nix::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(Errno::EISDIR)?;
        let parent = self.parent_of(path)?;
        self.clear(&parent, path)?;
        Ok((parent, name))
    }

    /// Removes what is at a path. A later entry of an archive takes the place of an earlier one.
    fn clear(&mut self, parent: &OwnedFd, path: &Path) -> nix::Result<()> {
        let Some(name) = path.file_name() else { return Err(Errno::EISDIR) };
        let Some(kind) = kind(parent, name)? else { return Ok(()) };
        if kind == SFlag::S_IFDIR && self.gentle {
            return Err(Errno::EISDIR);
        }
        if kind == SFlag::S_IFDIR {
            self.last = None;
            self.directories.retain(|directory, _| !directory.starts_with(path));
        }
        remove(parent, name)
    }

    fn parent_of(&mut self, path: &Path) -> nix::Result<OwnedFd> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if let Some((last, directory)) = &self.last
            && last == parent
        {
            return dup(directory);
        }
        let directory = self.make_below(parent)?;
        self.last = Some((parent.to_owned(), dup(&directory)?));
        Ok(directory)
    }

    /// Opens a directory of the tree; `..`, absolute links and all else end at its root.
    fn below(&self, path: &Path) -> nix::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, path, how)
    }

    /// The same, making directories that are missing. An archive may leave them out; they get the usual mode.
    fn make_below(&mut self, path: &Path) -> nix::Result<OwnedFd> {
        match self.below(path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            other => return other,
        }
        let name = path.file_name().ok_or(Errno::ENOENT)?;
        let parent = self.make_below(path.parent().unwrap_or(Path::new("")))?;
        let hidden = kind(&parent, name)?.is_some();
        if hidden {
            // Only what this layer has hidden may give way: a directory and not a file is what comes instead.
            if !is_whiteout(&parent, name)? {
                return Err(Errno::ENOTDIR);
            }
            remove(&parent, name)?;
        }
        mkdirat(&parent, name, Mode::S_IRWXU)?;
        self.directories.insert(path.to_owned(), Metadata { mode: 0o755, ..Metadata::default() });
        if hidden {
            self.opaque(path)?;
        }
        self.below(path)
    }

    /// Gives an open file its owner, mode, attributes and time, in the only order that works: a new owner takes the
    /// set-user-ID bit and the capabilities away, and every change but the last changes the time.
    fn describe(&self, file: BorrowedFd<'_>, metadata: &Metadata) -> nix::Result<()> {
        if self.privileged {
            fchown(file, Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)))?;
        }
        fchmod(file, Mode::from_bits_truncate(metadata.mode & 0o7777))?;
        for (name, value) in &metadata.xattrs {
            match xattr::set(file, name, value) {
                // An ordinary user can set none but `user.*`, and some file systems have none at all.
                Err(Errno::EPERM) if !self.privileged => {}
                Err(Errno::EOPNOTSUPP) => {}
                other => other?,
            }
        }
        let time = TimeSpec::new(metadata.modified.0, metadata.modified.1);
        futimens(file, &time, &time)
    }

    /// The same for what cannot be opened: a link, a device.
    fn describe_by_name(&self, parent: &OwnedFd, name: &OsStr, metadata: &Metadata) -> nix::Result<()> {
        if self.privileged {
            let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
            fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        let time = TimeSpec::new(metadata.modified.0, metadata.modified.1);
        utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)
    }
}

fn dup(descriptor: &OwnedFd) -> nix::Result<OwnedFd> {
    descriptor.try_clone().map_err(|error| error.raw_os_error().map_or(Errno::EMFILE, Errno::from_raw))
}

/// What is at a name; `None` for nothing.
fn kind(parent: &impl AsFd, name: &OsStr) -> nix::Result<Option<SFlag>> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn is_whiteout(parent: &impl AsFd, name: &OsStr) -> nix::Result<bool> {
    let stat = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR && stat.st_rdev == makedev(0, 0))
}

/// Removes a file, or a directory with all that is in it, following no link.
pub(crate) fn remove(parent: &impl AsFd, name: &OsStr) -> nix::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR) => {}
        other => return other,
    }
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut directory = Dir::openat(parent, name, flags, Mode::empty())?;
    let entries = directory.iter().map(|entry| Ok(entry?.file_name().to_owned())).collect::<nix::Result<Vec<_>>>()?;
    for entry in entries.iter().filter(|entry| !matches!(entry.to_bytes(), b"." | b"..")) {
        use std::os::unix::ffi::OsStrExt;
        remove(&directory, OsStr::from_bytes(entry.to_bytes()))?;
    }
    unlinkat(parent, name, UnlinkatFlags::RemoveDir)
}

/// Copies, leaving holes where whole blocks are zero: a file of 100 GB of nothing takes no room.
fn copy_sparse(content: &mut impl Read, file: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let (mut length, mut hole) = (0_u64, false);
    loop {
        let read = content.read(&mut buffer)?;
        let block = buffer.get(..read).unwrap_or_default();
        if block.is_empty() {
            break;
        }
        length += read as u64;
        hole = block.iter().all(|byte| *byte == 0);
        if hole {
            file.seek(SeekFrom::Current(read as i64))?;
        } else {
            file.write_all(block)?;
        }
    }
    if hole { file.set_len(length) } else { Ok(()) }
}
