//! What goes over a vsock: a header, and for one kind of packet data after it (virtio 1.2, section 5.10.6).

/// How long a header is, in bytes.
pub(super) const LENGTH: usize = 44;
/// The most data that one packet has, in bytes.
pub(super) const MOST: usize = 64 << 10;
/// The host's address.
pub(super) const HOST: u64 = 2;
/// A stream of bytes, as of a socket of type `SOCK_STREAM`.
pub(super) const STREAM: u16 = 1;

/// What a packet is for.
pub(super) mod op {
    pub(in super::super) const REQUEST: u16 = 1;
    pub(in super::super) const RESPONSE: u16 = 2;
    pub(in super::super) const RESET: u16 = 3;
    pub(in super::super) const SHUTDOWN: u16 = 4;
    pub(in super::super) const DATA: u16 = 5;
    pub(in super::super) const CREDIT: u16 = 6;
    pub(in super::super) const CREDIT_REQUEST: u16 = 7;
}

/// Flags of a shutdown: what its sender will not do any more.
pub(super) const NO_RECEIVE: u32 = 1;
pub(super) const NO_SEND: u32 = 2;

/// A header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) from_port: u32,
    pub(super) to_port: u32,
    pub(super) length: u32,
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    /// How much the sender has room for, in bytes.
    pub(super) room: u32,
    /// How much it has passed on of all that it got.
    pub(super) passed: u32,
}

impl Header {
    pub(super) fn decode(bytes: &[u8; LENGTH]) -> Self {
        let mut rest = bytes.as_slice();
        let mut next = |count: usize| {
            let (number, others) = rest.split_at(count.min(rest.len()));
            rest = others;
            number.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        Self {
            from: next(8),
            to: next(8),
            from_port: next(4) as u32,
            to_port: next(4) as u32,
            length: next(4) as u32,
            kind: next(2) as u16,
            op: next(2) as u16,
            flags: next(4) as u32,
            room: next(4) as u32,
            passed: next(4) as u32,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend(self.from.to_le_bytes());
        bytes.extend(self.to.to_le_bytes());
        bytes.extend(self.from_port.to_le_bytes());
        bytes.extend(self.to_port.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.op.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.room.to_le_bytes());
        bytes.extend(self.passed.to_le_bytes());
        bytes
    }

    /// The packet that says to its sender that there is no such connection.
    pub(super) fn refusal(&self) -> Self {
        Self {
            from: self.to,
            to: self.from,
            from_port: self.to_port,
            to_port: self.from_port,
            kind: STREAM,
            op: op::RESET,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written(bytes in prop::array::uniform::<_, LENGTH>(any::<u8>())) {
            let header = Header::decode(&bytes);
            prop_assert_eq!(header.encode(), bytes);
        }
    }
}
