//! Network interfaces, as far as one flag of one interface goes (netdevice(7)).

use std::os::fd::{AsFd, AsRawFd};

/// Brings the loopback interface of the calling process's network namespace up; any socket serves as the way in.
pub(crate) fn loopback_up(socket: &impl AsFd) -> nix::Result<()> {
    // SAFETY: a structure of integers and arrays of them; zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`.
    let returned = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    super::check(libc::c_long::from(returned)).map(drop)
}
