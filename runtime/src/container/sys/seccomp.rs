//! seccomp(2): gives the calling thread a filter.

use nix::errno::Errno;

/// Installs a program that the kernel runs before each system call of this thread and its descendants. One system
/// call, no allocation: callable between `clone3` and `execve`.
///
/// Needs `no_new_privs` or `CAP_SYS_ADMIN` (otherwise a filter could make a set-user-ID program misbehave): `EACCES`.
pub(crate) fn set_filter(program: &[libc::sock_filter], flags: libc::c_ulong) -> nix::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions at `filter`, which are those of the slice, and changes none.
    super::check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    })
    .map(drop)
}
