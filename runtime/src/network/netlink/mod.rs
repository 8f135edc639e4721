//! Netlink: how the kernel is told of interfaces, addresses, routes and packet rules (netlink(7), rtnetlink(7)).
//!
//! A request is a message: a header of 16 bytes, a fixed part that its kind decides, and attributes. An attribute is a
//! length, a type and a value, and may hold attributes itself. [`Batch`] writes messages, [`Socket`] brings them to the
//! kernel and back, `read` takes apart what comes. Programs such as ip(8) and nft(8) do the same; each costs some
//! milliseconds to start, and a whole container must not.

mod batch;
mod read;
mod socket;

pub(super) use batch::{Attributes, Batch};
pub(super) use read::find;
pub use socket::NetlinkError;
pub(super) use socket::Socket;

/// `struct nlmsghdr` (linux/netlink.h): length, kind, flags, sequence number, port.
const HEADER: usize = 16;
/// Messages and attributes begin at multiples of this.
const ALIGNMENT: usize = 4;

/// "Nested": the attribute holds attributes.
const NESTED: u16 = 1 << 15;

/// How far to the next multiple of [`ALIGNMENT`].
fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// Flags of a request (linux/netlink.h).
pub(super) mod flags {
    pub(in crate::network) const REQUEST: u16 = 0x1;
    pub(in crate::network) const ACK: u16 = 0x4;
    /// Replace what is there.
    pub(in crate::network) const REPLACE: u16 = 0x100;
    /// All there are, not one.
    pub(in crate::network) const DUMP: u16 = 0x300;
    /// Fail if it is there.
    pub(in crate::network) const EXCL: u16 = 0x200;
    /// Make it if it is not there.
    pub(in crate::network) const CREATE: u16 = 0x400;
    /// At the end of a list.
    pub(in crate::network) const APPEND: u16 = 0x800;
}
