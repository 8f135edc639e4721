//! Extended attributes (xattr(7)), which neither `std` nor `nix` wraps.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// Gives an open file an attribute (fsetxattr(2)).
pub(super) fn set(file: BorrowedFd<'_>, name: &OsStr, value: &[u8]) -> nix::Result<()> {
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: a NUL-terminated name, and address and length of one slice; both outlive the call.
    let done = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(done).map(drop)
}

/// All attributes of what is at a path, in the order of their names. A link is not followed; a file system that has no
/// attributes has none.
pub(crate) fn all(path: &OsStr) -> nix::Result<Vec<(OsString, Vec<u8>)>> {
    let path = CString::new(path.as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: a NUL-terminated path, and address and length of one buffer; both outlive the call.
    let list = read(|buffer| unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) });
    let list = match list {
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut all = Vec::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let known = CString::new(name).map_err(|_| Errno::EINVAL)?;
        let value = read(|buffer| {
            let (to, size) = (buffer.as_mut_ptr().cast(), buffer.len());
            // SAFETY: NUL-terminated path and name, and address and length of one buffer; all outlive the call.
            unsafe { libc::lgetxattr(path.as_ptr(), known.as_ptr(), to, size) }
        });
        match value {
            // Gone meanwhile, or one that only the kernel may read.
            Err(Errno::ENODATA | Errno::EPERM) => {}
            value => all.push((OsStr::from_bytes(name).to_owned(), value?)),
        }
    }
    all.sort();
    Ok(all)
}

/// What a call writes into a buffer that is as long as it wants (xattr(7): both calls answer so).
fn read(call: impl Fn(&mut [u8]) -> isize) -> nix::Result<Vec<u8>> {
    loop {
        let size = Errno::result(call(&mut []))?;
        let mut buffer = vec![0; size as usize];
        if buffer.is_empty() {
            return Ok(buffer);
        }
        match Errno::result(call(&mut buffer)) {
            // It grew in between.
            Err(Errno::ERANGE) => {}
            Err(errno) => return Err(errno),
            Ok(size) => {
                buffer.truncate(size as usize);
                return Ok(buffer);
            }
        }
    }
}

/// Whether a directory hides what lower layers have in it, as overlayfs tells it.
pub fn is_opaque(directory: &Path) -> bool {
    let opaque = |(name, value): &(OsString, Vec<u8>)| {
        (name == "trusted.overlay.opaque" || name == "user.overlay.opaque") && value == b"y"
    };
    all(directory.as_os_str()).is_ok_and(|attributes| attributes.iter().any(opaque))
}
