//! What lies where in the memory of a Linux guest, and the map of it that the kernel is given.
//!
//! ```text
//!            0  nothing that a kernel reads; 0x1000: page tables and descriptors of 64-bit mode
//!       0x7000  the "zero page": what a boot loader tells the kernel
//!       0x8000  the same for a kernel that is entered by PVH
//!      0x20000  the command line
//!      0x9fc00  end of low memory: on a PC the firmware's own data begins here
//!      0xe0000  ACPI tables, where a kernel has always looked for the firmware's
//!      0xf0000  SMBIOS tables, likewise; 0xf0f00: which generation of its machine this is
//!      0xffff0  where firmware begins: a few instructions that reset the machine
//!     0x100000  the kernel
//!          ...  the initial file system, as high as it can lie
//!  0xc000_0000  devices, up to 4 GiB; memory goes on above
//! ```

use crate::guest::bare::long_mode;
use crate::memory::{GAP_END, Memory};

/// Where the boot parameters lie, a page.
pub(super) const ZERO_PAGE: u64 = 0x7000;
/// Where the start information of PVH lies, with its lists in the same page.
pub(super) const PVH_START: u64 = 0x8000;
/// A stack for the first instructions, growing down.
pub(super) const STACK: u64 = 0x9ff0;
/// Where the command line lies.
pub(super) const COMMAND_LINE: u64 = 0x2_0000;
/// The room for it.
pub(super) const COMMAND_LINE_ROOM: u64 = 0x1_0000;
/// The end of conventional memory.
const LOW_END: u64 = 0x9_fc00;
/// Where the ACPI tables lie, the root pointer first (ACPI 6.5, section 5.2.5.1: a kernel searches from here).
pub const ACPI: u64 = 0xe_0000;
/// And where they must end.
pub const ACPI_END: u64 = SMBIOS;
/// Where the SMBIOS tables lie (SMBIOS 3.2, section 5.2.2: a kernel looks from here to the end of the first MiB).
pub const SMBIOS: u64 = 0xf_0000;
/// Where the 16 bytes lie that are others in each machine that goes on from a snapshot.
pub const GENERATION: u64 = 0xf_0f00;
/// Where the firmware of a PC begins when the processor is reset.
pub(super) const RESET_VECTOR: u64 = 0xf_fff0;
/// The end of the first MiB.
pub(super) const HIGH: u64 = 0x10_0000;

// The tables of 64-bit mode, the zero page and the rest lie apart.
const _: () = assert!(long_mode::END <= ZERO_PAGE);

/// What a range of addresses is (ACPI 6.5, section 15: `INT 15h, E820h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Memory for the kernel to use.
    Ram = 1,
    /// Not for the kernel.
    Reserved = 2,
    /// The firmware's tables.
    Acpi = 3,
}

/// A range of guest-physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) kind: Kind,
}

/// The memory map that a firmware would tell.
pub(super) fn map(memory: &Memory) -> Vec<Range> {
    let range = |start, end, kind| Range { start, length: end - start, kind };
    let mut ranges = vec![
        range(0, LOW_END, Kind::Ram),
        range(LOW_END, 0xa_0000, Kind::Reserved),
        range(ACPI, HIGH, Kind::Acpi),
        range(HIGH, memory.below_gap(), Kind::Ram),
    ];
    let above = memory.size() - memory.below_gap();
    if above > 0 {
        ranges.push(range(GAP_END, GAP_END + above, Kind::Ram));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Mib;

    #[test]
    fn the_map_tells_all_memory_and_no_range_twice() {
        for mib in [2, 128, 3072, 3073, 8192] {
            let memory = Memory::map(Mib(mib)).unwrap();
            let map = map(&memory);
            assert!(map.is_sorted_by(|a, b| a.start + a.length <= b.start), "{map:?}");
            let usable: u64 = map.iter().filter(|range| range.kind == Kind::Ram).map(|range| range.length).sum();
            assert_eq!(memory.size() - usable, HIGH - LOW_END, "all but the piece below 1 MiB");
        }
    }
}
