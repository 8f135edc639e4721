//! A network card (virtio 1.2, section 5.1), whose cable ends in a tap: a network interface of the host.
//!
//! Frames carry a header that says what is left to do with them: a checksum to be made, a large piece of a stream to be
//! cut into packets. Host and guest pass it on unread, so that neither is done at all where a frame never leaves the host.

mod mac;
mod wire;

use std::io;
use std::sync::Arc;

use tracing::debug;
use virtio_bindings::bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MRG_RXBUF,
};

use super::bucket::{Limiter, Limits};
use super::config::ConfigSpace;
use super::events::{Events, Interest};
use super::queue::{Chain, Ring, Served};
use super::{Fault, Kind, VirtioDevice};
use crate::memory::Memory;
pub use mac::{Mac, MacError};
pub use wire::{Tap, TapError, Wire};

const QUEUE: u16 = 256;
/// `struct virtio_net_hdr_v1`, before each frame, in bytes.
const HEADER: usize = 12;
/// Where in it is how many buffers the frame is in.
const BUFFERS: std::ops::Range<usize> = 10..12;
/// The largest frame: 64 KiB of a stream not yet cut, with Ethernet's header and a VLAN's tag, in bytes.
const FRAME: usize = HEADER + 65_535 + 18;
/// How many frames are received before others have their turn.
const TURN: usize = 64;

const WIRE: u32 = 0;
const RECEIVE_TIMER: u32 = 1;
const SEND_TIMER: u32 = 2;

/// What the driver may leave to the other end of the wire, and the other end to it.
const OFFLOADS: u64 = 1 << VIRTIO_NET_F_CSUM
    | 1 << VIRTIO_NET_F_HOST_TSO4
    | 1 << VIRTIO_NET_F_HOST_TSO6
    | 1 << VIRTIO_NET_F_HOST_ECN
    | 1 << VIRTIO_NET_F_GUEST_CSUM
    | 1 << VIRTIO_NET_F_GUEST_TSO4
    | 1 << VIRTIO_NET_F_GUEST_TSO6
    | 1 << VIRTIO_NET_F_GUEST_ECN;

/// A network card.
pub struct Net {
    wire: Wire,
    mac: Mac,
    /// The frame that was read last, with its header before it.
    frame: Vec<u8>,
    /// Its length while the guest has no room for it, or may not have it yet.
    held: Option<usize>,
    /// The chains that a frame is put into; empty in between.
    chains: Vec<Chain>,
    /// A frame may be in several buffers.
    merge: bool,
    receive_limit: Option<Limiter>,
    send_limit: Option<Limiter>,
}

/// What became of a received frame.
enum Delivery {
    Done,
    NoRoom,
    TooLarge,
}

impl Net {
    /// A card with this address at the end of a wire.
    pub fn new(wire: Wire, mac: Mac) -> Self {
        let frame = vec![0; FRAME];
        Self { wire, mac, frame, held: None, chains: Vec::new(), merge: false, receive_limit: None, send_limit: None }
    }

    /// The same card, and no faster than this in each direction.
    pub fn limited(mut self, receive: Limits, send: Limits) -> io::Result<Self> {
        self.receive_limit = Limiter::of(receive)?;
        self.send_limit = Limiter::of(send)?;
        Ok(self)
    }

    /// Takes frames from the wire while the guest has room for them.
    fn receive(&mut self, ring: &mut Ring) -> Result<(), Fault> {
        ring.listen(false)?;
        for _ in 0..TURN {
            let length = match self.held.take() {
                Some(length) => length,
                None => match self.wire.read(&mut self.frame, HEADER) {
                    Ok(length) => length,
                    Err(error) => {
                        if error.kind() != io::ErrorKind::WouldBlock {
                            debug!("virtio net: cannot read from the wire: {error}");
                        }
                        return ring.notify();
                    }
                },
            };
            if let Some(limiter) = &mut self.receive_limit
                && !limiter.admit(length as u64).map_err(Fault::host("set a timer"))?
            {
                self.held = Some(length);
                return ring.notify();
            }
            match self.deliver(ring, length)? {
                Delivery::Done => {}
                Delivery::TooLarge => {
                    debug!("virtio net: a frame of {length} bytes is too large for the guest's buffers");
                }
                Delivery::NoRoom => {
                    self.held = Some(length);
                    return ring.notify();
                }
            }
        }
        ring.ring_again()?;
        ring.notify()
    }

    /// Puts the frame into the guest's buffers: into one, or into as many as it takes where the driver can put it together.
    fn deliver(&mut self, ring: &mut Ring, length: usize) -> Result<Delivery, Fault> {
        let mut chains = std::mem::take(&mut self.chains);
        let mut room = 0;
        while room < length {
            let Some(chain) = ring.pop()? else {
                let more = usize::from(QUEUE) > chains.len();
                // Asked for while all that there is is taken out: the driver shall ring for what comes next, and not for this.
                if more && ring.listen(true)? {
                    continue;
                }
                self.put_back(ring, chains);
                return Ok(if more { Delivery::NoRoom } else { Delivery::TooLarge });
            };
            if chain.writable.is_empty() {
                return Err(Fault::Request("to receive with no room for a frame"));
            }
            room += chain.writable.len();
            chains.push(chain);
            if !self.merge && room < length {
                self.put_back(ring, chains);
                return Ok(Delivery::TooLarge);
            }
        }
        let count = (chains.len() as u16).to_le_bytes();
        if let Some(there) = self.frame.get_mut(BUFFERS) {
            there.copy_from_slice(&count);
        }
        let mut rest = self.frame.get(..length).unwrap_or_default();
        let memory = ring.memory().clone();
        let fill = |mut chain: Chain| {
            let written = chain.writable.write(&memory, rest);
            rest = rest.get(written..).unwrap_or_default();
            (chain, written as u32)
        };
        // All at once: a driver that looked in between would miss the rest of the frame, and drop it.
        ring.push_together(chains.drain(..).map(fill))?;
        self.chains = chains;
        Ok(Delivery::Done)
    }

    /// In the reverse order of taking.
    fn put_back(&mut self, ring: &mut Ring, mut chains: Vec<Chain>) {
        chains.drain(..).rev().for_each(|chain| ring.put_back(chain));
        self.chains = chains;
    }

    fn send(&mut self, ring: &mut Ring) -> Result<(), Fault> {
        ring.serve(|memory, chain| self.send_one(memory, chain))
    }

    fn send_one(&mut self, memory: &Memory, chain: &mut Chain) -> Result<Served, Fault> {
        let length = chain.readable.len();
        if length < HEADER {
            return Err(Fault::Request("to send less than a header"));
        }
        if length > FRAME {
            debug!("virtio net: the guest sends a frame of {length} bytes: it is dropped");
            return Ok(Served::Used(0));
        }
        if let Some(limiter) = &mut self.send_limit
            && !limiter.admit(length as u64).map_err(Fault::host("set a timer"))?
        {
            return Ok(Served::Later);
        }
        match self.wire.write(memory, &mut chain.readable, HEADER) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Served::Later),
            // As on any wire: an interface that is down, a header that makes no sense to the kernel.
            Err(error) => debug!("virtio net: a frame of {length} bytes is dropped: {error}"),
            Ok(()) => {}
        }
        Ok(Served::Used(0))
    }
}

impl VirtioDevice for Net {
    fn kind(&self) -> Kind {
        Kind::Net
    }

    fn features(&self) -> u64 {
        let always = 1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_MRG_RXBUF;
        if self.wire.has_headers() { always | OFFLOADS } else { always }
    }

    /// Received frames, frames to send.
    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE, QUEUE]
    }

    /// `struct virtio_net_config`, section 5.1.4; of it the address alone is offered.
    fn config(&self) -> Arc<ConfigSpace> {
        let mut bytes = vec![0; 12];
        bytes.iter_mut().zip(self.mac.0).for_each(|(to, from)| *to = from);
        ConfigSpace::with_own(bytes, 0..6)
    }

    fn activate(&mut self, features: u64, events: &Events) -> io::Result<()> {
        self.merge = features & 1 << VIRTIO_NET_F_MRG_RXBUF != 0;
        self.wire.offload(features)?;
        events.add(&self.wire, WIRE, Interest::Edges)?;
        for (limiter, token) in [(&self.receive_limit, RECEIVE_TIMER), (&self.send_limit, SEND_TIMER)] {
            if let Some(limiter) = limiter {
                events.add(limiter.timer(), token, Interest::Read)?;
            }
        }
        Ok(())
    }

    fn queue_ready(&mut self, queue: usize, rings: &mut [Ring], _: &Events) -> Result<(), Fault> {
        match (queue, rings) {
            (0, [receive, ..]) => self.receive(receive),
            (1, [_, send, ..]) => self.send(send),
            _ => Ok(()),
        }
    }

    fn file_ready(&mut self, token: u32, rings: &mut [Ring], _: &Events) -> Result<(), Fault> {
        let [receive, send] = rings else { return Ok(()) };
        let limiter = match token {
            RECEIVE_TIMER => &self.receive_limit,
            SEND_TIMER => &self.send_limit,
            _ => &None,
        };
        if let Some(limiter) = limiter {
            limiter.heard();
        }
        if token != SEND_TIMER {
            self.receive(receive)?;
        }
        if token != RECEIVE_TIMER {
            self.send(send)?;
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.held = None;
    }
}
