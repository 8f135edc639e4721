//! Guest memory in a file: how it gets there, and how it comes back.
//!
//! The file is as long as the memory and mostly holes: what nobody has touched is neither read nor written, and takes no
//! room on the disk. It comes back by being mapped, which costs the same for a machine of any size, or by being read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::PoisonError;

use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::faults::{Faults, Piece};
use super::touched::{self, Stretches};
use super::{Memory, MemoryError, PAGE, laid};

/// How a saved memory comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loading {
    /// Its file is mapped: a page is found when it is first touched, in the page cache, which all machines share.
    Lazy,
    /// Its file is read, before the guest runs.
    Eager,
    /// Its pages are brought when they are touched (userfaultfd(2)): those that the first machine so loaded has touched, before
    /// the guest runs.
    Recorded,
}

/// `ioctl(FICLONE)`: this file shall have that one's blocks (`ioctl_ficlone(2)`).
const FICLONE: libc::c_ulong = 0x4004_9409;

/// A part of guest memory, where it lies in the monitor, and its place in the file: one part follows the other there.
struct Part {
    guest: u64,
    length: u64,
    host: u64,
    file: u64,
}

impl Memory {
    /// The stretches of guest-physical addresses that hold anything: written by somebody, or shown by a file. To ask
    /// touches nothing.
    pub fn touched(&self) -> io::Result<Vec<Range<u64>>> {
        let shown = self.laid().data(PAGE)?;
        let mut own = Vec::new();
        for (guest, length, host) in self.parts() {
            let pages = touched::own_pages(host, length)?;
            own.extend(pages.into_iter().map(|range| guest + range.start..guest + range.end));
        }
        Ok(Stretches::union(own, shown).0)
    }

    /// Writes the stretches that hold anything to `file`, each at its own place, and leaves holes between; returns how
    /// many bytes that were. The file becomes as long as the memory.
    pub fn save(&self, file: &File) -> io::Result<u64> {
        file.set_len(self.size())?;
        let touched = self.touched()?;
        let mut written = 0;
        for part in self.placed() {
            let end = part.guest + part.length;
            for stretch in &touched {
                let (from, to) = (stretch.start.max(part.guest), stretch.end.min(end));
                if from < to {
                    let offset = from - part.guest;
                    write_out(file, part.file + offset, part.host + offset, to - from)?;
                    written += to - from;
                }
            }
        }
        Ok(written)
    }

    /// Brings back what [`Memory::save`] wrote. The file is at least as long as this memory, which nobody has touched. Which
    /// pages are touched first is read from `record`, or written to it, where that is wanted.
    pub fn load(&self, file: &File, loading: Loading, record: &Path) -> Result<(), MemoryError> {
        if loading == Loading::Recorded {
            return self.serve(file, record);
        }
        for part in self.placed() {
            match loading {
                Loading::Recorded => {}
                Loading::Lazy => self.map_file(GuestAddress(part.guest), file, part.file, part.length)?,
                Loading::Eager => self.read_in(file, &part).map_err(|source| MemoryError::Change {
                    attempt: "read back",
                    at: part.guest,
                    length: part.length,
                    source,
                })?,
            }
        }
        Ok(())
    }

    fn serve(&self, file: &File, record: &Path) -> Result<(), MemoryError> {
        let failed = |source| MemoryError::Serve { source };
        let parts = self.placed();
        let pieces = parts.iter().map(|part| Piece { host: part.host, length: part.length, file: part.file }).collect();
        let faults = Faults::serve(pieces, file, record).map_err(failed)?;
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = Some(faults);
        // What was not touched is in the file, and belongs to what is saved next.
        parts
            .iter()
            .try_for_each(|part| self.laid().lay(part.guest..part.guest + part.length, file, part.file).map_err(failed))
    }

    fn read_in(&self, file: &File, part: &Part) -> io::Result<()> {
        for data in laid::data(file, part.file..part.file + part.length)? {
            let at = GuestAddress(part.guest + (data.start - part.file));
            let slice = self.guest.get_slice(at, (data.end - data.start) as usize).map_err(io::Error::other)?;
            let pointer = slice.ptr_guard_mut();
            // SAFETY: the slice is guest memory that nobody else has yet: no processor is made.
            let bytes = unsafe { std::slice::from_raw_parts_mut(pointer.as_ptr(), slice.len()) };
            file.read_exact_at(bytes, data.start)?;
        }
        Ok(())
    }

    fn placed(&self) -> Vec<Part> {
        let mut file = 0;
        self.parts()
            .map(|(guest, length, host)| {
                file += length;
                Part { guest, length, host, file: file - length }
            })
            .collect()
    }
}

/// Writes `length` bytes at `host`, in guest memory, to `file` at `offset`.
fn write_out(file: &File, offset: u64, host: u64, length: u64) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        // SAFETY: the range lies in guest memory's mapping; the kernel only reads it, straight into the file.
        let written = unsafe {
            libc::pwrite(
                file.as_raw_fd(),
                (host + done) as *const libc::c_void,
                (length - done) as usize,
                (offset + done) as libc::off_t,
            )
        };
        match u64::try_from(written) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

/// Copies a file with its holes, without reading them.
pub(crate) fn copy_sparse(mut from: &File, mut to: &File) -> io::Result<()> {
    // SAFETY: two open descriptors; no memory is passed.
    if unsafe { libc::ioctl(to.as_raw_fd(), FICLONE, from.as_raw_fd()) } == 0 {
        return Ok(());
    }
    // Not on every file system, nor from one to another.
    let length = from.metadata()?.len();
    to.set_len(length)?;
    for data in laid::data(from, 0..length)? {
        from.seek(SeekFrom::Start(data.start))?;
        to.seek(SeekFrom::Start(data.start))?;
        // In the kernel where it can (copy_file_range(2)).
        let wanted = data.end - data.start;
        if io::copy(&mut from.take(wanted), &mut to)? != wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use vm_memory::Bytes;

    use super::*;
    use crate::units::Mib;

    #[test]
    fn what_was_never_touched_is_neither_read_nor_written() {
        let memory = Memory::map(Mib(64)).unwrap();
        let mut program = tempfile::tempfile().unwrap();
        program.write_all(&[7; 8192]).unwrap();
        memory.map_file(GuestAddress(8 * PAGE), &program, 0, 2 * PAGE).unwrap(); // shown, and not touched
        memory.guest().write_obj(9_u8, GuestAddress(20 * PAGE)).unwrap();
        let touched = memory.touched().unwrap();
        assert_eq!(touched, [8 * PAGE..10 * PAGE, 20 * PAGE..21 * PAGE]);
        let file = tempfile::tempfile().unwrap();
        assert_eq!(memory.save(&file).unwrap(), 3 * PAGE);
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 64 << 20);
        assert!(metadata.blocks() * 512 <= 8 * PAGE, "{} bytes on disk", metadata.blocks() * 512);
        assert_eq!(memory.touched().unwrap(), touched);
    }

    #[test]
    fn a_saved_memory_comes_back_both_ways_and_can_be_saved_again() {
        let saved = tempfile::tempfile().unwrap();
        let memory = Memory::map(Mib(4)).unwrap();
        memory.guest().write_obj(9_u8, GuestAddress(5 * PAGE)).unwrap();
        memory.save(&saved).unwrap();
        for loading in [Loading::Lazy, Loading::Eager] {
            let memory = Memory::map(Mib(4)).unwrap();
            memory.load(&saved, loading, Path::new("")).unwrap();
            memory.guest().write_obj(3_u8, GuestAddress(6 * PAGE)).unwrap();
            let again = tempfile::tempfile().unwrap();
            assert_eq!(memory.save(&again).unwrap(), 2 * PAGE, "{loading:?}");
            let twice = Memory::map(Mib(4)).unwrap();
            twice.load(&again, Loading::Eager, Path::new("")).unwrap();
            let read = |page: u64| twice.guest().read_obj::<u8>(GuestAddress(page * PAGE)).unwrap();
            assert_eq!((read(5), read(6), read(7)), (9, 3, 0), "{loading:?}");
        }
    }
}
