//! What rules are made of: steps of a machine with registers, which each packet runs through.
//!
//! A rule such as `iifname "x" drop` is three steps: load the name of the interface into a register; compare; drop. A
//! comparison that fails ends the rule, not the packet's way. nft(8) translates its language into these steps, and shows
//! them with `nft --debug=netlink list ruleset`.

use super::set::Set;
use crate::network::netlink::Attributes;

/// The first register of 16 bytes.
const WIDE: u32 = 1;
/// The first of four bytes; the four of them are the same memory as [`WIDE`].
const NARROW: u32 = 8;

/// A register.
#[derive(Debug, Clone, Copy)]
pub(super) enum Register {
    /// The n-th of 16 bytes.
    Wide(u32),
    /// The n-th of four bytes, from the same beginning.
    Narrow(u32),
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    Accept,
    Drop,
    /// Back to the chain from which this one was reached.
    Return,
    /// On to another chain; and back, if nothing there decides.
    Jump(&'static str),
}

/// What is known of a packet apart from its bytes (enum `nft_meta_keys`).
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(super) enum Meta {
    /// The interface through which it came.
    InputName = 6,
    /// The interface through which it leaves.
    OutputName = 7,
    /// TCP, UDP, ...
    Protocol = 16,
}

/// What is known of the connection that it belongs to (enum `nft_ct_keys`).
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(super) enum Connection {
    /// Bits: 2 established, 4 related to one.
    State = 0,
    /// Bits: 32 its destination was exchanged.
    Status = 2,
}

/// In which header bytes are (enum `nft_payload_bases`).
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(super) enum Layer {
    Network = 1,
    Transport = 2,
}

/// A step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expression {
    Meta(Meta, Register),
    Connection(Connection, Register),
    /// Bytes of a header.
    Payload {
        layer: Layer,
        offset: u32,
        length: u32,
        to: Register,
    },
    /// What kind of address the destination is, by the routing table.
    DestinationKind(Register),
    /// Goes on where the register equals the bytes.
    Equals(Register, &'static [u8]),
    /// Goes on where the register begins with so many bytes of an interface's name.
    Name(Register, [u8; 16], usize),
    /// Goes on where the register has one of the bits.
    HasBits(Register, u32),
    /// Goes on where the key is in the set; for a map, with the value in `to`.
    Lookup {
        set: Set,
        key: Register,
        to: Option<Register>,
    },
    /// Goes on where the key is not in the set.
    LookupNot {
        set: Set,
        key: Register,
    },
    /// Exchanges the destination for an address and a port.
    DestinationNat {
        address: Register,
        port: Register,
    },
    /// Exchanges the source for the address of the interface through which the packet leaves.
    Masquerade,
    Decide(Verdict),
}

/// Where addresses and ports stand in headers.
pub(super) const SOURCE: u32 = 12;
pub(super) const DESTINATION: u32 = 16;
pub(super) const DESTINATION_PORT: u32 = 2;
/// `RTN_LOCAL`: an address of this host.
pub(super) const LOCAL: &[u8] = &2_u32.to_ne_bytes();
/// The first byte of 127.0.0.0/8.
pub(super) const LOOPBACK: &[u8] = &[127];
/// `NFT_CT_STATE` of connections that are known, or belong to one that is.
pub(super) const KNOWN: u32 = 2 | 4;
/// `IPS_DST_NAT`.
pub(super) const LED_HERE: u32 = 1 << 5;

impl Register {
    fn number(self) -> u32 {
        match self {
            Self::Wide(index) => WIDE + index,
            Self::Narrow(index) => NARROW + index,
        }
    }
}

impl Expression {
    /// Writes the step as an element of a list.
    pub(super) fn write(&self, list: &mut Attributes<'_>) {
        match *self {
            Self::Meta(key, to) => step(list, "meta", |it| {
                it.number(2, key as u32).number(1, to.number());
            }),
            Self::Connection(key, to) => step(list, "ct", |it| {
                it.number(2, key as u32).number(1, to.number());
            }),
            Self::Payload { layer, offset, length, to } => step(list, "payload", |it| {
                it.number(1, to.number()).number(2, layer as u32).number(3, offset).number(4, length);
            }),
            // NFTA_FIB_FLAGS: by destination; NFTA_FIB_RESULT: the kind of address.
            Self::DestinationKind(to) => step(list, "fib", |it| {
                it.number(3, 2).number(2, 3).number(1, to.number());
            }),
            Self::Equals(register, bytes) => compare(list, register, 0, bytes),
            Self::Name(register, name, length) => compare(list, register, 0, name.get(..length).unwrap_or(&name)),
            Self::HasBits(register, bits) => {
                mask(list, register, bits);
                compare(list, register, 1, &[0; 4]);
            }
            Self::Lookup { set, key, to } => lookup(list, set, key, to, false),
            Self::LookupNot { set, key } => lookup(list, set, key, None, true),
            Self::DestinationNat { address, port } => step(list, "nat", |it| {
                it.number(1, 1).number(2, libc::AF_INET as u32).number(3, address.number()).number(5, port.number());
            }),
            Self::Masquerade => step(list, "masq", |_| {}),
            Self::Decide(verdict) => decide(list, verdict),
        }
    }
}

/// `NFTA_LIST_ELEM`: `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
fn step(list: &mut Attributes<'_>, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
    list.nested(1, |it| {
        it.text(1, name).nested(2, fill);
    });
}

/// `operation` 0: equal, 1: not equal.
fn compare(list: &mut Attributes<'_>, register: Register, operation: u32, bytes: &[u8]) {
    step(list, "cmp", |it| {
        it.number(1, register.number()).number(2, operation).nested(3, |data| {
            data.bytes(1, bytes); // NFTA_DATA_VALUE
        });
    });
}

/// The register, with all bits but these zero.
fn mask(list: &mut Attributes<'_>, register: Register, bits: u32) {
    step(list, "bitwise", |it| {
        it.number(1, register.number()).number(2, register.number()).number(3, 4);
        it.nested(4, |data| {
            data.bytes(1, &bits.to_ne_bytes());
        });
        it.nested(5, |data| {
            data.bytes(1, &[0; 4]);
        });
    });
}

fn lookup(list: &mut Attributes<'_>, set: Set, key: Register, to: Option<Register>, not: bool) {
    step(list, "lookup", |it| {
        it.number(2, key.number());
        if let Some(to) = to {
            it.number(3, to.number());
        }
        it.text(1, set.name()).number(4, set.id());
        if not {
            it.number(5, 1); // NFT_LOOKUP_F_INV
        }
    });
}

/// "immediate": a verdict into register 0, which ends the rule and perhaps more.
fn decide(list: &mut Attributes<'_>, verdict: Verdict) {
    let (code, chain) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Return => (libc::NFT_RETURN as u32, None),
        Verdict::Jump(chain) => (libc::NFT_JUMP as u32, Some(chain)),
    };
    step(list, "immediate", |it| {
        it.number(1, 0).nested(2, |data| {
            data.nested(2, |value| {
                value.number(1, code);
                if let Some(chain) = chain {
                    value.text(2, chain);
                }
            });
        });
    });
}
