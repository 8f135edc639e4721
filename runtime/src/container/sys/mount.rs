//! The mount calls of Linux 5.2 and later, which work on descriptors instead of paths.
//!
//! A path can be changed between the moment it is checked and the moment it is mounted upon; a descriptor can't. A new
//! file system is made in steps: `fsopen` a context, `fsconfig` its options, `fsmount` it as a mount that is nowhere yet,
//! `mount_setattr` its attributes, and last `move_mount` it to its place.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::process::done_with;

/// `MOUNT_ATTR_*` of linux/mount.h, and the few other constants that `libc` does not have for every target.
pub(crate) mod attribute {
    pub(crate) const RDONLY: u64 = 0x1;
    pub(crate) const NOSUID: u64 = 0x2;
    pub(crate) const NODEV: u64 = 0x4;
    pub(crate) const NOEXEC: u64 = 0x8;
    /// The three access-time modes are one field of several bits, which must be cleared before one is set.
    pub(crate) const ATIME: u64 = 0x70;
    pub(crate) const RELATIME: u64 = 0x0;
    pub(crate) const NOATIME: u64 = 0x10;
    pub(crate) const STRICTATIME: u64 = 0x20;
    pub(crate) const NODIRATIME: u64 = 0x80;
    pub(crate) const IDMAP: u64 = 0x10_0000;
    pub(crate) const NOSYMFOLLOW: u64 = 0x20_0000;
}

const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
const FSPICK_CLOEXEC: u32 = 0x1;
const FSPICK_EMPTY_PATH: u32 = 0x8;
const OPEN_TREE_CLONE: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;

/// The longest value that `fsconfig` takes, in bytes without the NUL.
pub(crate) const VALUE_MAX: usize = 255;

fn owned(returned: libc::c_long) -> OwnedFd {
    // SAFETY: the callers pass what a successful call has returned: a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(returned as RawFd) }
}

/// A file system that is being configured (fsopen(2)).
pub(crate) struct Context(OwnedFd);

impl Context {
    /// Begins a file system of this type.
    pub(crate) fn open(fstype: &CStr) -> nix::Result<Self> {
        // SAFETY: a NUL-terminated string.
        let opened = super::check(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) })?;
        Ok(Self(owned(opened)))
    }

    /// Begins a change of the file system that is mounted where `mount` is open: the root of a mount.
    pub(crate) fn pick(mount: BorrowedFd<'_>) -> nix::Result<Self> {
        // SAFETY: a descriptor, a NUL-terminated string and a number.
        let picked = super::check(unsafe {
            libc::syscall(libc::SYS_fspick, mount.as_raw_fd(), c"".as_ptr(), FSPICK_CLOEXEC | FSPICK_EMPTY_PATH)
        })?;
        Ok(Self(owned(picked)))
    }

    /// Has the file system become what was set.
    pub(crate) fn reconfigure(self) -> nix::Result<()> {
        self.configure(FSCONFIG_CMD_RECONFIGURE, None, None)?;
        self.leave();
        Ok(())
    }

    fn configure(&self, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> nix::Result<()> {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: both are NUL-terminated or null, as the command wants them.
        let returned =
            unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, pointer(key), pointer(value), 0) };
        super::check(returned).map(drop)
    }

    /// Sets `key=value`.
    pub(crate) fn set(&self, key: &CStr, value: &CStr) -> nix::Result<()> {
        self.configure(FSCONFIG_SET_STRING, Some(key), Some(value))
    }

    /// Sets an option that has no value.
    pub(crate) fn set_flag(&self, key: &CStr) -> nix::Result<()> {
        self.configure(FSCONFIG_SET_FLAG, Some(key), None)
    }

    /// Makes the file system, and a mount of it that is attached nowhere, with these attributes.
    pub(crate) fn mount(&self, attributes: u64) -> nix::Result<OwnedFd> {
        self.configure(FSCONFIG_CMD_CREATE, None, None)?;
        // SAFETY: three numbers.
        super::check(unsafe {
            libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, attributes as u32)
        })
        .map(owned)
    }

    /// Done with it: see [`done_with`].
    pub(crate) fn leave(self) {
        done_with(self.0);
    }

    /// Reads the kernel's own words about the last error into `buffer`; returns their length.
    ///
    /// The kernel writes `e overlay: ...`; without a message the read fails, and there is nothing to tell.
    pub(crate) fn complaint(&self, buffer: &mut [u8]) -> usize {
        nix::unistd::read(&self.0, buffer).unwrap_or(0)
    }
}

/// A copy of the mount at `path` (below `directory`; an empty path means `directory` itself), attached nowhere: what a
/// bind mount is before it is bound. `recursive` copies the mounts below it too.
pub(crate) fn clone_tree(directory: BorrowedFd<'_>, path: &CStr, recursive: bool) -> nix::Result<OwnedFd> {
    let deep = if recursive { libc::AT_RECURSIVE as u32 } else { 0 };
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_EMPTY_PATH as u32 | deep;
    // SAFETY: a descriptor, a NUL-terminated string and a number.
    super::check(unsafe { libc::syscall(libc::SYS_open_tree, directory.as_raw_fd(), path.as_ptr(), flags) }).map(owned)
}

/// Attaches a mount upon what `target` has open.
pub(crate) fn attach(mount: &impl AsFd, target: BorrowedFd<'_>) -> nix::Result<()> {
    attach_at(mount, &target, c"")
}

/// Attaches a mount upon `name` in the folder that `target` has open; an empty name means that folder itself.
pub(crate) fn attach_at(mount: &impl AsFd, target: &impl AsFd, name: &CStr) -> nix::Result<()> {
    // SAFETY: two descriptors and two NUL-terminated strings.
    super::check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
            name.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// A change of a mount's attributes (`mount_setattr(2)`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) userns_fd: u64,
}

impl Change {
    /// Whether there is nothing to change.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Applies `change` to the mount that is open as `mount`, and to all below it where `recursive`.
pub(crate) fn set_attributes(mount: &impl AsFd, change: &Change, recursive: bool) -> nix::Result<()> {
    let deep = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the structure is that of linux/mount.h, and its size goes with it.
    super::check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | deep,
            std::ptr::from_ref(change),
            std::mem::size_of::<Change>(),
        )
    })
    .map(drop)
}
