//! A balloon (virtio 1.2, section 5.5): memory that the guest lends back.
//!
//! The host names a size, the guest's driver takes so many pages from its own kernel and says which, and the host forgets
//! what was in them. A guest whose driver can do so (free page reporting) says by itself which pages nobody uses.

use std::io;
use std::sync::Arc;

use tracing::debug;
use vm_memory::GuestAddress;

use super::config::ConfigSpace;
use super::events::Events;
use super::queue::{Buffer, Ring, Served};
use super::{Fault, Kind, VirtioDevice};
use crate::memory::{Memory, PAGE};
use crate::units::Mib;

/// Features, by their bit (section 5.5.3).
const DEFLATE_ON_OOM: u64 = 1 << 2;
const REPORTING: u64 = 1 << 5;
/// Where in the configuration is how large the balloon shall be, and how large it is: in pages.
const WANTED: u64 = 0;
const ACTUAL: u64 = 4;
/// How many page numbers are looked at in a row.
const BATCH: usize = 256;

/// A balloon.
pub struct Balloon {
    config: Arc<ConfigSpace>,
}

/// The host's hand on a balloon, wherever the balloon itself is.
#[derive(Debug, Clone)]
pub struct Hand(Arc<ConfigSpace>);

impl Hand {
    /// Asks the guest for a balloon of this size.
    pub fn set(&self, size: Mib) -> io::Result<()> {
        let pages = u32::try_from(size.bytes() / PAGE).unwrap_or(u32::MAX);
        self.0.change(WANTED as usize, &pages.to_le_bytes())
    }

    /// How much was asked for.
    pub fn wanted(&self) -> Mib {
        Mib((u64::from(self.0.number(WANTED)) * PAGE) >> 20)
    }

    /// How much the guest says that it has given.
    pub fn actual(&self) -> Mib {
        Mib((u64::from(self.0.number(ACTUAL)) * PAGE) >> 20)
    }
}

impl Default for Balloon {
    fn default() -> Self {
        Self { config: ConfigSpace::new(vec![0; 8], ACTUAL as usize..8) }
    }
}

impl Balloon {
    /// An empty balloon, and the hand on it.
    pub fn new() -> (Self, Hand) {
        let balloon = Self::default();
        let hand = Hand(Arc::clone(&balloon.config));
        (balloon, hand)
    }

    /// Forgets the pages in a list of page numbers.
    fn inflate(memory: &Memory, list: &mut Buffer) {
        let mut bytes = [0; BATCH * 4];
        loop {
            let count = list.read(memory, &mut bytes) / 4;
            if count == 0 {
                return;
            }
            let mut pages: Vec<u32> = bytes
                .chunks_exact(4)
                .take(count)
                .filter_map(|page| page.try_into().ok().map(u32::from_le_bytes))
                .collect();
            // Linux takes them from the top down, one by one; what lies side by side is one call.
            pages.sort_unstable();
            pages.dedup();
            for run in pages.chunk_by(|page, next| page.checked_add(1) == Some(*next)) {
                if let Some(first) = run.first() {
                    give_back(memory, u64::from(*first) * PAGE, run.len() as u64 * PAGE);
                }
            }
        }
    }
}

/// Gives whole pages to the host. What is no guest memory, or not to be had, stays: the guest has only itself to harm.
fn give_back(memory: &Memory, at: u64, length: u64) {
    let _ = memory.discard(GuestAddress(at), length).inspect_err(|error| debug!("virtio balloon: {error}"));
}

impl VirtioDevice for Balloon {
    fn kind(&self) -> Kind {
        Kind::Balloon
    }

    /// A guest short of memory may take it back without asking: the host has only borrowed it.
    fn features(&self) -> u64 {
        DEFLATE_ON_OOM | REPORTING
    }

    /// Pages to the host, pages back, and pages that are free: the number of the last is the next after those that the
    /// offered features make, as Linux counts (section 5.5.2 counts otherwise).
    fn queue_sizes(&self) -> &[u16] {
        &[128, 128, 128]
    }

    fn config(&self) -> Arc<ConfigSpace> {
        Arc::clone(&self.config)
    }

    fn queue_ready(&mut self, queue: usize, rings: &mut [Ring], _: &Events) -> Result<(), Fault> {
        let Some(ring) = rings.get_mut(queue) else { return Ok(()) };
        ring.serve(|memory, chain| {
            match queue {
                0 => Self::inflate(memory, &mut chain.readable),
                // A page that comes back is found again when the guest touches it.
                1 => {}
                // The free pages are the request's own buffers.
                _ => chain.writable.parts().iter().for_each(|(at, length)| {
                    let first = at.0.next_multiple_of(PAGE);
                    let end = (at.0 + *length as u64) / PAGE * PAGE;
                    if first < end {
                        give_back(memory, first, end - first);
                    }
                }),
            }
            Ok(Served::Used(0))
        })
    }
}
