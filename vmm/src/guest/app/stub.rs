//! The only code of ours in the machine, and the processor tables that lead to it.
//!
//! A program runs at privilege level 3 from its first instruction. Its `syscall` lands at LSTAR, where ten bytes stand:
//!
//! ```text
//! mov %eax, (doorbell)     a store to a page with no memory behind it: the machine stops, the monitor serves the call
//! sysretq                  back to the program
//! ```
//!
//! They clobber nothing, so the monitor finds the program's registers as a kernel would. A fault lands, through the
//! interrupt descriptor table, on a stub of one store each to a second doorbell page, eight bytes for each vector, so
//! that the address stored to tells which fault it was.
//!
//! Two pages hold all that, two more are doorbells:
//!
//! ```text
//! 0x1000  descriptor tables, task state, and the stack that a fault is pushed to   (not the program's)
//! 0x2000  the stubs, and at the page's end the machine's generation                (the program may execute and read)
//! 0x3000  the doorbell of system calls: no memory                                  (the program may store)
//! 0x4000  the doorbell of faults: no memory                                        (not the program's)
//! ```

use kvm_bindings::{kvm_cpuid_entry2, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::PAGE;
use super::rights::Rights;
use super::space::{Space, SpaceError};
use super::tables::Leaf;
use crate::memory::Memory;

/// The page of tables, at the same guest-physical address.
const DESCRIPTORS: u64 = 0x1000;
/// The page of stubs, at the same guest-physical address.
const STUBS: u64 = 0x2000;
/// The address that the system call stub stores to.
pub(super) const DOORBELL: u64 = 0x3000;
/// The address that the first fault stub stores to.
const ALARM: u64 = 0x4000;
/// The first frame that is not used here.
pub(super) const FIRST_FREE_FRAME: u64 = 0x3000;

/// The program's generation: the last 16 bytes of the page of stubs, which the program may read.
pub(super) const GENERATION: u64 = STUBS + PAGE - 16;
/// Within the page of tables: the task state segment, the interrupt descriptors; the fault stack grows down from its end.
const TASK_STATE: u64 = DESCRIPTORS + 0x80;
const INTERRUPTS: u64 = DESCRIPTORS + 0x100;
const FAULT_STACK: u64 = DESCRIPTORS + PAGE;
/// The vectors that the processor itself uses.
const VECTORS: u64 = 32;
/// Where the fault stubs begin, and how long each is.
const FAULT_STUBS: u64 = STUBS + 0x40;
const FAULT_STUB: u64 = 8;

/// The system call stub, and where it has stored: its `sysretq`.
pub(super) const SYSTEM_CALL: u64 = STUBS;
const AFTER_STORE: u64 = SYSTEM_CALL + 7;

const KERNEL_CODE: u16 = 0x10;
const USER_DATA: u16 = 0x2b;
const USER_CODE: u16 = 0x33;
const TASK: u16 = 0x40;

const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_SFMASK: u32 = 0xc000_0084;
/// The single-step flag in RFLAGS.
const FLAG_TRAP: u64 = 1 << 8;
/// Where the base of GS is kept.
pub(super) const MSR_GS_BASE: u32 = 0xc000_0101;
/// Protection, monitor coprocessor, extension type, numeric error, write protect, alignment mask, paging.
const CR0: u64 = 0x8005_0033;
/// Physical address extension, FXSAVE and SSE, SSE exceptions.
const CR4: u64 = 0x620;
/// XSAVE, and with it XCR0 and AVX.
const CR4_OSXSAVE: u64 = 1 << 18;
/// System call extensions, long mode enabled and active, no-execute.
const EFER: u64 = 0xd01;
/// CPUID leaf 1, ECX.
const CPUID_XSAVE: u32 = 1 << 26;
/// The register sets that a program may use: x87, SSE, AVX, and the three parts of AVX-512.
const XCR0_X87_SSE: u64 = 0b11;
const XCR0_AVX: u64 = 1 << 2;
const XCR0_AVX512: u64 = 0b111 << 5;

/// The two doorbells in guest-physical addresses: beyond all memory, and beyond the first 4 GiB, where the interrupt
/// controllers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Doorbells {
    base: u64,
}

/// Who rang.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ring {
    /// The program, by `syscall`.
    SystemCall,
    /// The processor, with the vector of an exception.
    Fault(u8),
    /// The program, by a store of its own: the doorbell of system calls lies open to it.
    Trespass,
}

impl Doorbells {
    /// The doorbells of a machine with this memory.
    pub(super) fn of(memory: &Memory) -> Self {
        Self { base: memory.end().max(4 << 30).next_multiple_of(PAGE) }
    }

    /// Who rang by a store to guest-physical address `at`, with the instruction pointer at `rip`; nothing where neither
    /// doorbell is there.
    pub(super) fn who(self, at: u64, rip: u64) -> Option<Ring> {
        let offset = at.checked_sub(self.base)?;
        let alarm = offset.checked_sub(PAGE);
        match alarm {
            None if offset == 0 && rip == AFTER_STORE => Some(Ring::SystemCall),
            None => Some(Ring::Trespass),
            Some(alarm) if alarm < VECTORS * FAULT_STUB => Some(Ring::Fault((alarm / FAULT_STUB) as u8)),
            Some(_) => None,
        }
    }
}

/// Puts tables and stubs into memory and maps them.
pub(super) fn install(memory: &Memory, space: &mut Space) -> Result<(), SpaceError> {
    let doorbells = Doorbells::of(memory);
    let write = |bytes: &[u8], at: u64| memory.guest().write_slice(bytes, GuestAddress(at));
    write(&descriptors(), DESCRIPTORS).and_then(|()| write(&stubs(), STUBS)).map_err(broken)?;
    space.map_reserved(memory, DESCRIPTORS, Leaf::supervisor(DESCRIPTORS))?;
    let execute = Rights { execute: true, ..Rights::READ };
    space.map_reserved(memory, STUBS, Leaf::user(STUBS, execute))?;
    space.map_reserved(memory, DOORBELL, Leaf::user(doorbells.base, Rights::READ_WRITE))?;
    space.map_reserved(memory, ALARM, Leaf::supervisor(doorbells.base + PAGE))
}

fn broken(error: GuestMemoryError) -> SpaceError {
    SpaceError::Table(super::tables::TableError::Memory(error))
}

/// The words that the processor pushed for a fault: error code (0 where the vector has none), instruction pointer, code
/// segment, flags, stack pointer, stack segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Frame {
    /// The error code.
    pub(super) error_code: u64,
    /// Where the fault was.
    pub(super) rip: u64,
    /// The code segment there; its low two bits are the privilege level.
    pub(super) cs: u64,
    /// The program's stack pointer.
    pub(super) rsp: u64,
}

impl Frame {
    /// The frame of a fault with this vector, whose stub ran with the stack pointer `rsp`; nothing where that is not in
    /// the fault stack, which only a broken machine could bring about.
    pub(super) fn read(memory: &Memory, vector: u8, rsp: u64) -> Option<Self> {
        // Intel SDM volume 3, section 6.13: double fault, the segment faults, page fault, alignment and control checks.
        let has_error_code = matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30);
        let words = if has_error_code { 6 } else { 5 };
        if rsp < INTERRUPTS || rsp.checked_add(words * 8)? > FAULT_STACK {
            return None;
        }
        let mut pushed = [0_u64; 6];
        for (word, index) in pushed.iter_mut().skip(6 - words as usize).zip(0..) {
            *word = memory.guest().read_obj(GuestAddress(rsp + index * 8)).ok()?;
        }
        let [error_code, rip, cs, _, rsp, _] = pushed;
        Some(Self { error_code, rip, cs, rsp })
    }
}

/// The page of tables.
fn descriptors() -> Vec<u8> {
    let mut page = vec![0_u8; (INTERRUPTS - DESCRIPTORS + VECTORS * 16) as usize];
    // The global descriptor table (Intel SDM volume 3, section 3.4.5). SYSCALL and SYSRET take their segments from fixed
    // places in it: kernel code and the data after it, user data and the 64-bit code after it.
    let task_limit = 0x67_u64;
    let task = task_limit | (TASK_STATE & 0xff_ffff) << 16 | 0x89 << 40;
    let global = [
        0,
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0,
        task,
        0,
    ];
    put(&mut page, 0, &global);
    // The task state (section 8.7): of it a fault needs RSP0, at byte 4. No port is permitted: the map lies beyond it.
    let state = (TASK_STATE - DESCRIPTORS) as usize;
    page[state + 4..state + 12].copy_from_slice(&FAULT_STACK.to_le_bytes());
    page[state + 0x66..state + 0x68].copy_from_slice(&0x68_u16.to_le_bytes());
    // The interrupt descriptors (section 6.14.1). Vectors 3 and 4 can be raised by an instruction of the program.
    let gates: Vec<u64> = (0..VECTORS)
        .flat_map(|vector| {
            let stub = FAULT_STUBS + vector * FAULT_STUB;
            let level = if matches!(vector, 3 | 4) { 3 } else { 0 };
            let kind = 0x8e_u64 | level << 5;
            [stub & 0xffff | u64::from(KERNEL_CODE) << 16 | kind << 40 | (stub >> 16 & 0xffff) << 48, stub >> 32]
        })
        .collect();
    put(&mut page, (INTERRUPTS - DESCRIPTORS) as usize, &gates);
    page
}

fn put(page: &mut [u8], at: usize, words: &[u64]) {
    for (place, word) in page[at..].chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

/// The page of stubs.
fn stubs() -> Vec<u8> {
    let mut code = store_eax(DOORBELL).to_vec();
    code.extend([0x48, 0x0f, 0x07]); // sysretq
    code.resize((FAULT_STUBS - STUBS) as usize, 0xf4);
    for vector in 0..VECTORS {
        code.extend(store_eax(ALARM + vector * FAULT_STUB));
        code.push(0xf4); // hlt: the monitor ends the machine before it gets here
    }
    code
}

/// `mov %eax, (address)`: seven bytes, no register but the one stored.
fn store_eax(address: u64) -> [u8; 7] {
    let [a, b, c, d] = (address as u32).to_le_bytes();
    [0x89, 0x04, 0x25, a, b, c, d]
}

/// The system registers that the program starts with, built on the processor's `reset` state.
pub(super) fn system_registers(reset: &kvm_sregs, root: u64, xsave: bool) -> kvm_sregs {
    let segment = |selector: u16, kind: u8, long: u8| kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl: 3,
        db: 0,
        s: 1,
        l: long,
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    };
    let mut sregs = *reset;
    let data = segment(USER_DATA, 3, 0);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cs = segment(USER_CODE, 11, 1);
    sregs.tr =
        kvm_segment { base: TASK_STATE, limit: 0x67, selector: TASK, type_: 11, present: 1, ..kvm_segment::default() };
    sregs.gdt.base = DESCRIPTORS;
    sregs.gdt.limit = 10 * 8 - 1;
    sregs.idt.base = INTERRUPTS;
    sregs.idt.limit = (VECTORS * 16 - 1) as u16;
    sregs.cr0 = CR0;
    sregs.cr3 = root;
    sregs.cr4 = CR4 | if xsave { CR4_OSXSAVE } else { 0 };
    sregs.efer = EFER;
    sregs
}

/// The model-specific registers that make `syscall` land on the stub.
///
/// STAR holds the two segment bases that `syscall` and `sysret` derive their selectors from. SFMASK clears the trap flag on
/// the way in: a program that steps itself would otherwise trap in the stub, at its privilege and on the program's stack.
/// The way out restores it.
pub(super) fn model_specific_registers() -> Vec<(u32, u64)> {
    vec![(MSR_STAR, 0x23 << 48 | u64::from(KERNEL_CODE) << 32), (MSR_LSTAR, STUBS), (MSR_SFMASK, FLAG_TRAP)]
}

/// The register sets to enable in XCR0: what the processor that the program will see has of those a program uses.
/// Nothing where it has no XSAVE. CPUID, CR4 and XCR0 must agree, or a C library picks instructions that then fault.
pub(super) fn extended_states(cpuid: &[kvm_cpuid_entry2]) -> Option<u64> {
    let leaf = |function: u32| cpuid.iter().find(|entry| entry.function == function && entry.index == 0);
    if leaf(1)?.ecx & CPUID_XSAVE == 0 {
        return None;
    }
    let supported = leaf(0xd).map_or(XCR0_X87_SSE, |entry| u64::from(entry.eax) | u64::from(entry.edx) << 32);
    let whole = |set: u64| if supported & set == set { set } else { 0 };
    // AVX-512 is no use without AVX, and XSETBV refuses it (Intel SDM volume 1, section 13.3).
    let avx512 = if whole(XCR0_AVX) == 0 { 0 } else { whole(XCR0_AVX512) };
    Some(XCR0_X87_SSE | whole(XCR0_AVX) | avx512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_call_stub_is_ten_bytes() {
        assert_eq!(stubs()[..10], [0x89, 0x04, 0x25, 0x00, 0x30, 0, 0, 0x48, 0x0f, 0x07]);
    }

    #[test]
    fn every_vector_rings_with_its_own_number() {
        let doorbells = Doorbells { base: 4 << 30 };
        let code = stubs();
        for vector in 0..VECTORS {
            let at = (FAULT_STUBS - STUBS + vector * FAULT_STUB) as usize;
            let stored_to = u64::from(u32::from_le_bytes(code[at + 3..at + 7].try_into().unwrap()));
            let physical = doorbells.base + PAGE + (stored_to - ALARM);
            assert_eq!(doorbells.who(physical, 0), Some(Ring::Fault(vector as u8)));
        }
        assert_eq!(doorbells.who(doorbells.base + PAGE + VECTORS * FAULT_STUB, 0), None);
    }

    #[test]
    fn a_program_that_stores_to_the_doorbell_itself_makes_no_system_call() {
        let doorbells = Doorbells { base: 4 << 30 };
        assert_eq!(doorbells.who(doorbells.base, AFTER_STORE), Some(Ring::SystemCall));
        assert_eq!(doorbells.who(doorbells.base, 0x40_1000), Some(Ring::Trespass));
        assert_eq!(doorbells.who(doorbells.base + 8, AFTER_STORE), Some(Ring::Trespass));
        assert_eq!(doorbells.who(0, AFTER_STORE), None);
    }

    #[test]
    fn the_tables_leave_room_for_a_fault_frame() {
        const { assert!(INTERRUPTS + VECTORS * 16 + 64 <= FAULT_STACK) };
        const { assert!(TASK_STATE + 0x68 <= INTERRUPTS) };
        assert!(descriptors().len() as u64 <= PAGE - 64);
    }

    #[test]
    fn extended_states_follow_the_processor() {
        let entry = |function, eax, ecx| kvm_cpuid_entry2 { function, eax, ecx, ..Default::default() };
        assert_eq!(extended_states(&[]), None);
        assert_eq!(extended_states(&[entry(1, 0, 0), entry(0xd, 7, 0)]), None);
        assert_eq!(extended_states(&[entry(1, 0, CPUID_XSAVE), entry(0xd, 0x2e7, 0)]), Some(0xe7));
        assert_eq!(
            extended_states(&[entry(1, 0, CPUID_XSAVE), entry(0xd, 0x67, 0)]),
            Some(7),
            "half of AVX-512 is none"
        );
        assert_eq!(extended_states(&[entry(1, 0, CPUID_XSAVE), entry(0xd, 0xe3, 0)]), Some(3), "no AVX, no AVX-512");
    }
}
