//! The end of a program that did what it must not: what Linux would have sent it, and where.
//!
//! The processor reports an exception by a vector and, for a page fault, the address in CR2 and an error code. Linux turns
//! each into a signal; the default action of all of them ends the program, and a shell reports 128 plus the signal's
//! number. Here no handler is called, also where the program installed one.

use std::fmt;

use nix::sys::signal::Signal;
use vm_memory::GuestMemoryMmap;

use super::stub::{DOORBELL, Frame};
use super::tables::Tables;
use super::user::{Access, User};

/// The longest x86 instruction, in bytes.
const INSTRUCTION_MAX: u64 = 15;
/// Page fault error code: the page was there but its rights were not; it was a store; it was an instruction fetch.
const PROTECTION: u64 = 1;
const STORE: u64 = 1 << 1;
const FETCH: u64 = 1 << 4;

const DIVIDE: u8 = 0;
const DEBUG: u8 = 1;
const BREAKPOINT: u8 = 3;
const UNDEFINED: u8 = 6;
const PAGE_FAULT: u8 = 14;
const X87: u8 = 16;
const ALIGNMENT: u8 = 17;
const SIMD: u8 = 19;

/// Why the program died.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    vector: u8,
    error_code: u64,
    address: u64,
    rip: u64,
    bytes: Vec<u8>,
}

impl Fault {
    /// Gathers what there is to say about the exception `vector` with this frame; `cr2` counts for page faults only.
    pub(super) fn new(vector: u8, frame: &Frame, cr2: u64, memory: &GuestMemoryMmap, tables: &Tables) -> Self {
        let user = User::new(memory, tables);
        let mut bytes = Vec::new();
        for slice in user.accessible(frame.rip, INSTRUCTION_MAX, Access::Read).unwrap_or_default() {
            let mut part = vec![0; slice.len()];
            slice.copy_to(&mut part);
            bytes.append(&mut part);
        }
        Self { vector, error_code: frame.error_code, address: cr2, rip: frame.rip, bytes }
    }

    /// The fault of a program that stored to the monitor's doorbell without a system call.
    pub(super) fn doorbell(rip: u64) -> Self {
        Self { vector: PAGE_FAULT, error_code: PROTECTION | STORE, address: DOORBELL, rip, bytes: Vec::new() }
    }

    /// The signal that Linux sends for it (`arch/x86/kernel/traps.c`).
    pub fn signal(&self) -> Signal {
        match self.vector {
            DIVIDE | X87 | SIMD => Signal::SIGFPE,
            DEBUG | BREAKPOINT => Signal::SIGTRAP,
            UNDEFINED => Signal::SIGILL,
            ALIGNMENT => Signal::SIGBUS,
            _ => Signal::SIGSEGV,
        }
    }

    /// What the program did, in words.
    fn deed(&self) -> String {
        match self.vector {
            DIVIDE => "a division by zero or out of range".to_owned(),
            DEBUG => "a debug exception".to_owned(),
            BREAKPOINT => "a breakpoint".to_owned(),
            UNDEFINED => "an undefined instruction".to_owned(),
            PAGE_FAULT => {
                let access = match self.error_code {
                    code if code & FETCH != 0 => "a jump to",
                    code if code & STORE != 0 => "a write to",
                    _ => "a read of",
                };
                let page = if self.error_code & PROTECTION != 0 {
                    "a page whose rights forbid it"
                } else {
                    "no page is there"
                };
                format!("{access} {:#x} ({page})", self.address)
            }
            X87 | SIMD => "a floating point exception".to_owned(),
            ALIGNMENT => "an unaligned access".to_owned(),
            13 => "an instruction that a program may not execute, or an address that no page can have".to_owned(),
            other => format!("exception {other}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the program died of {}: {}, at rip {:#x}", self.signal(), self.deed(), self.rip)?;
        if self.bytes.is_empty() {
            return write!(out, " (no readable bytes there)");
        }
        write!(out, ", bytes there:")?;
        self.bytes.iter().try_for_each(|byte| write!(out, " {byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(vector: u8, error_code: u64, address: u64, bytes: &[u8]) -> Fault {
        Fault { vector, error_code, address, rip: 0x40_1136, bytes: bytes.to_vec() }
    }

    #[test]
    fn each_exception_is_the_signal_that_linux_sends() {
        let of = |vector| fault(vector, 0, 0, &[]).signal();
        assert_eq!(
            [0, 3, 6, 13, 14, 16, 17, 19].map(of),
            [
                Signal::SIGFPE,
                Signal::SIGTRAP,
                Signal::SIGILL,
                Signal::SIGSEGV,
                Signal::SIGSEGV,
                Signal::SIGFPE,
                Signal::SIGBUS,
                Signal::SIGFPE,
            ]
        );
    }

    #[test]
    fn a_page_fault_says_what_where_and_by_which_bytes() {
        assert_eq!(
            fault(14, 6, 0, &[0xc6, 0x00, 0x01]).to_string(),
            "the program died of SIGSEGV: a write to 0x0 (no page is there), at rip 0x401136, bytes there: c6 00 01"
        );
        assert_eq!(
            fault(14, 0x15, 0x7000, &[]).to_string(),
            "the program died of SIGSEGV: a jump to 0x7000 (a page whose rights forbid it), at rip 0x401136 (no readable bytes there)"
        );
    }
}
