//! Which pages of guest memory hold anything.
//!
//! The kernel keeps it: for each page of a process `/proc/self/pagemap` has 64 bits, of which three matter here: the page is
//! in memory, it is in swap, it is a page of a file (`Documentation/admin-guide/mm/pagemap.rst`). To ask is not to touch: a
//! page that nobody has used stays without memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::PAGE;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE: u64 = 1 << 61;
/// How many pages are asked for at once: 64 KiB of answers, 32 MiB of memory.
const AT_ONCE: u64 = 8192;

/// The pages of this process from `address` on, `length` bytes, that are its own: written, or read where no file lies.
/// As stretches of offsets from `address`.
pub(super) fn own_pages(address: u64, length: u64) -> io::Result<Vec<Range<u64>>> {
    let pagemap = File::open("/proc/self/pagemap")?;
    let mut found = Stretches::default();
    let mut buffer = vec![0_u8; (AT_ONCE * 8) as usize];
    let pages = length / PAGE;
    let mut first = 0;
    while first < pages {
        let count = AT_ONCE.min(pages - first);
        let answers = buffer.get_mut(..(count * 8) as usize).unwrap_or_default();
        pagemap.read_exact_at(answers, (address / PAGE + first) * 8)?;
        for (answer, page) in answers.as_chunks::<8>().0.iter().zip(first..) {
            let bits = u64::from_le_bytes(*answer);
            if bits & SWAPPED != 0 || bits & (PRESENT | FILE) == PRESENT {
                found.add(page * PAGE..(page + 1) * PAGE);
            }
        }
        first += count;
    }
    Ok(found.0)
}

/// Stretches in ascending order, none touching another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stretches(pub(super) Vec<Range<u64>>);

impl Stretches {
    /// Adds one that begins at or after the beginning of the last.
    fn add(&mut self, next: Range<u64>) {
        match self.0.last_mut() {
            Some(last) if next.start <= last.end => last.end = last.end.max(next.end),
            _ => self.0.push(next),
        }
    }

    /// Those of both lists.
    pub(super) fn union(mut all: Vec<Range<u64>>, others: Vec<Range<u64>>) -> Self {
        all.extend(others);
        all.sort_by_key(|range| range.start);
        let mut union = Self::default();
        all.into_iter().filter(|range| !range.is_empty()).for_each(|range| union.add(range));
        union
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a set of numbers.
        #[test]
        fn a_union_is_a_union(
            one in prop::collection::vec((0_u64..100, 0_u64..9), 0..20),
            other in prop::collection::vec((0_u64..100, 0_u64..9), 0..20),
        ) {
            let ranges = |list: &[(u64, u64)]| list.iter().map(|(start, length)| *start..start + length).collect::<Vec<_>>();
            let union = Stretches::union(ranges(&one), ranges(&other));
            let expected: BTreeSet<u64> = ranges(&one).into_iter().chain(ranges(&other)).flatten().collect();
            prop_assert_eq!(union.0.iter().cloned().flatten().collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
            prop_assert!(union.0.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
