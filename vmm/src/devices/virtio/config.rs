//! The configuration space: the few bytes that only one kind of device has, such as a disk's size.
//!
//! Guest and device both reach it at any time, from different threads, so it is a thing of its own between them.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::line::Line;

/// A device's configuration, as the guest reads it: little-endian.
#[derive(Debug, Default)]
pub struct ConfigSpace {
    bytes: Mutex<Vec<u8>>,
    /// What the guest may write.
    writable: Range<usize>,
    /// What is this device's own: a device that goes on from a snapshot does not take it over.
    own: Range<usize>,
    /// Nothing of it may be another than it was.
    fixed: bool,
    /// Changes with each change by the device, so that a driver that reads in pieces can tell if they belong together.
    generation: AtomicU32,
    line: OnceLock<Arc<Line>>,
}

impl ConfigSpace {
    /// A configuration of these bytes, of which the guest may write those in `writable`.
    pub fn new(bytes: Vec<u8>, writable: Range<usize>) -> Arc<Self> {
        Arc::new(Self { bytes: Mutex::new(bytes), writable, ..Self::default() })
    }

    /// The same, of which the bytes in `own` are new in each machine that goes on from a snapshot.
    pub fn with_own(bytes: Vec<u8>, own: Range<usize>) -> Arc<Self> {
        Arc::new(Self { bytes: Mutex::new(bytes), own, ..Self::default() })
    }

    /// A configuration that must be the same in each machine that goes on from a snapshot.
    pub fn fixed(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { bytes: Mutex::new(bytes), fixed: true, ..Self::default() })
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on a change is told to the guest on this line.
    pub(super) fn connect(&self, line: &Arc<Line>) {
        let _ = self.line.set(Arc::clone(line)); // a device is connected once
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// What is at an offset; zeroes where nothing is.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let bytes = self.bytes();
        let from = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        let there = from.iter().copied().chain(std::iter::repeat(0));
        data.iter_mut().zip(there).for_each(|(to, from)| *to = from);
    }

    /// The little-endian number at an offset.
    pub fn number(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// The guest writes. What it may not write stays as it is.
    pub(super) fn write(&self, offset: u64, data: &[u8]) {
        let mut bytes = self.bytes();
        let Ok(offset) = usize::try_from(offset) else { return };
        for (place, there) in bytes.iter_mut().enumerate().skip(offset).take(data.len()) {
            if self.writable.contains(&place)
                && let Some(byte) = data.get(place - offset)
            {
                *there = *byte;
            }
        }
    }

    /// The device changes its configuration, and the guest is told.
    pub fn change(&self, offset: usize, data: &[u8]) -> io::Result<()> {
        {
            let mut bytes = self.bytes();
            if let Some(there) = bytes.get_mut(offset..offset + data.len()) {
                there.copy_from_slice(data);
            }
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
        self.line.get().map_or(Ok(()), |line| line.config_changed())
    }

    pub(super) fn save(&self) -> (Vec<u8>, u32) {
        (self.bytes().clone(), self.generation())
    }

    /// Takes what the guest had written, and what the device had said, from a saved configuration of the same size. What is
    /// the device's own stays; where that makes a difference, it is a change.
    pub(super) fn restore(&self, saved: &[u8], generation: u32) -> bool {
        let mut bytes = self.bytes();
        if bytes.len() != saved.len() || self.fixed && *bytes != saved {
            return false;
        }
        let mut changed = 0;
        for (place, (there, saved)) in bytes.iter_mut().zip(saved).enumerate() {
            if !self.own.contains(&place) {
                *there = *saved;
            } else if there != saved {
                changed = 1;
            }
        }
        self.generation.store(generation.wrapping_add(changed), Ordering::SeqCst);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_writes_what_it_may_and_reads_zeroes_past_the_end() {
        let space = ConfigSpace::new(vec![1, 2, 3, 4], 2..3);
        space.write(0, &[9; 8]);
        space.write(u64::MAX, &[9; 8]);
        let mut read = [7; 6];
        space.read(0, &mut read);
        assert_eq!(read, [1, 2, 9, 4, 0, 0]);
        space.read(u64::MAX - 1, &mut read);
        assert_eq!(read, [0; 6]);
    }

    #[test]
    fn what_is_its_own_is_not_taken_over_and_what_is_fixed_must_be_the_same() {
        let space = ConfigSpace::with_own(vec![1, 2, 3], 0..2);
        assert!(space.restore(&[7, 2, 9], 4));
        assert_eq!((space.save().0, space.generation()), (vec![1, 2, 9], 5));
        assert!(!space.restore(&[7, 2], 4));
        let fixed = ConfigSpace::fixed(vec![1, 2]);
        assert!(fixed.restore(&[1, 2], 0) && !fixed.restore(&[1, 3], 0));
    }

    #[test]
    fn a_change_by_the_device_is_a_new_generation() {
        let space = ConfigSpace::new(vec![0; 4], 0..0);
        space.change(0, &7_u32.to_le_bytes()).unwrap();
        space.change(2, &[1, 2, 3]).unwrap(); // does not fit: not half of it either
        assert_eq!((space.number(0), space.generation()), (7, 2));
    }
}
