//! Touches memory: the host finds a page for the guest each time, and that is when a machine begins to weigh something.

use std::arch::global_asm;

use super::report;

/// The first address that is touched: above everything that the guest is made of.
pub(super) const FIRST: u64 = 1 << 20;

// RDI: the first page. RCX: how many.
global_asm!(
    ".pushsection .rodata.isolab_toucher, \"a\"",
    "isolab_toucher:",
    "    xor  eax, eax",           // pages touched
    "    jrcxz 3f",
    "2:  mov  byte ptr [rdi], 1",  // one byte is enough: memory comes in pages
    "    add  rdi, 4096",
    "    inc  rax",
    "    dec  rcx",
    "    jnz  2b",
    "3:",
    report::in_decimal!(),
    "isolab_toucher_end:",
    ".popsection",
    serial = const crate::devices::SERIAL,
    exit = const crate::devices::EXIT,
);

/// The instructions.
pub(super) fn code() -> &'static [u8] {
    report::between!(isolab_toucher, isolab_toucher_end)
}
