//! Which parts of guest memory show a file.
//!
//! A page that shows a file and was never written has no page of its own: nothing tells it from one that was never
//! touched. Whoever saves the memory must know where files lie, and which of their bytes are there at all.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// A stretch of guest memory that shows a file from `offset` on.
#[derive(Debug)]
struct Piece {
    at: Range<u64>,
    file: File,
    offset: u64,
}

/// All of them, none over another.
#[derive(Debug, Default)]
pub(super) struct Laid(Vec<Piece>);

impl Laid {
    /// `file` lies over `at` from now on.
    pub(super) fn lay(&mut self, at: Range<u64>, file: &File, offset: u64) -> io::Result<()> {
        self.lift(&at)?;
        self.0.push(Piece { at, file: file.try_clone()?, offset });
        Ok(())
    }

    /// No file lies over `range` any more.
    pub(super) fn lift(&mut self, range: &Range<u64>) -> io::Result<()> {
        let mut kept = Vec::with_capacity(self.0.len());
        for piece in self.0.drain(..) {
            if piece.at.end <= range.start || range.end <= piece.at.start {
                kept.push(piece);
                continue;
            }
            if range.end < piece.at.end {
                let offset = piece.offset + (range.end - piece.at.start);
                kept.push(Piece { at: range.end..piece.at.end, file: piece.file.try_clone()?, offset });
            }
            if piece.at.start < range.start {
                kept.push(Piece { at: piece.at.start..range.start, ..piece });
            }
        }
        self.0 = kept;
        Ok(())
    }

    /// The stretches of guest memory, of whole pages, where a file has bytes. Its holes are not asked to be read.
    pub(super) fn data(&self, page: u64) -> io::Result<Vec<Range<u64>>> {
        let mut found = Vec::new();
        for piece in &self.0 {
            let length = piece.at.end - piece.at.start;
            for data in data(&piece.file, piece.offset..piece.offset + length)? {
                let at = |offset: u64| piece.at.start + (offset - piece.offset);
                let (start, end) = (at(data.start), at(data.end));
                found.push(start - start % page..end.next_multiple_of(page).min(piece.at.end));
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

    fn holey() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 * PAGE).unwrap();
        for page in [0, 16, 17, 40] {
            file.write_all_at(&[1; PAGE as usize], page * PAGE).unwrap();
        }
        file
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
        laid.lay(0..64 * PAGE, &holey(), 0).unwrap();
        assert_eq!(pages(&laid), [0, 16, 17, 40]);
        let mut shifted = Laid::default();
        shifted.lay(100 * PAGE..110 * PAGE, &holey(), 16 * PAGE).unwrap();
        assert_eq!(pages(&shifted), [100, 101]);
    }

    #[test]
    fn what_is_lifted_or_covered_is_gone_and_the_rest_stays() {
        let mut laid = Laid::default();
        laid.lay(0..64 * PAGE, &holey(), 0).unwrap();
        laid.lift(&(16 * PAGE..17 * PAGE)).unwrap();
        assert_eq!(pages(&laid), [0, 17, 40]);
        laid.lay(30 * PAGE..50 * PAGE, &holey(), 41 * PAGE).unwrap();
        assert_eq!(pages(&laid), [0, 17]);
    }
}
