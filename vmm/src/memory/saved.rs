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
use std::sync::{Arc, MutexGuard, PoisonError};

use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::faults::{Faults, Piece};
use super::touched::{self, Stretches};
use super::{Layers, Memory, MemoryError, PAGE, laid};

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

/// The most stretches that a saved memory says to have changed: each is a mapping of its own when it comes back.
pub(crate) const STRETCHES: usize = 2048;

/// A part of guest memory, where it lies in the monitor, and its place in the file: one part follows the other there.
struct Part {
    guest: u64,
    length: u64,
    host: u64,
    file: u64,
}

/// A stretch of guest memory, and the file that has it at `offset`.
struct Saved {
    at: Range<u64>,
    file: Arc<File>,
    offset: u64,
}

/// What memory was saved as, or loaded from: all but what has changed is in there.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The name that no other has.
    pub(crate) id: String,
    /// The folder, wherever its name is by now.
    pub(crate) folder: File,
    /// How many files it is in.
    pub(crate) depth: usize,
}

impl Memory {
    /// The stretches of guest-physical addresses that hold anything: written by somebody, or shown by a file. To ask
    /// touches nothing.
    pub fn touched(&self) -> io::Result<Vec<Range<u64>>> {
        self.touched_beside(self.own_pages()?)
    }

    /// The same where the pages of its own are known.
    fn touched_beside(&self, own: Vec<Range<u64>>) -> io::Result<Vec<Range<u64>>> {
        Ok(Stretches::union(own, self.laid().data(PAGE)?).0)
    }

    /// The stretches that may differ from what this memory goes on from: written since, or no longer what it shows. A page
    /// that is only read stays the file's (`MAP_PRIVATE`), so no one has to keep a log: not KVM of what the guest writes,
    /// nor the monitor of what it writes on the guest's behalf, of which KVM's log knows nothing.
    fn changed(&self, own: Vec<Range<u64>>) -> Vec<Range<u64>> {
        let laid = self.laid();
        let other = self.parts().flat_map(|(guest, length, _)| laid.other_than_origin(guest..guest + length)).collect();
        Stretches::union(own, other).0
    }

    fn own_pages(&self) -> io::Result<Vec<Range<u64>>> {
        let mut own = Vec::new();
        for (guest, length, host) in self.parts() {
            let pages = touched::own_pages(host, length)?;
            own.extend(pages.into_iter().map(|range| guest + range.start..guest + range.end));
        }
        Ok(own)
    }

    /// Writes the stretches that hold anything to `file`, each at its own place, and leaves holes between; returns how
    /// many bytes that were. The file becomes as long as the memory.
    pub fn save(&self, file: &File) -> io::Result<u64> {
        self.write(file, &self.touched()?, std::slice::from_ref(&(0..self.size())))
    }

    /// The same of what may have changed since its origin; returns the ranges of the file that say so, too.
    pub(crate) fn save_changes(&self, file: &File) -> io::Result<(u64, Vec<Range<u64>>)> {
        // Asked for once: the machine stands still meanwhile, and the kernel goes through all of its pages.
        let own = self.own_pages()?;
        let ranges = touched::few(self.in_file(&self.changed(own.clone())), STRETCHES);
        Ok((self.write(file, &self.touched_beside(own)?, &ranges)?, ranges))
    }

    /// Writes what was touched of these ranges of the file.
    fn write(&self, file: &File, touched: &[Range<u64>], ranges: &[Range<u64>]) -> io::Result<u64> {
        file.set_len(self.size())?;
        let stretches = touched::common(&self.in_file(touched), ranges);
        let mut written = 0;
        for part in self.placed() {
            for stretch in touched::within(&stretches, &(part.file..part.file + part.length)) {
                let length = stretch.end - stretch.start;
                write_out(file, stretch.start, part.host + (stretch.start - part.file), length)?;
                written += length;
            }
        }
        Ok(written)
    }

    /// Brings back what was saved. It is at least as long as this memory, which nobody has touched. Which pages are touched
    /// first is read from `record`, or written to it, where that is wanted.
    pub(crate) fn load(
        &self,
        saved: &Layers,
        loading: Loading,
        record: &Path,
        origin: Origin,
    ) -> Result<(), MemoryError> {
        let pieces = self.found(saved.pieces());
        match loading {
            Loading::Recorded => self.serve(saved, record)?,
            Loading::Lazy => pieces.iter().try_for_each(|piece| self.show_piece(piece))?,
            Loading::Eager => pieces.iter().try_for_each(|piece| {
                self.read_in(piece).map_err(|source| MemoryError::Change {
                    attempt: "read back",
                    at: piece.at.start,
                    length: piece.at.end - piece.at.start,
                    source,
                })
            })?,
        }
        self.note(&pieces, origin);
        Ok(())
    }

    /// Goes on from what was just saved: what `file` has in these ranges takes the place of what is there, which is the same.
    /// From here on, what changes is what differs from that. Nobody touches the memory meanwhile.
    pub(crate) fn go_on_from(&self, file: File, ranges: &[Range<u64>], origin: Origin) -> Result<(), MemoryError> {
        let file = Arc::new(file);
        let pieces = self.found(ranges.iter().map(|range| (range.clone(), &file)));
        // First: a page that could not be made to show the file is one of its own still, and so counts as changed.
        self.note(&pieces, origin);
        pieces.iter().try_for_each(|piece| self.show_piece(piece))
    }

    fn show_piece(&self, piece: &Saved) -> Result<(), MemoryError> {
        self.show(GuestAddress(piece.at.start), piece.at.end - piece.at.start, &piece.file, piece.offset)
    }

    fn note(&self, pieces: &[Saved], origin: Origin) {
        self.laid().lay_origin(pieces.iter().map(|piece| (piece.at.clone(), piece.file.clone(), piece.offset)));
        *self.origin() = Some(origin);
    }

    /// What it goes on from, where it does.
    pub(crate) fn origin(&self) -> MutexGuard<'_, Option<Origin>> {
        self.origin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, saved: &Layers, record: &Path) -> Result<(), MemoryError> {
        let pieces =
            self.placed().iter().map(|part| Piece { host: part.host, length: part.length, file: part.file }).collect();
        let faults = Faults::serve(pieces, saved, record).map_err(|source| MemoryError::Serve { source })?;
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = Some(faults);
        Ok(())
    }

    fn read_in(&self, piece: &Saved) -> io::Result<()> {
        let length = piece.at.end - piece.at.start;
        for data in laid::data(&piece.file, piece.offset..piece.offset + length)? {
            let at = GuestAddress(piece.at.start + (data.start - piece.offset));
            let slice = self.guest.get_slice(at, (data.end - data.start) as usize).map_err(io::Error::other)?;
            let pointer = slice.ptr_guard_mut();
            // SAFETY: the slice is guest memory that nobody else has yet: no processor is made.
            let bytes = unsafe { std::slice::from_raw_parts_mut(pointer.as_ptr(), slice.len()) };
            piece.file.read_exact_at(bytes, data.start)?;
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

    /// Stretches of guest memory as stretches of the file.
    fn in_file(&self, stretches: &[Range<u64>]) -> Vec<Range<u64>> {
        let place = |part: &Part| {
            let inside = touched::within(stretches, &(part.guest..part.guest + part.length));
            let (guest, file) = (part.guest, part.file);
            inside.into_iter().map(move |range| range.start - guest + file..range.end - guest + file)
        };
        self.placed().iter().flat_map(place).collect()
    }

    /// Where in guest memory these stretches of files are, in ascending order as they are.
    fn found<'a>(&self, pieces: impl Iterator<Item = (Range<u64>, &'a Arc<File>)>) -> Vec<Saved> {
        let parts = self.placed();
        pieces
            .flat_map(|(range, file)| {
                let place = |part: &Part| {
                    let (from, to) = (range.start.max(part.file), range.end.min(part.file + part.length));
                    let at = |offset: u64| part.guest + (offset - part.file);
                    (from < to).then(|| Saved { at: at(from)..at(to), file: file.clone(), offset: from })
                };
                parts.iter().filter_map(place).collect::<Vec<_>>()
            })
            .collect()
    }
}

/// The most that one write(2) takes: 1 MiB.
///
/// A file system with large folios takes pages of the size of what it is given, and from 2 MiB on whole blocks of the page allocator. On a
/// host that is a machine itself those are what it has given back to the host beneath it (free page reporting), and each is waited for
/// when it is used again: 128 MiB in one piece took 0.34 to 0.42 s, synced, and in pieces of 1 MiB or less 0.10 to 0.12.
const PIECE: u64 = 1 << 20;

/// Writes `length` bytes at `host`, in guest memory, to `file` at `offset`.
fn write_out(file: &File, offset: u64, host: u64, length: u64) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        // SAFETY: the range lies in guest memory's mapping; the kernel only reads it, straight into the file.
        let written = unsafe {
            libc::pwrite(
                file.as_raw_fd(),
                (host + done) as *const libc::c_void,
                (length - done).min(PIECE) as usize,
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

    fn origin() -> Origin {
        Origin { id: String::new(), folder: tempfile::tempfile().unwrap(), depth: 1 }
    }

    fn load(saved: &Layers, loading: Loading) -> Memory {
        let memory = Memory::map(Mib(4)).unwrap();
        memory.load(saved, loading, Path::new(""), origin()).unwrap();
        memory
    }

    fn byte(memory: &Memory, page: u64) -> u8 {
        memory.guest().read_obj(GuestAddress(page * PAGE)).unwrap()
    }

    fn set(memory: &Memory, page: u64, byte: u8) {
        memory.guest().write_obj(byte, GuestAddress(page * PAGE)).unwrap();
    }

    #[test]
    fn a_saved_memory_comes_back_both_ways_and_can_be_saved_again() {
        let saved = tempfile::tempfile().unwrap();
        let memory = Memory::map(Mib(4)).unwrap();
        set(&memory, 5, 9);
        memory.save(&saved).unwrap();
        let saved = Layers::whole(saved, 4 << 20);
        for loading in [Loading::Lazy, Loading::Eager] {
            let memory = load(&saved, loading);
            set(&memory, 6, 3);
            let again = tempfile::tempfile().unwrap();
            assert_eq!(memory.save(&again).unwrap(), 2 * PAGE, "{loading:?}");
            let twice = load(&Layers::whole(again, 4 << 20), Loading::Eager);
            assert_eq!([5, 6, 7].map(|page| byte(&twice, page)), [9, 3, 0], "{loading:?}");
        }
    }

    #[test]
    fn what_changed_is_saved_alone_and_lies_over_what_was_there() {
        let whole = tempfile::tempfile().unwrap();
        let memory = Memory::map(Mib(4)).unwrap();
        (0..8).for_each(|page| set(&memory, page, 1));
        memory.save(&whole).unwrap();
        memory.go_on_from(whole.try_clone().unwrap(), std::slice::from_ref(&(0..4 << 20)), origin()).unwrap();
        assert_eq!(byte(&memory, 3), 1); // to read changes nothing
        set(&memory, 4, 2);
        memory.discard(GuestAddress(6 * PAGE), PAGE).unwrap();
        let mut layers = Layers::whole(whole, 4 << 20);
        for (newer, bytes, ranges) in [
            (9, PAGE, vec![4 * PAGE..5 * PAGE, 6 * PAGE..7 * PAGE]),
            (10, 2 * PAGE, vec![9 * PAGE..10 * PAGE, 20 * PAGE..21 * PAGE]),
        ] {
            let changes = tempfile::tempfile().unwrap();
            assert_eq!(memory.save_changes(&changes).unwrap(), (bytes, ranges.clone()));
            memory.go_on_from(changes.try_clone().unwrap(), &ranges, origin()).unwrap();
            layers.change(changes, &ranges);
            for loading in [Loading::Lazy, Loading::Eager] {
                let found = [3, 4, 5, 6, 7, 9].map(|page| byte(&load(&layers, loading), page));
                assert_eq!(found, [1, 2, 1, 0, 1, if newer == 9 { 0 } else { 9 }], "{loading:?}");
            }
            set(&memory, 9, 9);
            set(&memory, 20, newer);
        }
    }
}
