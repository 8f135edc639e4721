//! Trying a thing out in a child process, so that whatever it changes is gone with the child.
//!
//! Namespaces and mounts are best asked about by making one: sysctls, security modules and seccomp filters all have a
//! say, and only the kernel knows the sum. The child enters namespaces of its own first; when it ends, however it ends,
//! the kernel takes them down with everything mounted in them.

use std::fmt::Write as _;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{self, ForkResult, Gid, Uid};

/// Seconds after which a child that hangs (on a dead network file system, say) is ended by its own alarm.
const PATIENCE: u32 = 1;

/// Runs `steps` in a child; the error that stopped them, if one did.
///
/// # Safety
/// The caller may have several threads, and the child has one: `steps` must keep to calls that are safe after fork(2) in
/// such a process. It must not allocate, lock, or print (signal-safety(7)).
unsafe fn in_child(steps: impl FnOnce() -> nix::Result<()>) -> nix::Result<()> {
    // SAFETY: between here and `_exit` the child runs only `steps`, which the caller vouches for, and alarm(2).
    match unsafe { unistd::fork() }? {
        ForkResult::Child => {
            unistd::alarm::set(PATIENCE);
            // The exit status is eight bits, and every errno fits: the largest is 133.
            let status = steps().err().map_or(0, |errno| errno as i32);
            // SAFETY: ends the process at once; no handler of the parent's runs twice.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => loop {
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) => return Ok(()),
                Ok(WaitStatus::Exited(_, status)) => return Err(Errno::from_raw(status)),
                Ok(WaitStatus::Signaled(..)) => return Err(Errno::ETIMEDOUT),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        },
    }
}

/// Makes a user namespace with one user mapped, as a rootless container does; as root, in the place of an ordinary user.
pub(crate) fn user_namespace() -> nix::Result<()> {
    let identity = Identity::ordinary();
    // SAFETY: `enter` makes system calls on memory that is prepared above.
    unsafe { in_child(|| identity.enter()) }
}

/// Mounts an overlay on a tmpfs, in mount namespace of its own.
pub(crate) fn overlay() -> nix::Result<()> {
    // SAFETY: system calls on constants.
    unsafe {
        in_child(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount_overlay(c"lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w")
        })
    }
}

/// The same inside a user namespace.
pub(crate) fn overlay_in_user_namespace() -> nix::Result<()> {
    let identity = Identity::ordinary();
    // SAFETY: as for `user_namespace` and `overlay`.
    unsafe {
        in_child(|| {
            identity.enter()?;
            unshare(CloneFlags::CLONE_NEWNS)?;
            // userxattr: trusted.* attributes, which overlayfs uses else, are the initial namespace's (Linux 5.11).
            mount_overlay(c"lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w,userxattr")
        })
    }
}

/// Covers /tmp, in the caller's own mount namespace, and mounts an overlay there.
fn mount_overlay(options: &std::ffi::CStr) -> nix::Result<()> {
    const NONE: Option<&std::ffi::CStr> = None;
    // First of all, or the mounts below would spread to the namespace we came from.
    mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(Some(c"tmpfs"), c"/tmp", Some(c"tmpfs"), MsFlags::empty(), NONE)?;
    for folder in [c"/tmp/l", c"/tmp/u", c"/tmp/w", c"/tmp/m"] {
        unistd::mkdir(folder, Mode::S_IRWXU)?;
    }
    mount(Some(c"overlay"), c"/tmp/m", Some(c"overlay"), MsFlags::empty(), Some(options))
}

/// An ordinary user, and the texts that map it to root in a user namespace: written before the fork, used after it.
struct Identity {
    drop_to: Option<(Uid, Gid)>,
    uid_map: String,
    gid_map: String,
}

impl Identity {
    /// The user that runs this; in root's place, `nobody`: what root may is not the question.
    fn ordinary() -> Self {
        const NOBODY: u32 = 65_534;
        let is_root = unistd::geteuid().is_root();
        let (user, group) =
            if is_root { (NOBODY, NOBODY) } else { (unistd::geteuid().as_raw(), unistd::getegid().as_raw()) };
        let map = |id: u32| {
            let mut text = String::new();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "0 {id} 1");
            text
        };
        let drop_to = is_root.then(|| (Uid::from_raw(user), Gid::from_raw(group)));
        Self { drop_to, uid_map: map(user), gid_map: map(group) }
    }

    /// Enters a user namespace of its own, as its root (`user_namespaces(7)`).
    fn enter(&self) -> nix::Result<()> {
        if let Some((user, group)) = self.drop_to {
            unistd::setgroups(&[])?;
            unistd::setresgid(group, group, group)?;
            unistd::setresuid(user, user, user)?;
            // A process that changed its user is not "dumpable": its files in /proc would belong to root.
            // SAFETY: no pointers.
            Errno::result(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) })?;
        }
        unshare(CloneFlags::CLONE_NEWUSER)?;
        write_file(c"/proc/self/setgroups", b"deny")?; // else no unprivileged gid_map
        write_file(c"/proc/self/uid_map", self.uid_map.as_bytes())?;
        write_file(c"/proc/self/gid_map", self.gid_map.as_bytes())
    }
}

fn write_file(path: &std::ffi::CStr, text: &[u8]) -> nix::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    unistd::write(&file, text).map(drop)
}

/// An errno in words.
pub(crate) fn in_words(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stops_a_child_is_told_to_its_parent() {
        // SAFETY: returns a constant.
        assert_eq!(unsafe { in_child(|| Err(Errno::ENOSPC)) }, Err(Errno::ENOSPC));
        // SAFETY: as above.
        assert_eq!(unsafe { in_child(|| Ok(())) }, Ok(()));
    }

    #[test]
    fn a_child_that_hangs_is_ended() {
        // SAFETY: pause(2) is a plain system call.
        let hangs = unsafe {
            in_child(|| {
                libc::pause();
                Ok(())
            })
        };
        assert_eq!(hangs, Err(Errno::ETIMEDOUT));
    }

    #[test]
    fn errors_are_words() {
        assert_eq!(in_words(Errno::EPERM), "operation not permitted");
    }
}
