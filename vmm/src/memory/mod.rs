//! Guest memory: a piece of the monitor's address space that the guest takes for its RAM.
//!
//! Nothing is set aside for it. The kernel only notes that the addresses are taken (`MAP_NORESERVE`), and finds a page when
//! the guest, or the monitor on its behalf, first touches one. A machine of 128 MiB that uses 40 KiB costs 40 KiB.

mod faults;
pub(crate) mod laid;
mod layers;
mod pieces;
mod program;
mod saved;
mod touched;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::units::Mib;
use faults::Faults;
use laid::Laid;
pub(crate) use layers::Layers;
pub use program::let_go_of_program;
pub use saved::Loading;
pub(crate) use saved::{Origin, STRETCHES, copy_sparse};

/// The unit in which the kernel maps, in bytes.
pub const PAGE: u64 = 4096;

/// Where RAM stops to leave room for devices, in a machine that has more: the last GiB below 4 GiB.
pub const GAP_START: u64 = 3 << 30;
/// Where RAM goes on.
pub const GAP_END: u64 = 4 << 30;

/// Guest RAM from guest-physical address 0; in a machine with much of it, another part from [`GAP_END`]. A copy is the same
/// memory, which is there until the last copy is gone.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Who brings its pages, where they are not mapped. Before the memory: it ends while that is still there.
    faults: Arc<Mutex<Option<Faults>>>,
    guest: GuestMemoryMmap,
    size: u64,
    /// Where files lie.
    laid: Arc<Mutex<Laid>>,
    /// What was saved, and is there still but for what changed.
    origin: Arc<Mutex<Option<Origin>>>,
}

/// Why guest memory could not be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Less than a guest can live in, or more than it could reach.
    #[error("a machine can't have {size} of memory: at least {}, at most {}", Memory::LEAST, Memory::MOST)]
    Size {
        /// What was asked for.
        size: Mib,
    },
    /// The host has no such range of addresses.
    #[error("cannot map {size} for the guest")]
    Map {
        /// What was asked for.
        size: Mib,
        /// What the kernel said.
        source: vm_memory::mmap::FromRangesError,
    },
    /// A range that is not in guest memory, or not of whole pages.
    #[error("{length:#x} bytes at guest-physical {at:#x} are no whole pages of guest memory")]
    Range {
        /// First address.
        at: u64,
        /// Length in bytes.
        length: u64,
    },
    /// Nobody can bring its pages.
    #[error("cannot bring the guest's pages when they are touched (userfaultfd)")]
    Serve {
        /// What the kernel said.
        source: io::Error,
    },
    /// A part of guest memory could not be changed.
    #[error("cannot {attempt} {length:#x} bytes at guest-physical {at:#x}")]
    Change {
        /// What was attempted.
        attempt: &'static str,
        /// First address.
        at: u64,
        /// Length in bytes.
        length: u64,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Memory {
    /// The smallest memory that a guest can be given.
    pub const LEAST: Mib = Mib(2);
    /// The largest: 512 GiB, what one table of page tables spans.
    pub const MOST: Mib = Mib(512 << 10);

    /// Reserves addresses for guest RAM, all zero, and touches none of it. What does not fit below [`GAP_START`], where the
    /// interrupt controllers and the firmware of every PC are, lies from [`GAP_END`] on.
    pub fn map(size: Mib) -> Result<Self, MemoryError> {
        if size < Self::LEAST || size > Self::MOST {
            return Err(MemoryError::Size { size });
        }
        let all =
            Self::ranges(size.bytes()).map(|range| (GuestAddress(range.start), (range.end - range.start) as usize));
        let ranges = if all[1].1 == 0 { &all[..1] } else { &all[..] };
        // vm-memory maps MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE: without the last, a host that counts its promises
        // (vm.overcommit_memory = 2) would refuse a second machine long before memory is short.
        let guest = GuestMemoryMmap::from_ranges(ranges).map_err(|source| MemoryError::Map { size, source })?;
        Ok(Self { guest, size: size.bytes(), laid: Arc::default(), origin: Arc::default(), faults: Arc::default() })
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where a memory of so many bytes lies; the second range is empty where all of it fits into the first.
    pub(crate) fn ranges(size: u64) -> [Range<u64>; 2] {
        let below = size.min(GAP_START);
        [0..below, GAP_END..GAP_END + (size - below)]
    }

    /// How much of it lies below the devices, from address 0.
    pub fn below_gap(&self) -> u64 {
        self.size.min(GAP_START)
    }

    /// The first address after all of it.
    pub(crate) fn end(&self) -> u64 {
        let [below, above] = Self::ranges(self.size);
        if above.is_empty() { below.end } else { above.end }
    }

    /// How much of it lies below address `at`.
    pub(crate) fn below(&self, at: u64) -> u64 {
        Self::ranges(self.size).iter().map(|range| at.clamp(range.start, range.end) - range.start).sum()
    }

    /// Its parts: first guest-physical address, length, and where that lies in the monitor.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.guest.iter().map(|region| (region.start_addr().0, region.len(), region.as_ptr() as u64))
    }

    /// Checked access: every address that comes from a guest goes through this.
    pub fn guest(&self) -> &GuestMemoryMmap {
        &self.guest
    }

    /// Lays part of a file over guest RAM. The guest sees the file's bytes and may change them; the file never changes.
    ///
    /// Nothing is read: pages come from the page cache, which all machines with this file share, when they are touched.
    /// `at`, `offset` and `length` are multiples of [`PAGE`]. What lies past the file's end must not be touched.
    pub fn map_file(&self, at: GuestAddress, file: &File, offset: u64, length: u64) -> Result<(), MemoryError> {
        if !offset.is_multiple_of(PAGE) {
            return Err(MemoryError::Range { at: at.0, length });
        }
        let kept = file.try_clone();
        let kept =
            kept.map_err(|source| MemoryError::Change { attempt: "keep the file for", at: at.0, length, source })?;
        self.show(at, length, file, offset)?;
        self.laid().lay(at.0..at.0 + length, Arc::new(kept), offset);
        Ok(())
    }

    fn show(&self, at: GuestAddress, length: u64, file: &File, offset: u64) -> Result<(), MemoryError> {
        self.replace("map a file over", at, length, libc::MAP_PRIVATE, file.as_raw_fd(), offset)
    }

    /// Where files lie.
    fn laid(&self) -> MutexGuard<'_, Laid> {
        self.laid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives pages back to the host; the guest sees zeroes there again, also where a file lay.
    pub fn discard(&self, at: GuestAddress, length: u64) -> Result<(), MemoryError> {
        // Not madvise(MADV_DONTNEED): where a file lies, that would bring back the file's bytes.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        self.replace("give back", at, length, flags, -1, 0)?;
        self.laid().lift(&(at.0..at.0 + length));
        Ok(())
    }

    fn replace(
        &self,
        attempt: &'static str,
        at: GuestAddress,
        length: u64,
        flags: libc::c_int,
        file: libc::c_int,
        offset: u64,
    ) -> Result<(), MemoryError> {
        let whole = length != 0 && at.0.is_multiple_of(PAGE) && length.is_multiple_of(PAGE);
        let inside = |&(start, size, _): &(u64, u64, u64)| {
            at.0 >= start && at.0.checked_add(length).is_some_and(|end| end <= start + size)
        };
        let Some((start, _, host)) = self.parts().find(inside).filter(|_| whole) else {
            return Err(MemoryError::Range { at: at.0, length });
        };
        // MAP_FIXED puts the new pages in place of the old ones in one step; KVM hears of it through its MMU notifier and
        // forgets what it had mapped.
        // SAFETY: the range lies inside this memory's own mapping, checked above, so nothing else is replaced; that
        // memory is only ever reached through volatile accesses.
        let mapped = unsafe {
            libc::mmap(
                (host + (at.0 - start)) as *mut libc::c_void,
                length as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                flags | libc::MAP_FIXED,
                file,
                offset as libc::off_t,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(MemoryError::Change { attempt, at: at.0, length, source: io::Error::last_os_error() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn memory_is_neither_too_small_nor_too_large() {
        assert!(matches!(Memory::map(Mib(1)), Err(MemoryError::Size { size: Mib(1), .. })));
        assert!(matches!(Memory::map(Mib((512 << 10) + 1)), Err(MemoryError::Size { .. })));
        assert!(matches!(Memory::map(Mib(u64::MAX)), Err(MemoryError::Size { .. })));
        assert_eq!(Memory::map(Mib(2)).unwrap().size(), 2 << 20);
    }

    #[test]
    fn much_memory_lies_on_both_sides_of_the_devices() {
        let parts = |mib| Memory::map(Mib(mib)).unwrap().parts().map(|(at, size, _)| (at, size)).collect::<Vec<_>>();
        assert_eq!(parts(128), [(0, 128 << 20)]);
        assert_eq!(parts(3072), [(0, GAP_START)]);
        assert_eq!(parts(5120), [(0, GAP_START), (GAP_END, 2 << 30)]);
        let memory = Memory::map(Mib(5120)).unwrap();
        assert_eq!((memory.size(), memory.below_gap(), memory.end()), (5 << 30, GAP_START, 6 << 30));
        for (at, below) in
            [(1, 1), (GAP_START, GAP_START), (GAP_END, GAP_START), (5 << 30, 4 << 30), (9 << 30, 5 << 30)]
        {
            assert_eq!(memory.below(at), below, "{at:#x}");
        }
        assert_eq!(Memory::map(Mib(3072)).unwrap().end(), GAP_START);
        memory.guest().write_obj(9_u8, GuestAddress(GAP_END + PAGE)).unwrap();
        memory.discard(GuestAddress(GAP_END + PAGE), PAGE).unwrap();
        assert_eq!(memory.guest().read_obj::<u8>(GuestAddress(GAP_END + PAGE)).unwrap(), 0);
        assert!(memory.discard(GuestAddress(GAP_START - PAGE), 2 * PAGE).is_err(), "over the gap");
        assert!(memory.guest().read_obj::<u8>(GuestAddress(GAP_START)).is_err());
    }

    #[test]
    fn what_is_given_back_is_zero_again_also_where_a_file_lay() {
        let memory = Memory::map(Mib(2)).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 8192]).unwrap();
        for laid in [false, true] {
            if laid {
                memory.map_file(GuestAddress(PAGE), &file, PAGE, PAGE).unwrap();
                assert_eq!(memory.guest().read_obj::<u8>(GuestAddress(PAGE)).unwrap(), 7);
            }
            memory.guest().write_obj(9_u8, GuestAddress(PAGE)).unwrap();
            memory.discard(GuestAddress(PAGE), PAGE).unwrap();
            assert_eq!(memory.guest().read_obj::<u8>(GuestAddress(PAGE)).unwrap(), 0);
        }
    }

    #[test]
    fn a_guest_never_changes_the_file_it_was_loaded_from() {
        let memory = Memory::map(Mib(2)).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 4096]).unwrap();
        memory.map_file(GuestAddress(0), &file, 0, PAGE).unwrap();
        memory.guest().write_obj(9_u8, GuestAddress(0)).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        assert_eq!(std::io::Read::bytes(file).next().unwrap().unwrap(), 7);
    }

    #[test]
    fn ranges_outside_of_guest_memory_are_refused() {
        let memory = Memory::map(Mib(2)).unwrap();
        for (at, length) in [(0, 0), (1, PAGE), (0, 1), (2 << 20, PAGE), (0, 4 << 20), (u64::MAX - 4095, PAGE)] {
            assert!(matches!(memory.discard(GuestAddress(at), length), Err(MemoryError::Range { .. })), "{at:#x}");
        }
    }
}
