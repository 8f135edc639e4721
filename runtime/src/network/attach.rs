//! Giving a container its network: the steps, in order.

use std::net::Ipv4Addr;
use std::path::Path;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use tracing::info_span;

use super::claim::{self, Bound};
use super::definition::Network;
use super::error::NetworkError;
use super::firewall::Target;
use super::held::Held;
use super::lease::{Lease, cable_name};
use super::link::{self, Card};
use super::mac::Mac;
use super::namespace::Namespace;
use super::port::PortWish;
use super::{ExtraHost, Networks, hosts, switch};

/// Who shall be in a network.
#[derive(Debug, Clone, Copy)]
pub struct Guest<'a> {
    /// The container's id.
    pub container: &'a str,
    /// What people call it.
    pub name: &'a str,
    /// What it calls itself.
    pub hostname: &'a str,
    /// Its /etc/hosts, which must be there.
    pub hosts: &'a Path,
    /// Names that its user adds.
    pub extra: &'a [ExtraHost],
}

/// A network to be in, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// The network's name.
    pub network: String,
    /// The address that it shall be.
    pub address: Option<Ipv4Addr>,
    /// The card's address that it shall be.
    pub mac: Option<Mac>,
    /// Other names that it has there.
    pub aliases: Vec<String>,
}

/// A container's network, for as long as nobody answers for it: dropped, it is given back.
#[derive(Debug)]
pub struct Attachment<'a> {
    networks: &'a Networks,
    container: String,
    leases: Vec<Lease>,
    kept: bool,
}

impl Networks {
    /// Gives a network namespace a card in each of these networks; the first one is the way out, and to it the ports lead.
    /// What is returned gives all of it back, unless it is [kept](Attachment::keep).
    pub fn attach(
        &self,
        guest: Guest<'_>,
        namespace: &Namespace,
        endpoints: &[Endpoint],
        ports: &[PortWish],
    ) -> Result<Attachment<'_>, NetworkError> {
        claim::check(ports)?;
        let mut attachment = Attachment::new(self, guest.container, Vec::new());
        let held = self.hold()?; //                                                   1. alone, and the dead's things freed
        for (index, endpoint) in endpoints.iter().enumerate() {
            let wanted = if index == 0 { ports } else { &[] };
            match held.join(guest, endpoint, wanted, index, namespace) {
                Ok(lease) => attachment.leases.push(lease),
                Err(error) => {
                    attachment.undo(&held);
                    return Err(error);
                }
            }
        }
        Ok(attachment)
    }

    /// Gives a running container one more card. `namespace` is the container's.
    pub fn connect(&self, guest: Guest<'_>, endpoint: &Endpoint, namespace: &Namespace) -> Result<Lease, NetworkError> {
        let held = self.hold()?;
        let network = held.network(&endpoint.network)?;
        let leases = self.leases.of(guest.container)?;
        if leases.iter().any(|lease| lease.network == network.name) {
            return Err(NetworkError::Attached { container: guest.name.to_owned(), network: network.name });
        }
        let free = |index: &usize| leases.iter().all(|lease| lease.interface != card_name(*index));
        // Of one more number than there are cards, one is free.
        let index = (0..=leases.len()).find(free).unwrap_or(leases.len());
        held.join(guest, endpoint, &[], index, namespace)
    }

    /// Takes a card of a running container away. If it was the way out, the next one is from then on.
    pub fn disconnect(
        &self,
        container: &str,
        name: &str,
        network: &str,
        namespace: &Namespace,
    ) -> Result<Lease, NetworkError> {
        let held = self.hold()?;
        let network = held.network(network)?;
        let missing = || NetworkError::NotAttached { container: name.to_owned(), network: network.name.clone() };
        let (mut own, others): (Vec<_>, Vec<_>) =
            self.leases.of(container)?.into_iter().partition(|lease| lease.network == network.name);
        let lease = own.pop().ok_or_else(missing)?;
        link::remove(&held.socket, &lease.cable)?;
        if let Some(next) = others.first().filter(|next| lease.interface < next.interface) {
            link::lead_out(namespace.socket(), &next.interface, next.gateway)?;
        }
        held.free(&lease)?;
        hosts::update(&lease, &network.name, &[], None)?;
        Ok(lease)
    }
}

impl Held<'_> {
    /// Puts a container into one network. What was made when a step fails is given back.
    fn join(
        &self,
        guest: Guest<'_>,
        endpoint: &Endpoint,
        ports: &[PortWish],
        index: usize,
        namespace: &Namespace,
    ) -> Result<Lease, NetworkError> {
        check_aliases(endpoint)?;
        let network = self.network(&endpoint.network)?; //                            2. which bridge, which addresses
        let bridge = switch::raise(self, &network)?; //                               3. the bridge and the rules, if need be
        let bound = self.claim(ports)?; //                                            4. ports that nobody has
        let lease = self.give(guest, endpoint, &network, &bound, index)?; //          5. an address that nobody has
        let done = self
            .plug_in(&lease, bridge, &network, namespace, index) //                   6. a cable, and the world inside
            .and_then(|lease| self.publish(lease)) //                                 7. the ports lead inside
            .and_then(|lease| self.name(lease, &network, guest)); //                  8. who is called how
        done.inspect_err(|_| {
            // The reason is the error to tell of; what cannot be given back now is freed by whoever comes next.
            let _ = self.free(&lease);
        })
    }

    pub(super) fn claim(&self, wishes: &[PortWish]) -> Result<Vec<Bound>, NetworkError> {
        match claim::find_ports(wishes, &self.networks.leases.claims()?) {
            Err(NetworkError::PortTaken { port, holder }) => {
                let name = self.networks.leases.of(&holder)?.into_iter().next().map(|lease| lease.name);
                Err(NetworkError::PortTaken { port, holder: name.unwrap_or(holder) })
            }
            other => other,
        }
    }

    /// Writes down which address the container has, before anything is made that would need to be found.
    pub(super) fn give(
        &self,
        guest: Guest<'_>,
        endpoint: &Endpoint,
        network: &Network,
        bound: &[Bound],
        index: usize,
    ) -> Result<Lease, NetworkError> {
        let _span = info_span!(
            "network.address",
            call = "rename(2)",
            why = "a file of this name says whose the address is; it is there before the address is used"
        )
        .entered();
        let address = match endpoint.address {
            Some(address) => self.check_address(address, network)?,
            None => self.networks.leases.free_address(network)?,
        };
        let mac = match endpoint.mac {
            Some(mac) => mac,
            None => Mac::random().map_err(NetworkError::io("read", "/dev/urandom"))?,
        };
        let lease = Lease {
            container: guest.container.to_owned(),
            name: guest.name.to_owned(),
            network: network.name.clone(),
            interface: card_name(index),
            address,
            bits: network.subnet.bits(),
            gateway: network.gateway,
            mac,
            cable: cable_name(address),
            ports: bound.iter().map(|bound| bound.port).collect(),
            aliases: endpoint.aliases.clone(),
            hosts: guest.hosts.to_owned(),
            home: self.home,
        };
        self.networks.leases.write(&lease)?;
        Ok(lease)
    }

    fn check_address(&self, address: Ipv4Addr, network: &Network) -> Result<Ipv4Addr, NetworkError> {
        if !network.resolves_names() {
            return Err(NetworkError::AddressOnDefault);
        }
        if !network.subnet.has_place_for(address) {
            return Err(NetworkError::AddressOutside {
                address,
                network: network.name.clone(),
                subnet: network.subnet,
            });
        }
        let taken = |holder| NetworkError::AddressTaken { address, network: network.name.clone(), holder };
        if address == network.gateway {
            return Err(taken("the bridge".to_owned()));
        }
        match self.networks.leases.all(&network.name)?.into_iter().find(|lease| lease.address == address) {
            None => Ok(address),
            Some(lease) => Err(taken(lease.name)),
        }
    }

    /// Makes the cable, and all inside. Returns the lease as it came to be.
    pub(super) fn plug_in(
        &self,
        lease: &Lease,
        bridge: link::Link,
        network: &Network,
        namespace: &Namespace,
        index: usize,
    ) -> Result<Lease, NetworkError> {
        let card = Card {
            name: &lease.interface,
            mac: lease.mac,
            address: lease.address,
            subnet: network.subnet,
            gateway: (index == 0).then_some(network.gateway),
        };
        {
            let _span = info_span!(
                "network.veth",
                call = "sendto(RTM_NEWLINK)",
                why = "a cable: one end is plugged into the bridge, the other is born inside the container's namespace"
            )
            .entered();
            let mut made = link::make_cable(&self.socket, &lease.cable, bridge, &card, namespace);
            if made.as_ref().is_err_and(|error| error.refusal() == Some(Errno::EEXIST)) {
                // Of somebody who had this address before: its namespace is on its way out, and takes its time.
                link::remove(&self.socket, &lease.cable)?;
                made = link::make_cable(&self.socket, &lease.cable, bridge, &card, namespace);
            }
            made?;
        }
        let _span = info_span!(
            "network.configure",
            call = "sendto(RTM_NEWADDR), sendto(RTM_NEWROUTE)",
            why = "inside: the loopback interface on, an address on the card, and the bridge as the way to all else"
        )
        .entered();
        link::furnish(namespace.socket(), &card)?;
        Ok(lease.clone())
    }

    pub(super) fn publish(&self, lease: Lease) -> Result<Lease, NetworkError> {
        if !lease.ports.is_empty() {
            let _span = info_span!(
                "network.publish",
                call = "sendto(NETLINK_NETFILTER)",
                why =
                    "an element of a map for each port: packets to it get the container's address as their destination"
            )
            .entered();
            self.firewall()?.publish(Target { container: lease.address, ports: &lease.ports })?;
        }
        Ok(lease)
    }

    pub(super) fn name(&self, lease: Lease, network: &Network, guest: Guest<'_>) -> Result<Lease, NetworkError> {
        let _span = info_span!(
            "network.hosts",
            call = "write(/etc/hosts)",
            why = "who is in the same network is found by name, without a server: the names stand in everybody's file"
        )
        .entered();
        if lease.interface == card_name(0) {
            hosts::write_new(guest.hosts, &hosts::beginning(guest.extra, Some(network.gateway)))?;
        }
        self.tell_names(network, Some((&lease, guest.hostname)))?;
        Ok(lease)
    }
}

impl<'a> Attachment<'a> {
    /// `leases` are what the container has so far.
    pub(super) fn new(networks: &'a Networks, container: &str, leases: Vec<Lease>) -> Self {
        Self { networks, container: container.to_owned(), leases, kept: false }
    }

    /// What the container has, in the order of its cards.
    pub fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// The container answers for it from here on: it goes with the container's last process, or by [`Networks::detach`].
    pub fn keep(mut self) -> Vec<Lease> {
        self.kept = true;
        std::mem::take(&mut self.leases)
    }

    fn undo(&mut self, held: &Held<'_>) {
        self.kept = true;
        for lease in self.leases.drain(..) {
            // On the way out of another error; whoever comes next frees it otherwise.
            let _ = held.free(&lease);
        }
    }
}

impl Drop for Attachment<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // As above.
            let _ = self.networks.detach(&self.container);
        }
    }
}

fn card_name(index: usize) -> String {
    format!("eth{index}")
}

/// An alias becomes a word of a line that others read.
fn check_aliases(endpoint: &Endpoint) -> Result<(), NetworkError> {
    let good = |name: &&String| super::definition::is_name(name);
    match endpoint.aliases.iter().find(|name| !good(name)) {
        None => Ok(()),
        Some(name) => Err(NetworkError::Alias { name: name.clone() }),
    }
}
