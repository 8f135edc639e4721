//! The mode in which every PC wakes up, since 1981: 16 bits, no protection, no page tables.

use std::arch::global_asm;

use kvm_bindings::kvm_sregs;

// Prints AX + BX in decimal. Digits come out of the division last one first; the stack turns them round.
global_asm!(
    ".pushsection .rodata.isolab_real_hello, \"a\"",
    ".code16",
    "isolab_real_hello:",
    "    add  ax, bx",
    "    xor  cx, cx",     // digits on the stack
    "    mov  bx, 10",
    "2:  xor  dx, dx",     // div takes DX:AX
    "    div  bx",         // AX: what is left, DX: the last digit
    "    push dx",
    "    inc  cx",
    "    test ax, ax",
    "    jnz  2b",
    "    mov  dx, {serial}",
    "3:  pop  ax",
    "    add  al, 48",     // '0'
    "    out  dx, al",     // an exit: the processor has no serial port, the monitor plays one
    "    loop 3b",
    "    mov  al, 10",     // line feed
    "    out  dx, al",
    "    xor  al, al",
    "    out  {exit}, al", // the end, status 0
    "isolab_real_hello_end:",
    ".code64",
    ".popsection",
    serial = const crate::devices::SERIAL,
    exit = const crate::devices::EXIT,
);

/// The instructions.
pub(super) fn code() -> &'static [u8] {
    super::report::between!(isolab_real_hello, isolab_real_hello_end)
}

/// Segments that begin at address 0, so that an offset is an address.
pub(super) fn mode(reset: &kvm_sregs) -> kvm_sregs {
    let mut sregs = *reset;
    for segment in [&mut sregs.cs, &mut sregs.ds, &mut sregs.es, &mut sregs.ss] {
        segment.base = 0;
        segment.selector = 0;
    }
    sregs
}
