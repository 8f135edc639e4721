//! Batches for `nf_tables`: all of it is done, or none of it (a transaction, `linux/netfilter/nf_tables.h`).

use super::expression::Expression;
use crate::network::netlink::{Attributes, Batch, NetlinkError, Socket, find, flags};

/// `NFNL_SUBSYS_NFTABLES`: the high byte of a message's kind.
const SUBSYSTEM: u16 = 10 << 8;
/// `NFNL_MSG_BATCH_BEGIN` and _END.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;

pub(super) const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
pub(super) const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
pub(super) const NEW_SET: u16 = 9;
pub(super) const NEW_ELEMENT: u16 = 12;
pub(super) const DELETE_ELEMENT: u16 = 14;

/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE`, ...: the table's name is the first attribute everywhere.
const TABLE: u16 = 1;

/// Where a packet can be met, for which kind of work, and in which order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    /// `filter` or `nat`.
    pub(super) kind: &'static str,
    /// The point on the packet's way.
    pub(super) place: Place,
    /// Lower ones come first.
    pub(super) priority: i32,
}

/// The points on a packet's way (enum `nf_inet_hooks`).
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(super) enum Place {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A transaction that is being written.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    batch: Batch,
    table: &'a str,
}

impl<'a> Transaction<'a> {
    /// One for a table of IPv4 rules.
    pub(super) fn on(table: &'a str) -> Self {
        let mut batch = Batch::default();
        batch.add("begin a transaction of packet rules", BEGIN, 0, &header(0, 10), |_| {});
        Self { batch, table }
    }

    /// Adds a message, which says in an error what it was for.
    pub(super) fn add(
        &mut self,
        attempt: impl Into<String>,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let table = self.table;
        self.batch.add(attempt, SUBSYSTEM | kind, flags | flags::ACK, &header(libc::AF_INET as u8, 0), |attributes| {
            attributes.text(TABLE, table);
            fill(attributes);
        });
    }

    /// A chain: a list of rules, at a hook or to jump to.
    pub(super) fn chain(&mut self, name: &str, hook: Option<Hook>) {
        self.add(format!("make chain {name}"), NEW_CHAIN, flags::CREATE, |attributes| {
            attributes.text(3, name); // NFTA_CHAIN_NAME
            if let Some(hook) = hook {
                attributes.text(7, hook.kind).number(5, 1); // NFTA_CHAIN_TYPE, NFTA_CHAIN_POLICY: accept
                attributes.nested(4, |it| {
                    // NFTA_CHAIN_HOOK: NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY
                    it.number(1, hook.place as u32).number(2, hook.priority as u32);
                });
            }
        });
    }

    /// A rule at the end of a chain: expressions, each of which lets the packet go on to the next one or not.
    pub(super) fn rule(&mut self, chain: &str, expressions: &[Expression]) {
        self.add(format!("add a rule to chain {chain}"), NEW_RULE, flags::CREATE | flags::APPEND, |attributes| {
            attributes.text(2, chain); // NFTA_RULE_CHAIN
            attributes.nested(4, |list| expressions.iter().for_each(|it| it.write(list))); // NFTA_RULE_EXPRESSIONS
        });
    }

    /// A rule before all others of a chain, with a comment by which it is found again.
    pub(super) fn rule_in_front(&mut self, chain: &str, comment: &str, expressions: &[Expression]) {
        self.add(format!("insert a rule into chain {chain}"), NEW_RULE, flags::CREATE, |attributes| {
            attributes.text(2, chain);
            attributes.nested(4, |list| expressions.iter().for_each(|it| it.write(list)));
            // NFTA_RULE_USERDATA: kind 0 is a comment, with its length and the zero that ends it.
            let text = comment.as_bytes();
            attributes.bytes(7, &[&[0, text.len() as u8 + 1], text, &[0]].concat());
        });
    }

    /// Takes a rule out of a chain.
    pub(super) fn delete_rule(&mut self, chain: &str, handle: [u8; 8]) {
        self.add(format!("take a rule out of chain {chain}"), DELETE_RULE, 0, |attributes| {
            attributes.text(2, chain).bytes(3, &handle); // NFTA_RULE_CHAIN, NFTA_RULE_HANDLE
        });
    }

    /// The rules of a chain, in their order.
    pub(super) fn rules_of(socket: &Socket, table: &str, chain: &str) -> Result<Vec<Rule>, NetlinkError> {
        let mut batch = Batch::default();
        // A list of the rules of a chain that is not there is empty; asked for itself it is missing.
        let head = header(libc::AF_INET as u8, 0);
        batch.add(format!("look for chain {chain}"), SUBSYSTEM | GET_CHAIN, flags::ACK, &head, |attributes| {
            attributes.text(TABLE, table).text(3, chain);
        });
        socket.ask(&batch)?;
        let mut batch = Batch::default();
        batch.add(format!("list the rules of chain {chain}"), SUBSYSTEM | GET_RULE, flags::DUMP, &head, |attributes| {
            attributes.text(TABLE, table).text(2, chain);
        });
        let mut all = Vec::new();
        socket.exchange(&batch, |message| all.extend(Rule::read(message.body)))?;
        Ok(all)
    }

    /// Brings it to the kernel.
    pub(super) fn commit(mut self, socket: &Socket) -> Result<(), NetlinkError> {
        self.batch.add("end a transaction of packet rules", END, 0, &header(0, 10), |_| {});
        socket.ask(&self.batch)
    }

    /// For tests: what would be sent.
    #[cfg(test)]
    pub(super) fn into_batch(mut self) -> Batch {
        self.batch.add("end a transaction of packet rules", END, 0, &header(0, 10), |_| {});
        self.batch
    }
}

/// A rule as the kernel tells of it.
#[derive(Debug)]
pub(super) struct Rule {
    /// The kernel's number.
    pub(super) handle: [u8; 8],
    /// What was noted with it.
    pub(super) comment: Vec<u8>,
}

impl Rule {
    /// Reads what comes behind `struct nfgenmsg`.
    fn read(body: &[u8]) -> Option<Self> {
        let attributes = body.get(4..)?;
        let handle = find(attributes, 3)?.try_into().ok()?;
        let noted = find(attributes, 7).unwrap_or_default();
        let comment = match noted {
            [0, length, text @ ..] => text.get(..usize::from(*length).saturating_sub(1)).unwrap_or_default(),
            _ => &[],
        };
        Some(Self { handle, comment: comment.to_vec() })
    }
}

/// Whether a table is there.
pub(super) fn has_table(socket: &Socket, table: &str) -> Result<bool, NetlinkError> {
    let mut batch = Batch::default();
    let attempt = format!("look for the packet rules of {table}");
    batch.add(attempt, SUBSYSTEM | GET_TABLE, flags::ACK, &header(libc::AF_INET as u8, 0), |attributes| {
        attributes.text(TABLE, table);
    });
    match socket.ask(&batch) {
        Err(error) if error.refusal() == Some(nix::errno::Errno::ENOENT) => Ok(false),
        other => other.map(|()| true),
    }
}

/// `struct nfgenmsg`: family, version, and a number whose highest byte comes first.
fn header(family: u8, resource: u8) -> [u8; 4] {
    [family, 0, 0, resource]
}
