//! Conditions on a call's arguments.
//!
//! An argument has 64 bits and the program's one register 32, so each comparison is made of two halves; and a
//! conditional jump reaches 255 instructions, an unconditional one any. A condition is therefore code that goes on
//! behind itself if it holds, and otherwise through a jump at its end to wherever the next rule begins.

use libc::sock_filter;
use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator};

use super::tree::{AND, Decision, EQUAL, GREATER, GREATER_OR_EQUAL, JUMP, LOAD, RETURN, jump, statement};

/// How many arguments a system call has.
pub(super) const ARGUMENTS: usize = 6;
/// Where the first lies in `struct seccomp_data`; each has eight bytes, the low half first on this architecture.
const ARGUMENTS_AT: u32 = 16;

/// What becomes of a call if all of these conditions hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule<'a> {
    pub(super) name: &'a str,
    pub(super) conditions: &'a [LinuxSeccompArg],
    pub(super) action: u32,
}

/// What the rules of one call, tried in their order, come to.
pub(super) fn decide(rules: &[Rule<'_>], default: u32) -> Decision {
    if let Some(first) = rules.first().filter(|rule| rule.conditions.is_empty()) {
        return Decision::Always(first.action);
    }
    let mut code = Vec::new();
    for rule in rules {
        code.extend(tried(rule));
        if rule.conditions.is_empty() {
            return Decision::Asking(code);
        }
    }
    code.push(statement(RETURN, default));
    Decision::Asking(code)
}

/// A rule: its conditions, each leading past the end if it does not hold, and its action.
fn tried(rule: &Rule<'_>) -> Vec<sock_filter> {
    // Built from its end, since each condition has to know how far that is.
    let mut code = vec![statement(RETURN, rule.action)];
    for condition in rule.conditions.iter().rev() {
        let mut test = holds(condition);
        test.push(statement(JUMP, code.len() as u32));
        test.extend(code);
        code = test;
    }
    code
}

/// Code that skips the instruction behind it if the condition holds, and runs into it otherwise.
fn holds(condition: &LinuxSeccompArg) -> Vec<sock_filter> {
    let at = ARGUMENTS_AT + 8 * condition.index() as u32;
    let (low, high) = (statement(LOAD, at), statement(LOAD, at + 4));
    let halves = |value: u64| (value as u32, (value >> 32) as u32);
    let (value_low, value_high) = halves(condition.value());
    // In each list: jump distances count the instructions skipped; past the end by one is "holds", at the end "not".
    match condition.op() {
        LinuxSeccompOperator::ScmpCmpEq => vec![high, jump(EQUAL, value_high, 0, 2), low, jump(EQUAL, value_low, 1, 0)],
        LinuxSeccompOperator::ScmpCmpNe => vec![high, jump(EQUAL, value_high, 0, 3), low, jump(EQUAL, value_low, 0, 1)],
        LinuxSeccompOperator::ScmpCmpGt => ordered([high, low], value_high, jump(GREATER, value_low, 1, 0), true),
        LinuxSeccompOperator::ScmpCmpGe => {
            ordered([high, low], value_high, jump(GREATER_OR_EQUAL, value_low, 1, 0), true)
        }
        LinuxSeccompOperator::ScmpCmpLt => {
            ordered([high, low], value_high, jump(GREATER_OR_EQUAL, value_low, 0, 1), false)
        }
        LinuxSeccompOperator::ScmpCmpLe => ordered([high, low], value_high, jump(GREATER, value_low, 0, 1), false),
        // `value` is the mask, `valueTwo` what the rest has to be.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let (wanted_low, wanted_high) = halves(condition.value_two().unwrap_or(0));
            vec![
                high,
                statement(AND, value_high),
                jump(EQUAL, wanted_high, 0, 3),
                low,
                statement(AND, value_low),
                jump(EQUAL, wanted_low, 1, 0),
            ]
        }
    }
}

/// A comparison by size: the high halves decide unless they are equal, then `last` compares the low ones.
fn ordered([high, low]: [sock_filter; 2], value: u32, last: sock_filter, larger_holds: bool) -> Vec<sock_filter> {
    let (if_larger, if_smaller) = if larger_holds { (4, 2) } else { (3, 3) };
    vec![high, jump(GREATER, value, if_larger, 0), jump(EQUAL, value, 0, if_smaller), low, last]
}
