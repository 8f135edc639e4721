//! Where a guest stood when it could not go on: the first question of whoever has to find out why.

use std::fmt;

use vm_memory::{Bytes, GuestAddress};

use crate::memory::{Memory, PAGE};
use crate::vcpu::Vcpu;

/// An instruction pointer, and the bytes there. No instruction is longer than 15.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The instruction pointer.
    pub rip: u64,
    /// The bytes from there on, as far as the guest has mapped memory.
    pub bytes: Vec<u8>,
    /// Whether the processor was reset before it could be asked: KVM does so at a shutdown on AMD, where the hardware
    /// leaves its state undefined (AMD64 Architecture Programmer's Manual, volume 2, "Shutdown").
    pub reset: bool,
}

/// The code segment's base and the instruction pointer of a processor that comes out of reset (volume 2, "Processor
/// Initialization State"). No guest can get there by itself: no segment that a 16-bit guest loads has this base.
const RESET: (u64, u64) = (0xffff_0000, 0xfff0);

impl Place {
    const LONGEST_INSTRUCTION: usize = 15;

    /// Looks where the processor stands. Never fails: with registers that can't be read it says so by an address of zero.
    pub(super) fn of(vcpu: &mut Vcpu, memory: &Memory) -> Self {
        let Ok(regs) = vcpu.fd().get_regs() else { return Self { rip: 0, bytes: Vec::new(), reset: false } };
        // In 16-bit mode the pointer counts from the code segment's base; in 64-bit mode that base is zero.
        let base = vcpu.sregs().map_or(0, |sregs| sregs.cs.base);
        let start = base.wrapping_add(regs.rip);
        let bytes = (0..Self::LONGEST_INSTRUCTION as u64)
            .map_while(|offset| byte(vcpu, memory, start.wrapping_add(offset)))
            .collect();
        Self { rip: regs.rip, bytes, reset: (base, regs.rip) == RESET }
    }
}

/// One byte of what the guest sees at a linear address.
fn byte(vcpu: &mut Vcpu, memory: &Memory, address: u64) -> Option<u8> {
    // KVM_TRANSLATE walks the guest's own page tables.
    let page = vcpu.fd().translate_gva(address - address % PAGE).ok().filter(|translation| translation.valid != 0)?;
    memory.guest().read_obj(GuestAddress(page.physical_address + address % PAGE)).ok()
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reset {
            return formatter.write_str("a place that is not known any more: the processor was reset at once");
        }
        write!(formatter, "rip {:#x}, ", self.rip)?;
        if self.bytes.is_empty() {
            return formatter.write_str("where no memory is mapped");
        }
        formatter.write_str("bytes there")?;
        self.bytes.iter().try_for_each(|byte| write!(formatter, " {byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_place_is_told_with_its_bytes() {
        let place = |rip, bytes| Place { rip, bytes, reset: false }.to_string();
        assert_eq!(place(0x8000, vec![0x0f, 0x0b]), "rip 0x8000, bytes there 0f 0b");
        assert_eq!(place(0, vec![]), "rip 0x0, where no memory is mapped");
    }

    #[test]
    fn a_processor_that_was_reset_tells_no_wrong_place() {
        let place = Place { rip: 0xfff0, bytes: vec![], reset: true };
        assert!(place.to_string().starts_with("a place that is not known any more"));
    }
}
