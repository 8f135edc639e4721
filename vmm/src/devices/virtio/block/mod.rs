//! A disk (virtio 1.2, section 5.2).
//!
//! A request is three things in a row: a header that says what to do and where, the data, and a byte for the answer. What
//! the guest may get wrong about its disk (a sector that isn't there) is answered in that byte; a request that is no
//! request stops the device.

mod check;
mod disk;
pub mod image;
mod qcow2;
mod raw;

use std::io;
use std::sync::Arc;

use tracing::debug;
use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use super::bucket::{Limiter, Limits};
use super::config::ConfigSpace;
use super::events::{Events, Interest};
use super::queue::{Buffer, Chain, Ring, Served};
use super::{Fault, Kind, VirtioDevice};
use crate::memory::Memory;
pub use disk::{Disk, DiskError, Format, Options, open};

/// The unit of a disk's size and addresses, whatever the disk's own is (section 5.2.4), in bytes.
pub const SECTOR: u64 = 512;
const QUEUE: u16 = 256;
/// Data buffers of one request: a queue's worth, without header and answer.
const SEGMENTS: u32 = QUEUE as u32 - 2;
/// The most that one request may discard or zero, in sectors: what a byte count in 32 bits can say.
const SPAN: u32 = u32::MAX / SECTOR as u32;
/// How many such ranges a request may have.
const RANGES: usize = 32;

/// A disk, as the guest sees it.
pub struct Block {
    disk: Box<dyn Disk>,
    read_only: bool,
    name: [u8; VIRTIO_BLK_ID_BYTES as usize],
    limiter: Option<Limiter>,
    /// The driver never says flush: each write is one.
    write_through: bool,
}

/// What a request came to, if not all went well.
enum Refusal {
    /// The disk can't.
    Failed(io::Error),
    /// The guest asks for what is not there.
    Wrong(&'static str),
    /// The device doesn't know the request.
    Unknown(u32),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Block {
    /// A disk that tells the guest that it is called `name` (the first 20 bytes of it).
    pub fn new(disk: Box<dyn Disk>, read_only: bool, name: &str) -> Self {
        let mut bytes = [0; VIRTIO_BLK_ID_BYTES as usize];
        bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        Self { disk, read_only, name: bytes, limiter: None, write_through: true }
    }

    /// The same disk, and no faster than this.
    pub fn limited(mut self, limits: Limits) -> io::Result<Self> {
        self.limiter = Limiter::of(limits)?;
        Ok(self)
    }

    fn request(&mut self, memory: &Memory, chain: &mut Chain) -> Result<Served, Fault> {
        let header: [u8; 16] =
            chain.readable.read_array(memory).ok_or(Fault::Request("that is shorter than its header"))?;
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
        let (kind, sector) = (u32::from_le_bytes([k0, k1, k2, k3]), u64::from_le_bytes(sector));
        let Some(room) = chain.writable.len().checked_sub(1) else {
            return Err(Fault::Request("with no room for an answer"));
        };
        if let Some(limiter) = &mut self.limiter
            && !limiter.admit((chain.readable.len() + room) as u64).map_err(Fault::host("set a timer"))?
        {
            return Ok(Served::Later);
        }
        let mut answer = chain.writable.split_off(room);
        let (code, written) = match self.obey(kind, sector, memory, chain) {
            Ok(written) => (VIRTIO_BLK_S_OK, written),
            Err(refusal) => (told(&refusal, sector), 0),
        };
        answer.write(memory, &[code as u8]);
        Ok(Served::Used(written + 1))
    }

    /// Does what a request asks for; how many bytes the guest gets.
    fn obey(&mut self, kind: u32, sector: u64, memory: &Memory, chain: &mut Chain) -> Result<u32, Refusal> {
        match kind {
            VIRTIO_BLK_T_IN => {
                let offset = self.place(sector, chain.writable.len() as u64)?;
                self.disk.read(memory, &chain.writable, offset)?;
                Ok(chain.writable.len() as u32)
            }
            VIRTIO_BLK_T_OUT => {
                let offset = self.place(sector, chain.readable.len() as u64)?;
                self.may_write()?;
                self.disk.write(memory, &chain.readable, offset)?;
                self.settled()
            }
            VIRTIO_BLK_T_FLUSH => {
                self.disk.flush()?;
                Ok(0)
            }
            VIRTIO_BLK_T_GET_ID => Ok(chain.writable.write(memory, &self.name) as u32),
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
                self.may_write()?;
                self.clear(kind, memory, &mut chain.readable)?;
                self.settled()
            }
            other => Err(Refusal::Unknown(other)),
        }
    }

    fn may_write(&self) -> Result<(), Refusal> {
        if self.read_only { Err(Refusal::Wrong("a write to a disk that is read-only")) } else { Ok(()) }
    }

    fn settled(&mut self) -> Result<u32, Refusal> {
        if self.write_through {
            self.disk.flush()?;
        }
        Ok(0)
    }

    /// Where in the disk a range begins, in bytes; it is all there.
    fn place(&self, sector: u64, length: u64) -> Result<u64, Refusal> {
        if !length.is_multiple_of(SECTOR) {
            return Err(Refusal::Wrong("a piece of a sector"));
        }
        let offset = sector.checked_mul(SECTOR);
        offset
            .filter(|offset| offset.checked_add(length).is_some_and(|end| end <= self.disk.size()))
            .ok_or(Refusal::Wrong("sectors past the disk's end"))
    }

    /// Discards or zeroes each range of a list.
    fn clear(&mut self, kind: u32, memory: &Memory, list: &mut Buffer) -> Result<(), Refusal> {
        let mut ranges = Vec::new();
        while let Some(range) = list.read_array::<16>(memory) {
            let [s0, s1, s2, s3, s4, s5, s6, s7, c0, c1, c2, c3, flags @ ..] = range;
            let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
            let sectors = u32::from_le_bytes([c0, c1, c2, c3]);
            let flags = u32::from_le_bytes(flags);
            let allowed = if kind == VIRTIO_BLK_T_DISCARD { 0 } else { VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP };
            if flags & !allowed != 0 {
                return Err(Refusal::Unknown(kind));
            }
            if sectors > SPAN || ranges.len() == RANGES {
                return Err(Refusal::Wrong("more to clear than it may"));
            }
            let length = u64::from(sectors) * SECTOR;
            ranges.push((self.place(sector, length)?, length, flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0));
        }
        for (offset, length, unmap) in ranges {
            if kind == VIRTIO_BLK_T_DISCARD {
                self.disk.discard(offset, length)?;
            } else {
                self.disk.zero(offset, length, unmap)?;
            }
        }
        Ok(())
    }
}

/// Notes why a request was refused, and gives the answer that says so.
fn told(refusal: &Refusal, sector: u64) -> u32 {
    match refusal {
        Refusal::Failed(error) => debug!("virtio block: the disk failed at sector {sector}: {error}"),
        Refusal::Wrong(what) => debug!("virtio block: the guest asks for {what} at sector {sector}"),
        Refusal::Unknown(kind) => {
            debug!("virtio block: the guest asks for {kind}, which is not known here");
            return VIRTIO_BLK_S_UNSUPP;
        }
    }
    VIRTIO_BLK_S_IOERR
}

impl VirtioDevice for Block {
    fn kind(&self) -> Kind {
        Kind::Block
    }

    fn features(&self) -> u64 {
        let always = 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | 1 << VIRTIO_BLK_F_FLUSH;
        if self.read_only {
            always | 1 << VIRTIO_BLK_F_RO
        } else {
            always | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
        }
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE]
    }

    /// `struct virtio_blk_config`, section 5.2.4.
    fn config(&self) -> Arc<ConfigSpace> {
        let mut bytes = vec![0; 60];
        let mut put = |offset: usize, value: &[u8]| {
            if let Some(there) = bytes.get_mut(offset..offset + value.len()) {
                there.copy_from_slice(value);
            }
        };
        put(0, &(self.disk.size() / SECTOR).to_le_bytes()); // capacity
        put(12, &SEGMENTS.to_le_bytes()); //                   seg_max
        put(20, &(SECTOR as u32).to_le_bytes()); //            blk_size
        put(34, &1_u16.to_le_bytes()); //                      num_queues
        put(36, &SPAN.to_le_bytes()); //                       max_discard_sectors
        put(40, &(RANGES as u32).to_le_bytes()); //            max_discard_seg
        put(44, &8_u32.to_le_bytes()); //                      discard_sector_alignment: a page of the host's file system
        put(48, &SPAN.to_le_bytes()); //                       max_write_zeroes_sectors
        put(52, &(RANGES as u32).to_le_bytes()); //            max_write_zeroes_seg
        put(56, &[1]); //                                      write_zeroes_may_unmap
        ConfigSpace::fixed(bytes)
    }

    fn activate(&mut self, features: u64, events: &Events) -> io::Result<()> {
        self.write_through = features & 1 << VIRTIO_BLK_F_FLUSH == 0;
        self.limiter.as_ref().map_or(Ok(()), |limiter| events.add(limiter.timer(), 0, Interest::Read))
    }

    fn queue_ready(&mut self, queue: usize, rings: &mut [Ring], _: &Events) -> Result<(), Fault> {
        let Some(ring) = rings.get_mut(queue) else { return Ok(()) };
        ring.serve(|memory, chain| self.request(memory, chain))
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.disk.flush() }
    }

    /// The limiter's timer.
    fn file_ready(&mut self, _: u32, rings: &mut [Ring], events: &Events) -> Result<(), Fault> {
        if let Some(limiter) = &self.limiter {
            limiter.heard();
        }
        self.queue_ready(0, rings, events)
    }
}
