//! What is kept of a machine in `machine.json`.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::machine::pc::Wiring;

/// The name of a machine or a snapshot: a letter or digit, then up to 63 letters, digits, dots, dashes and underscores. It
/// is a file's name, so it can be neither a path nor hidden.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name: a letter or digit, then at most 63 letters, digits, dots, dashes and underscores")]
pub struct NameError(String);

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let good = text.len() <= 64
            && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
            && text.bytes().all(inner);
        if good { Ok(Self(text.to_owned())) } else { Err(NameError(text.to_owned())) }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl AsRef<std::path::Path> for Name {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

/// A machine, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its memory, in MiB.
    pub memory: u64,
    /// What runs in it.
    pub inside: Inside,
    /// What tells it from every other machine.
    pub identity: Identity,
    /// Where its next start begins.
    pub base: Base,
    /// The id of the snapshot that its state comes of; nothing where it was booted. Snapshots taken next are children of
    /// that one.
    pub current: Option<String>,
}

/// What runs in a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Inside {
    /// An unmodified static program.
    App {
        /// Its file.
        program: String,
        /// What it is told.
        arguments: Vec<String>,
        /// `NAME=VALUE` each.
        environment: Vec<String>,
    },
    /// An operating system.
    Linux {
        /// The kernel's file.
        kernel: String,
        /// Its first file system.
        initrd: Option<String>,
        /// What it is told.
        command_line: String,
        /// How many processors it has.
        cpus: u8,
        /// Its devices. What it writes to its disks goes elsewhere than to these files.
        devices: Vec<Wiring>,
    },
    /// A built-in guest.
    Bare {
        /// Which.
        guest: String,
        /// What it is told.
        arguments: Vec<String>,
    },
}

/// Where a start begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Base {
    /// With a boot.
    Boot,
    /// With a snapshot: of this machine, or of another that this one is a linked clone of.
    Snapshot {
        /// Whose; nothing where it is its own.
        machine: Option<Name>,
        /// Which.
        snapshot: Name,
        /// Its id: a name can be given again.
        id: String,
    },
}

/// What tells a machine from every other, on a network and to its guest. Each has its own, a clone too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// A UUID (RFC 9562, version 4).
    pub uuid: String,
    /// A MAC address that no maker has given out: bit 1 of its first byte says "locally administered".
    pub mac: String,
    /// A vsock address. 0 to 2 mean others, and all ones means anybody.
    pub cid: u32,
}

impl Identity {
    /// A new one, from the host's random bytes.
    pub fn new() -> io::Result<Self> {
        Ok(Self::of(&crate::random::bytes()?))
    }

    fn of(random: &[u8; 26]) -> Self {
        let mut uuid = [0_u8; 16];
        uuid.copy_from_slice(&random[..16]);
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        let text = crate::snapshot::raw::hex(&uuid);
        let uuid = format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]);
        let mut mac = [0_u8; 6];
        mac.copy_from_slice(&random[16..22]);
        mac[0] = mac[0] & 0xfc | 2; // not a group's, and locally administered
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        let mut number = [0_u8; 4];
        number.copy_from_slice(&random[22..]);
        let cid = 3 + u32::from_le_bytes(number) % (u32::MAX - 4);
        Self { uuid, mac, cid }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_a_files_name_and_no_path() {
        for good in ["a", "web-1", "A.b_c", &"x".repeat(64)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "-x", "a/b", "a b", "ä", "a\0", "a@b", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Name>("\"../etc\"").is_err());
    }

    #[test]
    fn a_record_comes_back_as_it_was_kept() {
        let record = Record {
            memory: 64,
            inside: Inside::Bare { guest: "counter".to_owned(), arguments: vec!["5".to_owned()] },
            identity: Identity::new().unwrap(),
            base: Base::Snapshot { machine: None, snapshot: "one".parse().unwrap(), id: "00".to_owned() },
            current: None,
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        assert!(serde_json::from_str::<Record>(&text.replace("\"memory\"", "\"memmory\"")).is_err());
    }

    proptest! {
        /// Whatever the random bytes are, the identity is one that nobody else may have been given.
        #[test]
        fn an_identity_is_well_formed(random in any::<[u8; 26]>()) {
            let Identity { uuid, mac, cid } = Identity::of(&random);
            prop_assert_eq!((uuid.len(), uuid.as_bytes()[14]), (36, b'4'));
            prop_assert!(b"89ab".contains(&uuid.as_bytes()[19]));
            let first = u8::from_str_radix(&mac[..2], 16).unwrap();
            prop_assert_eq!((mac.len(), first & 3), (17, 2));
            prop_assert!(cid > 2 && cid < u32::MAX);
        }
    }
}
