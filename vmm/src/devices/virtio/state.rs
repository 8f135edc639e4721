//! What has to be kept of a device so that it can be made again, as if it had never stopped.
//!
//! A driver keeps most of what it knows in the guest's own memory, which is saved anyway. What remains are the registers,
//! and how far the device has come in each ring. What is on the host's side, a file, a tap, a socket, is opened anew.

use serde::{Deserialize, Serialize};
use virtio_queue::QueueState;

/// A device's registers while it stands still.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What kind of device it is: its number in the specification.
    pub kind: u32,
    /// The device status field.
    pub status: u32,
    /// What the interrupt line was raised for and nobody has acknowledged.
    pub interrupts: u32,
    /// Which half of the device's features the driver reads.
    pub device_select: u32,
    /// Which half of its own features it writes.
    pub driver_select: u32,
    /// What it has accepted.
    pub features: u64,
    /// Which queue the queue registers are of.
    pub queue_select: u32,
    /// The configuration space.
    pub config: Vec<u8>,
    /// How often the device has changed it.
    pub generation: u32,
    /// Its queues.
    pub queues: Vec<Queue>,
}

/// A queue's registers, and how far the device has come in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// How many entries it has.
    pub size: u32,
    /// Whether the driver has said that it may be used.
    pub ready: bool,
    /// Where its descriptors are.
    pub descriptors: u64,
    /// Where the driver writes which of them are available.
    pub available: u64,
    /// Where the device writes which of them it has used.
    pub used: u64,
    /// The next entry of the available ring.
    pub next_available: u16,
    /// The next entry of the used ring.
    pub next_used: u16,
}

impl Queue {
    /// As the queue's own library wants it. Sizes and addresses are checked there.
    pub(super) fn to_queue(self, most: u16, event_index: bool) -> Result<virtio_queue::Queue, virtio_queue::Error> {
        virtio_queue::Queue::try_from(QueueState {
            max_size: most,
            next_avail: self.next_available,
            next_used: self.next_used,
            event_idx_enabled: event_index,
            size: u16::try_from(self.size).map_err(|_| virtio_queue::Error::InvalidSize)?,
            ready: self.ready,
            desc_table: self.descriptors,
            avail_ring: self.available,
            used_ring: self.used,
        })
    }
}
