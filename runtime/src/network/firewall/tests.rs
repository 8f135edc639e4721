//! Transactions, byte by byte, as nft(8) 1.0.6 sends the same to the kernel (taken with `strace -X raw -e sendmsg`).

use std::net::Ipv4Addr;

use super::expression::{Expression, LOCAL, Layer, Meta, Register, Verdict};
use super::message::Transaction;
use super::set::{self, Change, Set};
use crate::network::port::{Protocol, Published};

/// What comes behind the header of the second message, which is the first of ours: from `struct nfgenmsg` on.
fn body(fill: impl FnOnce(&mut Transaction<'_>)) -> Vec<u8> {
    let mut transaction = Transaction::on("isolab");
    fill(&mut transaction);
    let batch = transaction.into_batch();
    let all = batch.bytes_for_test();
    let length = u32::from_ne_bytes(all[20..24].try_into().expect("four bytes")) as usize;
    all[20 + 16..20 + length].to_vec()
}

fn expected(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u8> = hexadecimal.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("a byte");
    digits.chunks(2).map(byte).collect()
}

/// `struct nfgenmsg` for IPv4, and `NFTA_*_TABLE` "isolab".
const BEGIN: &str = "02 00 0000  0b00 0100 69736f6c616200 00";

#[test]
fn a_published_port_is_one_element_of_a_map() {
    let port =
        Published { container_port: 80, protocol: Protocol::Tcp, host_address: Ipv4Addr::LOCALHOST, host_port: 81 };
    let written = body(|it| set::port(it, Change::Add, &port, Ipv4Addr::new(172, 30, 0, 2)));
    let elements = "0d00 0200 706f7274735f617400 000000  0800 0400 00000005  2c00 0380
        2800 0180 1400 0180 1000 0100 06000000 7f000001 00510000 1000 0280 0c00 0100 ac1e0002 00500000";
    assert_eq!(written, expected(&format!("{BEGIN}{elements}")));
}

#[test]
fn a_range_of_addresses_has_a_beginning_and_an_end() {
    let subnet = "172.30.0.0/16".parse().expect("a range");
    let mut transaction = Transaction::on("isolab");
    set::network(&mut transaction, Change::Add, "isolab0", subnet);
    let batch = transaction.into_batch();
    let end =
        expected("1000 0180 0c00 0180 0800 0100 ac1e0000  1800 0180 0800 0300 00000001 0c00 0180 0800 0100 ac1f0000");
    assert!(batch.bytes_for_test().windows(end.len()).any(|window| window == end));
}

#[test]
fn a_rule_is_a_list_of_steps() {
    let ours = [
        Expression::DestinationKind(Register::Wide(0)),
        Expression::Equals(Register::Wide(0), LOCAL),
        Expression::Decide(Verdict::Jump("publish")),
    ];
    let steps = "0b00 0200 6f757470757400 00  9400 0480
        2800 0180 0800 0100 66696200 1c00 0280 0800 0300 00000002 0800 0200 00000003 0800 0100 00000001
        2c00 0180 0800 0100 636d7000 2000 0280 0800 0100 00000001 0800 0200 00000000 0c00 0380 0800 0100 02000000
        3c00 0180 0e00 0100 696d6d656469617465 00 0000 2800 0280 0800 0100 00000000 1c00 0280 1800 0280
        0800 0100 fffffffd 0c00 0200 7075626c69736800";
    assert_eq!(body(|it| it.rule("output", &ours)), expected(&format!("{BEGIN}{steps}")));
}

#[test]
fn a_port_is_looked_up_with_its_protocol() {
    let key = Register::Wide(0);
    let steps = [
        Expression::Meta(Meta::Protocol, Register::Narrow(0)),
        Expression::Payload { layer: Layer::Transport, offset: 2, length: 2, to: Register::Narrow(1) },
        Expression::Lookup { set: Set::Anywhere, key, to: Some(key) },
        Expression::DestinationNat { address: key, port: Register::Narrow(1) },
    ];
    // As nft writes it, but for the register: 8 is the first of four bytes, 1 the first of 16, and both are the same memory.
    let expected = expected(&format!(
        "{BEGIN} 0c00 0200 7075626c69736800  c400 0480
        2400 0180 0900 0100 6d65746100 000000 1400 0280 0800 0200 00000010 0800 0100 00000008
        3400 0180 0c00 0100 7061796c6f616400 2400 0280 0800 0100 00000009 0800 0200 00000002 0800 0300 00000002 0800 0400 00000002
        3800 0180 0b00 0100 6c6f6f6b757000 00 2800 0280 0800 0200 00000001 0800 0300 00000001 0a00 0100 706f72747300 0000 0800 0400 00000004
        3000 0180 0800 0100 6e617400 2400 0280 0800 0100 00000001 0800 0200 00000002 0800 0300 00000001 0800 0500 00000009"
    ));
    assert_eq!(body(|it| it.rule("publish", &steps)), expected);
}
