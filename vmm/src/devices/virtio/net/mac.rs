//! The address of a network card.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Six bytes. The lowest bit of the first is 0, or it would be the address of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub(super) [u8; 6]);

/// Why text is no address of a card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// It has not six pairs of hexadecimal digits with colons between.
    #[error("{0:?} is no hardware address: six pairs of hexadecimal digits, as 02:00:00:00:00:01")]
    Form(String),
    /// It is the address of a group.
    #[error("{0} is the address of a group, and can't be that of one card: the first byte must be even")]
    Group(String),
}

impl Mac {
    /// An address that nobody was given: the second lowest bit of the first byte says that it is of this place only.
    pub fn random() -> Self {
        let mut bytes = random_bytes();
        bytes[0] = bytes[0] & !1 | 2;
        Self(bytes)
    }
}

fn random_bytes() -> [u8; 6] {
    let mut bytes = [0_u8; 6];
    // SAFETY: the pointer and length are of an array that is there over the call.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    debug_assert_eq!(count, 6, "getrandom(2) never gives less where it is asked for so little");
    bytes
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let form = || MacError::Form(text.to_owned());
        let bytes: Vec<u8> = text
            .split(':')
            .map(|pair| match pair.len() {
                2 if pair.bytes().all(|digit| digit.is_ascii_hexdigit()) => u8::from_str_radix(pair, 16).ok(),
                _ => None,
            })
            .collect::<Option<_>>()
            .ok_or_else(form)?;
        let bytes: [u8; 6] = bytes.try_into().map_err(|_| form())?;
        if bytes[0] & 1 != 0 {
            return Err(MacError::Group(text.to_owned()));
        }
        Ok(Self(bytes))
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
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        formatter.write_str(&pairs.join(":"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        assert_eq!("02:00:5e:10:Aa:ff".parse::<Mac>().unwrap().to_string(), "02:00:5e:10:aa:ff");
        assert_eq!(Mac::random().to_string().parse::<Mac>().unwrap().0[0] & 3, 2);
        for wrong in ["", "02:00:5e:10:aa", "02:00:5e:10:aa:ff:00", "02:00:5e:10:aa:+f", "2:0:5e:10:aa:ff", "02-00"] {
            assert!(matches!(wrong.parse::<Mac>(), Err(MacError::Form(_))), "{wrong}");
        }
        assert!(matches!("01:00:5e:10:aa:ff".parse::<Mac>(), Err(MacError::Group(_))));
    }
}
