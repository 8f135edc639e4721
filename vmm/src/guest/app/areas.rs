//! What the program has asked for: a map from stretches of its addresses to the rights it wants there.
//!
//! This is the list that `/proc/self/maps` would show. It knows neither frames nor tables; [`super::space`] keeps those
//! in step with it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::rights::Rights;

/// Stretches of pages, none over another; neighbours of equal rights are one.
#[derive(Debug, Default)]
pub(super) struct Areas {
    by_start: BTreeMap<u64, (u64, Rights)>,
}

impl Areas {
    /// All of them, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = (Range<u64>, Rights)> {
        self.by_start.iter().map(|(start, (end, rights))| (*start..*end, *rights))
    }

    /// How many stretches there are.
    pub(super) fn len(&self) -> usize {
        self.by_start.len()
    }

    /// The parts of `range` that are in use, with their rights, in order.
    pub(super) fn within(&self, range: &Range<u64>) -> Vec<(Range<u64>, Rights)> {
        let from = self.by_start.range(..=range.start).next_back().map_or(range.start, |(start, _)| *start);
        self.by_start
            .range(from..range.end.max(from))
            .map(|(start, (end, rights))| ((*start).max(range.start)..(*end).min(range.end), *rights))
            .filter(|(part, _)| part.start < part.end)
            .collect()
    }

    /// Whether nothing of `range` is in use.
    pub(super) fn is_free(&self, range: &Range<u64>) -> bool {
        self.by_start.range(..range.end).next_back().is_none_or(|(_, (end, _))| *end <= range.start)
    }

    /// Whether all of `range` is in use.
    pub(super) fn covers(&self, range: &Range<u64>) -> bool {
        let used: u64 = self.within(range).iter().map(|(part, _)| part.end - part.start).sum();
        used == range.end - range.start
    }

    /// Puts `range` in use with `rights`, whatever was there.
    pub(super) fn insert(&mut self, range: Range<u64>, rights: Rights) {
        self.remove(&range);
        let Range { mut start, mut end } = range;
        if let Some((low, (high, same))) = self.by_start.range(..start).next_back().map(|(low, area)| (*low, *area))
            && high == start
            && same == rights
        {
            start = low;
        }
        if let Some((high, same)) = self.by_start.get(&end).copied()
            && same == rights
        {
            self.by_start.remove(&end);
            end = high;
        }
        self.by_start.insert(start, (end, rights));
    }

    /// Frees `range`, cutting what reaches over its ends.
    pub(super) fn remove(&mut self, range: &Range<u64>) {
        for (part, rights) in self.within(range) {
            let Some((start, (end, _))) =
                self.by_start.range(..=part.start).next_back().map(|(start, area)| (*start, *area))
            else {
                continue;
            };
            self.by_start.remove(&start);
            if start < part.start {
                self.by_start.insert(start, (part.start, rights));
            }
            if part.end < end {
                self.by_start.insert(part.end, (end, rights));
            }
        }
    }

    /// The lowest free stretch of `length` bytes within `bounds`.
    pub(super) fn find(&self, length: u64, bounds: &Range<u64>) -> Option<u64> {
        let mut candidate = bounds.start;
        for (part, _) in self.within(bounds) {
            if part.start - candidate >= length {
                break;
            }
            candidate = part.end;
        }
        (bounds.end.checked_sub(candidate)? >= length).then_some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 40;

    proptest! {
        /// Against an array of pages.
        #[test]
        fn areas_are_an_array_of_rights(steps in prop::collection::vec((0_u8..3, 0_u64..36, 1_u64..8), 0..60)) {
            let mut areas = Areas::default();
            let mut model = [None; SIZE as usize];
            for (what, start, length) in steps {
                let range = start..(start + length).min(SIZE);
                let rights = [None, Some(Rights::READ), Some(Rights::READ_WRITE)][usize::from(what)];
                match rights {
                    None => areas.remove(&range),
                    Some(rights) => areas.insert(range.clone(), rights),
                }
                model[range.start as usize..range.end as usize].fill(rights);

                let mut seen = [None; SIZE as usize];
                for (part, rights) in areas.within(&(0..SIZE)) {
                    seen[part.start as usize..part.end as usize].fill(Some(rights));
                }
                prop_assert_eq!(seen, model);
                let mut runs = model.to_vec();
                runs.dedup();
                prop_assert_eq!(areas.len(), runs.iter().flatten().count(), "equal neighbours are one");

                let slice = &model[range.start as usize..range.end as usize];
                prop_assert_eq!(areas.is_free(&range), slice.iter().all(Option::is_none));
                prop_assert_eq!(areas.covers(&range), slice.iter().all(Option::is_some));
                let hole = (0..=SIZE - length).find(|at| model[*at as usize..(at + length) as usize].iter().all(Option::is_none));
                prop_assert_eq!(areas.find(length, &(0..SIZE)), hole);
            }
        }
    }
}
