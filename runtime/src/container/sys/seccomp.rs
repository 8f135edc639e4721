//! seccomp(2): gives the calling thread a filter.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Installs a program that the kernel runs before each system call of this thread and its descendants. One system
/// call, no allocation: callable between `clone3` and `execve`.
///
/// Returns a descriptor if the flags ask for a listener (`SECCOMP_FILTER_FLAG_NEW_LISTENER`).
///
/// Needs `no_new_privs` or `CAP_SYS_ADMIN` (otherwise a filter could make a set-user-ID program misbehave): `EACCES`.
pub(crate) fn set_filter(program: &[libc::sock_filter], flags: libc::c_ulong) -> nix::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions at `filter`, which are those of the slice, and changes none.
    let returned = super::check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    })?;
    let listens = flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0;
    // SAFETY: with that flag the call returns a new descriptor, which nobody else owns.
    Ok(listens.then(|| unsafe { OwnedFd::from_raw_fd(returned as RawFd) }))
}

/// Sends bytes with a descriptor (`SCM_RIGHTS`, unix(7)); returns how many bytes went. One system call, no allocation.
pub(crate) fn send_with_descriptor(to: &OwnedFd, bytes: &[IoSlice<'_>], descriptor: &OwnedFd) -> nix::Result<usize> {
    // A control message: a header of 16 bytes, the descriptor, and what aligns it (cmsg(3)).
    #[repr(C, align(8))]
    struct Rights {
        header: libc::cmsghdr,
        descriptor: RawFd,
        _fill: u32,
    }
    let rights = Rights {
        header: libc::cmsghdr {
            cmsg_len: size_of::<libc::cmsghdr>() + size_of::<RawFd>(),
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        },
        descriptor: descriptor.as_raw_fd(),
        _fill: 0,
    };
    // SAFETY: a structure of integers and pointers, for which zero is "nothing".
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // `IoSlice` has the layout of `iovec`, as its documentation promises.
    message.msg_iov = bytes.as_ptr().cast::<libc::iovec>().cast_mut();
    message.msg_iovlen = bytes.len();
    message.msg_control = (&raw const rights).cast_mut().cast();
    message.msg_controllen = size_of::<Rights>();
    // SAFETY: all that the message points to outlives the call, which changes none of it.
    let returned = unsafe { libc::sendmsg(to.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    super::check(returned as libc::c_long).map(|sent| sent as usize)
}
