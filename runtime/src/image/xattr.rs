//! Extended attributes (xattr(7)), which neither `std` nor `nix` wraps.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

/// Gives an open file an attribute (fsetxattr(2)).
pub(super) fn set(file: BorrowedFd<'_>, name: &OsStr, value: &[u8]) -> nix::Result<()> {
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: a NUL-terminated name, and address and length of one slice; both outlive the call.
    let done = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(done).map(drop)
}
