//! Requests about network interfaces by their names (netdevice(7)): of the host's, and of a guest's own.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// A request about an interface. A name that is longer than the kernel's are is cut, and so not found.
pub fn request(name: &str) -> libc::ifreq {
    // SAFETY: all zeroes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    request.ifr_name.iter_mut().zip(name.bytes()).take(room).for_each(|(to, from)| *to = from as libc::c_char);
    request
}

/// Asks the kernel, by any socket: `what` is one of the `SIOC` requests that take an `ifreq`.
pub fn ask(socket: &OwnedFd, what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: each request here takes an `ifreq`, which lives over the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), what, request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
