//! What can go wrong with a network, and what to try then.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use nix::errno::Errno;

use super::mac::MacError;
use super::netlink::NetlinkError;
use super::port::{PortError, Published};
use super::subnet::{Subnet, SubnetError};

/// Why a network, or a container's part in it, could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel, asked by netlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel, asked otherwise.
    #[error("cannot {attempt} {on}")]
    System {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        on: String,
        /// What the system said.
        source: Errno,
    },
    /// A file.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An interface of this name is in the container already.
    #[error("cannot move an interface into the container as {name}: it has one of that name")]
    InterfaceTaken {
        /// The name.
        name: String,
    },
    /// A file of ours that somebody else has written in.
    #[error("cannot understand {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// More networks shall be ready than make sense.
    #[error("cannot keep {count} networks ready: {most} are the most")]
    PoolTooLarge {
        /// As many.
        count: usize,
        /// The most.
        most: usize,
    },
    /// A word that is no network's name.
    #[error(
        "{name:?} cannot name a network: a name begins with a letter or digit, and has letters, digits, and . _ - behind it"
    )]
    Name {
        /// The word.
        name: String,
    },
    /// A word that is no container's name in a network.
    #[error("{name:?} cannot be a container's name in a network: it needs letters, digits, and . _ - behind the first")]
    Alias {
        /// The word.
        name: String,
    },
    /// A name that means something else.
    #[error("the network {name} is there always, and stays as it is")]
    Predefined {
        /// The name.
        name: String,
    },
    /// No such network.
    #[error("there is no network {name}")]
    Missing {
        /// The name.
        name: String,
    },
    /// A name that is taken.
    #[error("there is a network {name} already")]
    Exists {
        /// The name.
        name: String,
    },
    /// Containers are in it.
    #[error("network {name} is in use by {}", containers.join(", "))]
    InUse {
        /// The network.
        name: String,
        /// Who is in it.
        containers: Vec<String>,
    },
    /// The container is in it already.
    #[error("container {container} is in network {network} already")]
    Attached {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// The container is not in it.
    #[error("container {container} is not in network {network}")]
    NotAttached {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// A text that is no range.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// A range that somebody has.
    #[error("the addresses {subnet} overlap with {other}, which is {whose}")]
    Overlap {
        /// What was asked for.
        subnet: Subnet,
        /// What is there.
        other: Subnet,
        /// Who has it.
        whose: String,
    },
    /// All ranges are somebody's.
    #[error("no range of addresses is free for another network")]
    NoSubnet,
    /// All addresses are somebody's.
    #[error("network {network} ({subnet}) has no address left")]
    Full {
        /// The network.
        network: String,
        /// Its range.
        subnet: Subnet,
    },
    /// An address that is somebody's.
    #[error("address {address} of network {network} is taken by {holder}")]
    AddressTaken {
        /// The address.
        address: Ipv4Addr,
        /// The network.
        network: String,
        /// Who has it.
        holder: String,
    },
    /// An address that nobody in the network can have.
    #[error("nobody in network {network} ({subnet}) can have the address {address}")]
    AddressOutside {
        /// The address.
        address: Ipv4Addr,
        /// The network.
        network: String,
        /// Its range.
        subnet: Subnet,
    },
    /// An address is asked for where none is to choose.
    #[error("only a network that a user made lets a container choose its address")]
    AddressOnDefault,
    /// A card's address.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// A wish for a port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A port that is another container's.
    #[error("port {}:{}/{} of the host leads to container {holder} already", port.host_address, port.host_port, port.protocol)]
    PortTaken {
        /// The port.
        port: Published,
        /// Whose it is.
        holder: String,
    },
    /// A port that a program of the host has, or that cannot be had.
    #[error("cannot take port {}:{}/{} of the host", port.host_address, port.host_port, port.protocol)]
    PortBusy {
        /// The port.
        port: Published,
        /// What bind(2) said.
        source: io::Error,
    },
    /// None of a range is free.
    #[error("no port of the host from {first} to {last} is free for port {container_port} of the container")]
    NoPort {
        /// The first of the range.
        first: u16,
        /// The last one.
        last: u16,
        /// What it is for.
        container_port: u16,
    },
    /// What is needed where nobody is root.
    #[error("an ordinary user's container reaches the network through pasta or slirp4netns, and neither is here")]
    NoCarrier,
    /// It is here, but did not do it.
    #[error("{name} cannot serve the container: {words}")]
    Carrier {
        /// Which program.
        name: &'static str,
        /// What it says.
        words: String,
    },
    /// Something that needs a bridge.
    #[error("{what} needs root: an ordinary user's containers are not on a bridge")]
    Rootless {
        /// What was asked for.
        what: &'static str,
    },
}

impl NetworkError {
    /// For `map_err`: something with a file.
    pub(super) fn io(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { attempt, path, source }
    }

    /// What to try next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Missing { .. } => "`isolab-ctr network ls` shows those that are there; `network create` makes one",
            Self::InUse { .. } => "remove those containers, or take them out with `isolab-ctr network disconnect`",
            Self::Exists { .. } => "choose another name, or remove it with `isolab-ctr network rm`",
            Self::Overlap { .. } | Self::NoSubnet => {
                "choose a range that `ip route` doesn't show, with --subnet: 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16 \
                 are for private use"
            }
            Self::Full { .. } => "make a network with a larger range: `isolab-ctr network create --subnet`",
            Self::AddressOnDefault => "make a network with `isolab-ctr network create`, and name it with --network",
            Self::PortTaken { .. } | Self::NoPort { .. } => {
                "choose another port, or leave the host's port away and let `isolab-ctr port` tell which it is"
            }
            Self::PortBusy { source, .. } => match source.kind() {
                io::ErrorKind::AddrNotAvailable => "the host has no such address: see `ip address`",
                io::ErrorKind::PermissionDenied => "ports below 1024 are root's",
                _ => "a program of the host listens there: see `ss --listening --processes`; or choose another port",
            },
            Self::System { source: Errno::EPERM, .. }
            | Self::Netlink(
                NetlinkError::Refused { source: Errno::EPERM, .. } | NetlinkError::Talk { source: Errno::EPERM, .. },
            ) => "a bridge needs CAP_NET_ADMIN and CAP_SYS_ADMIN: run as root, or choose --network none or host",
            Self::Netlink(NetlinkError::Refused { source: Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT, .. }) => {
                "the kernel lacks a module: bridge, veth, nf_tables, nft_nat, nft_masq and nft_fib_ipv4 are needed"
            }
            Self::Carrier { words, .. } if words.contains("tun") => {
                "its virtual card is made with /dev/net/tun, which must be there, and open to this user (mode 0666)"
            }
            Self::NoCarrier => "install pasta (Debian: passt) or slirp4netns, or choose --network none or host",
            Self::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                "the host's /proc/sys can only be read here: set net.ipv4.ip_forward=1 from outside"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}
