//! The address of a network card: six bytes that must be unique on a bridge.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// "Locally administered": no factory gave it out.
const LOCAL: u8 = 0b10;
/// "Group": many hear it, so no card has it.
const GROUP: u8 = 0b01;

/// A card's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub(super) [u8; 6]);

/// A text that is no card's address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no address of a network card: write six bytes in hexadecimal, such as 02:42:0a:90:00:05, the first one even"
)]
pub struct MacError(String);

impl Mac {
    /// One that nobody else has: locally administered, the rest by chance.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes: [u8; 6] = super::random()?;
        if let Some(first) = bytes.first_mut() {
            *first = (*first | LOCAL) & !GROUP;
        }
        Ok(Self(bytes))
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let byte = |part: &str| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2 && !part.starts_with('+'));
        let bytes: Option<Vec<u8>> = text.split([':', '-']).map(byte).collect();
        let bytes: Option<[u8; 6]> = bytes.and_then(|bytes| bytes.try_into().ok());
        match bytes {
            Some(bytes) if bytes != [0; 6] && bytes.first().is_some_and(|first| first & GROUP == 0) => Ok(Self(bytes)),
            _ => Err(MacError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Mac;

    #[test]
    fn a_random_one_is_local_and_one_cards() {
        for _ in 0..64 {
            let Mac(bytes) = Mac::random().expect("random bytes");
            assert_eq!(bytes[0] & 0b11, 0b10);
        }
    }

    #[test]
    fn a_text_is_six_bytes_or_an_error() {
        let mac: Mac = "02:42:0a:90:00:05".parse().expect("one");
        assert_eq!(mac.to_string(), "02:42:0a:90:00:05");
        for text in [
            "",
            "02:42:0a:90:00",
            "02:42:0a:90:00:05:06",
            "03:42:0a:90:00:05",
            "00:00:00:00:00:00",
            "+2:42:0a:90:00:05",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
