//! Our table: the rules that every packet to or from a container meets.
//!
//! `nft list table ip isolab` prints them as follows. Three paths lead through them:
//!
//! - out: a container's packet leaves the host under the host's address (`postrouting`, masquerade), for nobody out there
//!   knows the way to 10.144.0.5;
//! - in: a packet for a published port, from elsewhere (`prerouting`) or from the host itself (`output`), goes on to the
//!   container instead (`publish`);
//! - across: what comes to a bridge from anywhere else, and is neither an answer nor led here by a published port, is
//!   dropped (`forward`): networks do not see each other.
//!
//! From the host, 127.0.0.1 is published too, without a program that copies each byte: the packet's destination is
//! exchanged, and since its source, 127.0.0.1, would mean nothing in the container, that becomes the bridge's address.
//! The kernel lets such a packet out only where `route_localnet` is set; it is set for the bridge alone, and `guard` sees
//! to it that no container can use that to reach what listens on the host's 127.0.0.1 (as in CVE-2020-8558).

use std::net::Ipv4Addr;

use nix::errno::Errno;

use super::expression::{
    Connection, DESTINATION, DESTINATION_PORT, Expression, KNOWN, LED_HERE, LOCAL, LOOPBACK, Layer, Meta, Register,
    SOURCE, Verdict,
};
use super::message::{DELETE_TABLE, Hook, NEW_TABLE, Place, Transaction, has_table};
use super::set::{self, Change, Set};
use crate::network::netlink::{NetlinkError, Socket};
use crate::network::port::Published;
use crate::network::subnet::Subnet;

/// Priorities, as nft names them: raw comes before connections are tracked.
const RAW: i32 = -300;
const DESTINATION_NAT: i32 = -100;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;

/// Where a port leads.
#[derive(Debug, Clone, Copy)]
pub(in crate::network) struct Target<'a> {
    pub(in crate::network) container: Ipv4Addr,
    pub(in crate::network) ports: &'a [Published],
}

/// A table of packet rules.
#[derive(Debug)]
pub(in crate::network) struct Firewall<'a> {
    socket: Socket,
    table: &'a str,
}

impl<'a> Firewall<'a> {
    /// The table of this name in the caller's network namespace; whether it is there or not.
    pub(in crate::network) fn of(table: &'a str) -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::netfilter()?, table })
    }

    /// Whether it is there. Whoever says `nft flush ruleset` takes it away.
    pub(in crate::network) fn is_there(&self) -> Result<bool, NetlinkError> {
        has_table(&self.socket, self.table)
    }

    /// Makes it, with all that it has to know from the beginning.
    pub(in crate::network) fn make(
        &self,
        networks: &[(&str, Subnet)],
        targets: &[Target<'_>],
    ) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::on(self.table);
        rules(&mut transaction);
        for (bridge, subnet) in networks {
            set::network(&mut transaction, Change::Add, bridge, *subnet);
        }
        for target in targets {
            add_ports(&mut transaction, *target);
        }
        transaction.commit(&self.socket)
    }

    /// Lets it know of another network. One that it knows already is fine.
    pub(in crate::network) fn add_network(&self, bridge: &str, subnet: Subnet) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::on(self.table);
        set::network(&mut transaction, Change::Add, bridge, subnet);
        forgive(transaction.commit(&self.socket), Errno::EEXIST)
    }

    /// Lets it forget a network.
    pub(in crate::network) fn remove_network(&self, bridge: &str, subnet: Subnet) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::on(self.table);
        set::network(&mut transaction, Change::Remove, bridge, subnet);
        forgive(transaction.commit(&self.socket), Errno::ENOENT)
    }

    /// Sees to it that docker's rules, where there are any, let the packets of a network through.
    pub(in crate::network) fn pass_neighbour(&self, bridge: &str) -> Result<(), NetlinkError> {
        super::neighbour::open(&self.socket, bridge)
    }

    /// Takes that back.
    pub(in crate::network) fn leave_neighbour(&self, bridge: &str) -> Result<(), NetlinkError> {
        super::neighbour::close(&self.socket, bridge)
    }

    /// Leads ports to a container, all or none.
    pub(in crate::network) fn publish(&self, target: Target<'_>) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::on(self.table);
        add_ports(&mut transaction, target);
        transaction.commit(&self.socket)
    }

    /// Leads ports nowhere again. Those that lead nowhere are fine.
    pub(in crate::network) fn withdraw(&self, target: Target<'_>) -> Result<(), NetlinkError> {
        let all = |ports: &[Published]| {
            let mut transaction = Transaction::on(self.table);
            for port in ports {
                set::port(&mut transaction, Change::Remove, port, target.container);
            }
            transaction.commit(&self.socket)
        };
        match all(target.ports) {
            // A transaction fails as a whole where one element is not there; then each goes by itself.
            Err(error) if error.refusal() == Some(Errno::ENOENT) => {
                target.ports.chunks(1).try_for_each(|port| forgive(all(port), Errno::ENOENT))
            }
            other => other,
        }
    }

    /// Removes it with all that is in it.
    pub(in crate::network) fn remove(&self) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::on(self.table);
        transaction.add("remove the packet rules", DELETE_TABLE, 0, |_| {});
        forgive(transaction.commit(&self.socket), Errno::ENOENT)
    }
}

fn add_ports(transaction: &mut Transaction<'_>, target: Target<'_>) {
    for port in target.ports {
        set::port(transaction, Change::Add, port, target.container);
    }
}

fn forgive(outcome: Result<(), NetlinkError>, errno: Errno) -> Result<(), NetlinkError> {
    match outcome {
        Err(error) if error.refusal() == Some(errno) => Ok(()),
        other => other,
    }
}

/// The table without an element in its sets.
pub(super) fn rules(transaction: &mut Transaction<'_>) {
    transaction.add("make the table of packet rules", NEW_TABLE, 0, |it| {
        it.number(2, 0); // NFTA_TABLE_FLAGS
    });
    for set in set::ALL {
        set.make(transaction);
    }
    let hook = |kind, place, priority| Some(Hook { kind, place, priority });
    transaction.chain("publish", None);
    transaction.chain("guard", hook("filter", Place::Prerouting, RAW));
    transaction.chain("prerouting", hook("nat", Place::Prerouting, DESTINATION_NAT));
    transaction.chain("output", hook("nat", Place::Output, DESTINATION_NAT));
    transaction.chain("postrouting", hook("nat", Place::Postrouting, SOURCE_NAT));
    transaction.chain("forward", hook("filter", Place::Forward, FILTER));
    publish(transaction);
    postrouting(transaction);
    forward(transaction);
    // iifname @bridges ip daddr 127.0.0.0/8 drop
    transaction.rule(
        "guard",
        &[FROM_BRIDGE.as_slice(), &address_begins(DESTINATION), &[Expression::Decide(Verdict::Drop)]].concat(),
    );
}

const KEY: Register = Register::Wide(0);
const FROM_BRIDGE: [Expression; 2] =
    [Expression::Meta(Meta::InputName, KEY), Expression::Lookup { set: Set::Bridges, key: KEY, to: None }];
const TO_BRIDGE: [Expression; 2] =
    [Expression::Meta(Meta::OutputName, KEY), Expression::Lookup { set: Set::Bridges, key: KEY, to: None }];
const FROM_SUBNET: [Expression; 2] = [
    Expression::Payload { layer: Layer::Network, offset: SOURCE, length: 4, to: KEY },
    Expression::Lookup { set: Set::Subnets, key: KEY, to: None },
];
const WAS_LED_HERE: [Expression; 2] =
    [Expression::Connection(Connection::Status, KEY), Expression::HasBits(KEY, LED_HERE)];

/// The source or destination is one of 127.0.0.0/8.
fn address_begins(offset: u32) -> [Expression; 2] {
    [Expression::Payload { layer: Layer::Network, offset, length: 1, to: KEY }, Expression::Equals(KEY, LOOPBACK)]
}

fn publish(transaction: &mut Transaction<'_>) {
    let protocol = Expression::Meta(Meta::Protocol, Register::Narrow(0));
    let address = |to| Expression::Payload { layer: Layer::Network, offset: DESTINATION, length: 4, to };
    let port = |to| Expression::Payload { layer: Layer::Transport, offset: DESTINATION_PORT, length: 2, to };
    let lookup = |set| Expression::Lookup { set, key: KEY, to: Some(KEY) };
    let there = Expression::DestinationNat { address: KEY, port: Register::Narrow(1) };
    // dnat ip to meta l4proto . ip daddr . th dport map @ports_at: the one address before all
    let key = [protocol, address(Register::Narrow(1)), port(Register::Narrow(2))];
    transaction.rule("publish", &[key.as_slice(), &[lookup(Set::Here), there]].concat());
    // dnat ip to meta l4proto . th dport map @ports
    transaction.rule("publish", &[protocol, port(Register::Narrow(1)), lookup(Set::Anywhere), there]);
    // fib daddr type local jump publish
    let ours = [
        Expression::DestinationKind(KEY),
        Expression::Equals(KEY, LOCAL),
        Expression::Decide(Verdict::Jump("publish")),
    ];
    transaction.rule("prerouting", &ours);
    transaction.rule("output", &ours);
}

fn postrouting(transaction: &mut Transaction<'_>) {
    let rule = |parts: &[&[Expression]]| [parts.concat(), vec![Expression::Masquerade]].concat();
    let elsewhere = [Expression::Meta(Meta::OutputName, KEY), Expression::LookupNot { set: Set::Bridges, key: KEY }];
    // ip saddr @subnets oifname != @bridges masquerade: out into the world
    transaction.rule("postrouting", &rule(&[&FROM_SUBNET, &elsewhere]));
    // oifname @bridges ct status dnat ip saddr @subnets masquerade: from a container through a published port into the same
    // network; without it the answer would go straight back, from an address that was never asked
    transaction.rule("postrouting", &rule(&[&TO_BRIDGE, &WAS_LED_HERE, &FROM_SUBNET]));
    // oifname @bridges ip saddr 127.0.0.0/8 masquerade: from the host's own 127.0.0.1
    transaction.rule("postrouting", &rule(&[&TO_BRIDGE, &address_begins(SOURCE)]));
}

fn forward(transaction: &mut Transaction<'_>) {
    let rule = |parts: &[&[Expression]], verdict| [parts.concat(), vec![Expression::Decide(verdict)]].concat();
    let known = [Expression::Connection(Connection::State, KEY), Expression::HasBits(KEY, KNOWN)];
    // The two names side by side are one key.
    let within = [
        Expression::Meta(Meta::InputName, KEY),
        Expression::Meta(Meta::OutputName, Register::Wide(1)),
        Expression::Lookup { set: Set::Within, key: KEY, to: None },
    ];
    // ct state established,related accept
    transaction.rule("forward", &rule(&[&known], Verdict::Accept));
    // iifname . oifname @within accept: met only where br_netfilter shows bridged packets to IP's rules
    transaction.rule("forward", &rule(&[&within], Verdict::Accept));
    // oifname @bridges ct status dnat accept
    transaction.rule("forward", &rule(&[&TO_BRIDGE, &WAS_LED_HERE], Verdict::Accept));
    // oifname @bridges drop
    transaction.rule("forward", &rule(&[&TO_BRIDGE], Verdict::Drop));
}
