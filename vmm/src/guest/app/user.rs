//! Pointers that come from the program.
//!
//! A system call's pointer is a number that the program chose. Each access here walks the program's page tables for every
//! page it touches and asks for the right it needs, as the processor would; what fails is `EFAULT`. No other way leads
//! from the program's addresses to guest memory.

use std::ops::Range;

use nix::errno::Errno;
use vm_memory::{ByteValued, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

use super::tables::Tables;
use super::{PAGE, USER_END};

/// What is done to the program's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// The monitor reads it.
    Read,
    /// The monitor writes it.
    Write,
}

/// A stretch of guest memory as the host sees it.
pub(super) type Slice<'a> = VolatileSlice<'a, vm_memory::bitmap::BS<'a, ()>>;

/// The program's memory, by the program's addresses.
#[derive(Clone, Copy)]
pub(super) struct User<'a> {
    memory: &'a GuestMemoryMmap,
    tables: &'a Tables,
}

impl<'a> User<'a> {
    /// Sees `memory` through `tables`.
    pub(super) fn new(memory: &'a GuestMemoryMmap, tables: &'a Tables) -> Self {
        Self { memory, tables }
    }

    /// Copies out of the program; all of it or `EFAULT`.
    pub(super) fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        let mut rest = into;
        for slice in self.all(address, rest.len() as u64, Access::Read)? {
            let (now, later) = rest.split_at_mut(slice.len());
            slice.copy_to(now);
            rest = later;
        }
        Ok(())
    }

    /// Copies into the program; all of it or `EFAULT`.
    pub(super) fn write(&self, address: u64, from: &[u8]) -> Result<(), Errno> {
        let mut rest = from;
        for slice in self.all(address, rest.len() as u64, Access::Write)? {
            let (now, later) = rest.split_at(slice.len());
            slice.copy_from(now);
            rest = later;
        }
        Ok(())
    }

    /// Copies a plain value out of the program.
    pub(super) fn read_value<T: ByteValued + Default>(&self, address: u64) -> Result<T, Errno> {
        let mut value = T::default();
        self.read(address, value.as_mut_slice())?;
        Ok(value)
    }

    /// Copies a plain value into the program.
    pub(super) fn write_value<T: ByteValued>(&self, address: u64, value: &T) -> Result<(), Errno> {
        self.write(address, value.as_slice())
    }

    /// A string that ends with a zero byte, without it; `ENAMETOOLONG` where none is within `longest` bytes.
    pub(super) fn read_string(&self, address: u64, longest: usize) -> Result<Vec<u8>, Errno> {
        let mut text = Vec::new();
        while text.len() < longest {
            let at = address.checked_add(text.len() as u64).ok_or(Errno::EFAULT)?;
            // To the end of the page, not beyond: the string may end just before a page that is not there.
            let mut part = vec![0; ((PAGE - at % PAGE) as usize).min(longest - text.len())];
            self.read(at, &mut part)?;
            if let Some(end) = part.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(part.get(..end).unwrap_or_default());
                return Ok(text);
            }
            text.append(&mut part);
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// Guest memory behind as much of `length` bytes at `address` as can be accessed: `EFAULT` where that is none of it,
    /// less than all where a later page is missing. So read(2) and write(2) do it.
    pub(super) fn accessible(&self, address: u64, length: u64, access: Access) -> Result<Vec<Slice<'a>>, Errno> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        let end = address.checked_add(length).filter(|end| *end <= USER_END).ok_or(Errno::EFAULT)?;
        let mut at = address;
        while at < end {
            let leaf = self.tables.leaf(self.memory, at);
            if !leaf.allows(access == Access::Write) {
                break;
            }
            let next = (at - at % PAGE + PAGE).min(end);
            let start = leaf.frame() + at % PAGE;
            // Pages that lie side by side in guest memory are one slice: the host then moves them in one piece.
            match runs.last_mut() {
                Some(last) if last.end == start => last.end += next - at,
                _ => runs.push(start..start + (next - at)),
            }
            at = next;
        }
        if at == address && length > 0 {
            return Err(Errno::EFAULT);
        }
        let slice = |run: Range<u64>| {
            // The doorbell is a page without memory: whoever points there gets EFAULT too.
            self.memory.get_slice(GuestAddress(run.start), (run.end - run.start) as usize).map_err(|_| Errno::EFAULT)
        };
        runs.into_iter().map(slice).collect()
    }

    /// As [`User::accessible`], all of it or `EFAULT`.
    fn all(&self, address: u64, length: u64, access: Access) -> Result<Vec<Slice<'a>>, Errno> {
        let slices = self.accessible(address, length, access)?;
        let found: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        if found == length { Ok(slices) } else { Err(Errno::EFAULT) }
    }
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
