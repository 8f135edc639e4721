//! A virtqueue: a ring of requests in guest memory, seen from the device's side.
//!
//! The driver lists chains of buffers in one ring, the device says in another which of them it has used. Both may ask the
//! other not to be told of each one (`VIRTIO_F_EVENT_IDX`), so that under load nobody rings and nobody interrupts.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use vmm_sys_util::eventfd::EventFd;

use super::Fault;
pub use super::chain::{Buffer, Chain, ChainError};
use super::line::Line;
use super::state;
use crate::memory::Memory;

/// A driver waits at most so long for word of a request that is done, while the device goes on with the next.
const PATIENCE: Duration = Duration::from_micros(100);

/// What is wrong with a queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The rings are not where they could be, or their indices make no sense.
    #[error("queue {queue} can't be used: {source}")]
    Ring {
        /// Which.
        queue: usize,
        /// Why.
        source: virtio_queue::Error,
    },
    /// The rings are not in guest memory.
    #[error("queue {0} is not in guest memory")]
    Outside(usize),
    /// A chain in it is broken.
    #[error("in queue {queue} the chain at descriptor {head} {source}")]
    Chain {
        /// Which.
        queue: usize,
        /// The chain's first descriptor.
        head: u16,
        /// Why.
        source: ChainError,
    },
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// It is done, and so many bytes were written to its buffers.
    Used(u32),
    /// It can't be done now. It goes back, and with it all behind it.
    Later,
}

/// A queue that a driver has set up.
pub struct Ring {
    index: usize,
    queue: virtio_queue::Queue,
    memory: Memory,
    line: Arc<Line>,
    /// The guest's bell. Rung by the device itself where it puts off what it could do at once.
    event: EventFd,
    /// How far it had come when the driver was last told, or not told because it didn't want to be.
    told: u16,
    /// The lists of chains that are done, for the next ones: a large frame is in dozens of chains, and none is worth a visit to
    /// the allocator.
    spare: Vec<Chain>,
}

impl Ring {
    /// A queue from its registers. What can be wrong with those is found here.
    pub(super) fn new(
        index: usize,
        most: u16,
        state: state::Queue,
        event_index: bool,
        shared: (&Memory, &Arc<Line>, &EventFd),
    ) -> Result<Self, Fault> {
        let (memory, line, event) = shared;
        let ring = |source| QueueError::Ring { queue: index, source };
        let queue = state.to_queue(most, event_index).map_err(ring)?;
        if queue.ready() && !queue.is_valid(memory.guest()) {
            return Err(QueueError::Outside(index).into());
        }
        let event = event.try_clone().map_err(Fault::host("share a queue's event"))?;
        let told = queue.next_used();
        Ok(Self { index, queue, memory: memory.clone(), line: Arc::clone(line), event, told, spare: Vec::new() })
    }

    /// Guest memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    fn error(&self) -> impl Fn(virtio_queue::Error) -> QueueError + use<> {
        let queue = self.index;
        move |source| QueueError::Ring { queue, source }
    }

    /// The next request, if there is one. One that breaks a rule is an error, and the end of the device.
    pub fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        if !self.queue.ready() {
            return Ok(None);
        }
        let error = self.error();
        let memory = self.memory.guest();
        let Some(found) = self.queue.iter(memory).map_err(error)?.next() else { return Ok(None) };
        let mut chain = self.spare.pop().unwrap_or_default();
        match chain.walk(memory, found) {
            Ok(()) => Ok(Some(chain)),
            Err(source) => Err(QueueError::Chain { queue: self.index, head: chain.head, source }),
        }
    }

    /// Puts back the request that was taken last.
    pub fn put_back(&mut self, chain: Chain) {
        self.spare.push(chain);
        self.queue.go_to_previous_position();
    }

    /// Says that a request is done, and how many bytes of it were written. The driver is not told yet.
    pub fn push(&mut self, chain: Chain, written: u32) -> Result<(), QueueError> {
        let used = self.queue.add_used(self.memory.guest(), chain.head, written).map_err(self.error());
        self.spare.push(chain);
        used
    }

    /// Says that requests are done which make sense only together: the driver sees all of them or none.
    pub fn push_together(&mut self, chains: impl Iterator<Item = (Chain, u32)>) -> Result<(), QueueError> {
        let mut chains = chains.peekable();
        let mut next = self.queue.next_used();
        while let Some((chain, written)) = chains.next() {
            if chains.peek().is_none() {
                self.queue.set_next_used(next);
                return self.push(chain, written);
            }
            // `struct virtq_used_elem`, section 2.7.8. It is not there for the driver until the index has passed it.
            let place = u64::from(next % self.queue.size().max(1));
            let at = GuestAddress(self.queue.used_ring() + 4 + 8 * place);
            let element = [u32::from(chain.head).to_le(), written.to_le()];
            self.memory.guest().write_obj(element, at).map_err(|error| self.memory_error(error))?;
            next = next.wrapping_add(1);
            self.spare.push(chain);
        }
        Ok(())
    }

    /// Tells the driver of what is done, if there is anything and it wants to know.
    pub fn notify(&mut self) -> Result<(), Fault> {
        if !self.queue.ready() {
            return Ok(());
        }
        let used = self.queue.next_used();
        let told = std::mem::replace(&mut self.told, used);
        if used == told {
            return Ok(());
        }
        // What was used must be there for the driver before its wish is read: it may go to sleep in between.
        fence(Ordering::SeqCst);
        let wanted = if self.queue.event_idx_enabled() {
            // Section 2.7.7.2: tell me when you pass this entry.
            let event = self.driver_says(4 + 2 * u64::from(self.queue.size()))?;
            used.wrapping_sub(event).wrapping_sub(1) < used.wrapping_sub(told)
        } else {
            self.driver_says(0)? & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0
        };
        if wanted {
            self.line.used().map_err(Fault::host("interrupt the guest"))?;
        }
        Ok(())
    }

    /// A number in the driver's ring, at this offset.
    fn driver_says(&self, offset: u64) -> Result<u16, QueueError> {
        self.memory
            .guest()
            .load(GuestAddress(self.queue.avail_ring() + offset), Ordering::Relaxed)
            .map(u16::from_le)
            .map_err(|error| self.memory_error(error))
    }

    fn memory_error(&self, error: GuestMemoryError) -> QueueError {
        self.error()(virtio_queue::Error::GuestMemory(error))
    }

    /// Whether the driver has put more in than was taken out.
    pub fn has_more(&self) -> Result<bool, QueueError> {
        if !self.queue.ready() {
            return Ok(false);
        }
        let last = self.queue.avail_idx(self.memory.guest(), Ordering::Acquire).map_err(self.error())?;
        Ok(last.0 != self.queue.next_avail())
    }

    /// Asks the driver to ring, or not to. Whether there already is something that it didn't ring for.
    pub fn listen(&mut self, listen: bool) -> Result<bool, QueueError> {
        if !self.queue.ready() {
            return Ok(false);
        }
        let memory = self.memory.guest();
        if listen {
            self.queue.enable_notification(memory).map_err(self.error())
        } else {
            self.queue.disable_notification(memory).map_err(self.error()).map(|()| false)
        }
    }

    /// Rings the bell oneself: there is more to do, but others shall have their turn first.
    pub fn ring_again(&self) -> Result<(), Fault> {
        self.event.write(1).map_err(Fault::host("put off a queue"))
    }

    /// Serves request after request until none is left, or `each` can't go on.
    pub fn serve(&mut self, mut each: impl FnMut(&Memory, &mut Chain) -> Result<Served, Fault>) -> Result<(), Fault> {
        // A driver that never stops would keep the device from hearing that it shall stop.
        let mut left = self.queue.size();
        let mut waiting: Option<Instant> = None;
        loop {
            self.listen(false)?;
            while let Some(mut chain) = self.pop()? {
                match each(&self.memory, &mut chain)? {
                    Served::Used(written) => self.push(chain, written)?,
                    Served::Later => {
                        self.put_back(chain);
                        return self.notify();
                    }
                }
                if waiting.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    self.notify()?;
                    waiting = None;
                }
                left -= 1;
                if left == 0 {
                    self.ring_again()?;
                    return self.notify();
                }
            }
            if !self.listen(true)? {
                return self.notify();
            }
        }
    }

    /// Its registers, and how far the device has come.
    pub(super) fn state(&self) -> state::Queue {
        let state = self.queue.state();
        state::Queue {
            size: state.size.into(),
            ready: state.ready,
            descriptors: state.desc_table,
            available: state.avail_ring,
            used: state.used_ring,
            next_available: state.next_avail,
            next_used: state.next_used,
        }
    }
}
