//! A chain: one request of the guest, as a list of buffers in its memory.
//!
//! The guest writes the list, so nothing in it is to be believed. It is walked once, every rule that a device depends on is
//! checked on the way, and what comes out has no rules left to break: addresses inside of guest memory, lengths that add
//! up, first what the device reads, then what it writes.

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

use super::vectors::{self, Vectors};
use crate::memory::Memory;

/// What is wrong with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Its head is not in the table, or names a table that is not there.
    #[error("does not begin")]
    Headless,
    /// A next descriptor that is not there, or a way that leads back to itself.
    #[error("has no end")]
    Endless,
    /// More buffers than a system call takes.
    #[error("has more than {} buffers", vectors::MOST)]
    Long,
    /// A buffer without a byte.
    #[error("has an empty buffer")]
    Empty,
    /// A buffer outside of guest memory.
    #[error("has a buffer outside of memory: {length:#x} bytes at {at:#x}")]
    Outside {
        /// Where it begins.
        at: u64,
        /// Its length in bytes.
        length: u32,
    },
    /// A buffer for the device to read after one for it to write (virtio 1.2, section 2.7.4.2).
    #[error("has a buffer to read after one to write")]
    Order,
}

/// Buffers in guest memory, one after the other; taking from the front leaves the rest.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Buffer {
    parts: Vec<(GuestAddress, usize)>,
    /// Which of them is the first that is left.
    first: usize,
    length: usize,
}

impl Buffer {
    /// How many bytes are left.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What is left: addresses and lengths.
    pub fn parts(&self) -> &[(GuestAddress, usize)] {
        self.parts.get(self.first..).unwrap_or_default()
    }

    fn clear(&mut self) {
        self.parts.clear();
        (self.first, self.length) = (0, 0);
    }

    fn push(&mut self, at: GuestAddress, length: usize) {
        self.parts.push((at, length));
        self.length += length;
    }

    /// Takes bytes from the front, piece by piece, for as long as `each` is told of fewer than `most`.
    fn take(&mut self, most: usize, mut each: impl FnMut(GuestAddress, usize, usize)) -> usize {
        let mut done = 0;
        while done < most
            && let Some((at, length)) = self.parts.get_mut(self.first)
        {
            let count = (*length).min(most - done);
            each(*at, done, count);
            done += count;
            at.0 += count as u64;
            *length -= count;
            if *length == 0 {
                self.first += 1;
            }
        }
        self.length -= done;
        done
    }

    /// Leaves out so many bytes, or all there are.
    pub fn skip(&mut self, count: usize) {
        self.take(count, |_, _, _| {});
    }

    /// Cuts off what comes after so many bytes, and gives it back.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        let mut rest = self.clone();
        rest.skip(at);
        let keep = at.min(self.length);
        let mut left = keep;
        let first = self.first;
        let mut parts = 0;
        for (_, length) in self.parts.iter_mut().skip(first) {
            if left == 0 {
                break;
            }
            *length = (*length).min(left);
            left -= *length;
            parts += 1;
        }
        self.parts.truncate(first + parts);
        self.length = keep;
        rest
    }

    /// Copies from the guest's buffers; how many bytes there were.
    pub fn read(&mut self, memory: &Memory, data: &mut [u8]) -> usize {
        self.take(data.len(), |at, done, count| {
            if let Some(data) = data.get_mut(done..done + count) {
                // It can't fail: the range was checked, and guest memory never shrinks.
                let _ = memory.guest().read_slice(data, at);
            }
        })
    }

    /// A header of a fixed size, or nothing where the buffers are too short for it.
    pub fn read_array<const N: usize>(&mut self, memory: &Memory) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        (self.read(memory, &mut bytes) == N).then_some(bytes)
    }

    /// Copies to the guest's buffers; how many bytes there was room for.
    pub fn write(&mut self, memory: &Memory, data: &[u8]) -> usize {
        self.take(data.len(), |at, done, count| {
            if let Some(data) = data.get(done..done + count) {
                let _ = memory.guest().write_slice(data, at); // as above
            }
        })
    }

    /// What is left, as memory.
    pub(super) fn slices<'m>(&self, memory: &'m Memory) -> impl Iterator<Item = VolatileSlice<'m>> {
        self.parts().iter().filter_map(|(at, length)| memory.guest().get_slice(*at, *length).ok())
    }

    /// What is left, for a system call.
    pub(super) fn vectors<'m>(&self, memory: &'m Memory) -> Vectors<'m> {
        Vectors::new(self.slices(memory))
    }
}

/// A request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Chain {
    pub(super) head: u16,
    /// What the guest has written for the device to read.
    pub readable: Buffer,
    /// What the device may write to.
    pub writable: Buffer,
}

impl Chain {
    /// Walks a chain, and checks it. `self` is overwritten, its lists are kept.
    pub(super) fn walk(
        &mut self,
        memory: &GuestMemoryMmap,
        chain: DescriptorChain<&GuestMemoryMmap>,
    ) -> Result<(), ChainError> {
        self.head = chain.head_index();
        self.readable.clear();
        self.writable.clear();
        let mut more = true; // than none: a chain has at least one buffer
        let mut count = 0;
        for descriptor in chain {
            count += 1;
            more = descriptor.has_next();
            let (at, length) = (descriptor.addr(), descriptor.len());
            if count > vectors::MOST {
                return Err(ChainError::Long);
            }
            if length == 0 {
                return Err(ChainError::Empty);
            }
            if memory.get_slice(at, length as usize).is_err() {
                return Err(ChainError::Outside { at: at.0, length });
            }
            if descriptor.is_write_only() {
                self.writable.push(at, length as usize);
            } else if self.writable.is_empty() {
                self.readable.push(at, length as usize);
            } else {
                return Err(ChainError::Order);
            }
        }
        // The library's iterator ends where a rule is broken, as if the chain were over. Then the last one has a next.
        match (count, more) {
            (0, _) => Err(ChainError::Headless),
            (_, true) => Err(ChainError::Endless),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Mib;

    fn buffer(parts: &[(u64, usize)]) -> Buffer {
        let mut buffer = Buffer::default();
        for (at, length) in parts {
            buffer.push(GuestAddress(*at), *length);
        }
        buffer
    }

    #[test]
    fn bytes_are_taken_over_the_borders_of_buffers() {
        let memory = Memory::map(Mib(2)).unwrap();
        let mut to = buffer(&[(100, 3), (200, 4), (300, 1)]);
        assert_eq!((to.write(&memory, b"abcde"), to.len()), (5, 3));
        assert_eq!(to.write(&memory, b"fghij"), 3);
        let mut from = buffer(&[(100, 3), (200, 4), (300, 1)]);
        from.skip(1);
        let mut data = [0; 4];
        assert_eq!((from.read(&memory, &mut data), &data), (4, b"bcde"));
        assert_eq!((from.read(&memory, &mut data), &data[..3]), (3, &b"fgh"[..]));
        assert!(from.is_empty() && from.read_array::<1>(&memory).is_none());
    }

    #[test]
    fn a_buffer_is_cut_anywhere() {
        for at in 0..10 {
            let mut front = buffer(&[(100, 3), (200, 4), (300, 1)]);
            let back = front.split_off(at);
            assert_eq!((front.len(), back.len()), (at.min(8), 8_usize.saturating_sub(at)));
            let bytes = |buffer: &Buffer| -> Vec<u64> {
                buffer.parts().iter().flat_map(|(at, length)| at.0..at.0 + *length as u64).collect()
            };
            assert_eq!([bytes(&front), bytes(&back)].concat(), [100, 101, 102, 200, 201, 202, 203, 300]);
        }
    }
}
