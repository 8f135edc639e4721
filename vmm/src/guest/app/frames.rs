//! The guest's physical pages: which are free.
//!
//! A frame costs nothing until somebody touches it, so frames are handed out at once when a program maps memory, not at
//! its first access: an access would have to come to the monitor as a page fault, at 50 µs each.

use std::collections::BTreeMap;
use std::ops::Range;

use super::PAGE;

/// The free frames, as stretches of guest-physical addresses: start to end, none touching another.
#[derive(Debug)]
pub(super) struct Frames {
    free: BTreeMap<u64, u64>,
    available: u64,
}

impl Frames {
    /// All of `range` (page aligned) is free.
    pub(super) fn new(range: Range<u64>) -> Self {
        let mut frames = Self { free: BTreeMap::new(), available: 0 };
        frames.give(range);
        frames
    }

    /// The free stretches in order, start and end each.
    pub(super) fn stretches(&self) -> impl Iterator<Item = (u64, u64)> {
        self.free.iter().map(|(start, end)| (*start, *end))
    }

    /// Where what is free up to `end` begins: no frame from there on is taken.
    pub(super) fn reach(&self, end: u64) -> u64 {
        self.free.range(..end).next_back().filter(|(_, last)| **last == end).map_or(end, |(start, _)| *start)
    }

    /// How many bytes are free.
    pub(super) fn available(&self) -> u64 {
        self.available
    }

    /// Takes one frame.
    pub(super) fn take_one(&mut self) -> Option<u64> {
        self.take_run(PAGE).map(|run| run.start)
    }

    /// Takes `length` bytes in one piece: the first stretch that is long enough.
    pub(super) fn take_run(&mut self, length: u64) -> Option<Range<u64>> {
        let (start, end) = self.free.iter().map(|(start, end)| (*start, *end)).find(|(s, e)| e - s >= length)?;
        Some(self.cut(start, end, length))
    }

    /// Takes `length` bytes: in one piece where there is one, otherwise in as few as the lowest stretches give. Nothing
    /// is taken where there is not enough.
    pub(super) fn take(&mut self, length: u64) -> Option<Vec<Range<u64>>> {
        if length > self.available {
            return None;
        }
        if let Some(run) = self.take_run(length) {
            return Some(vec![run]);
        }
        let mut runs = Vec::new();
        let mut missing = length;
        while missing > 0 {
            let (start, end) = self.free.first_key_value().map(|(start, end)| (*start, *end))?;
            let run = self.cut(start, end, missing.min(end - start));
            missing -= run.end - run.start;
            runs.push(run);
        }
        Some(runs)
    }

    /// Gives frames back. What is already free stays so.
    pub(super) fn give(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        // Every stretch that touches the new one becomes part of it.
        while let Some((low, high)) =
            self.free.range(..=end).next_back().map(|(low, high)| (*low, *high)).filter(|(_, high)| *high >= start)
        {
            self.free.remove(&low);
            self.available -= high - low;
            start = start.min(low);
            end = end.max(high);
        }
        self.free.insert(start, end);
        self.available += end - start;
    }

    /// Takes the first `length` bytes of the free stretch `start..end`.
    fn cut(&mut self, start: u64, end: u64, length: u64) -> Range<u64> {
        self.free.remove(&start);
        if start + length < end {
            self.free.insert(start + length, end);
        }
        self.available -= length;
        start..start + length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_long_run_is_found_behind_a_short_hole() {
        let mut frames = Frames::new(0x1000..0x9000);
        assert_eq!(frames.take_run(0x1000), Some(0x1000..0x2000));
        assert_eq!(frames.take_run(0x1000), Some(0x2000..0x3000));
        frames.give(0x1000..0x2000);
        assert_eq!(frames.take_run(0x2000), Some(0x3000..0x5000));
    }

    #[test]
    fn the_reach_ends_where_nothing_more_is_taken() {
        let mut frames = Frames::new(0x1000..0x9000);
        assert_eq!(frames.reach(0x9000), 0x1000);
        frames.take_run(0x3000);
        frames.give(0x1000..0x2000);
        assert_eq!(frames.reach(0x9000), 0x4000);
        frames.take(0x6000);
        assert_eq!(frames.reach(0x9000), 0x9000);
    }

    #[test]
    fn what_no_stretch_holds_comes_in_pieces() {
        let mut frames = Frames::new(0x1000..0x5000);
        assert_eq!(frames.take(0x4000).map(|runs| runs.len()), Some(1));
        frames.give(0x1000..0x2000);
        frames.give(0x3000..0x4000);
        assert_eq!(frames.take(0x2000), Some(vec![0x1000..0x2000, 0x3000..0x4000]));
        assert_eq!(frames.take(0x1000), None);
    }

    proptest! {
        /// Against a set of page numbers: nothing is handed out twice, nothing is lost.
        #[test]
        fn frames_are_a_set_of_pages(steps in prop::collection::vec((any::<bool>(), 0_u64..24, 1_u64..6), 0..60)) {
            let mut frames = Frames::new(0..32 * PAGE);
            let mut free: BTreeSet<u64> = (0..32).collect();
            for (take, at, count) in steps {
                if take {
                    match frames.take(count * PAGE) {
                        Some(runs) => for page in runs.into_iter().flat_map(|run| run.start / PAGE..run.end / PAGE) {
                            prop_assert!(free.remove(&page), "page {page} was handed out twice");
                        },
                        None => prop_assert!((free.len() as u64) < count),
                    }
                } else {
                    frames.give(at * PAGE..(at + count) * PAGE);
                    free.extend(at..at + count);
                }
                prop_assert_eq!(frames.available(), free.len() as u64 * PAGE);
            }
        }
    }
}
