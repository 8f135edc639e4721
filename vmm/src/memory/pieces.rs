//! What lies where: stretches of addresses, none over another, each with what is there.

use std::collections::VecDeque;
use std::ops::Range;

/// In ascending order.
#[derive(Debug)]
pub(super) struct Pieces<T>(Vec<(Range<u64>, T)>);

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone> Pieces<T> {
    /// Lays stretches, in ascending order and none over another, over what is there; `None` leaves nothing there.
    pub(super) fn lay(&mut self, newer: impl IntoIterator<Item = (Range<u64>, Option<T>)>) {
        let mut old = VecDeque::from(std::mem::take(&mut self.0));
        let mut laid = Vec::with_capacity(old.len() + 2);
        for (range, what) in newer {
            while let Some((at, value)) = old.pop_front() {
                if at.start >= range.end {
                    old.push_front((at, value));
                    break;
                }
                if at.start < range.start {
                    laid.push((at.start..at.end.min(range.start), value.clone()));
                }
                if at.end > range.end {
                    old.push_front((range.end..at.end, value)); // the next ones may lie over it
                    break;
                }
            }
            laid.extend(what.map(|what| (range, what)));
        }
        laid.extend(old);
        self.0 = laid;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Range<u64>, T)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<(Range<u64>, Option<u8>)>> {
        let cuts = prop::collection::btree_set(0_u64..64, 0..12);
        (cuts, any::<Option<u8>>()).prop_map(|(cuts, what)| {
            let cuts: Vec<u64> = cuts.into_iter().collect();
            cuts.chunks_exact(2).map(|pair| (pair[0]..pair[1], what)).collect()
        })
    }

    proptest! {
        /// Against an array that is written over.
        #[test]
        fn what_was_laid_last_is_there(layings in prop::collection::vec(ranges(), 0..6)) {
            let mut pieces = Pieces::default();
            let mut expected = [None; 64];
            for ranges in layings {
                for (range, what) in &ranges {
                    expected[range.start as usize..range.end as usize].fill(*what);
                }
                pieces.lay(ranges);
            }
            let mut found = [None; 64];
            let mut end = 0;
            for (range, what) in pieces.iter() {
                prop_assert!(end <= range.start && range.start < range.end);
                end = range.end;
                found[range.start as usize..range.end as usize].fill(Some(*what));
            }
            prop_assert_eq!(found, expected);
        }
    }
}
