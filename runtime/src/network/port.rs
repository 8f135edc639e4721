//! Published ports: what of the host's leads into a container, as docker's `-p` says it.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What runs over IP and has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A wish: a port of the container, and where on the host it shall be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortWish {
    /// Over what.
    pub protocol: Protocol,
    /// The host's address; [`Ipv4Addr::UNSPECIFIED`] for all it has.
    pub host_address: Ipv4Addr,
    /// The host's ports, of which any will do; none: whichever is free.
    pub host_ports: Option<(u16, u16)>,
    /// The container's port.
    pub container_port: u16,
    /// The host's port that is tried first, where several will do: the one it was before.
    #[serde(skip)]
    pub preferred: Option<u16>,
}

/// A port of the host that leads to one of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// The container's port.
    pub container_port: u16,
    /// Over what.
    pub protocol: Protocol,
    /// The host's address; [`Ipv4Addr::UNSPECIFIED`] for all it has.
    pub host_address: Ipv4Addr,
    /// The host's port.
    pub host_port: u16,
}

/// A text that is no wish for a port.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be published: {problem}")]
pub struct PortError {
    text: String,
    problem: &'static str,
}

impl Protocol {
    /// Its number in an IP header (`IPPROTO_TCP`, `IPPROTO_UDP`).
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl PortWish {
    /// Reads `[address:][host[-host]:]container[-container][/tcp|/udp]`: as many wishes as the container's range is long.
    pub fn parse(text: &str) -> Result<Vec<Self>, PortError> {
        let failed = |problem| PortError { text: text.to_owned(), problem };
        let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.parse().map_err(failed)?;
        if numbers.starts_with('[') {
            return Err(failed("isolab's networks have no IPv6"));
        }
        let parts: Vec<&str> = numbers.split(':').collect();
        let (address, host, container) = match parts.as_slice() {
            [container] => ("", "", *container),
            [host, container] => ("", *host, *container),
            [address, host, container] => (*address, *host, *container),
            _ => return Err(failed("write [address:]host:container")),
        };
        let host_address = match address {
            "" => Ipv4Addr::UNSPECIFIED,
            other => other.parse().map_err(|_| failed("the part before the first colon is no IPv4 address"))?,
        };
        let container = range(container).map_err(failed)?;
        let host = if host.is_empty() { None } else { Some(range(host).map_err(failed)?) };
        let wish =
            |container_port, host_ports| Self { protocol, host_address, host_ports, container_port, preferred: None };
        match host {
            None => Ok(container.map(|port| wish(port, None)).collect()),
            // A range of the host's for one port: whichever of them is free.
            Some(host) if container.len() == 1 => {
                Ok(container.map(|port| wish(port, Some((*host.start(), *host.end())))).collect())
            }
            Some(host) if host.len() == container.len() => {
                Ok(container.zip(host).map(|(port, host)| wish(port, Some((host, host)))).collect())
            }
            Some(_) => Err(failed("the two ranges differ in length")),
        }
    }

    /// A port that an image says it listens on (`80/tcp`), at whichever port of the host is free.
    pub fn exposed(text: &str) -> Result<Vec<Self>, PortError> {
        if text.contains(':') {
            return Err(PortError { text: text.to_owned(), problem: "an exposed port is the container's alone" });
        }
        Self::parse(text)
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(_), Some(_)) => Err("the range ends before it begins"),
        _ => Err("a port is a number from 1 to 65535"),
    }
}

impl Published {
    /// Whether both would take the same datagram of the host's.
    pub(super) fn collides(&self, other: &Self) -> bool {
        let same_address = self.host_address == other.host_address
            || self.host_address.is_unspecified()
            || other.host_address.is_unspecified();
        same_address && (self.protocol, self.host_port) == (other.protocol, other.host_port)
    }

    /// What is published, in the words of the `PORTS` column: `0.0.0.0:8080->80/tcp`.
    pub fn column(&self) -> String {
        format!("{}:{}->{}/{}", self.host_address, self.host_port, self.container_port, self.protocol)
    }

    /// Whether it is what the wish had come to.
    pub fn was_for(&self, wish: &PortWish) -> bool {
        (self.protocol, self.host_address, self.container_port)
            == (wish.protocol, wish.host_address, wish.container_port)
            && wish.host_ports.is_none_or(|(first, last)| (first..=last).contains(&self.host_port))
    }
}

impl FromStr for Protocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Err("SCTP is not supported, only tcp and udp"),
            _ => Err("behind the slash is tcp or udp"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{PortWish, Protocol, Published};
    use std::net::Ipv4Addr;

    const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

    type Told = (Protocol, Ipv4Addr, Option<(u16, u16)>, u16);

    fn told(text: &str) -> Vec<Told> {
        let wishes = PortWish::parse(text).expect("wishes");
        wishes.into_iter().map(|it| (it.protocol, it.host_address, it.host_ports, it.container_port)).collect()
    }

    #[test]
    fn dockers_ways_to_write_a_port_are_understood() {
        use Protocol::{Tcp, Udp};
        assert_eq!(told("80"), [(Tcp, ANY, None, 80)]);
        assert_eq!(told("2222:22"), [(Tcp, ANY, Some((2222, 2222)), 22)]);
        assert_eq!(told("127.0.0.1::53/udp"), [(Udp, Ipv4Addr::LOCALHOST, None, 53)]);
        assert_eq!(told("10.0.0.1:5:6/tcp"), [(Tcp, Ipv4Addr::new(10, 0, 0, 1), Some((5, 5)), 6)]);
        assert_eq!(told("7-8:9-10"), [(Tcp, ANY, Some((7, 7)), 9), (Tcp, ANY, Some((8, 8)), 10)]);
        assert_eq!(told("8000-8010:80"), [(Tcp, ANY, Some((8000, 8010)), 80)]);
        assert_eq!(told("80-81"), [(Tcp, ANY, None, 80), (Tcp, ANY, None, 81)]);
    }

    #[test]
    fn what_is_no_port_is_an_error() {
        for text in [
            "",
            ":",
            "0:80",
            "80:0",
            "70000:80",
            "1-2:3-5",
            "9-8:80",
            "x:80",
            "1:2:3:4",
            "a:1:2",
            "80/sctp",
            "80/x",
            "[::1]:80:80",
            "-1:80",
            "+1:80",
        ] {
            assert!(PortWish::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn all_addresses_collide_with_each() {
        let at = |host_address, host_port| Published {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_address,
            host_port,
        };
        let local = at(Ipv4Addr::LOCALHOST, 80);
        assert!(local.collides(&at(ANY, 80)) && at(ANY, 80).collides(&local) && local.collides(&local));
        assert!(!local.collides(&at(ANY, 81)) && !local.collides(&at(Ipv4Addr::new(10, 0, 0, 1), 80)));
        assert!(!local.collides(&Published { protocol: Protocol::Udp, ..local }));
    }
}
