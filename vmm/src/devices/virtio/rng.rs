//! The entropy device: random bytes of the host's kernel for the guest's (virtio 1.2, section 5.4).
//!
//! A machine that has just been made has seen nothing that could not be guessed, and a clone has seen what all clones have.

use std::io;

use super::events::Events;
use super::queue::{Buffer, Ring, Served};
use super::{Fault, Kind, VirtioDevice};
use crate::memory::Memory;

/// A request is given no more than this at a time: more would be a way to keep the host busy.
const MOST: usize = 64 << 10;

/// A source of random bytes.
#[derive(Debug, Default)]
pub struct Rng {
    bytes: Vec<u8>,
}

impl Rng {
    /// A source that asks the kernel.
    pub fn new() -> Self {
        Self::default()
    }

    fn fill(&mut self, memory: &Memory, buffer: &mut Buffer) -> io::Result<u32> {
        self.bytes.resize(buffer.len().min(MOST), 0);
        let mut done = 0;
        while let Some(rest) = self.bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            // SAFETY: the pointer and length are of a slice that is there over the call.
            match unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) } {
                count if count > 0 => done += count as usize,
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
        Ok(buffer.write(memory, &self.bytes) as u32)
    }
}

impl VirtioDevice for Rng {
    fn kind(&self) -> Kind {
        Kind::Rng
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64]
    }

    fn queue_ready(&mut self, queue: usize, rings: &mut [Ring], _: &Events) -> Result<(), Fault> {
        let Some(ring) = rings.get_mut(queue) else { return Ok(()) };
        ring.serve(|memory, chain| {
            if chain.writable.is_empty() {
                return Err(Fault::Request("for random bytes with no room for one"));
            }
            Ok(Served::Used(self.fill(memory, &mut chain.writable).map_err(Fault::host("get random bytes"))?))
        })
    }
}
