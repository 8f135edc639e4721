//! What the kernel answers, taken apart. Nothing here trusts a length that it reads.

use super::{HEADER, NESTED, aligned};

/// One message from the kernel.
#[derive(Debug, Clone, Copy)]
pub(in crate::network) struct Message<'a> {
    /// What it is.
    pub(in crate::network) kind: u16,
    /// Its flags.
    pub(super) flags: u16,
    /// The number of the message that it answers.
    pub(super) number: u32,
    /// What comes behind the header.
    pub(in crate::network) body: &'a [u8],
}

/// Takes a datagram apart.
pub(super) fn messages(mut bytes: &[u8]) -> Vec<Message<'_>> {
    let mut all = Vec::new();
    while let Some((message, rest)) = message(bytes) {
        all.push(message);
        bytes = rest;
    }
    all
}

fn message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = native_u32(bytes.get(..4)?)? as usize;
    let body = bytes.get(HEADER..length)?;
    let message = Message {
        kind: native_u16(bytes.get(4..6)?)?,
        flags: native_u16(bytes.get(6..8)?)?,
        number: native_u32(bytes.get(8..12)?)?,
        body,
    };
    Some((message, bytes.get(aligned(length)..).unwrap_or_default()))
}

/// The attributes in `bytes`, each a type without its flags and a value. What is cut off is left away.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(native_u16(rest.get(..2)?)?);
        let kind = native_u16(rest.get(2..4)?)? & !NESTED;
        let value = rest.get(4..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub(in crate::network) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

pub(super) fn native_u16(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

pub(super) fn native_u32(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::{attributes, find, messages};
    use proptest::prelude::{any, proptest};

    #[test]
    fn two_messages_of_one_datagram_are_told_apart() {
        let mut bytes = vec![20, 0, 0, 0, 3, 0, 2, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        bytes.extend([16, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
        let all = messages(&bytes);
        let told: Vec<_> = all.iter().map(|it| (it.kind, it.flags, it.number, it.body.len())).collect();
        assert_eq!(told, [(3, 2, 7, 4), (2, 0, 8, 0)]);
    }

    #[test]
    fn an_attribute_is_found_behind_a_padded_one() {
        let bytes = [5, 0, 1, 0, 0xff, 0, 0, 0, 8, 0, 2, 0x80, 1, 2, 3, 4];
        assert_eq!(find(&bytes, 2), Some([1, 2, 3, 4].as_slice()));
        assert_eq!(find(&bytes, 3), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_never_end(bytes: Vec<u8>, head in any::<[u8; 4]>()) {
            let mut all = head.to_vec();
            all.extend(bytes);
            let _ = messages(&all);
            assert!(attributes(&all).count() <= all.len());
        }
    }
}
