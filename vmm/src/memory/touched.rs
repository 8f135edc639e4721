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

/// What of one list of stretches is in the other, too; both are in ascending order.
pub(super) fn common(one: &[Range<u64>], other: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut found = Vec::new();
    let (mut first, mut second) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (first.peek(), second.peek()) {
        let both = a.start.max(b.start)..a.end.min(b.end);
        // The one that ends first has nothing more in common with what follows.
        if a.end < b.end {
            first.next()
        } else {
            second.next()
        };
        if !both.is_empty() {
            found.push(both);
        }
    }
    found
}

/// What of these stretches, which are in ascending order, is in `range`.
pub(super) fn within(stretches: &[Range<u64>], range: &Range<u64>) -> Vec<Range<u64>> {
    common(stretches, std::slice::from_ref(range))
}

/// At most `most` stretches that hold all of these: the narrowest gaps between them go along.
pub(super) fn few(stretches: Vec<Range<u64>>, most: usize) -> Vec<Range<u64>> {
    let mut gaps: Vec<u64> = stretches.windows(2).map(|pair| pair[1].start - pair[0].end).collect();
    let widest = match stretches.len().checked_sub(most + 1) {
        None => return stretches,
        Some(last) => *gaps.select_nth_unstable(last).1,
    };
    let mut few: Vec<Range<u64>> = Vec::with_capacity(most);
    for next in stretches {
        match few.last_mut() {
            Some(last) if next.start - last.end <= widest => last.end = next.end,
            _ => few.push(next),
        }
    }
    few
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

            let (one, other) = (Stretches::union(ranges(&one), Vec::new()).0, Stretches::union(ranges(&other), Vec::new()).0);
            let set = |ranges: &[Range<u64>]| ranges.iter().cloned().flatten().collect::<BTreeSet<_>>();
            prop_assert_eq!(set(&common(&one, &other)), &set(&one) & &set(&other));
            for most in 1..4 {
                let few = few(one.clone(), most);
                prop_assert!(few.len() <= most && set(&few).is_superset(&set(&one)));
                prop_assert!(one.len() > most || few == one);
            }
        }
    }
}
