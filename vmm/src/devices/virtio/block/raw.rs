//! A disk whose bytes are a file's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::Buffer;
use super::disk::{self, Disk, DiskError};
use crate::memory::Memory;

/// Zeroes to write where the file system has nothing better.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// A file, or a block device.
#[derive(Debug)]
pub(super) struct Raw {
    file: File,
    size: u64,
}

impl Raw {
    pub(super) fn new(file: File, path: &Path) -> Result<Self, DiskError> {
        let size = disk::size(&file, path)?;
        Ok(Self { file, size })
    }

    /// Whether the file system could do that to a range.
    fn allocate(&self, flags: FallocateFlags, offset: u64, length: u64) -> io::Result<bool> {
        // Inside of the disk, so inside of what a file's size can be.
        match fallocate(&self.file, flags | FallocateFlags::FALLOC_FL_KEEP_SIZE, offset as i64, length as i64) {
            Ok(()) => Ok(true),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Disk for Raw {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, memory: &Memory, to: &Buffer, offset: u64) -> io::Result<()> {
        to.vectors(memory).read_exact_at(&self.file, offset)
    }

    fn write(&mut self, memory: &Memory, from: &Buffer, offset: u64) -> io::Result<()> {
        from.vectors(memory).write_all_at(&self.file, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&mut self, offset: u64, length: u64) -> io::Result<()> {
        // Where no hole can be made the data stays: the guest has only said that it doesn't need it.
        if length > 0 {
            self.allocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, length)?;
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        let how = if unmap { FallocateFlags::FALLOC_FL_PUNCH_HOLE } else { FallocateFlags::FALLOC_FL_ZERO_RANGE };
        if length == 0 || self.allocate(how, offset, length)? {
            return Ok(());
        }
        let mut done = 0;
        while done < length {
            let count = (length - done).min(ZEROES.len() as u64);
            self.file.write_all_at(ZEROES.get(..count as usize).unwrap_or_default(), offset + done)?;
            done += count;
        }
        Ok(())
    }
}
