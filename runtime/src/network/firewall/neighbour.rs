//! A neighbour's chain that must let our packets through: docker's.
//!
//! Where docker runs on the same host it has the policy of its forward chain set to drop. That is final: what any chain
//! drops is gone, whatever ours accept. Docker leaves one chain to others, `DOCKER-USER`, through which everything goes
//! first. For each bridge there are rules in it, in front: what comes from the bridge goes on, but for what goes to docker's
//! own networks, which docker decides; and so does what goes to the bridge. (What may not go there our own chain drops,
//! later or earlier: it sees every packet, too.)
//!
//! Only where docker speaks to `nf_tables` itself (iptables-nft, as distributions have it) can its chain be seen from here.
//! Its command refuses a whole table that has a step in it which it does not know, so there are none here but names of
//! interfaces and verdicts.

use nix::errno::Errno;

use super::expression::{Expression, Meta, Register, Verdict};
use super::message::Transaction;
use crate::network::netlink::{NetlinkError, Socket};

const TABLE: &str = "filter";
const CHAIN: &str = "DOCKER-USER";
/// What the names of docker's own bridges begin with: who is there is for docker to say.
const DOCKERS: [&str; 2] = ["docker", "br-"];
/// IFNAMSIZ.
const NAME: usize = 16;
const KEY: Register = Register::Wide(0);

/// Sees to it that docker's chain lets through what comes from a bridge, and what goes to it.
pub(super) fn open(socket: &Socket, bridge: &str) -> Result<(), NetlinkError> {
    match Transaction::rules_of(socket, TABLE, CHAIN) {
        // There is no docker, or none that can be seen.
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
        Ok(rules) if rules.iter().any(|rule| rule.comment == bridge.as_bytes()) => return Ok(()),
        Ok(_) => {}
    }
    let accept = [Expression::Decide(Verdict::Accept)];
    let is = |meta, name| [Expression::Meta(meta, KEY), Expression::Name(KEY, padded(name), NAME)];
    let from = is(Meta::InputName, bridge);
    let to = is(Meta::OutputName, bridge);
    let mut transaction = Transaction::on(TABLE);
    // Each goes in front of all that is there.
    transaction.rule_in_front(CHAIN, bridge, &[&from[..], &accept].concat());
    for theirs in DOCKERS {
        let begins = Expression::Name(KEY, padded(theirs), theirs.len());
        let back = Expression::Decide(Verdict::Return);
        let there = [Expression::Meta(Meta::OutputName, KEY), begins, back];
        transaction.rule_in_front(CHAIN, bridge, &[&from[..], &there].concat());
    }
    transaction.rule_in_front(CHAIN, bridge, &[&to[..], &accept].concat());
    transaction.commit(socket)
}

/// Takes the rules of a bridge out of docker's chain.
pub(super) fn close(socket: &Socket, bridge: &str) -> Result<(), NetlinkError> {
    let rules = match Transaction::rules_of(socket, TABLE, CHAIN) {
        Err(error) if is_absent(&error) => return Ok(()),
        other => other?,
    };
    let mut transaction = Transaction::on(TABLE);
    let ours: Vec<_> = rules.iter().filter(|rule| rule.comment == bridge.as_bytes()).collect();
    if ours.is_empty() {
        return Ok(());
    }
    for rule in ours {
        transaction.delete_rule(CHAIN, rule.handle);
    }
    match transaction.commit(socket) {
        // Docker made its chain anew in between.
        Err(error) if is_absent(&error) => Ok(()),
        other => other,
    }
}

fn is_absent(error: &NetlinkError) -> bool {
    error.refusal() == Some(Errno::ENOENT)
}

fn padded(bridge: &str) -> [u8; NAME] {
    let mut name = [0; NAME];
    for (slot, byte) in name.iter_mut().take(NAME - 1).zip(bridge.bytes()) {
        *slot = byte;
    }
    name
}
