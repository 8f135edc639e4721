//! From ranges of call numbers to a program that finds the right one in few steps.
//!
//! Classic BPF has one register and jumps forward only: a search tree fits it as if made for it. Each node compares the
//! number with the first of its right half and goes left or right.

use libc::sock_filter;

/// `A = 32 bits of struct seccomp_data`
pub(super) const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
/// `A &= constant`
pub(super) const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
/// `return constant`
pub(super) const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
/// jump, however far
pub(super) const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
/// jump by whether `A == constant`
pub(super) const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
/// jump by whether `A > constant`
pub(super) const GREATER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
/// jump by whether `A >= constant`
pub(super) const GREATER_OR_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;

/// About how many call numbers an architecture has.
const NUMBERS: u32 = 512;

/// An instruction that does not branch.
pub(super) const fn statement(code: u32, constant: u32) -> sock_filter {
    jump(code, constant, 0, 0)
}

/// An instruction that skips `yes` or `no` others.
pub(super) const fn jump(code: u32, constant: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter { code: code as u16, jt: yes, jf: no, k: constant }
}

/// Skips `length` instructions unless A equals a constant.
pub(super) fn unless_equal(constant: u32, length: usize) -> [sock_filter; 2] {
    [jump(EQUAL, constant, 1, 0), statement(JUMP, length as u32)]
}

/// What decides about a call.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    /// Nothing but its number: always the same answer.
    Always(u32),
    /// Its arguments: code that ends in returns.
    Asking(Vec<sock_filter>),
}

/// Call numbers from `first` to the next range's, about which the same decides.
#[derive(Debug, Clone)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) decision: Decision,
}

/// Puts ranges in one: of those that begin at the same number the last counts, and neighbours with the same decision join.
/// An ordinary profile of 350 names becomes some 80 ranges this way.
pub(super) fn joined(ranges: Vec<Range>) -> Vec<Range> {
    let mut joined: Vec<Range> = Vec::new();
    for range in ranges {
        if joined.last().is_some_and(|last| last.first == range.first) {
            joined.pop();
        }
        if joined.last().is_none_or(|last| last.decision != range.decision) {
            joined.push(range);
        }
    }
    joined
}

/// The search tree over ranges that are in order; the number is in A.
///
/// Not the ranges are halved but the numbers in them: a wide range is asked for more often, first of all by the kernel,
/// which tries every number once.
pub(super) fn balanced(ranges: &[Range]) -> Vec<sock_filter> {
    let (left, right) = ranges.split_at(middle(ranges));
    let (Some(first), false) = (right.first(), left.is_empty()) else {
        return match ranges.first().map(|range| &range.decision) {
            None => Vec::new(),
            Some(Decision::Always(answer)) => vec![statement(RETURN, *answer)],
            Some(Decision::Asking(code)) => code.clone(),
        };
    };
    let left = balanced(left);
    let mut code = match u8::try_from(left.len()) {
        Ok(length) => vec![jump(GREATER_OR_EQUAL, first.first, length, 0)],
        // A conditional jump reaches 255 instructions. Beyond that it only chooses whether to take a long one.
        Err(_) => vec![jump(GREATER_OR_EQUAL, first.first, 0, 1), statement(JUMP, left.len() as u32)],
    };
    code.extend(left);
    code.extend(balanced(right));
    code
}

/// Before which range to divide; 0 where there is nothing to divide.
fn middle(ranges: &[Range]) -> usize {
    let Some((first, last)) = ranges.first().zip(ranges.last()) else { return 0 };
    let end = last.first.min(first.first.saturating_add(NUMBERS));
    let half = first.first + (end - first.first) / 2;
    ranges.partition_point(|range| range.first <= half).clamp(1, ranges.len()) % ranges.len()
}
