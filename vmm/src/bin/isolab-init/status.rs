//! The end of the machine, and of this program's ways.

use std::convert::Infallible;

use isolab_vmm::devices::EXIT;
use nix::sys::reboot::{RebootMode, reboot};

use crate::ports::Ports;

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
    if let Some(ports) = Ports::open(EXIT, 1) {
        ports.write(EXIT, status);
    }
}
