//! The network of a container that has one of its own and nothing more: the loopback interface.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::sys;

/// Brings `lo` up in the calling process's network namespace; a new one has it, but down.
pub(crate) fn loopback_up() -> nix::Result<()> {
    // A Unix socket: the cheapest one, and there even where the kernel has no IPv4.
    let any = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    sys::network::loopback_up(&any)
}
