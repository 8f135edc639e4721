//! Messages to the kernel, written one after the other, so that one system call carries them all.

use super::{HEADER, NESTED, aligned, flags};

/// Messages that are sent together. Each is numbered by its place, so that an answer can be told apart.
#[derive(Debug, Default)]
pub(in crate::network) struct Batch {
    bytes: Vec<u8>,
    /// What each message is for, as an error says it.
    attempts: Vec<String>,
}

/// Where the attributes of a message go.
pub(in crate::network) struct Attributes<'a>(&'a mut Vec<u8>);

impl Batch {
    /// Adds a message. `attempt` says in an error what it was for; `fixed` is the part before the attributes.
    pub(in crate::network) fn add(
        &mut self,
        attempt: impl Into<String>,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) -> &mut Self {
        let begin = self.bytes.len();
        self.bytes.extend([0; 4]); // its length, known at the end
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | flags::REQUEST).to_ne_bytes());
        self.bytes.extend((self.attempts.len() as u32).to_ne_bytes());
        self.bytes.extend([0; 4]); // to the kernel
        debug_assert_eq!(self.bytes.len() - begin, HEADER);
        self.bytes.extend(fixed);
        pad(&mut self.bytes);
        fill(&mut Attributes(&mut self.bytes));
        let length = (self.bytes.len() - begin) as u32;
        put_at(&mut self.bytes, begin, &length.to_ne_bytes());
        self.attempts.push(attempt.into());
        self
    }

    /// All of it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// For tests elsewhere: what would be sent.
    #[cfg(test)]
    pub(in crate::network) fn bytes_for_test(&self) -> &[u8] {
        &self.bytes
    }

    /// What the message with this number is for.
    pub(super) fn attempt(&self, number: u32) -> &str {
        self.attempts.get(number as usize).map_or("ask the kernel", String::as_str)
    }

    /// Whether nothing was added.
    pub(in crate::network) fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }
}

impl Attributes<'_> {
    /// A value as it is.
    pub(in crate::network) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.filled(kind, |bytes| bytes.extend(value))
    }

    /// A name, ended by a zero.
    pub(in crate::network) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.filled(kind, |bytes| {
            bytes.extend(value.as_bytes());
            bytes.push(0);
        })
    }

    /// A number in the processor's order, as rtnetlink has them.
    pub(in crate::network) fn native(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number with its highest byte first, as `nf_tables` has them.
    pub(in crate::network) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Attributes within an attribute.
    pub(in crate::network) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.filled(kind | NESTED, |bytes| fill(&mut Attributes(bytes)))
    }

    /// As [`Attributes::nested`], behind a fixed part.
    pub(in crate::network) fn nested_behind(
        &mut self,
        kind: u16,
        fixed: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) -> &mut Self {
        self.filled(kind | NESTED, |bytes| {
            bytes.extend(fixed);
            fill(&mut Attributes(bytes));
        })
    }

    fn filled(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let begin = self.0.len();
        self.0.extend([0; 2]); // its length, which includes these four bytes but not the padding
        self.0.extend(kind.to_ne_bytes());
        fill(self.0);
        let length = (self.0.len() - begin) as u16;
        put_at(self.0, begin, &length.to_ne_bytes());
        pad(self.0);
        self
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(aligned(bytes.len()), 0);
}

fn put_at(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (slot, byte) in bytes.iter_mut().skip(at).zip(value) {
        *slot = *byte;
    }
}

#[cfg(test)]
mod tests {
    use super::Batch;

    /// Little-endian machines only, as are all that this project runs on.
    #[test]
    fn a_message_has_the_layout_of_the_manual_page() {
        let mut batch = Batch::default();
        batch.add("first", 16, 0x4, &[9, 9], |attributes| {
            attributes.text(3, "lo").native(10, 7).nested(18, |inner| {
                inner.number(1, 1);
            });
        });
        batch.add("second", 20, 0, &[], |_| {});
        let expected: Vec<u8> = [
            &[48, 0, 0, 0, 16, 0, 0x5, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], // 48 bytes, REQUEST and ACK, number 0
            &[9, 9, 0, 0],                                             // the fixed part, padded
            &[7, 0, 3, 0, b'l', b'o', 0, 0],                           // a length without its padding
            &[8, 0, 10, 0, 7, 0, 0, 0],
            &[12, 0, 18, 0x80, 8, 0, 1, 0, 0, 0, 0, 1],
            &[16, 0, 0, 0, 20, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(batch.bytes(), expected);
        assert_eq!([0, 1].map(|number| batch.attempt(number)), ["first", "second"]);
    }
}
