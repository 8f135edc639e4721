//! Many tests at once: how sure each must be so that, of all that say "different", not one says so by chance.

/// p-values corrected for their number, by Holm's step-down procedure (1979): the least is multiplied by how many there are, the next
/// by one less, and so on, and none falls below one before it. Who then calls different what is at most `a` errs anywhere at all with
/// a probability of at most `a`, however the tests hang together.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|one, other| p[*one].total_cmp(&p[*other]));
    let mut corrected = vec![1.0; p.len()];
    let mut least = 0.0_f64;
    for (place, index) in order.into_iter().enumerate() {
        least = least.max((p.len() - place) as f64 * p[index]).min(1.0);
        corrected[index] = least;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_corrections_are_those_worked_by_hand() {
        // Four tests: 0.005 * 4, 0.01 * 3, then 0.03 * 2; the last would be 0.04 and may not fall below that.
        assert_eq!(holm(&[0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02]);
        assert_eq!(holm(&[0.6, 0.5]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn a_correction_makes_nothing_surer(p in proptest::collection::vec(0.0..=1.0_f64, 0..40)) {
            let corrected = holm(&p);
            prop_assert!(corrected.iter().zip(&p).all(|(after, before)| after >= before && *after <= 1.0));
        }
    }
}
