//! File systems: what the kernel shows of itself, the root, and others.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use isolab_vmm::guest::linux::init::{Mount, Root, Writes};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};

use crate::InitError;

/// A disk is found by a driver that works on its own; it has this long.
const APPEARS: Duration = Duration::from_secs(10);

/// Nothing in it is a program with another's rights, or a device.
const PLAIN: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

fn failed(attempt: &'static str, on: &Path) -> impl FnOnce(Errno) -> InitError {
    move |error| InitError::Path { attempt, on: on.to_owned(), source: error.into() }
}

fn folder(path: &Path) -> Result<(), InitError> {
    fs::create_dir_all(path).map_err(|source| InitError::Path {
        attempt: "make the folder",
        on: path.to_owned(),
        source,
    })
}

fn mount_at(what: &Path, at: &Path, filesystem: &str, flags: MsFlags, options: Option<&str>) -> Result<(), InitError> {
    match mount(Some(what), at, Some(filesystem), flags, options) {
        Ok(()) => Ok(()),
        Err(Errno::ENODEV) => Err(InitError::Path {
            attempt: "mount, for want of a driver or module of its file system,",
            on: what.to_owned(),
            source: io::Error::other(format!("the kernel does not know {filesystem:?}")),
        }),
        Err(error) => Err(failed("mount", what)(error)),
    }
}

/// Mounts what the kernel shows of itself below `root`.
pub(crate) fn mount_kernels(root: &Path) -> Result<(), InitError> {
    for (name, filesystem, flags) in [
        ("proc", "proc", PLAIN),
        ("sys", "sysfs", PLAIN),
        ("dev", "devtmpfs", MsFlags::MS_NOSUID),
        ("dev/pts", "devpts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC),
        ("dev/shm", "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV),
        ("sys/fs/cgroup", "cgroup2", PLAIN),
    ] {
        let at = root.join(name);
        // Below sysfs nobody can make a folder: it is there where the kernel has control groups.
        if !at.is_dir() {
            folder(&at)?;
        }
        match mount_at(name.as_ref(), &at, filesystem, flags, None) {
            Ok(()) => {}
            // Some kernels mount it themselves.
            Err(InitError::Path { source, .. })
                if filesystem == "devtmpfs" && source.raw_os_error() == Some(Errno::EBUSY as i32) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes a disk the root file system, with what is written where it shall go.
pub(crate) fn enter_root(root: &Root) -> Result<(), InitError> {
    let (lower, new) = (Path::new("/lower"), Path::new("/new"));
    folder(lower)?;
    folder(new)?;
    wait_for(&root.device)?;
    let read_only = MsFlags::MS_RDONLY;
    match &root.writes {
        Writes::Through => mount_at(&root.device, new, &root.filesystem, MsFlags::empty(), None)?,
        Writes::Nowhere => mount_at(&root.device, new, &root.filesystem, read_only, None)?,
        Writes::Memory => {
            mount_at(&root.device, lower, &root.filesystem, read_only, None)?;
            folder(Path::new("/upper"))?;
            mount_at("upper".as_ref(), Path::new("/upper"), "tmpfs", MsFlags::empty(), Some("mode=755"))?;
            overlay(new)?;
        }
        Writes::Disk { device, filesystem } => {
            mount_at(&root.device, lower, &root.filesystem, read_only, None)?;
            folder(Path::new("/upper"))?;
            wait_for(device)?;
            mount_at(device, Path::new("/upper"), filesystem, MsFlags::empty(), None)?;
            overlay(new)?;
        }
    }
    mount_kernels(new)?;
    // The initial file system can't be unmounted. pivot_root(2), NOTES: the new root is moved over it instead.
    chdir(new).map_err(failed("enter", new))?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(failed("move to the root", new))?;
    chroot(".").map_err(failed("make the root", new))?;
    chdir("/").map_err(failed("enter", new))
}

/// Puts `/upper` over `/lower`, to be seen at `new`.
fn overlay(new: &Path) -> Result<(), InitError> {
    folder(Path::new("/upper/files"))?;
    folder(Path::new("/upper/work"))?;
    let options = "lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work";
    mount_at("overlay".as_ref(), new, "overlay", MsFlags::empty(), Some(options))
}

/// Mounts other file systems.
pub(crate) fn mount_others(mounts: &[Mount]) -> Result<(), InitError> {
    for Mount { device, filesystem, at } in mounts {
        wait_for(device)?;
        folder(at)?;
        mount_at(device, at, filesystem, MsFlags::empty(), None)?;
    }
    Ok(())
}

/// Waits until a disk is there.
fn wait_for(device: &Path) -> Result<(), InitError> {
    let deadline = Instant::now() + APPEARS;
    while !device.exists() {
        if Instant::now() > deadline {
            return Err(failed("find the disk", device)(Errno::ENOENT));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
