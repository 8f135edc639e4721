//! What guests have in common: how one prints a number, and how the monitor finds a guest's instructions in itself.

/// The end of a 64-bit guest: prints RAX in decimal and a line feed, and ends the machine with status 0.
macro_rules! in_decimal {
    () => {
        "    xor  ecx, ecx         // digits on the stack
             mov  ebx, 10
         4:  xor  edx, edx         // div takes RDX:RAX
             div  rbx              // RAX: what is left, RDX: the last digit
             push rdx
             inc  ecx
             test rax, rax
             jnz  4b
             mov  dx, {serial}
         5:  pop  rax
             add  al, 48           // '0'
             out  dx, al
             dec  ecx
             jnz  5b
             mov  al, 10           // line feed
             out  dx, al
             xor  eax, eax
             out  {exit}, al"
    };
}

/// The bytes between two labels in the monitor's own read-only data, as a slice.
macro_rules! between {
    ($start:ident, $end:ident) => {{
        unsafe extern "C" {
            static $start: u8;
            static $end: u8;
        }
        let (start, end) = (&raw const $start, &raw const $end);
        // SAFETY: both labels stand in one section of read-only data, the second after the first; between them lie the
        // bytes that the assembler wrote.
        unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
    }};
}

pub(super) use {between, in_decimal};
