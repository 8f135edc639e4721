//! The ports of the machine, where the monitor listens: a process can be let at them (ioperm(2)).

use std::arch::asm;

/// Some ports in a row that this process may use.
pub(crate) struct Ports {
    first: u16,
}

impl Ports {
    /// Asks to be let at `count` ports from `first` on.
    pub(crate) fn open(first: u16, count: u16) -> Option<Self> {
        // SAFETY: it only asks to be let at some ports.
        let allowed = unsafe { libc::ioperm(first.into(), count.into(), 1) } == 0;
        allowed.then_some(Self { first })
    }

    /// Reads a byte at one of them.
    pub(crate) fn read(&self, port: u16) -> u8 {
        debug_assert!(port >= self.first);
        let byte: u8;
        // SAFETY: this process was let at the port, and to read there changes nothing of its own.
        unsafe { asm!("in al, dx", in("dx") port, out("al") byte, options(nomem, nostack, preserves_flags)) };
        byte
    }

    /// Writes a byte to one of them.
    pub(crate) fn write(&self, port: u16, byte: u8) {
        debug_assert!(port >= self.first);
        // SAFETY: as above; nothing of this process lies behind the port.
        unsafe { asm!("out dx, al", in("dx") port, in("al") byte, options(nomem, nostack, preserves_flags)) };
    }
}
