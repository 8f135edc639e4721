//! What a boot loader leaves for the kernel: the zero page, or the start information of PVH, and the registers.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryError};

use super::kernel::{Loaded, Start};
use super::layout::{self, ACPI, COMMAND_LINE, PVH_START, RESET_VECTOR, STACK, ZERO_PAGE};
use crate::guest::bare::long_mode;
use crate::guest::{Entry, GuestError};
use crate::memory::Memory;

/// "Some boot loader that has no number of its own" (boot.rst, `type_of_loader`).
const LOADER: u8 = 0xff;
/// `XEN_HVM_START_MAGIC_VALUE`: "xEn3", with the high bit of its "E".
const PVH_MAGIC: u32 = 0x336e_c578;
/// Where the lists lie that the start information points to.
const PVH_MODULE: u64 = PVH_START + 0x80;
const PVH_MAP: u64 = PVH_START + 0x100;

/// MSR: the type of memory that no range says anything else of, and its value: write-back, ranges enabled.
const MTRR_DEFAULT: (u32, u64) = (0x2ff, 1 << 11 | 6);
/// MSR: features that can be switched, and its value: fast string instructions.
const MISC_ENABLE: (u32, u64) = (0x1a0, 1);

/// Protection, and "there is a floating-point unit", which is always so.
const CR0_PROTECTED: u64 = 1 | 1 << 4;
const FLAGS: u64 = 2;

/// What stands where firmware would begin. A kernel that knows no other way to restart jumps there in 16-bit mode, and Linux
/// takes a hardware-reduced machine for one that only EFI can restart, which it has not. `mov al, 0xfe; out 0x64, al`: the
/// keyboard controller's wire to the reset line; and `hlt`, again and again.
const FIRMWARE: [u8; 7] = [0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];

/// Model-specific registers that every processor of a PC comes with once its firmware is done.
pub(crate) const MSRS: [(u32, u64); 2] = [MISC_ENABLE, MTRR_DEFAULT];

/// Where the initial file system lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Initrd {
    pub(super) at: u64,
    pub(super) length: u64,
}

/// Leaves what the kernel wants to be told, and says how the first processor starts.
pub(super) fn prepare(
    memory: &Memory,
    reset: &kvm_sregs,
    kernel: &Loaded,
    initrd: Option<Initrd>,
    command_line: &str,
) -> Result<Entry, GuestError> {
    memory.guest().write_slice(command_line.as_bytes(), GuestAddress(COMMAND_LINE))?;
    memory.guest().write_obj(0_u8, GuestAddress(COMMAND_LINE + command_line.len() as u64))?;
    memory.guest().write_slice(&FIRMWARE, GuestAddress(RESET_VECTOR))?;
    let entry = |regs, sregs| Entry { regs, sregs, msrs: MSRS.to_vec(), xcr0: None };
    match kernel.start {
        Start::Long(rip) => {
            write_zero_page(memory, kernel, initrd.unwrap_or_default(), command_line)?;
            let sregs = long_mode::enter(memory, reset)?;
            let regs = kvm_regs { rip, rsi: ZERO_PAGE, rsp: STACK, rflags: FLAGS, ..kvm_regs::default() };
            Ok(entry(regs, sregs))
        }
        Start::Pvh(rip) => {
            write_start_info(memory, initrd)?;
            let regs = kvm_regs { rip, rbx: PVH_START, rflags: FLAGS, ..kvm_regs::default() };
            Ok(entry(regs, protected_mode(reset)))
        }
    }
}

/// The zero page (boot.rst, "The zero page"): the kernel's own header, and around it what the loader adds.
fn write_zero_page(
    memory: &Memory,
    kernel: &Loaded,
    initrd: Initrd,
    command_line: &str,
) -> Result<(), GuestMemoryError> {
    let mut page = boot_params { hdr: kernel.header, acpi_rsdp_addr: ACPI, ..boot_params::default() };
    page.hdr.type_of_loader = LOADER;
    page.hdr.cmd_line_ptr = COMMAND_LINE as u32;
    page.hdr.cmdline_size = command_line.len() as u32;
    page.hdr.ramdisk_image = initrd.at as u32;
    page.hdr.ramdisk_size = initrd.length as u32;
    let map = layout::map(memory);
    page.e820_entries = map.len() as u8;
    let mut table = page.e820_table;
    for (entry, range) in table.iter_mut().zip(&map) {
        *entry = boot_e820_entry { addr: range.start, size: range.length, r#type: range.kind as u32 };
    }
    page.e820_table = table;
    memory.guest().write_slice(page.as_slice(), GuestAddress(ZERO_PAGE))
}

/// The start information of PVH (Xen's `xen/include/public/arch-x86/hvm/start_info.h`).
fn write_start_info(memory: &Memory, initrd: Option<Initrd>) -> Result<(), GuestMemoryError> {
    let map = layout::map(memory);
    let info = hvm_start_info {
        magic: PVH_MAGIC,
        version: 1,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: PVH_MODULE,
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: ACPI,
        memmap_paddr: PVH_MAP,
        memmap_entries: map.len() as u32,
        ..hvm_start_info::default()
    };
    memory.guest().write_slice(info.as_slice(), GuestAddress(PVH_START))?;
    if let Some(Initrd { at, length }) = initrd {
        let module = hvm_modlist_entry { paddr: at, size: length, ..hvm_modlist_entry::default() };
        memory.guest().write_slice(module.as_slice(), GuestAddress(PVH_MODULE))?;
    }
    let mut at = PVH_MAP;
    for range in map {
        let (addr, size, type_) = (range.start, range.length, range.kind as u32);
        let entry = hvm_memmap_table_entry { addr, size, type_, reserved: 0 };
        memory.guest().write_slice(entry.as_slice(), GuestAddress(at))?;
        at += size_of::<hvm_memmap_table_entry>() as u64;
    }
    Ok(())
}

/// 32-bit mode, all segments over all of memory, no paging.
fn protected_mode(reset: &kvm_sregs) -> kvm_sregs {
    let segment = |selector, type_| kvm_segment {
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let mut sregs = *reset;
    (sregs.cr0, sregs.cr4, sregs.efer) = (CR0_PROTECTED, 0, 0);
    sregs.cs = segment(0x10, 11);
    for data in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *data = segment(0x18, 3);
    }
    // A 32-bit task, busy: what a processor that has left 16-bit mode must have in its task register.
    sregs.tr = kvm_segment { limit: 0x67, type_: 11, present: 1, ..kvm_segment::default() };
    sregs
}

#[cfg(test)]
mod tests {
    use linux_loader::loader::bootparam::setup_header;

    use super::*;
    use crate::units::Mib;

    fn kernel(start: Start) -> Loaded {
        Loaded { start, end: 2 << 20, header: setup_header { boot_flag: 0xaa55, ..setup_header::default() } }
    }

    #[test]
    fn the_zero_page_holds_the_header_the_map_and_where_the_rest_lies() {
        let memory = Memory::map(Mib(4096)).unwrap();
        let initrd = Some(Initrd { at: 0x20_0000, length: 5 });
        let entry = prepare(&memory, &kvm_sregs::default(), &kernel(Start::Long(0x10_0200)), initrd, "quiet").unwrap();
        assert_eq!((entry.regs.rip, entry.regs.rsi), (0x10_0200, ZERO_PAGE));
        assert_eq!((entry.sregs.cs.selector, entry.sregs.ds.selector), (0x10, 0x18), "as the protocol wants them");
        let page: boot_params = memory.guest().read_obj(GuestAddress(ZERO_PAGE)).unwrap();
        let header = page.hdr;
        let (flag, loader, image, size) =
            (header.boot_flag, header.type_of_loader, header.ramdisk_image, header.ramdisk_size);
        assert_eq!((flag, loader, image, size), (0xaa55, LOADER, 0x20_0000, 5));
        assert_eq!(page.e820_entries, 5);
        let table = page.e820_table;
        assert_eq!({ table[4].addr }, 4 << 30, "what does not fit below the devices");
        let mut text = [1; 6];
        memory.guest().read_slice(&mut text, GuestAddress(COMMAND_LINE)).unwrap();
        assert_eq!(&text, b"quiet\0");
    }

    #[test]
    fn the_start_information_of_pvh_is_one_a_kernel_knows() {
        let memory = Memory::map(Mib(128)).unwrap();
        let initrd = Some(Initrd { at: 0x20_0000, length: 5 });
        let entry = prepare(&memory, &kvm_sregs::default(), &kernel(Start::Pvh(0x100_0000)), initrd, "").unwrap();
        assert_eq!((entry.regs.rip, entry.regs.rbx), (0x100_0000, PVH_START));
        assert_eq!((entry.sregs.cr0 & 1 << 31, entry.sregs.efer), (0, 0), "no paging");
        let info: hvm_start_info = memory.guest().read_obj(GuestAddress(PVH_START)).unwrap();
        assert_eq!((info.magic.to_le_bytes(), info.nr_modules), ([0x78, 0xc5, 0x6e, 0x33], 1));
        let module: hvm_modlist_entry = memory.guest().read_obj(GuestAddress(info.modlist_paddr)).unwrap();
        assert_eq!((module.paddr, module.size), (0x20_0000, 5));
    }
}
