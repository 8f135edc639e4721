//! A network's bridge, with all that the host must do for it: forward packets, and know the rules.
//!
//! Everything stays when the last container leaves, so that the next one need not wait; `network prune` takes it away. A
//! bridge that is up is complete: it is switched on last.

use std::fs;
use std::path::Path;

use tracing::info_span;

use super::definition::Network;
use super::error::NetworkError;
use super::firewall::Target;
use super::held::Held;
use super::link::{self, Link};
use super::mac::Mac;

/// Whether this host passes on what is not for itself (ip(7)); docker sets it too.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Sees to it that the bridge is there and on, and the rules know it.
pub(super) fn raise(held: &Held<'_>, network: &Network) -> Result<Link, NetworkError> {
    set(Path::new(FORWARD), || {
        info_span!(
            "network.forward",
            call = "write(/proc/sys/net/ipv4/ip_forward)",
            why = "a host drops packets that are not for itself, unless it is told to be a router"
        )
    })?;
    let found = link::look_up(&held.socket, &network.bridge)?.filter(|link| link.up);
    let link = match found {
        Some(link) => link,
        None => make(held, network)?,
    };
    let firewall = held.firewall()?;
    if !firewall.is_there()? {
        let _span = info_span!(
            "network.firewall",
            call = "sendto(NETLINK_NETFILTER)",
            why = "one transaction makes the table: rules that stay the same however many containers there are"
        )
        .entered();
        let (networks, leases) = present(held)?;
        let networks: Vec<_> = networks.iter().map(|it| (it.bridge.as_str(), it.subnet)).collect();
        let targets: Vec<_> = leases.iter().map(|it| Target { container: it.address, ports: &it.ports }).collect();
        firewall.make(&networks, &targets)?;
    } else if found.is_none() {
        firewall.add_network(&network.bridge, network.subnet)?;
    }
    firewall.pass_neighbour(&network.bridge)?;
    if found.is_none() {
        link::switch_on(&held.socket, &network.bridge, link)?;
    }
    Ok(link)
}

fn make(held: &Held<'_>, network: &Network) -> Result<Link, NetworkError> {
    let _span = info_span!(
        "network.bridge",
        call = "sendto(RTM_NEWLINK), sendto(RTM_NEWADDR)",
        why = "a switch inside the kernel, with an address of the host's on it; it stays for the next container"
    )
    .entered();
    let mac = Mac::random().map_err(NetworkError::io("read", "/dev/urandom"))?;
    let link = link::make_bridge(&held.socket, &network.bridge, mac, network.gateway, network.subnet)?;
    let path = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", network.bridge);
    set(Path::new(&path), || {
        info_span!(
            "network.loopback",
            call = "write(/proc/sys/net/ipv4/conf/BRIDGE/route_localnet)",
            why = "only then may what is sent to 127.0.0.1 go on to a container; a rule keeps the other direction shut"
        )
    })?;
    Ok(link)
}

/// All networks whose bridge is there, and whose ports: what rules that are made anew have to know. Somebody may have
/// flushed them while containers run.
fn present(held: &Held<'_>) -> Result<(Vec<Network>, Vec<super::Lease>), NetworkError> {
    let (mut networks, mut leases) = (Vec::new(), Vec::new());
    for network in held.networks.definitions.list()? {
        if link::look_up(&held.socket, &network.bridge)?.is_some() {
            leases.extend(held.networks.leases.all(&network.name)?);
            networks.push(network);
        }
    }
    Ok((networks, leases))
}

/// Takes the bridge away, and what the rules know of it.
pub(super) fn take_down(held: &Held<'_>, network: &Network) -> Result<(), NetworkError> {
    if link::look_up(&held.socket, &network.bridge)?.is_none() {
        return Ok(());
    }
    let _span = info_span!(
        "network.down",
        call = "sendto(RTM_DELLINK)",
        why = "nobody is in it: its bridge goes, and with it the addresses that the host had there"
    )
    .entered();
    let firewall = held.firewall()?;
    firewall.leave_neighbour(&network.bridge)?;
    firewall.remove_network(&network.bridge, network.subnet)?;
    Ok(link::remove(&held.socket, &network.bridge)?)
}

/// Writes 1, if it isn't there already.
fn set(path: &Path, span: impl FnOnce() -> tracing::Span) -> Result<(), NetworkError> {
    let now = fs::read(path).map_err(NetworkError::io("read", path))?;
    if now.starts_with(b"1") {
        return Ok(());
    }
    let _entered = span().entered();
    fs::write(path, "1").map_err(NetworkError::io("write", path))
}
