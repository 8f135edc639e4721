//! Saved memory in several files: the first holds all of it, each later one what had changed since the one before.
//!
//! All are as long as the memory, and each byte has its own place in each of them. So they are only read in the right
//! order: each stretch from the last file that has it. What a later file has is told by its ranges; a hole in there is
//! zeroes, and no window to what lies beneath.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::pieces::Pieces;
use super::{copy_sparse, laid};

/// The files of a saved memory.
#[derive(Debug)]
pub(crate) struct Layers {
    length: u64,
    files: Vec<Arc<File>>,
    /// The number of the file for each stretch of the memory.
    pieces: Pieces<usize>,
}

impl Layers {
    /// A memory of `length` bytes that is in one file.
    pub(crate) fn whole(file: File, length: u64) -> Self {
        let mut layers = Self { length, files: Vec::new(), pieces: Pieces::default() };
        layers.change(file, std::slice::from_ref(&(0..length)));
        layers
    }

    /// The same, changed: what `file` has in these ranges, in ascending order and none over another, is newer.
    pub(crate) fn change(&mut self, file: File, ranges: &[Range<u64>]) {
        let number = self.files.len();
        self.files.push(Arc::new(file));
        self.pieces.lay(ranges.iter().map(|range| (range.clone(), Some(number))));
    }

    /// How many files it is in.
    pub(crate) fn depth(&self) -> usize {
        self.files.len()
    }

    /// How long the memory is, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// All of it in ascending order, by the files that have it.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (Range<u64>, &Arc<File>)> {
        self.pieces.iter().filter_map(|(range, number)| Some((range.clone(), self.files.get(*number)?)))
    }

    /// Where anything may be but zeroes.
    pub(crate) fn data(&self) -> io::Result<Vec<Range<u64>>> {
        let found = self.pieces().map(|(range, file)| laid::data(file, range)).collect::<io::Result<Vec<_>>>();
        Ok(found?.concat())
    }

    /// Reads what is at `at`.
    pub(crate) fn read(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let end = at + bytes.len() as u64;
        for (range, file) in self.pieces() {
            let (from, to) = (range.start.max(at), range.end.min(end));
            if from < to
                && let Some(part) = bytes.get_mut((from - at) as usize..(to - at) as usize)
            {
                file.read_exact_at(part, from)?;
            }
        }
        Ok(())
    }

    /// Writes all of it to one file, which is empty. Holes stay holes.
    pub(crate) fn copy_to(&self, to: &File) -> io::Result<()> {
        if let [whole] = self.files.as_slice() {
            return copy_sparse(whole, to);
        }
        to.set_len(self.length)?;
        let mut buffer = vec![0; AT_ONCE];
        for data in self.data()? {
            let mut at = data.start;
            while at < data.end {
                let part = buffer.get_mut(..AT_ONCE.min((data.end - at) as usize)).unwrap_or_default();
                self.read(part, at)?;
                to.write_all_at(part, at)?;
                at += part.len() as u64;
            }
        }
        Ok(())
    }
}

/// How much is copied at once, in bytes.
const AT_ONCE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(byte: u8, range: Range<u64>) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&vec![byte; (range.end - range.start) as usize], range.start).unwrap();
        file
    }

    #[test]
    fn each_stretch_is_read_from_the_last_file_that_has_it_and_holes_stay_holes() {
        const PAGE: u64 = 4096;
        let mut layers = Layers::whole(file(1, 0..4 * PAGE), 1 << 20);
        layers.change(file(2, 2 * PAGE..3 * PAGE), &[PAGE..3 * PAGE, 9 * PAGE..10 * PAGE]);
        assert_eq!(layers.depth(), 2);
        let copy = tempfile::tempfile().unwrap();
        layers.copy_to(&copy).unwrap();
        for read in
            [&|bytes: &mut [u8], at| layers.read(bytes, at), &|bytes: &mut [u8], at| copy.read_exact_at(bytes, at)]
                as [&dyn Fn(&mut [u8], u64) -> io::Result<()>; 2]
        {
            let mut found = vec![9; 12 * PAGE as usize];
            read(&mut found, 0).unwrap();
            let bytes: Vec<u8> = found.chunks(PAGE as usize).map(|page| page[7]).collect();
            assert_eq!(bytes, [1, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        let data = [0..PAGE, 2 * PAGE..3 * PAGE, 3 * PAGE..4 * PAGE];
        assert_eq!(layers.data().unwrap(), data);
        assert_eq!(laid::data(&copy, 0..1 << 20).unwrap(), [0..PAGE, 2 * PAGE..4 * PAGE]);
    }
}
