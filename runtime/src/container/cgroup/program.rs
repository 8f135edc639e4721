//! The device program: a few eBPF instructions made from a list of rules.
//!
//! The kernel calls it with what is about to be done (`struct bpf_cgroup_dev_ctx`: kind and access, major, minor) and
//! does it if the program returns 1. The list is tried from its end, since its last entry that fits decides, and for
//! each of read, write and mknod by itself: `r3` holds what nobody has allowed yet.

use super::devices::{Kind, Rule};

/// An eBPF instruction (Documentation/bpf/standardization/instruction-set.rst): opcode, registers, offset, constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    pub(crate) opcode: u8,
    /// The destination in the low four bits, the source in the high ones.
    pub(crate) registers: u8,
    /// How many instructions a jump skips; where in memory a load reads.
    pub(crate) offset: i16,
    pub(crate) constant: i32,
}

/// Opcodes used here, by what they do.
pub(super) mod opcode {
    /// `dst = *(u32 *)(src + offset)`
    pub(crate) const LOAD: u8 = 0x61;
    /// `dst = constant`
    pub(crate) const SET: u8 = 0xb7;
    /// `dst = src`
    pub(crate) const COPY: u8 = 0xbf;
    /// `dst &= constant`
    pub(crate) const AND: u8 = 0x57;
    /// `dst >>= constant`
    pub(crate) const SHIFT_RIGHT: u8 = 0x77;
    /// jump if the low 32 bits of `dst` are not `constant`
    pub(crate) const JUMP_UNLESS: u8 = 0x56;
    /// jump if `dst & constant` is not zero
    pub(crate) const JUMP_IF_ANY: u8 = 0x45;
    /// jump
    pub(crate) const JUMP: u8 = 0x05;
    /// return `r0`
    pub(crate) const EXIT: u8 = 0x95;
}

const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const fn instruction(opcode: u8, to: u8, from: u8, offset: i16, constant: i32) -> Instruction {
    Instruction { opcode, registers: to | from << 4, offset, constant }
}

const fn on(opcode: u8, register: u8, constant: i32) -> Instruction {
    instruction(opcode, register, 0, 0, constant)
}

/// The program for a list of rules. What no rule speaks of is allowed here: the cgroups above have their own say.
pub(super) fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(opcode::LOAD, KIND, CONTEXT, 0, 0),
        instruction(opcode::COPY, ACCESS, KIND, 0, 0),
        on(opcode::SHIFT_RIGHT, ACCESS, 16),
        on(opcode::AND, KIND, 0xffff),
        instruction(opcode::LOAD, MAJOR, CONTEXT, 4, 0),
        instruction(opcode::LOAD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(block(rule));
    }
    program.extend(answer(true));
    program
}

fn answer(allow: bool) -> [Instruction; 2] {
    [on(opcode::SET, ANSWER, i32::from(allow)), on(opcode::EXIT, 0, 0)]
}

/// The instructions of one rule; where it doesn't fit, or does not decide, they lead to what comes after them.
fn block(rule: &Rule) -> Vec<Instruction> {
    let access = i32::from(rule.access);
    let mut decision = if rule.allow {
        vec![on(opcode::AND, ACCESS, !access), on(opcode::JUMP_UNLESS, ACCESS, 0)]
    } else {
        // eBPF has no "jump if none": jump over the jump.
        vec![instruction(opcode::JUMP_IF_ANY, ACCESS, 0, 1, access), instruction(opcode::JUMP, 0, 0, 2, 0)]
    };
    if let Some(last) = decision.last_mut() {
        last.offset = 2;
    }
    decision.extend(answer(rule.allow));

    // BPF_DEVCG_DEV_BLOCK is 1, BPF_DEVCG_DEV_CHAR 2.
    let kind = rule.kind.map(|kind| if kind == Kind::Block { 1 } else { 2 });
    let wanted = [(KIND, kind), (MAJOR, rule.major), (MINOR, rule.minor)];
    let tests: Vec<(u8, u32)> = wanted.into_iter().filter_map(|(register, value)| Some((register, value?))).collect();
    let length = tests.len() + decision.len();
    let test = |(index, (register, value)): (usize, (u8, u32))| {
        let past_the_end = (length - index - 1) as i16;
        instruction(opcode::JUMP_UNLESS, register, 0, past_the_end, value.cast_signed())
    };
    tests.into_iter().enumerate().map(test).chain(decision).collect()
}

#[cfg(test)]
mod tests {
    use super::super::devices::{Kind, MKNOD, READ, Rule, WRITE};
    use super::{Instruction, assemble, opcode};
    use proptest::prelude::*;

    /// What is about to be done.
    #[derive(Debug, Clone, Copy)]
    struct Use {
        kind: Kind,
        major: u32,
        minor: u32,
        access: u8,
    }

    /// The list read as the specification has it: for each bit the last rule that fits decides.
    fn reference(rules: &[Rule], asked: Use) -> bool {
        let fits = |rule: &&Rule, bit| {
            rule.kind.is_none_or(|kind| kind == asked.kind)
                && rule.major.is_none_or(|major| major == asked.major)
                && rule.minor.is_none_or(|minor| minor == asked.minor)
                && rule.access & bit != 0
        };
        let bits = [MKNOD, READ, WRITE].into_iter().filter(|bit| asked.access & bit != 0);
        bits.into_iter().all(|bit| rules.iter().rev().find(|rule| fits(rule, bit)).is_none_or(|rule| rule.allow))
    }

    /// The instructions above, as the kernel would run them.
    fn run(program: &[Instruction], asked: Use) -> bool {
        let kind = if asked.kind == Kind::Block { 1 } else { 2 };
        let context = [u64::from(asked.access) << 16 | kind, asked.major.into(), asked.minor.into()];
        let (mut registers, mut at) = ([0_u64; 11], 0);
        loop {
            let now = program[at];
            let (to, from) = ((now.registers & 15) as usize, (now.registers >> 4) as usize);
            let constant = i64::from(now.constant).cast_unsigned();
            let jump = match now.opcode {
                opcode::LOAD => {
                    registers[to] = context[(now.offset / 4) as usize];
                    false
                }
                opcode::SET => {
                    registers[to] = constant;
                    false
                }
                opcode::COPY => {
                    registers[to] = registers[from];
                    false
                }
                opcode::AND => {
                    registers[to] &= constant;
                    false
                }
                opcode::SHIFT_RIGHT => {
                    registers[to] >>= constant;
                    false
                }
                opcode::JUMP_UNLESS => registers[to] as u32 != now.constant.cast_unsigned(),
                opcode::JUMP_IF_ANY => registers[to] & constant != 0,
                opcode::JUMP => true,
                opcode::EXIT => return registers[0] == 1,
                other => panic!("opcode {other:#x}"),
            };
            at += 1 + if jump { now.offset as usize } else { 0 };
        }
    }

    fn any_kind() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Block), Just(Kind::Character)]
    }

    /// Few numbers, so that rules and uses meet; among them the largest.
    fn any_number() -> impl Strategy<Value = u32> {
        prop_oneof![0..4_u32, Just(u32::MAX)]
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let number = || proptest::option::of(any_number());
        (any::<bool>(), proptest::option::of(any_kind()), number(), number(), 1..8_u8)
            .prop_map(|(allow, kind, major, minor, access)| Rule { allow, kind, major, minor, access })
    }

    fn any_use() -> impl Strategy<Value = Use> {
        (any_kind(), any_number(), any_number(), 1..8_u8).prop_map(|(kind, major, minor, access)| Use {
            kind,
            major,
            minor,
            access,
        })
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_list_does(
            rules in proptest::collection::vec(any_rule(), 0..12),
            uses in proptest::collection::vec(any_use(), 1..20),
        ) {
            let program = assemble(&rules);
            for asked in uses {
                prop_assert_eq!(run(&program, asked), reference(&rules, asked), "{:?}", asked);
            }
        }
    }
}
