//! Guests of a few instructions: the least that can run in a machine.
//!
//! None has a kernel, a stack worth mentioning or a library. Each speaks through the serial port and ends the machine with a
//! byte at a port. Read them in this order: `real_hello` runs in the 16-bit mode in which every PC wakes up; `long_hello`
//! in the 64-bit mode that [`long_mode`] prepares; `counter` and `toucher` use the memory.

mod counter;
mod long_hello;
pub mod long_mode;
mod real_hello;
mod report;
mod toucher;

use std::fmt;
use std::str::FromStr;

use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs};
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use super::state::Named;
use super::{Entry, Flow, Guest, GuestError, GuestState};
use crate::memory::Memory;
use crate::vcpu::Cpu;

/// Where a guest's code lies: above the first 32 KiB, which the page tables and the stack share.
const CODE: u64 = 0x8000;
/// The stack grows down from the code.
const STACK: u64 = CODE;
/// The most that a guest's code and data may take together.
const ROOM: usize = 0x8000;
/// Flags as they come out of reset: only the bit that is always set.
const FLAGS: u64 = 0x2;

/// Why a built-in guest was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum BareError {
    /// There is none of that name.
    #[error("there is no built-in guest {0:?}")]
    Unknown(String),
    /// Its arguments are not what it takes.
    #[error("{guest} takes {takes}, not {given:?}")]
    Arguments {
        /// The guest.
        guest: Name,
        /// What it takes.
        takes: &'static str,
        /// What it was given.
        given: Vec<String>,
    },
    /// It would touch more than the machine has.
    #[error("toucher cannot touch {wanted} MiB: of the machine's memory {free} MiB are free")]
    TooLittle {
        /// What it was told to touch.
        wanted: u64,
        /// What there is beside the guest itself.
        free: u64,
    },
}

impl BareError {
    /// The next thing to try.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown(_) => {
                let names = Name::ALL.map(Name::text);
                format!("the built-in guests are {}", names.join(", "))
            }
            Self::Arguments { .. } => "arguments of the guest stand behind `--`".to_owned(),
            Self::TooLittle { .. } => "give the machine more with --memory".to_owned(),
        }
    }
}

/// Which guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// 16-bit mode: adds two numbers and prints the sum.
    RealHello,
    /// 64-bit mode: prints a line.
    LongHello,
    /// Counts in memory, and reports.
    Counter,
    /// Touches so many MiB, and reports how many pages that were.
    Toucher,
}

impl Name {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::RealHello, Self::LongHello, Self::Counter, Self::Toucher];

    /// The name as a user writes it.
    pub fn text(self) -> &'static str {
        match self {
            Self::RealHello => "real-hello",
            Self::LongHello => "long-hello",
            Self::Counter => "counter",
            Self::Toucher => "toucher",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text())
    }
}

impl FromStr for Name {
    type Err = BareError;

    fn from_str(text: &str) -> Result<Self, BareError> {
        Self::ALL.into_iter().find(|name| name.text() == text).ok_or_else(|| BareError::Unknown(text.to_owned()))
    }
}

/// A guest with what it was told to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bare {
    /// Adds these two.
    RealHello(u16, u16),
    /// Prints this, and a line feed.
    LongHello(String),
    /// Counts so far.
    Counter(u64),
    /// Touches so many MiB.
    Toucher(u64),
}

impl Bare {
    /// The guest of that name, with `arguments` or its defaults.
    pub fn new(name: Name, arguments: &[String]) -> Result<Self, BareError> {
        let refuse = |takes| BareError::Arguments { guest: name, takes, given: arguments.to_vec() };
        match (name, arguments) {
            (Name::RealHello, []) => Ok(Self::RealHello(2, 2)),
            (Name::RealHello, [a, b]) => match (a.parse(), b.parse()) {
                (Ok(a), Ok(b)) => Ok(Self::RealHello(a, b)),
                _ => Err(refuse("two numbers from 0 to 65535")),
            },
            (Name::RealHello, _) => Err(refuse("two numbers from 0 to 65535")),
            (Name::LongHello, []) => Ok(Self::LongHello("Hello from 64-bit mode".to_owned())),
            (Name::LongHello, [text]) if text.len() <= ROOM / 2 => Ok(Self::LongHello(text.clone())),
            (Name::LongHello, _) => Err(refuse("one text of at most 16 KiB")),
            (Name::Counter, []) => Ok(Self::Counter(1000)),
            (Name::Counter, [count]) => count
                .parse()
                .ok()
                .filter(|count| *count > 0)
                .map(Self::Counter)
                .ok_or_else(|| refuse("a number above 0")),
            (Name::Counter, _) => Err(refuse("a number above 0")),
            (Name::Toucher, []) => Ok(Self::Toucher(1)),
            (Name::Toucher, [mib]) => mib.parse().map(Self::Toucher).map_err(|_| refuse("a number of MiB")),
            (Name::Toucher, _) => Err(refuse("a number of MiB")),
        }
    }

    /// What it is made of: code, then data.
    fn image(&self) -> Vec<u8> {
        match self {
            Self::RealHello(..) => real_hello::code().to_vec(),
            Self::LongHello(text) => [long_hello::code(), text.as_bytes(), b"\n"].concat(),
            Self::Counter(_) => counter::code().to_vec(),
            Self::Toucher(_) => toucher::code().to_vec(),
        }
    }

    /// What it finds in its registers.
    fn registers(&self, memory: &Memory) -> Result<kvm_regs, BareError> {
        let start = kvm_regs { rip: CODE, rsp: STACK, rflags: FLAGS, ..kvm_regs::default() };
        Ok(match self {
            Self::RealHello(a, b) => kvm_regs { rax: u64::from(*a), rbx: u64::from(*b), ..start },
            Self::LongHello(text) => {
                let text_at = CODE + long_hello::code().len() as u64;
                kvm_regs { rsi: text_at, rcx: text.len() as u64 + 1, ..start }
            }
            Self::Counter(count) => kvm_regs { rdi: *count, rsi: CODE + ROOM as u64 - 8, ..start },
            Self::Toucher(mib) => {
                let first = toucher::FIRST;
                let free = (memory.below_gap() - first) >> 20; // as far as its page tables reach
                if *mib > free {
                    return Err(BareError::TooLittle { wanted: *mib, free });
                }
                kvm_regs { rdi: first, rcx: mib * 256, ..start }
            }
        })
    }
}

impl Guest for Bare {
    fn load(&mut self, memory: &Memory, reset: &kvm_sregs, _: &[kvm_cpuid_entry2]) -> Result<Entry, GuestError> {
        memory.guest().write_slice(&self.image(), GuestAddress(CODE)).map_err(GuestError::Access)?;
        let sregs = match self {
            Self::RealHello(..) => real_hello::mode(reset),
            _ => long_mode::enter(memory, reset)?,
        };
        Ok(Entry { regs: self.registers(memory)?, sregs, msrs: Vec::new(), xcr0: None })
    }

    fn store(&mut self, at: u64, data: &[u8], _: &mut Cpu<'_>, _: &Memory) -> Result<Flow, GuestError> {
        Err(GuestError::Nowhere { at, length: data.len() })
    }

    fn save(&self) -> Result<GuestState, GuestError> {
        Ok(GuestState::Bare(Named { guest: self.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Mib;

    fn bare(name: &str, arguments: &[&str]) -> Result<Bare, BareError> {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        Bare::new(name.parse()?, &arguments)
    }

    #[test]
    fn a_guest_is_known_by_its_name_and_takes_its_arguments() {
        assert_eq!(bare("real-hello", &["3", "4"]).unwrap(), Bare::RealHello(3, 4));
        assert_eq!(bare("counter", &[]).unwrap(), Bare::Counter(1000));
        assert_eq!(bare("toucher", &["7"]).unwrap(), Bare::Toucher(7));
        assert_eq!(bare("long-hello", &["hi"]).unwrap(), Bare::LongHello("hi".to_owned()));
    }

    #[test]
    fn what_a_guest_cannot_use_is_refused() {
        assert!(matches!(bare("hello", &[]), Err(BareError::Unknown(_))));
        for (name, arguments) in [
            ("real-hello", ["70000", "1"].as_slice()),
            ("real-hello", &["1"]),
            ("counter", &["0"]),
            ("counter", &["-1"]),
            ("toucher", &["much"]),
            ("long-hello", &["two", "texts"]),
        ] {
            assert!(matches!(bare(name, arguments), Err(BareError::Arguments { .. })), "{name} {arguments:?}");
        }
    }

    #[test]
    fn no_guest_is_larger_than_its_room() {
        let longest = "x".repeat(ROOM / 2);
        for guest in
            [bare("long-hello", &[&longest]), bare("counter", &[]), bare("toucher", &[]), bare("real-hello", &[])]
        {
            assert!(guest.unwrap().image().len() <= ROOM - 8);
        }
        assert!(bare("long-hello", &[&(longest + "x")]).is_err());
    }

    #[test]
    fn a_toucher_stays_in_memory() {
        let memory = Memory::map(Mib(4)).unwrap();
        assert_eq!(Bare::Toucher(3).registers(&memory).unwrap().rcx, 768);
        assert!(matches!(Bare::Toucher(4).registers(&memory), Err(BareError::TooLittle { wanted: 4, free: 3 })));
        assert!(Bare::Toucher(u64::MAX).registers(&memory).is_err());
    }
}
