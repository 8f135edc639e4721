//! Interfaces, their addresses and routes: the messages of rtnetlink(7) that a container's network is made of.
//!
//! A bridge is a switch inside the kernel; a veth pair is a cable: what enters one end leaves the other. One end is
//! plugged into the bridge, the other is born inside the container's namespace.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::mac::Mac;
use super::netlink::{Batch, NetlinkError, Socket, find, flags};
use super::subnet::Subnet;

/// The loopback interface is the first one of every namespace.
pub(super) const LOOPBACK: u32 = 1;
/// `IFLA_INFO_DATA` of a veth: what the other end is like (linux/veth.h).
const VETH_INFO_PEER: u16 = 1;
/// A port of a bridge in "hairpin" mode (`linux/if_link.h`).
const IFLA_BRPORT_MODE: u16 = 4;
const UP: u32 = libc::IFF_UP as u32;
const ACK: u16 = flags::ACK;
const NEW: u16 = flags::ACK | flags::CREATE | flags::EXCL;

/// An interface, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) up: bool,
}

/// One end of a cable to be made: what the container sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Card<'a> {
    /// Its name inside.
    pub(super) name: &'a str,
    pub(super) mac: Mac,
    pub(super) address: Ipv4Addr,
    pub(super) subnet: Subnet,
    /// Who is asked where everything else is; nothing for a card that isn't the way out.
    pub(super) gateway: Option<Ipv4Addr>,
}

/// Looks for an interface by name.
pub(super) fn look_up(socket: &Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut batch = Batch::default();
    batch.add(format!("look for interface {name}"), libc::RTM_GETLINK, 0, &link_header(0, 0, 0), |attributes| {
        attributes.text(libc::IFLA_IFNAME, name);
    });
    let mut found = None;
    match socket.exchange(&batch, |message| found = read_link(message.body)) {
        Err(error) if error.refusal() == Some(Errno::ENODEV) => Ok(None),
        other => other.map(|()| found),
    }
}

/// The number of an interface; an error where there is none of that name.
pub(super) fn index_of(socket: &Socket, name: &str) -> Result<u32, NetlinkError> {
    look_up(socket, name)?.map(|link| link.index).ok_or_else(|| missing(name))
}

/// That there is no such interface.
pub(super) fn missing(name: &str) -> NetlinkError {
    NetlinkError::Refused { attempt: format!("look for interface {name}"), words: None, source: Errno::ENODEV }
}

/// All interfaces of a namespace: number and name.
pub(super) fn list(socket: &Socket) -> Result<Vec<(u32, String)>, NetlinkError> {
    let mut batch = Batch::default();
    batch.add("list interfaces", libc::RTM_GETLINK, flags::DUMP, &link_header(0, 0, 0), |_| {});
    let mut all = Vec::new();
    socket.exchange(&batch, |message| {
        let name = message.body.get(16..).and_then(|attributes| find(attributes, libc::IFLA_IFNAME));
        if let (Some(link), Some(name)) = (read_link(message.body), name) {
            all.push((link.index, String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()));
        }
    })?;
    Ok(all)
}

/// Moves an interface to another namespace, under another name there. It is off after that.
pub(super) fn send_to(
    socket: &Socket,
    name: &str,
    index: u32,
    wanted: &str,
    there: &impl AsFd,
) -> Result<(), NetlinkError> {
    let mut batch = Batch::default();
    let attempt = format!("move interface {name} to another namespace as {wanted}");
    batch.add(attempt, libc::RTM_SETLINK, ACK, &link_header(index, 0, UP), |attributes| {
        attributes.text(libc::IFLA_IFNAME, wanted);
        attributes.native(libc::IFLA_NET_NS_FD, there.as_fd().as_raw_fd() as u32);
    });
    socket.ask(&batch)
}

fn read_link(body: &[u8]) -> Option<Link> {
    let word = |at: usize| body.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    Some(Link { index: word(4)?, up: word(8)? & UP != 0 })
}

/// Makes a bridge with an address; it stays down, so that who finds one that is up knows it complete. Twice is as good as
/// once.
pub(super) fn make_bridge(
    socket: &Socket,
    name: &str,
    mac: Mac,
    gateway: Ipv4Addr,
    subnet: Subnet,
) -> Result<Link, NetlinkError> {
    let mut batch = Batch::default();
    // An address of its own: otherwise a bridge takes that of one of its ports, and changes it with them.
    batch.add(format!("make bridge {name}"), libc::RTM_NEWLINK, NEW, &link_header(0, 0, 0), |attributes| {
        attributes.text(libc::IFLA_IFNAME, name).bytes(libc::IFLA_ADDRESS, &mac.0);
        attributes.nested(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "bridge");
        });
    });
    match socket.ask(&batch) {
        Err(error) if error.refusal() == Some(Errno::EEXIST) => {}
        other => other?,
    }
    let link = look_up(socket, name)?.ok_or_else(|| missing(name))?;
    let mut batch = Batch::default();
    add_address(&mut batch, name, link.index, gateway, subnet);
    socket.ask(&batch)?;
    Ok(link)
}

/// Switches an interface on.
pub(super) fn switch_on(socket: &Socket, name: &str, link: Link) -> Result<(), NetlinkError> {
    let mut batch = Batch::default();
    add_up(&mut batch, name, link.index);
    socket.ask(&batch)
}

/// Makes a cable: `here` is plugged into the bridge and on, the other end is `card`, in the namespace `there`. That end stays
/// off: the kernel switches none on that has no other end yet.
pub(super) fn make_cable(
    socket: &Socket,
    here: &str,
    bridge: Link,
    card: &Card<'_>,
    there: &impl AsFd,
) -> Result<(), NetlinkError> {
    let mut batch = Batch::default();
    let attempt = format!("make interface {here} and its other end {}", card.name);
    batch.add(attempt, libc::RTM_NEWLINK, NEW, &link_header(0, UP, UP), |attributes| {
        attributes.text(libc::IFLA_IFNAME, here).native(libc::IFLA_MASTER, bridge.index);
        attributes.nested(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth").nested(libc::IFLA_INFO_DATA, |data| {
                data.nested_behind(VETH_INFO_PEER, &link_header(0, 0, 0), |peer| {
                    peer.text(libc::IFLA_IFNAME, card.name).bytes(libc::IFLA_ADDRESS, &card.mac.0);
                    // Born in there: moving it afterwards would cost a second pass over the kernel's tables.
                    peer.native(libc::IFLA_NET_NS_FD, there.as_fd().as_raw_fd() as u32);
                });
            });
        });
    });
    if shows_bridged_packets() {
        // What goes through a published port and back to the same container is bridged then, and a bridge doesn't send a
        // packet out where it came in, unless the port is told to.
        let attempt = format!("let {here} send back what came from it");
        batch.add(attempt, libc::RTM_NEWLINK, ACK, &link_header(0, 0, 0), |attributes| {
            attributes.text(libc::IFLA_IFNAME, here);
            attributes.nested(libc::IFLA_LINKINFO, |info| {
                info.text(libc::IFLA_INFO_SLAVE_KIND, "bridge").nested(libc::IFLA_INFO_SLAVE_DATA, |data| {
                    data.bytes(IFLA_BRPORT_MODE, &[1]);
                });
            });
        });
    }
    socket.ask(&batch)
}

/// Whether the rules of IP see packets that are only bridged (the module `br_netfilter`, which other engines load).
fn shows_bridged_packets() -> bool {
    std::fs::read("/proc/sys/net/bridge/bridge-nf-call-iptables").is_ok_and(|text| text.starts_with(b"1"))
}

/// Switches the card on, gives it its address and the container its routes; `inside` is a socket in its namespace.
pub(super) fn furnish(inside: &Socket, card: &Card<'_>) -> Result<(), NetlinkError> {
    let link = look_up(inside, card.name)?.ok_or_else(|| missing(card.name))?;
    let mut batch = Batch::default();
    add_up(&mut batch, "lo", LOOPBACK);
    add_up(&mut batch, card.name, link.index);
    add_address(&mut batch, card.name, link.index, card.address, card.subnet);
    if let Some(gateway) = card.gateway {
        add_default_route(&mut batch, link.index, gateway);
    }
    inside.ask(&batch)
}

/// Makes the card the way out.
pub(super) fn lead_out(inside: &Socket, name: &str, gateway: Ipv4Addr) -> Result<(), NetlinkError> {
    let Some(link) = look_up(inside, name)? else { return Ok(()) };
    let mut batch = Batch::default();
    add_default_route(&mut batch, link.index, gateway);
    match inside.ask(&batch) {
        Err(error) if error.refusal() == Some(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// Removes an interface, and with a cable's one end the other. Slow: the kernel waits until no processor can be looking at
/// it any more. A cable of a namespace that ends goes without anybody waiting.
pub(super) fn remove(socket: &Socket, name: &str) -> Result<(), NetlinkError> {
    let mut batch = Batch::default();
    batch.add(format!("remove interface {name}"), libc::RTM_DELLINK, ACK, &link_header(0, 0, 0), |attributes| {
        attributes.text(libc::IFLA_IFNAME, name);
    });
    match socket.ask(&batch) {
        Err(error) if error.refusal() == Some(Errno::ENODEV) => Ok(()),
        other => other,
    }
}

/// The ranges that the host has routes to, apart from the way to everywhere else.
pub(super) fn routes(socket: &Socket) -> Result<Vec<Subnet>, NetlinkError> {
    let mut header = [0; 12];
    if let Some(family) = header.first_mut() {
        *family = libc::AF_INET as u8;
    }
    let mut batch = Batch::default();
    batch.add("list the routes", libc::RTM_GETROUTE, flags::DUMP, &header, |_| {});
    let mut all = Vec::new();
    socket.exchange(&batch, |message| all.extend(read_route(message.body)))?;
    Ok(all)
}

/// The range of a `struct rtmsg` with its attributes. Those of the table of what is local are not ways to elsewhere.
fn read_route(body: &[u8]) -> Option<Subnet> {
    let (bits, table) = (*body.get(1)?, *body.get(4)?);
    let to: [u8; 4] = find(body.get(12..)?, libc::RTA_DST)?.try_into().ok()?;
    (bits > 0 && table != libc::RT_TABLE_LOCAL).then(|| Subnet::around(Ipv4Addr::from(to), bits))
}

pub(super) fn add_up(batch: &mut Batch, name: &str, index: u32) {
    batch.add(format!("switch interface {name} on"), libc::RTM_SETLINK, ACK, &link_header(index, UP, UP), |_| {});
}

fn add_address(batch: &mut Batch, name: &str, index: u32, address: Ipv4Addr, subnet: Subnet) {
    // `struct ifaddrmsg`: family, bits, flags, scope, interface.
    let mut header = vec![libc::AF_INET as u8, subnet.bits(), 0, libc::RT_SCOPE_UNIVERSE];
    header.extend(index.to_ne_bytes());
    let attempt = format!("give interface {name} the address {address}");
    let flags = ACK | flags::CREATE | flags::REPLACE;
    batch.add(attempt, libc::RTM_NEWADDR, flags, &header, |attributes| {
        attributes.bytes(libc::IFA_LOCAL, &address.octets()).bytes(libc::IFA_ADDRESS, &address.octets());
        attributes.bytes(libc::IFA_BROADCAST, &subnet.broadcast().octets());
    });
}

fn add_default_route(batch: &mut Batch, index: u32, gateway: Ipv4Addr) {
    // `struct rtmsg`: family, bits of the destination and source, service, table, who says so, scope, kind; then flags.
    let kinds = [
        libc::AF_INET as u8,
        0,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_BOOT,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
    ];
    let header = [kinds, [0; 8]].concat();
    let header = header.get(..12).unwrap_or_default();
    batch.add(format!("set the default route to {gateway}"), libc::RTM_NEWROUTE, NEW, header, |attributes| {
        attributes.bytes(libc::RTA_GATEWAY, &gateway.octets()).native(libc::RTA_OIF, index);
    });
}

/// `struct ifinfomsg`: family, padding, kind, interface, flags, and which of the flags are meant.
fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::{Link, link_header, read_link, read_route};
    use crate::network::subnet::Subnet;
    use std::net::Ipv4Addr;

    #[test]
    fn an_interface_is_read_as_it_is_written() {
        assert_eq!(read_link(&link_header(7, 0x1043, 0)), Some(Link { index: 7, up: true }));
        assert_eq!(read_link(&link_header(7, 0x1002, 0)), Some(Link { index: 7, up: false }));
        assert_eq!(read_link(&[0; 10]), None);
    }

    #[test]
    fn a_route_is_a_range_and_the_default_is_none() {
        let route =
            |bits, table| [vec![2, bits, 0, 0, table, 2, 253, 1, 0, 0, 0, 0, 8, 0, 1, 0], vec![10, 1, 2, 0]].concat();
        assert_eq!(read_route(&route(24, 254)), Some(Subnet::around(Ipv4Addr::new(10, 1, 2, 0), 24)));
        assert_eq!(read_route(&route(32, 255)), None);
        assert_eq!(read_route(&[2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0]), None);
    }
}
