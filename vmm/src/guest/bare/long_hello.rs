//! Three instructions and an ending: a line on the serial port.

use std::arch::global_asm;

// RSI: the text. RCX: its length.
global_asm!(
    ".pushsection .rodata.isolab_long_hello, \"a\"",
    "isolab_long_hello:",
    "    mov  dx, {serial}",
    "    rep outsb",        // each byte is an exit
    "    xor  eax, eax",
    "    out  {exit}, al",
    "isolab_long_hello_end:",
    ".popsection",
    serial = const crate::devices::SERIAL,
    exit = const crate::devices::EXIT,
);

/// The instructions.
pub(super) fn code() -> &'static [u8] {
    super::report::between!(isolab_long_hello, isolab_long_hello_end)
}
