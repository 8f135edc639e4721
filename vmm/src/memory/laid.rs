//! Which parts of guest memory show a file.
//!
//! A page that shows a file and was never written has no page of its own: nothing tells it from one that was never
//! touched. Whoever saves the memory must know where files lie, and which of their bytes are there at all.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::pieces::Pieces;

/// A file, and where it was laid.
#[derive(Debug, Clone)]
struct Shown {
    file: Arc<File>,
    /// The file's `offset` is at this address; what is left of it may begin further on.
    at: u64,
    offset: u64,
    /// Whether it is of what the memory was loaded from, so that what is there is as it was.
    origin: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Laid(Pieces<Shown>);

impl Laid {
    /// `file` lies over `at` from now on.
    pub(super) fn lay(&mut self, at: Range<u64>, file: Arc<File>, offset: u64) {
        let shown = Shown { file, at: at.start, offset, origin: false };
        self.0.lay([(at, Some(shown))]);
    }

    /// The same for what the memory is loaded from, or goes on from: stretches in ascending order.
    pub(super) fn lay_origin(&mut self, pieces: impl IntoIterator<Item = (Range<u64>, Arc<File>, u64)>) {
        self.0.lay(pieces.into_iter().map(|(at, file, offset)| {
            let shown = Shown { file, at: at.start, offset, origin: true };
            (at, Some(shown))
        }));
    }

    /// No file lies over `range` any more.
    pub(super) fn lift(&mut self, range: &Range<u64>) {
        self.0.lay([(range.clone(), None)]);
    }

    /// The stretches of `all` where nothing lies of what the memory was loaded from.
    pub(super) fn other_than_origin(&self, all: Range<u64>) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        let mut from = all.start;
        for (at, _) in self.0.iter().filter(|(at, shown)| shown.origin && all.start < at.end && at.start < all.end) {
            if from < at.start {
                found.push(from..at.start);
            }
            from = at.end;
        }
        if from < all.end {
            found.push(from..all.end);
        }
        found
    }

    /// The stretches of guest memory, of whole pages, where a file has bytes. Its holes are not asked to be read.
    pub(super) fn data(&self, page: u64) -> io::Result<Vec<Range<u64>>> {
        let mut found = Vec::new();
        for (at, shown) in self.0.iter() {
            let offset = shown.offset + (at.start - shown.at);
            for data in data(&shown.file, offset..offset + (at.end - at.start))? {
                let place = |there: u64| at.start + (there - offset);
                let (start, end) = (place(data.start), place(data.end));
                found.push(start - start % page..end.next_multiple_of(page).min(at.end));
            }
        }
        Ok(found)
    }
}

/// Where a file has bytes within `range`, as its file system tells it (lseek(2), `SEEK_DATA`).
pub(crate) fn data(file: &File, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let seek = |from: u64, whence: libc::c_int| {
        // SAFETY: the descriptor is open while `file` lives; no memory is passed.
        let at = unsafe { libc::lseek(file.as_raw_fd(), from as libc::off_t, whence) };
        match u64::try_from(at) {
            Ok(at) => Ok(Some(at)),
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None), // none from here to the end
                error => Err(error),
            },
        }
    };
    let mut found = Vec::new();
    let mut from = range.start;
    while from < range.end {
        let Some(start) = seek(from, libc::SEEK_DATA)?.filter(|start| *start < range.end) else { break };
        let end = seek(start, libc::SEEK_HOLE)?.unwrap_or(range.end).min(range.end);
        found.push(start..end);
        from = end;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    const PAGE: u64 = 4096;

    fn holey() -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 * PAGE).unwrap();
        for page in [0, 16, 17, 40] {
            file.write_all_at(&[1; PAGE as usize], page * PAGE).unwrap();
        }
        Arc::new(file)
    }

    fn pages(laid: &Laid) -> Vec<u64> {
        let mut pages: Vec<u64> =
            laid.data(PAGE).unwrap().into_iter().flat_map(|range| (range.start / PAGE)..(range.end / PAGE)).collect();
        pages.sort_unstable();
        pages
    }

    #[test]
    fn only_where_the_file_has_bytes_is_there_anything_to_save() {
        let mut laid = Laid::default();
        laid.lay(0..64 * PAGE, holey(), 0);
        assert_eq!(pages(&laid), [0, 16, 17, 40]);
        let mut shifted = Laid::default();
        shifted.lay(100 * PAGE..110 * PAGE, holey(), 16 * PAGE);
        assert_eq!(pages(&shifted), [100, 101]);
    }

    #[test]
    fn what_is_lifted_or_covered_is_gone_and_the_rest_stays() {
        let mut laid = Laid::default();
        laid.lay(0..64 * PAGE, holey(), 0);
        laid.lift(&(16 * PAGE..17 * PAGE));
        assert_eq!(pages(&laid), [0, 17, 40]);
        laid.lay(30 * PAGE..50 * PAGE, holey(), 41 * PAGE);
        assert_eq!(pages(&laid), [0, 17]);
    }

    #[test]
    fn what_is_not_of_the_origin_is_what_was_lifted_or_covered() {
        let mut laid = Laid::default();
        assert_eq!(laid.other_than_origin(0..64).first(), Some(&(0..64)));
        let file = holey();
        laid.lay_origin([(0..32, file.clone(), 0), (32..64, file.clone(), 32)]);
        assert!(laid.other_than_origin(0..64).is_empty());
        laid.lift(&(10..12));
        laid.lay(30..34, file, 0);
        assert_eq!(laid.other_than_origin(0..64), [10..12, 30..34]);
        assert_eq!(laid.other_than_origin(11..31), [11..12, 30..31]);
    }
}
