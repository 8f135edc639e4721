//! The few system calls of the host that work directly on guest memory, so that no byte is copied twice.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::user::Slice;
use crate::machine::stop;

/// How long a program waits for input before its machine rests ([`crate::machine`], `rest`): so long that a program that is
/// being talked to does not, for to wake takes about as long as to be made.
const PATIENCE: Duration = Duration::from_millis(50);

/// Waits until there is something to read, or the end of it; whether that is long in coming. `EINTR` where the machine shall
/// stop.
///
/// It asks before it is known that there is nothing: a read that does not wait (preadv2(2), `RWF_NOWAIT`) may give less of a file
/// than there is, and what it saves is small beside the exit that brought the call here.
pub(super) fn is_silent(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut waited = [PollFd::new(fd, PollFlags::POLLIN)];
    if retry(|| poll(&mut waited, PollTimeout::ZERO))? != 0 {
        return Ok(false);
    }
    // Whoever opened it so that nobody waits for it wants to hear that there is nothing yet.
    if OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?).contains(OFlag::O_NONBLOCK) {
        return Ok(false);
    }
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    Ok(retry(|| poll(&mut waited, patience))? == 0)
}

/// readv(2) from `fd` into the program's memory.
pub(super) fn read_into(fd: BorrowedFd<'_>, slices: &[Slice<'_>]) -> Result<u64, Errno> {
    let vectors = vectors(slices);
    let count = vectors.len() as i32;
    // SAFETY: each vector is a slice of guest memory, which stays mapped while `slices` lives, and which no Rust
    // reference points into.
    unless_stopped(|| unsafe { libc::readv(fd.as_raw_fd(), vectors.as_ptr(), count) })
}

/// writev(2) to `fd` from the program's memory.
pub(super) fn write_from(fd: BorrowedFd<'_>, slices: &[Slice<'_>]) -> Result<u64, Errno> {
    let vectors = vectors(slices);
    let count = vectors.len() as i32;
    // SAFETY: as for `read_into`; the kernel only reads.
    unless_stopped(|| unsafe { libc::writev(fd.as_raw_fd(), vectors.as_ptr(), count) })
}

/// getrandom(2) into one slice of the program's memory.
pub(super) fn random_into(slice: &Slice<'_>, flags: u32) -> Result<u64, Errno> {
    let pointer = slice.ptr_guard_mut();
    // SAFETY: as for `read_into`.
    unless_stopped(|| unsafe { libc::getrandom(pointer.as_ptr().cast(), slice.len(), flags) })
}

/// Sixteen random bytes, for the stack of a new program.
pub(in super::super) fn random_bytes() -> Result<[u8; 16], Errno> {
    let mut bytes = [0_u8; 16];
    // SAFETY: the buffer is sixteen bytes long and ours.
    unless_stopped(|| unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) })?;
    Ok(bytes)
}

/// Calls again what a signal interrupted, unless the signal means that the machine shall stop: then `EINTR`.
fn unless_stopped(mut call: impl FnMut() -> isize) -> Result<u64, Errno> {
    retry(|| Errno::result(call())).map(|count| count as u64)
}

/// As [`unless_stopped`], for anything that says `EINTR`.
pub(super) fn retry<T>(mut attempt: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match attempt() {
            Err(Errno::EINTR) if !stop::requested() => {}
            other => return other,
        }
    }
}

/// At most as many vectors as the kernel takes (`IOV_MAX`); what is beyond is a short read or write.
fn vectors(slices: &[Slice<'_>]) -> Vec<libc::iovec> {
    let vector =
        |slice: &Slice<'_>| libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: slice.len() };
    slices.iter().take(libc::UIO_MAXIOV as usize).map(vector).collect()
}
