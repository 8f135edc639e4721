//! One cgroup in one hierarchy: a directory that the kernel fills with files.
//!
//! A directory above it that others may make or remove is opened once, and everything else done relative to that.

use std::borrow::Cow;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Pid, UnlinkatFlags, unlinkat, write};

use super::layout::{Hierarchy, Version, components};
use super::{CgroupError, cpuset};
use crate::container::pseudo_file::read_open;

/// The lab's own parent: whoever removes the last cgroup below it removes it too. Other parents belong to others.
const OURS: &str = "isolab";
/// How the name begins that a container's cgroup gets where nobody asks for another.
const OURS_ALONE: &str = "isolab-";
/// How often making or removing a directory is tried again when another process changes the tree at the same time.
const ATTEMPTS: u32 = 16;
/// How long a cgroup may go on being busy after its last process has been killed.
const LINGER: Duration = Duration::from_secs(2);

/// One value to write into one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: Cow<'static, str>,
    pub(super) value: String,
    pub(super) absent: Absent,
}

/// What it means that the kernel has no such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Absent {
    /// The limit cannot be kept: an error.
    Fails,
    /// It was a help beside another limit.
    Skips,
    /// Another file serves.
    Instead(Box<Setting>),
}

impl Setting {
    /// `value` into `file`, which must be there.
    pub(super) fn new(file: impl Into<Cow<'static, str>>, value: &(impl ToString + ?Sized)) -> Self {
        Self { file: file.into(), value: value.to_string(), absent: Absent::Fails }
    }

    /// The same, if the file is there.
    pub(super) fn optional(self) -> Self {
        Self { absent: Absent::Skips, ..self }
    }

    /// The same, or where the file is missing `other`.
    pub(super) fn or(self, other: Self) -> Self {
        Self { absent: Absent::Instead(Box::new(other)), ..self }
    }
}

/// A cgroup's directory in one hierarchy.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) version: Version,
    /// v1: the controllers of its hierarchy. v2: those that its parent hands down, once that has been looked up.
    pub(super) controllers: Vec<String>,
    pub(super) path: PathBuf,
    /// The directories above it, from the base of its path down.
    levels: Vec<PathBuf>,
    /// The directory above; nothing where that is the hierarchy's own, which no container can touch: its path will do.
    parent: Option<OwnedFd>,
    name: String,
    /// The directory itself: what clone3(2) and bpf(2) want, in v2 only.
    directory: Option<OwnedFd>,
    posing: bool,
}

impl Folder {
    /// Makes the directory, and those above it that are missing.
    ///
    /// One of that name which is there already is a leftover if nobody is in it: it is removed, since its old limits must
    /// not hold for its new owner.
    pub(super) fn create(hierarchy: &Hierarchy, path: &Path, posing: bool) -> Result<Self, CgroupError> {
        for _ in 0..ATTEMPTS {
            let Some(folder) = Self::below(hierarchy, path, posing, true)? else { continue };
            let (parent, name) = folder.place();
            match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) => return folder.opened(),
                Err(Errno::EEXIST) => folder.remove_leftover()?,
                // Somebody removed the parent, empty as it was, after we had opened it.
                Err(Errno::ENOENT) if folder.parent.is_some() => {}
                Err(source) => return Err(CgroupError::Make { path: folder.path, source }),
            }
        }
        Err(CgroupError::Make { path: hierarchy.base(path).join(path), source: Errno::EAGAIN })
    }

    /// Removes what somebody left under this name. Groups inside it go too if it is one of the lab's own; others might
    /// still count on theirs.
    fn remove_leftover(&self) -> Result<(), CgroupError> {
        let populated = self.ours() && self.all_pids().is_ok_and(|pids| !pids.is_empty());
        let removed = match populated {
            true => Err(Errno::EBUSY),
            false if self.ours() => self.remove_tree(&self.path),
            false => self.remove_one(&self.path),
        };
        match removed {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EBUSY | Errno::ENOTEMPTY) => Err(CgroupError::InUse { path: self.path.clone() }),
            Err(source) => Err(CgroupError::Remove { path: self.path.clone(), source }),
        }
    }

    /// Whether its name is one that the lab gives.
    fn ours(&self) -> bool {
        self.has_our_parent() || self.levels.len() == 1 && self.name.starts_with(OURS_ALONE)
    }

    /// Whether it stands below the parent that is the lab's own.
    fn has_our_parent(&self) -> bool {
        self.levels.get(1).is_some_and(|first| first.ends_with(OURS))
    }

    /// Finds a directory that is there.
    pub(super) fn open(hierarchy: &Hierarchy, path: &Path, posing: bool) -> Result<Self, CgroupError> {
        let missing = || CgroupError::Open { path: hierarchy.base(path).join(path), source: Errno::ENOENT };
        let folder = Self::below(hierarchy, path, posing, false)?.ok_or_else(missing)?;
        let (parent, name) = folder.place();
        openat(parent, name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|source| CgroupError::Open { path: folder.path.clone(), source })?;
        folder.opened()
    }

    /// Goes down to the parent directory, making what is missing if it may; `None` if the way vanished meanwhile.
    fn below(hierarchy: &Hierarchy, path: &Path, posing: bool, creating: bool) -> Result<Option<Self>, CgroupError> {
        let parts = components(path)?;
        let Some((name, ancestors)) = parts.split_last() else { return Ok(None) };
        let mut here = hierarchy.base(path);
        let mut levels = vec![here.clone()];
        let mut parent = None;
        for part in ancestors {
            let above = match parent {
                Some(above) => above,
                None => {
                    directory(AT_FDCWD, &here).map_err(|source| CgroupError::Open { path: here.clone(), source })?
                }
            };
            here.push(part);
            let (mut next, mut made) = (directory(&above, Path::new(part)), false);
            if matches!(next, Err(Errno::ENOENT)) && creating {
                made = match mkdirat(&above, *part, Mode::from_bits_truncate(0o755)) {
                    Ok(()) => true,
                    Err(Errno::EEXIST) => false,
                    Err(Errno::ENOENT) => return Ok(None),
                    Err(source) => return Err(CgroupError::Make { path: here, source }),
                };
                next = directory(&above, Path::new(part));
            }
            parent = match next {
                Ok(next) => Some(next),
                Err(Errno::ENOENT) => return Ok(None),
                Err(source) => return Err(CgroupError::Open { path: here, source }),
            };
            if made && hierarchy.version == Version::V1 && hierarchy.controllers.iter().any(|name| name == cpuset::NAME)
            {
                match cpuset::hand_down(&here) {
                    // Somebody who was the last to leave took the new directory, empty as it was, for his own.
                    Err(error) if error.is_gone() => return Ok(None),
                    handed => handed?,
                }
            }
            levels.push(here.clone());
        }
        here.push(name);
        Ok(Some(Self {
            version: hierarchy.version,
            controllers: hierarchy.controllers.clone(),
            path: here,
            levels,
            parent,
            name: (*name).to_owned(),
            directory: None,
            posing,
        }))
    }

    fn opened(mut self) -> Result<Self, CgroupError> {
        if self.version == Version::V2 {
            let (parent, name) = self.place();
            let opened = directory(parent, name);
            self.directory = Some(opened.map_err(|source| CgroupError::Open { path: self.path.clone(), source })?);
        }
        Ok(self)
    }

    /// Where it is: a directory, and the way from there.
    fn place(&self) -> (BorrowedFd<'_>, &Path) {
        match &self.parent {
            Some(parent) => (parent.as_fd(), Path::new(&self.name)),
            None => (AT_FDCWD, &self.path),
        }
    }

    /// The directory, in v2.
    pub(super) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd)
    }

    /// Whether a controller (or `name=...`) is at work here.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// The directories above this one, from the base of its path to its parent.
    pub(super) fn levels(&self) -> &[PathBuf] {
        &self.levels
    }

    /// Opens a file of the directory.
    pub(super) fn open_file(&self, file: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        // A folder that poses as cgroupfs lets files come into being, and keeps each value that was written.
        let pose = if self.posing { OFlag::O_CREAT | OFlag::O_APPEND } else { OFlag::empty() };
        let flags = if flags == OFlag::O_RDONLY { flags } else { flags | pose };
        let (parent, name) = self.place();
        openat(parent, &name.join(file), flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o644))
    }

    /// Writes a value into a file.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        self.open_file(file, OFlag::O_WRONLY)
            .and_then(|open| line(&open, value))
            .map_err(|source| self.refused(file, value, source))
    }

    /// Writes settings in their order; consecutive ones for one file (device rules) share its descriptor.
    pub(super) fn write_all(&self, settings: &[Setting]) -> Result<(), CgroupError> {
        let mut last: Option<(&str, OwnedFd)> = None;
        for asked in settings {
            let mut setting = asked;
            let open = loop {
                if let Some((file, open)) = last.take()
                    && file == setting.file
                {
                    break Some(open);
                }
                match (self.open_file(&setting.file, OFlag::O_WRONLY), &setting.absent) {
                    (Ok(open), _) => break Some(open),
                    (Err(Errno::ENOENT), Absent::Skips) => break None,
                    (Err(Errno::ENOENT), Absent::Instead(other)) => setting = other,
                    (Err(source), _) => return Err(self.refused(&setting.file, &setting.value, source)),
                }
            };
            if let Some(open) = open {
                line(&open, &setting.value).map_err(|source| self.refused(&setting.file, &setting.value, source))?;
                last = Some((&setting.file, open));
            }
        }
        Ok(())
    }

    fn refused(&self, file: &str, value: &str, source: Errno) -> CgroupError {
        CgroupError::Write { file: self.path.join(file), value: value.to_owned(), source }
    }

    /// Moves a process in. The bare errno: what it means depends on the controllers here.
    pub(super) fn attach(&self, pid: Pid) -> nix::Result<()> {
        self.open_file("cgroup.procs", OFlag::O_WRONLY).and_then(|open| line(&open, &pid.to_string()))
    }

    /// Opens the file through which a single thread moves in.
    pub(super) fn open_tasks(&self) -> Result<OwnedFd, CgroupError> {
        let file = "tasks";
        self.open_file(file, OFlag::O_WRONLY).map_err(|source| CgroupError::Open { path: self.path.join(file), source })
    }

    /// Reads a file, without the line break at its end.
    pub(super) fn read(&self, file: &str) -> Result<String, CgroupError> {
        let failed = |source| CgroupError::Read { file: self.path.join(file), source };
        let content = self.open_file(file, OFlag::O_RDONLY).and_then(|open| read_open(&open)).map_err(failed)?;
        Ok(content.trim_end().to_owned())
    }

    /// Reads a file that some kernels or set-ups don't have; `None` there.
    pub(super) fn read_optional(&self, file: &str) -> Result<Option<String>, CgroupError> {
        match self.read(file) {
            Err(CgroupError::Read { source: Errno::ENOENT | Errno::EOPNOTSUPP, .. }) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Reads a file that holds one number, or `max` (v2), or -1 (v1), both `None`: without limit.
    pub(super) fn number(&self, file: &str) -> Result<Option<u64>, CgroupError> {
        Ok(self.read_optional(file)?.and_then(|text| text.parse().ok()))
    }

    /// The processes in here, without those in cgroups below.
    pub(super) fn pids(&self) -> Result<Vec<Pid>, CgroupError> {
        numbers(&self.read("cgroup.procs")?)
    }

    /// The processes in here and in every cgroup below.
    pub(super) fn all_pids(&self) -> Result<Vec<Pid>, CgroupError> {
        let mut pids = self.pids()?;
        let mut folders = subfolders(&self.path);
        while let Some(folder) = folders.pop() {
            let file = folder.join("cgroup.procs");
            match fs::read_to_string(&file) {
                Ok(text) => pids.extend(numbers(&text)?),
                // It was removed between the listing and the reading: nobody is in it any more.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(CgroupError::Read { file, source: errno(&error) }),
            }
            folders.extend(subfolders(&folder));
        }
        Ok(pids)
    }

    /// Removes the directory; what is in its way, for as long as that may take, is waited for.
    ///
    /// A process leaves its cgroup while it exits, a moment before or after its parent hears of that, so `EBUSY` may
    /// mean "in a moment". It may also mean that the container made cgroups of its own: those go first.
    pub(super) fn remove(&self) -> Result<(), CgroupError> {
        let mut pause = Duration::from_micros(50);
        let mut waited = Duration::ZERO;
        loop {
            let (parent, name) = self.place();
            let removed = match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
                Err(Errno::EBUSY | Errno::ENOTEMPTY) => self.remove_tree(&self.path),
                other => other,
            };
            match removed {
                Ok(()) | Err(Errno::ENOENT) => break,
                Err(Errno::EBUSY) if waited < LINGER => {
                    sleep(pause);
                    waited += pause;
                    pause = (pause * 2).min(Duration::from_millis(20));
                }
                Err(source) => return Err(CgroupError::Remove { path: self.path.clone(), source }),
            }
        }
        self.remove_parent();
        Ok(())
    }

    /// Removes the lab's own parent directory if nobody is left in it; that somebody is, is no error.
    fn remove_parent(&self) {
        if self.has_our_parent() {
            let mut parents = self.levels.iter().skip(1).rev();
            parents.all(|parent| self.remove_one(parent).is_ok());
        }
    }

    fn remove_tree(&self, folder: &Path) -> nix::Result<()> {
        for below in subfolders(folder) {
            self.remove_tree(&below)?;
        }
        self.remove_one(folder)
    }

    /// rmdir(2). The kernel's files go with their directory; those of a folder that only poses have to be removed.
    fn remove_one(&self, folder: &Path) -> nix::Result<()> {
        if self.posing && subfolders(folder).is_empty() {
            return fs::remove_dir_all(folder).map_err(|error| errno(&error));
        }
        fs::remove_dir(folder).map_err(|error| errno(&error))
    }
}

/// Opens a directory as a place to stand on: nothing is read through it.
fn directory(at: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    openat(at, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// One write(2) of the whole value: the kernel takes each write as a command of its own.
fn line(open: &OwnedFd, value: &str) -> nix::Result<()> {
    let text = format!("{value}\n");
    match write(open, text.as_bytes())? {
        length if length == text.len() => Ok(()),
        _ => Err(Errno::EIO),
    }
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn numbers(text: &str) -> Result<Vec<Pid>, CgroupError> {
    let understand = |line: &str| CgroupError::Understand {
        file: "cgroup.procs".into(),
        text: line.to_owned(),
        expected: "a process id",
    };
    // A process that this one cannot see, in a PID namespace elsewhere, is listed as 0. To kill(2) that means "my group".
    let visible = text.lines().filter(|line| *line != "0");
    visible.map(|line| line.parse().map(Pid::from_raw).map_err(|_| understand(line))).collect()
}

pub(super) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
