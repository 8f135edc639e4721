//! clone3(2): the call that makes a process and its namespaces at once.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::unistd::Pid;

/// linux/sched.h; the bit does not fit the type that `libc` gives such constants.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The child's parent is the caller's parent.
pub(crate) const CLONE_PARENT: u64 = libc::CLONE_PARENT as u64;

/// Which of the two a caller of [`clone3`] has become.
pub(crate) enum Side {
    /// The caller; the child is known by number and, safe against reuse of the number, by descriptor.
    Parent {
        /// The child's process id, as the caller's PID namespace numbers it.
        child: Pid,
        /// Readable when the child has ended (`pidfd_open(2)`).
        pidfd: OwnedFd,
    },
    /// The new process, a copy of the caller.
    Child,
}

/// Copies the calling process, in new namespaces as `flags` (`CLONE_NEW*`) says, on v2 straight into `cgroup`.
///
/// # Safety
/// The child has one thread only and a copy of whatever locks the others held. It must not allocate, lock or log
/// unless the caller has no other thread, and must end in `execve` or `_exit`, never by returning to code that
/// believes it is the parent.
pub(crate) unsafe fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> nix::Result<Side> {
    let mut pidfd: RawFd = -1;
    // SAFETY: a structure of integers, for which zero is "not asked for".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    // CLONE_PIDFD: a number may be recycled once the process is reaped; the descriptor never means another process.
    arguments.flags = flags | libc::CLONE_PIDFD as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    // A child that is made for one's parent tells it of its end as its maker would (clone(2), CLONE_PARENT).
    arguments.exit_signal = if flags & CLONE_PARENT == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(folder) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = folder.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM, so the child runs on its own copy of this stack; `arguments` outlives the call.
    let child = super::check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, std::mem::size_of::<libc::clone_args>())
    })?;
    if child == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: the kernel stored a new descriptor, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Side::Parent { child: Pid::from_raw(child as libc::pid_t), pidfd })
}

/// Copies the calling process into a sibling: a child of the caller's parent, born into the PID namespace that the caller
/// has joined (setns(2) moves only children there). Returns its number, or nothing in the new process.
///
/// # Safety
/// As for [`clone3`].
pub(crate) unsafe fn clone_sibling() -> nix::Result<Option<Pid>> {
    // SAFETY: a structure of integers, for which zero is "not asked for".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    // Its end is told to the parent by the same signal as the caller's, so none may be named here.
    arguments.flags = libc::CLONE_PARENT as u64;
    // SAFETY: no CLONE_VM, so the child runs on its own copy of this stack; `arguments` outlives the call.
    let child = super::check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, std::mem::size_of::<libc::clone_args>())
    })?;
    Ok((child != 0).then(|| Pid::from_raw(child as libc::pid_t)))
}

/// Ends the process at once: no destructor, no buffer that the parent would write a second time.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) takes a number and does not return.
    unsafe { libc::_exit(status) }
}
