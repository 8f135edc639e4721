//! Virtio: devices that were never made of metal.
//!
//! A real disk or network card has registers by the dozen, and each access to one would stop the guest. A virtio device
//! has a few, used once at the start. From then on guest and device share rings of buffers in the guest's memory
//! ([`queue`]): the guest writes down what it wants, rings a bell ([`mmio`]), and goes on. A thread of the monitor does the
//! work ([`worker`]) and raises an interrupt ([`line`]) if the guest has asked for one. KVM passes bell and interrupt on by
//! itself, so that no processor leaves its guest for either.
//!
//! What is on the other side of a ring is a [`VirtioDevice`]: [`rng`], [`block`], [`net`], [`console`], [`vsock`] and
//! [`balloon`]. The specification is OASIS virtio 1.2.

pub mod balloon;
pub mod block;
pub mod bucket;
mod chain;
pub mod config;
pub mod console;
pub mod events;
mod line;
pub mod mmio;
pub mod net;
pub mod queue;
pub mod rng;
pub mod state;
mod vectors;
pub mod vsock;
mod worker;

use std::io;
use std::sync::Arc;

use config::ConfigSpace;
use events::Events;
use queue::Ring;

/// What a device is (virtio 1.2, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A network card.
    Net = 1,
    /// A disk.
    Block = 2,
    /// A terminal.
    Console = 3,
    /// A source of random bytes.
    Rng = 4,
    /// A balloon that takes memory from the guest.
    Balloon = 5,
    /// A socket between guest and host.
    Vsock = 19,
}

impl Kind {
    /// A short name, for threads and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Block => "block",
            Self::Console => "console",
            Self::Rng => "rng",
            Self::Balloon => "balloon",
            Self::Vsock => "vsock",
        }
    }
}

/// Why a device stopped. The guest is told that it needs a reset; nothing else happens to it, or to the monitor.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A ring, or a chain of buffers in it, breaks the rules.
    #[error(transparent)]
    Queue(#[from] queue::QueueError),
    /// The guest asked for something that its kind of request can't mean.
    #[error("the guest sent a request {0}")]
    Request(&'static str),
    /// The host failed where no answer to the guest could say so.
    #[error("cannot {attempt}")]
    Host {
        /// What was attempted.
        attempt: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Fault {
    /// For `map_err`: the host failed at this.
    pub(crate) fn host(attempt: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host { attempt, source }
    }
}

/// One side of the rings: what the guest's driver talks to.
///
/// Between activation and the next reset all calls come from the device's own thread.
pub trait VirtioDevice: Send {
    /// What it is.
    fn kind(&self) -> Kind;

    /// What it offers, besides what every device here does ([`mmio::COMMON_FEATURES`]).
    fn features(&self) -> u64 {
        0
    }

    /// How many entries each of its queues can have; powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// The part of its registers that only its kind has. Called once, before all else.
    fn config(&self) -> Arc<ConfigSpace> {
        Arc::default()
    }

    /// The driver is ready, and has accepted `features`. Here a device names the files that it waits for.
    fn activate(&mut self, _features: u64, _events: &Events) -> io::Result<()> {
        Ok(())
    }

    /// The driver has put something in the queue with this index, or may have.
    fn queue_ready(&mut self, queue: usize, rings: &mut [Ring], events: &Events) -> Result<(), Fault>;

    /// A file that it waits for is ready; `token` is the number given with it.
    fn file_ready(&mut self, _token: u32, _rings: &mut [Ring], _events: &Events) -> Result<(), Fault> {
        Ok(())
    }

    /// The device stands still, and shall be saved: what it has taken from a ring and not finished goes back.
    fn settle(&mut self, _rings: &mut [Ring]) {}

    /// It stands still, and its files are to be read by others: all that it has written must be in them.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The device was made anew, as a copy of one that was saved while it worked.
    fn restored(&mut self) {}

    /// The driver is gone, and with it all that it asked for.
    fn reset(&mut self) {}
}
