//! KVM's structures as texts: each is a run of bytes of a known length, and stands in the state file in hexadecimal.
//!
//! What KVM hands out is what it takes back, byte for byte; a name for each register in between would only be one more
//! place to be wrong. A text of another length, or with anything but the sixteen digits in it, is refused.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A structure that stands as a text of its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Raw<T>(pub T);

impl<T: IntoBytes + Immutable> Serialize for Raw<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(self.0.as_bytes()))
    }
}

impl<'de, T: FromBytes> Deserialize<'de> for Raw<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(PhantomData))
    }
}

struct Text<T>(PhantomData<T>);

impl<T: FromBytes> Visitor<'_> for Text<T> {
    type Value = Raw<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes in hexadecimal", size_of::<T>())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Raw<T>, E> {
        let bytes = unhex(text).ok_or_else(|| E::custom("it is no even number of hexadecimal digits"))?;
        T::read_from_bytes(&bytes)
            .map(Raw)
            .map_err(|_| E::custom(format!("it has {} bytes, not {}", bytes.len(), size_of::<T>())))
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(*byte));
    }
    text
}

/// The bytes of a hexadecimal text; nothing where it is none.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_comes_back_from_its_text() {
        let raw = Raw([0x1234_5678_u32, 0xff]);
        let text = serde_json::to_string(&raw).unwrap();
        assert_eq!(text, "\"78563412ff000000\"");
        assert_eq!(serde_json::from_str::<Raw<[u32; 2]>>(&text).unwrap(), raw);
    }

    #[test]
    fn a_text_of_another_length_or_of_other_digits_is_refused() {
        for (text, why) in [
            ("\"0102\"", "it has 2 bytes, not 4"),
            ("\"010\"", "no even"),
            ("\"0102030G\"", "no even"),
            ("7", "4 bytes in hexadecimal"),
        ] {
            let error = serde_json::from_str::<Raw<[u8; 4]>>(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
