//! The permutation test: if the two names meant nothing, how often would shuffling them show so large a difference?

use super::Random;

/// How many shuffles a p-value rests on.
pub const PERMUTATIONS: usize = 9_999;

/// Two-sided p-value for a difference of medians between `a` and `b`; none where either has no median.
///
/// The data themselves count as one of the shuffles, so p is never 0 (Phipson and Smyth, "Permutation P-values should never be
/// zero", 2010).
pub fn permutation_test(a: &[f64], b: &[f64], seed: u64) -> Option<f64> {
    if [a, b].concat().iter().any(|number| !number.is_finite()) {
        return None;
    }
    let mut room = Vec::with_capacity(a.len().max(b.len()));
    let mut difference = |a: &[f64], b: &[f64]| Some((median(a, &mut room)? - median(b, &mut room)?).abs());
    let observed = difference(a, b)?;
    // A hair below, so that a shuffle that is the same up to rounding counts as one that is the same.
    let threshold = observed * (1.0 - 1e-12);
    let mut pool = [a, b].concat();
    let mut random = Random::new(seed);
    let mut at_least = 1;
    for _ in 0..PERMUTATIONS {
        shuffle(&mut pool, &mut random);
        let (left, right) = pool.split_at(a.len());
        if difference(left, right)? >= threshold {
            at_least += 1;
        }
    }
    Some(f64::from(at_least) / (PERMUTATIONS + 1) as f64)
}

/// Fisher and Yates, in Durstenfeld's form.
/// The median, found without sorting all the rest; `room` is where the numbers are moved about.
fn median(numbers: &[f64], room: &mut Vec<f64>) -> Option<f64> {
    room.clear();
    room.extend_from_slice(numbers);
    let last = numbers.len().checked_sub(1)?;
    let (below, upper, _) = room.select_nth_unstable_by(numbers.len() / 2, f64::total_cmp);
    if last % 2 == 0 {
        return Some(*upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(lower + 0.5 * (*upper - lower))
}

fn shuffle(numbers: &mut [f64], random: &mut Random) {
    for last in (1..numbers.len()).rev() {
        numbers.swap(last, random.below(last + 1));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Sorted;
    use super::*;

    #[test]
    fn p_is_the_share_counted_by_hand() {
        // Of the 20 ways to take three of 1..=6, four differ in median from the rest by 3 or more: {1,2,3}, {1,2,4} and their
        // complements {4,5,6}, {3,5,6}. So p = 0.2; four standard errors of 9,999 shuffles are 0.016.
        let p = permutation_test(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0], 5).expect("numbers");
        assert!((p - 0.2).abs() < 0.016, "{p}");
    }

    #[test]
    fn equal_samples_are_no_evidence() {
        assert_eq!(permutation_test(&[5.0; 8], &[5.0; 8], 1), Some(1.0));
    }

    #[test]
    fn samples_that_never_overlap_are_strong_evidence() {
        let (a, b): (Vec<f64>, Vec<f64>) = (0..30).map(|n| (f64::from(n), f64::from(n + 100))).unzip();
        let p = permutation_test(&a, &b, 1).expect("numbers");
        assert!(p < 0.001 && p > 0.0, "{p}");
    }

    #[test]
    fn nothing_to_compare_gives_no_p() {
        assert_eq!(permutation_test(&[], &[1.0], 1), None);
        assert_eq!(permutation_test(&[1.0], &[f64::NAN], 1), None);
    }

    proptest! {
        #[test]
        fn the_median_found_is_the_median_sorted_for(numbers in prop::collection::vec(-1e3..1e3_f64, 1..60)) {
            let sorted = Sorted::new(numbers.clone()).map(|numbers| numbers.median());
            prop_assert_eq!(median(&numbers, &mut Vec::new()), sorted);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn a_shuffle_loses_nothing(numbers in prop::collection::vec(-1e3..1e3_f64, 0..40), seed: u64) {
            let mut shuffled = numbers.clone();
            shuffle(&mut shuffled, &mut Random::new(seed));
            prop_assert_eq!(Sorted::new(shuffled), Sorted::new(numbers));
        }
    }
}
