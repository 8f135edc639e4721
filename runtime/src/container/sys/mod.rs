//! The system calls that neither `std` nor `nix` wraps, one mechanism a file: all `unsafe` of the container engine
//! stands here. Everything is callable between `clone3` and `execve`: no function allocates or takes a lock.

pub(crate) mod bpf;
pub(crate) mod clone;
pub(crate) mod credentials;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod scheduling;
pub(crate) mod seccomp;
pub(crate) mod terminal;

use nix::errno::Errno;

/// Turns what `syscall(2)` returned into a result: -1 means "see errno".
fn check(returned: libc::c_long) -> nix::Result<libc::c_long> {
    Errno::result(returned)
}
