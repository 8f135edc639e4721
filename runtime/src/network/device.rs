//! Giving an interface of the host away: it leaves one network namespace and appears in another, with what it had (OCI
//! runtime specification, config-linux.md, "Network Devices").
//!
//! The kernel keeps the address of its card and the size of its frames, but takes its IP addresses, which belong to the
//! namespace. Those that were meant to last are noted before and given back after.

use tracing::info_span;

use super::error::NetworkError;
use super::link;
use super::namespace::Namespace;
use super::netlink::{Batch, Socket, find, flags};

/// `IFA_FLAGS` of `linux/if_addr.h`: as the header's flags, with room for more of them.
const IFA_FLAGS: u16 = 8;
/// An address that stays until somebody takes it away.
const IFA_F_PERMANENT: u32 = 0x80;
/// Nobody asks the neighbours whether they have it too.
const IFA_F_NODAD: u32 = 0x02;

/// An IP address of an interface, of whichever family, as the kernel told it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    family: u8,
    bits: u8,
    flags: u32,
    /// The attributes that say which address it is: kind and value.
    values: Vec<(u16, Vec<u8>)>,
}

/// Moves the interface `name` of the host into the namespace `there`, where it is called `wanted`, and switches it on. A
/// name with `%d` in it leaves the number to the kernel.
pub fn give_away(name: &str, wanted: &str, there: &Namespace) -> Result<(), NetworkError> {
    let _span = info_span!(
        "network.give_away",
        call = "netlink(RTM_SETLINK, IFLA_NET_NS_FD)",
        on = name,
        why = "an interface is in one namespace at a time: this one is the container's from here on"
    )
    .entered();
    crate::spans::fault().map_err(|source| NetworkError::System {
        attempt: "move interface",
        on: name.into(),
        source,
    })?;
    let here = Socket::route()?;
    let index = link::index_of(&here, name)?;
    let addresses = permanent_addresses(&here, index)?;
    let before = link::list(there.socket())?;
    if before.iter().any(|(_, taken)| taken == wanted) {
        return Err(NetworkError::InterfaceTaken { name: wanted.to_owned() });
    }
    link::send_to(&here, name, index, wanted, there)?;
    // By its old number where that was free in there; by its new name where that is known. What is new is it.
    let after = link::list(there.socket())?;
    let Some((index, name)) = after.into_iter().find(|one| !before.contains(one)) else {
        return Err(link::missing(wanted).into());
    };
    let mut batch = Batch::default();
    link::add_up(&mut batch, &name, index);
    for address in &addresses {
        address.add(&mut batch, &name, index);
    }
    Ok(there.socket().ask(&batch)?)
}

/// The addresses of an interface that are known everywhere and have no end.
fn permanent_addresses(socket: &Socket, index: u32) -> Result<Vec<Address>, NetworkError> {
    let mut batch = Batch::default();
    batch.add("list addresses", libc::RTM_GETADDR, flags::DUMP, &[0; 8], |_| {});
    let mut all = Vec::new();
    socket.exchange(&batch, |message| all.extend(read(message.body, index)))?;
    Ok(all)
}

/// The address in a `struct ifaddrmsg` with its attributes; nothing where it is another interface's, or not to be kept.
fn read(body: &[u8], index: u32) -> Option<Address> {
    let [family, bits, flags, scope, a, b, c, d, attributes @ ..] = body else { return None };
    let wide = find(attributes, IFA_FLAGS).and_then(|value| value.try_into().ok()).map(u32::from_ne_bytes);
    let flags = wide.unwrap_or(u32::from(*flags));
    let lasts = flags & IFA_F_PERMANENT != 0 && *scope == libc::RT_SCOPE_UNIVERSE;
    if !lasts || u32::from_ne_bytes([*a, *b, *c, *d]) != index {
        return None;
    }
    let kinds = [libc::IFA_ADDRESS, libc::IFA_LOCAL, libc::IFA_BROADCAST];
    let values = kinds.into_iter().filter_map(|kind| Some((kind, find(attributes, kind)?.to_vec()))).collect();
    Some(Address { family: *family, bits: *bits, flags: flags & IFA_F_NODAD, values })
}

impl Address {
    fn add(&self, batch: &mut Batch, name: &str, index: u32) {
        let mut header = vec![self.family, self.bits, 0, libc::RT_SCOPE_UNIVERSE];
        header.extend(index.to_ne_bytes());
        let attempt = format!("give interface {name} its address back");
        let flags = flags::ACK | flags::CREATE | flags::REPLACE;
        batch.add(attempt, libc::RTM_NEWADDR, flags, &header, |attributes| {
            for (kind, value) in &self.values {
                attributes.bytes(*kind, value);
            }
            if self.flags != 0 {
                attributes.native(IFA_FLAGS, self.flags);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, read};

    #[test]
    fn an_address_that_lasts_is_kept_and_others_are_not() {
        let body =
            |flags, scope, index| [vec![2, 24, flags, scope, index, 0, 0, 0], vec![8, 0, 2, 0, 10, 0, 0, 9]].concat();
        let kept = Address { family: 2, bits: 24, flags: 0, values: vec![(2, vec![10, 0, 0, 9])] };
        assert_eq!(read(&body(0x80, 0, 7), 7), Some(kept));
        for (flags, scope, index) in [(0, 0, 7), (0x80, 253, 7), (0x80, 0, 8)] {
            assert_eq!(read(&body(flags, scope, index), 7), None);
        }
        assert_eq!(read(&[2, 24, 0x80], 7), None);
    }
}
