//! The end of the machine, and of this program's ways.

use std::arch::asm;
use std::convert::Infallible;

use isolab_vmm::devices::EXIT;
use nix::sys::reboot::{RebootMode, reboot};

/// Writes to the disks what is not there yet, tells the monitor the status, and switches the machine off. It does not return.
pub(crate) fn end_machine(status: u8) -> ! {
    nix::unistd::sync();
    tell(status);
    // Another monitor than ours has nobody at that port.
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never as Infallible {},
        // The kernel takes the end of its first process for the end of all.
        Err(_) => std::process::exit(i32::from(status)),
    }
}

/// Writes the status to the port that ends a machine.
fn tell(status: u8) {
    // SAFETY: it only asks to be let at one port.
    if unsafe { libc::ioperm(libc::c_ulong::from(EXIT), 1, 1) } == 0 {
        // SAFETY: this process may write to that port, and nothing of it lies behind.
        unsafe { asm!("out dx, al", in("dx") EXIT, in("al") status, options(nomem, nostack, preserves_flags)) };
    }
}
