//! 64-bit mode: what must lie in memory before a processor can be in it (AMD64 manual volume 2, chapters 5 and 14).
//!
//! There is no 64-bit mode without paging, so there must be page tables; and segments, of which little is left but a bit
//! that says "64", still want a table of descriptors. Firmware and boot loader take a PC through three modes to get here.
//! A monitor sets the registers as they would stand at the end of that way.

use kvm_bindings::{kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress};

use crate::guest::GuestError;
use crate::memory::{GAP_START, Memory};

const GDT: u64 = 0x1000;
/// The four-level page tables: one table of each of the upper two levels, then a directory for each GiB.
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const DIRECTORIES: u64 = 0x4000;

/// Bits of an entry in a page table: it is there, it may be written, it is itself a page of 2 MiB.
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const LARGE_PAGE: u64 = 2 << 20;
const GIB: u64 = 1 << 30;

/// Protection, coprocessor errors told, write protection in the kernel too, paging.
const CR0: u64 = 1 | 1 << 5 | 1 << 16 | 1 << 31;
/// Page table entries of 64 bits: long mode has no others.
const CR4_PAE: u64 = 1 << 5;
/// Long mode enabled, and active.
const EFER: u64 = 1 << 8 | 1 << 10;

/// Descriptors: none (always), none, 64-bit code, data. The second is left free because Linux wants the other two to be the
/// third and the fourth (`Documentation/arch/x86/boot.rst`, "64-bit boot protocol").
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
/// All of the tables lie below.
pub(crate) const END: u64 = DIRECTORIES + (GAP_START / GIB) * 0x1000;

/// Writes tables that map all of `memory` below the devices to its own addresses; returns the registers of a processor in
/// 64-bit mode.
pub fn enter(memory: &Memory, reset: &kvm_sregs) -> Result<kvm_sregs, GuestError> {
    write_table(memory, GDT, DESCRIPTORS)?;
    write_table(memory, PML4, [PDPT | PRESENT | WRITABLE])?;
    let directories = (0..memory.below_gap().div_ceil(GIB)).map(|gib| DIRECTORIES + gib * 0x1000);
    write_table(memory, PDPT, directories.map(|directory| directory | PRESENT | WRITABLE))?;
    // The directories lie side by side, so one list fills them all.
    let pages = (0..memory.below_gap() / LARGE_PAGE).map(|page| page * LARGE_PAGE);
    write_table(memory, DIRECTORIES, pages.map(|page| page | PRESENT | WRITABLE | LARGE))?;
    Ok(registers(reset))
}

fn write_table(memory: &Memory, at: u64, entries: impl IntoIterator<Item = u64>) -> Result<(), GuestError> {
    let bytes: Vec<u8> = entries.into_iter().flat_map(u64::to_le_bytes).collect();
    Ok(memory.guest().write_slice(&bytes, GuestAddress(at))?)
}

fn registers(reset: &kvm_sregs) -> kvm_sregs {
    let mut sregs = *reset;
    sregs.cr0 = CR0;
    sregs.cr3 = PML4;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER;
    sregs.gdt.base = GDT;
    sregs.gdt.limit = (DESCRIPTORS.len() * 8 - 1) as u16;
    sregs.cs = segment(CODE, 11);
    for data in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *data = segment(DATA, 3);
    }
    sregs
}

/// What a processor keeps of a descriptor that it has loaded: all of memory; for code (type 11) the bit that says "64".
fn segment(selector: u16, kind: u8) -> kvm_segment {
    let code = u8::from(kind == 11);
    kvm_segment {
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        db: 1 - code,
        s: 1,
        l: code,
        g: 1,
        ..kvm_segment::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Mib;

    /// Walks the tables as a processor does.
    fn translate(memory: &Memory, address: u64) -> Option<u64> {
        let entry = |table: u64, shift: u32| {
            let entry: u64 = memory.guest().read_obj(GuestAddress(table + (address >> shift & 511) * 8)).unwrap();
            (entry & PRESENT != 0).then_some(entry)
        };
        let directory = entry(entry(PML4, 39)? & !0xfff, 30)? & !0xfff;
        let page = entry(directory, 21)?;
        assert_ne!(page & LARGE, 0);
        Some((page & !(LARGE_PAGE - 1)) + address % LARGE_PAGE)
    }

    #[test]
    fn all_of_memory_is_mapped_to_itself_and_nothing_else_is() {
        for size in [Mib(2), Mib(128), Mib(1024), Mib(3072)] {
            let memory = Memory::map(size).unwrap();
            enter(&memory, &kvm_sregs::default()).unwrap();
            let last = size.bytes() - 1;
            for address in [0, 0x8000, last / 2, last] {
                assert_eq!(translate(&memory, address), Some(address), "{size}");
            }
            assert_eq!(translate(&memory, size.bytes()), None, "{size}");
        }
    }
}
