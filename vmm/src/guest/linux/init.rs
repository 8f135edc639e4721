//! What a guest's first process is to do: the words between whoever makes a guest and `isolab-init` in it.
//!
//! They lie in the initial file system, as JSON in [`FILE`]. What is not said has a default that does nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the first process looks.
pub const FILE: &str = "/isolab.json";
/// Where the modules lie that it loads. Their order does not matter: one that needs another is tried again.
pub const MODULES: &str = "/modules";
/// The status where the first process itself failed, as with `docker run`.
pub const FAILED: u8 = 125;

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Init {
    /// The root file system; none to stay in the initial one.
    pub root: Option<Root>,
    /// Other file systems.
    pub mounts: Vec<Mount>,
    /// The host name.
    pub hostname: Option<String>,
    /// The network.
    pub network: Option<Network>,
    /// The program that the machine is for.
    pub process: Process,
}

/// A root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// The disk: `/dev/vda` is the first.
    pub device: PathBuf,
    /// The kernel's name for what is on it: `squashfs`, `ext4`.
    pub filesystem: String,
    /// Where what is written goes.
    #[serde(default)]
    pub writes: Writes,
}

/// Where what is written to the root file system goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Writes {
    /// Into memory, over the disk: gone with the machine.
    #[default]
    Memory,
    /// To another disk, over this one.
    Disk {
        /// That disk.
        device: PathBuf,
        /// What is on it.
        filesystem: String,
    },
    /// To the disk itself.
    Through,
    /// Nowhere: nothing can be written.
    Nowhere,
}

/// Another file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The disk.
    pub device: PathBuf,
    /// What is on it.
    pub filesystem: String,
    /// The folder at which it shall be seen.
    pub at: PathBuf,
}

/// A network card's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The card: `eth0` is the first.
    pub interface: String,
    /// Its address and the length of its network's: `10.0.0.2/24`.
    pub address: String,
    /// Who knows the way to everybody else.
    #[serde(default)]
    pub gateway: Option<std::net::Ipv4Addr>,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// The program, and what it is told.
    pub args: Vec<String>,
    /// `NAME=VALUE` each.
    pub env: Vec<String>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
}

impl Default for Process {
    fn default() -> Self {
        let env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
        Self { args: vec!["/bin/sh".to_owned()], env, cwd: "/".into(), uid: 0, gid: 0, groups: Vec::new() }
    }
}

/// What is new in a machine that goes on from a snapshot, as its first process is told
/// ([`crate::devices::BADGE`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// How often the machine has gone on from a snapshot.
    pub generation: u32,
    /// Its UUID.
    pub uuid: String,
    /// The time of day: nanoseconds since 1970.
    pub time: u64,
    /// 32 random bytes, in hexadecimal; nothing where the host has none.
    pub seed: String,
    /// Its network cards, in the order of `eth0`, `eth1` and so on.
    pub cards: Vec<Card>,
}

/// A network card, as the machine's owner wants it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its hardware address.
    pub mac: String,
    /// Its address and the length of its network's; nothing to leave it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Who knows the way to everybody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<std::net::Ipv4Addr>,
}

impl Network {
    /// The address, and the mask of its network; none where they are no such.
    pub fn parsed(&self) -> Option<(std::net::Ipv4Addr, std::net::Ipv4Addr)> {
        let (address, length) = self.address.split_once('/')?;
        let length: u32 = length.parse().ok().filter(|length| *length <= 32)?;
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        Some((address.parse().ok()?, mask.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_a_default() {
        let init: Init = serde_json::from_str("{}").unwrap();
        assert_eq!(init, Init::default());
        assert_eq!(init.process.args, ["/bin/sh"]);
        let root: Root = serde_json::from_str(r#"{"device": "/dev/vda", "filesystem": "squashfs"}"#).unwrap();
        assert_eq!(root.writes, Writes::Memory);
        let text = r#"{"device": "/dev/vda", "filesystem": "squashfs", "writes": {"disk": {"device": "/dev/vdb", "filesystem": "ext4"}}}"#;
        assert!(matches!(serde_json::from_str::<Root>(text).unwrap().writes, Writes::Disk { .. }));
        assert!(serde_json::from_str::<Init>(r#"{"rooot": 1}"#).is_err(), "a word that means nothing is no silence");
    }

    #[test]
    fn an_address_says_how_large_its_network_is() {
        let parse = |address: &str| {
            Network { interface: "eth0".to_owned(), address: address.to_owned(), gateway: None }.parsed()
        };
        assert_eq!(parse("10.1.2.3/24"), Some(([10, 1, 2, 3].into(), [255, 255, 255, 0].into())));
        assert_eq!(parse("10.1.2.3/32"), Some(([10, 1, 2, 3].into(), [255; 4].into())));
        assert_eq!(parse("10.1.2.3/0"), Some(([10, 1, 2, 3].into(), [0; 4].into())));
        for wrong in ["", "10.1.2.3", "10.1.2.3/33", "10.1.2/24", "a/b"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
