//! Virtio devices, each with a driver at one end and the real thing at the other: files, taps, sockets.
//!
//! No machine is needed: a device can't tell whether a guest's kernel or a test has written to its registers and rings.

mod bad_guests;
mod balloon;
mod block;
mod chaos;
mod console;
mod driver;
#[path = "../needs/mod.rs"]
mod needs;
mod net;
mod transport;
mod vsock;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let trials = [
        transport::trials(),
        block::trials(),
        net::trials(),
        console::trials(),
        vsock::trials(),
        balloon::trials(),
        bad_guests::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit();
}

/// A trial that needs nothing and can fail only by a panic.
fn sure(name: &str, test: fn()) -> Trial {
    needs::trial(name, &[], move || {
        test();
        Ok(())
    })
}
