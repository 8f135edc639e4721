//! Counts in memory: a guest that works, and stops for nobody while it does.

use std::arch::global_asm;

use super::report;

// RDI: how far to count. RSI: where.
global_asm!(
    ".pushsection .rodata.isolab_counter, \"a\"",
    "isolab_counter:",
    "2:  inc  qword ptr [rsi]", // memory of the guest's own: no exit
    "    dec  rdi",
    "    jnz  2b",
    "    mov  rax, [rsi]",
    report::in_decimal!(),
    "isolab_counter_end:",
    ".popsection",
    serial = const crate::devices::SERIAL,
    exit = const crate::devices::EXIT,
);

/// The instructions.
pub(super) fn code() -> &'static [u8] {
    report::between!(isolab_counter, isolab_counter_end)
}
