//! Numbers in ascending order: what every rank statistic starts from.

use super::Fences;

/// At least one finite number, in ascending order. Having one is proof that its statistics exist.
#[derive(Clone, Debug, PartialEq)]
pub struct Sorted(Vec<f64>);

impl Sorted {
    /// Sorts the numbers. None where there are none, or where one is not finite.
    pub fn new(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        if numbers.is_empty() || numbers.iter().any(|number| !number.is_finite()) {
            return None;
        }
        numbers.sort_by(f64::total_cmp);
        Some(Self(numbers))
    }

    /// The numbers, ascending.
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }

    /// How many there are: never 0.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest.
    pub fn min(&self) -> f64 {
        self.at(0)
    }

    /// The largest.
    pub fn max(&self) -> f64 {
        self.at(self.0.len() - 1)
    }

    /// The `p`-quantile, `p` in 0..=1: type 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages" (The
    /// American Statistician 50, 1996), which R, `NumPy` and Python's `quantiles(method="inclusive")` use: linear between
    /// the order statistics, with the smallest at 0 and the largest at 1.
    pub fn quantile(&self, p: f64) -> f64 {
        let place = p.clamp(0.0, 1.0) * (self.0.len() - 1) as f64;
        let (below, share) = (place.floor() as usize, place.fract());
        let (low, high) = (self.at(below), self.at(below + 1));
        low + share * (high - low)
    }

    /// The middle number, or the mean of the two middle ones.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Median absolute deviation from the median, unscaled (for a bell curve it is 0.6745 standard deviations).
    pub fn mad(&self) -> f64 {
        let median = self.median();
        let deviations = self.0.iter().map(|number| (number - median).abs());
        Self::new(deviations).map_or(0.0, |deviations| deviations.median())
    }

    /// Tukey's fences around the bulk of the numbers.
    pub fn fences(&self) -> Fences {
        Fences::around(self.quantile(0.25), self.quantile(0.75))
    }

    /// The number at a rank; past the last rank, the last number.
    fn at(&self, rank: usize) -> f64 {
        self.0.get(rank).or(self.0.last()).copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(numbers: &[f64]) -> Sorted {
        Sorted::new(numbers.iter().copied()).expect("finite numbers")
    }

    #[test]
    fn quantiles_agree_with_python() {
        // statistics.quantiles([15, 20, 35, 40, 50, 3, 8], n=4, method="inclusive") == [11.5, 20.0, 37.5]
        let numbers = sorted(&[15.0, 20.0, 35.0, 40.0, 50.0, 3.0, 8.0]);
        let quartiles = [0.25, 0.5, 0.75].map(|p| numbers.quantile(p));
        assert_eq!(quartiles, [11.5, 20.0, 37.5]);
    }

    #[test]
    fn a_high_quantile_of_few_numbers_lies_between_the_last_two() {
        // statistics.quantiles(range(1, 11), n=100, method="inclusive")[98] == 9.91
        let numbers = sorted(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
        assert!((numbers.quantile(0.99) - 9.91).abs() < 1e-12);
    }

    #[test]
    fn the_median_of_an_even_count_is_the_mean_of_the_middle_two() {
        assert_eq!(sorted(&[4.0, 1.0, 3.0, 2.0]).median(), 2.5);
    }

    #[test]
    fn the_mad_is_the_textbook_one() {
        // The example of Wikipedia's "Median absolute deviation": {1, 1, 2, 2, 4, 6, 9} has median 2 and MAD 1.
        assert_eq!(sorted(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]).mad(), 1.0);
    }

    #[test]
    fn nothing_and_nan_have_no_statistics() {
        assert_eq!(Sorted::new([]), None);
        assert_eq!(Sorted::new([1.0, f64::NAN]), None);
        assert_eq!(Sorted::new([f64::INFINITY]), None);
    }

    proptest! {
        #[test]
        fn quantiles_never_fall_and_never_leave_the_range(
            numbers in prop::collection::vec(-1e9..1e9_f64, 1..60), p in 0.0..1.0_f64, q in 0.0..1.0_f64,
        ) {
            let numbers = sorted(&numbers);
            let (low, high) = (numbers.quantile(p.min(q)), numbers.quantile(p.max(q)));
            prop_assert!(numbers.min() <= low && low <= high && high <= numbers.max());
        }

        #[test]
        fn the_median_moves_and_scales_with_its_numbers(
            numbers in prop::collection::vec(-1e6..1e6_f64, 1..60), shift in -1e6..1e6_f64,
        ) {
            let moved = sorted(&numbers.iter().map(|n| 2.0 * n + shift).collect::<Vec<_>>());
            let numbers = sorted(&numbers);
            prop_assert!((moved.median() - (2.0 * numbers.median() + shift)).abs() < 1e-6);
            prop_assert!((moved.mad() - 2.0 * numbers.mad()).abs() < 1e-6);
        }
    }
}
