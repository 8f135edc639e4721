//! The one call of this module that neither `std` nor `nix` wraps.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// Switches an option of a netlink socket on (netlink(7), "Socket options").
pub(super) fn enable_netlink(socket: &impl AsFd, option: libc::c_int) -> nix::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one integer, which outlives the call.
    let returned = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(returned).map(drop)
}
