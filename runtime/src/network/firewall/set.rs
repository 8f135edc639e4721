//! What rules look into: sets and maps, whose elements come and go with networks and containers.

use std::net::Ipv4Addr;

use super::message::{DELETE_ELEMENT, NEW_ELEMENT, NEW_SET, Transaction};
use crate::network::netlink::flags;
use crate::network::port::Published;
use crate::network::subnet::Subnet;

/// nft's numbers of types, which the kernel keeps for whoever prints the set. Of several joined, six bits each.
const ADDRESS: u32 = 7;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;
const INTERFACE: u32 = 41;
/// `NFT_SET_INTERVAL`: an element is where a range begins or ends. `NFT_SET_MAP`: it has a value.
const INTERVAL: u32 = 4;
const MAP: u32 = 8;
/// IFNAMSIZ.
const NAME: usize = 16;

/// The sets and maps of our table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    /// The names of our bridges.
    Bridges,
    /// Each bridge beside itself: what stays within a network.
    Within,
    /// The ranges of our networks.
    Subnets,
    /// From a protocol and a port of the host, whatever the address, to an address and port of a container.
    Anywhere,
    /// From a protocol, an address and a port of the host to an address and port of a container.
    Here,
}

/// All of them.
pub(super) const ALL: [Set; 5] = [Set::Bridges, Set::Within, Set::Subnets, Set::Anywhere, Set::Here];

impl Set {
    /// Its name in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bridges => "bridges",
            Self::Within => "within",
            Self::Subnets => "subnets",
            Self::Anywhere => "ports",
            Self::Here => "ports_at",
        }
    }

    /// Its number in a transaction.
    pub(super) fn id(self) -> u32 {
        1 + self as u32
    }

    /// The type and length of its keys.
    fn key(self) -> (u32, u32) {
        match self {
            Self::Bridges => (INTERFACE, 16),
            Self::Within => (INTERFACE << 6 | INTERFACE, 32),
            Self::Subnets => (ADDRESS, 4),
            Self::Anywhere => (PROTOCOL << 6 | PORT, 8),
            Self::Here => (PROTOCOL << 12 | ADDRESS << 6 | PORT, 12),
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::Bridges | Self::Within => 0,
            Self::Subnets => INTERVAL,
            Self::Anywhere | Self::Here => MAP,
        }
    }

    /// How nft prints its keys: `NFTNL_UDATA_SET_KEYBYTEORDER`, four bytes: 1 the processor's order, 2 the network's, 0 both.
    fn note(self) -> [u8; 6] {
        let order = match self {
            Self::Bridges => 1,
            Self::Subnets => 2,
            Self::Within | Self::Anywhere | Self::Here => 0,
        };
        [0, 4, order, 0, 0, 0]
    }

    /// Makes it.
    pub(super) fn make(self, transaction: &mut Transaction<'_>) {
        let (kind, length) = self.key();
        transaction.add(format!("make set {}", self.name()), NEW_SET, flags::CREATE, |it| {
            it.text(2, self.name()).number(3, self.flags()).number(4, kind).number(5, length);
            if self.flags() & MAP != 0 {
                it.number(6, ADDRESS << 6 | PORT).number(7, 8);
            }
            it.number(10, self.id()).bytes(13, &self.note());
        });
    }

    /// The map for a port, depending on whether it is one of all addresses.
    fn of_port(port: &Published) -> Self {
        if port.host_address.is_unspecified() { Self::Anywhere } else { Self::Here }
    }
}

/// An element's key, its value in a map, and whether it is where a range ends.
#[derive(Debug)]
struct Element {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    end: bool,
}

/// Whether elements come or go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Remove,
}

/// Adds a network to the sets, or takes it out.
pub(super) fn network(transaction: &mut Transaction<'_>, change: Change, bridge: &str, subnet: Subnet) {
    let name = interface(bridge);
    let plain = |key| Element { key, value: None, end: false };
    write(transaction, change, Set::Bridges, vec![plain(name.to_vec())]);
    write(transaction, change, Set::Within, vec![plain([name, name].concat())]);
    let behind = Ipv4Addr::from_bits(subnet.broadcast().to_bits().saturating_add(1));
    let first = plain(subnet.first().octets().to_vec());
    let end = Element { key: behind.octets().to_vec(), value: None, end: true };
    write(transaction, change, Set::Subnets, vec![first, end]);
}

/// Leads a port to a container, or no more.
pub(super) fn port(transaction: &mut Transaction<'_>, change: Change, port: &Published, container: Ipv4Addr) {
    // Each part of a key or value stands at a multiple of four bytes.
    let protocol = [port.protocol.number(), 0, 0, 0];
    let padded = |port: u16| {
        let [high, low] = port.to_be_bytes();
        [high, low, 0, 0]
    };
    let key = match Set::of_port(port) {
        Set::Here => [protocol, port.host_address.octets(), padded(port.host_port)].concat(),
        _ => [protocol, padded(port.host_port)].concat(),
    };
    let value = [container.octets(), padded(port.container_port)].concat();
    write(transaction, change, Set::of_port(port), vec![Element { key, value: Some(value), end: false }]);
}

fn write(transaction: &mut Transaction<'_>, change: Change, set: Set, elements: Vec<Element>) {
    let (kind, flags, attempt) = match change {
        Change::Add => (NEW_ELEMENT, flags::CREATE | flags::EXCL, "add to"),
        Change::Remove => (DELETE_ELEMENT, 0, "remove from"),
    };
    transaction.add(format!("{attempt} set {}", set.name()), kind, flags, |it| {
        it.text(2, set.name());
        if change == Change::Add {
            it.number(4, set.id());
        }
        it.nested(3, |list| {
            for element in elements {
                list.nested(1, |it| {
                    if element.end {
                        it.number(3, 1); // NFTA_SET_ELEM_FLAGS: the end of a range
                    }
                    it.nested(1, |key| {
                        key.bytes(1, &element.key);
                    });
                    if let Some(value) = element.value.filter(|_| change == Change::Add) {
                        it.nested(2, |data| {
                            data.bytes(1, &value);
                        });
                    }
                });
            }
        });
    });
}

/// An interface's name as the kernel compares it: 16 bytes, the rest zero.
fn interface(name: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    for (slot, byte) in bytes.iter_mut().take(NAME - 1).zip(name.bytes()) {
        *slot = byte;
    }
    bytes
}
