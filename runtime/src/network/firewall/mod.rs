//! What happens to packets on their way: addresses exchanged, ports led into containers, strangers kept out.
//!
//! The kernel's packet filter, `nf_tables`, runs small programs at fixed points of a packet's way (*hooks*). Ours stand in a
//! table of their own, so that they come and go without touching anybody else's. They are the same however many
//! containers there are: what differs stands in maps and sets that the rules look into. A published port is an element
//! of a map, so publishing takes one message, and a lookup among a thousand takes as long as among three.
//!
//! [`Firewall`] holds the rules, readable as nft(8) prints them; `expression` is what rules are made of, `set` what they
//! look into, `message` how both are told to the kernel; `neighbour` is a door in docker's rules.

mod expression;
mod message;
mod neighbour;
mod set;
mod table;

#[cfg(test)]
mod tests;

pub(super) use table::{Firewall, Target};
