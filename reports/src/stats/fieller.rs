//! The interval of a ratio of two estimates, each with its error: Fieller's theorem (1954).
//!
//! Dividing the ends of two intervals by each other would be too wide, dividing the estimates alone would claim to be sure. Fieller
//! asks for which ratios r the difference a - r b could be nothing: an interval where b is surely not 0, and no interval
//! where it is not.

use super::{Estimate, Interval};

/// The ratio of two independent estimates with its 95 % interval; none where the lower one is not surely above 0.
pub fn ratio_of(above: &Estimate, below: &Estimate) -> Option<Interval> {
    let (a, b) = (above.value, below.value);
    // The wider of the two t quantiles: that of the estimate with fewer degrees of freedom.
    let (wide_a, wide_b) = (above.high - a, below.high - b);
    let t = [(wide_a, above.error), (wide_b, below.error)]
        .into_iter()
        .filter(|(_, error)| *error > 0.0)
        .map(|(wide, error)| wide / error)
        .fold(0.0, f64::max);
    let (va, vb) = ((t * above.error).powi(2), (t * below.error).powi(2));
    let square = b * b - vb;
    if b <= 0.0 || square <= 0.0 || ![a, b, va, vb].iter().all(|number| number.is_finite()) {
        return None;
    }
    // r with (a - r b)^2 = t^2 (var a + r^2 var b): a quadratic in r.
    let root = ((a * b).powi(2) - square * (a * a - va)).max(0.0).sqrt();
    Some(Interval { estimate: a / b, low: (a * b - root) / square, high: (a * b + root) / square })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn estimate(value: f64, error: f64) -> Estimate {
        Estimate { value, error, low: value - 2.0 * error, high: value + 2.0 * error }
    }

    #[test]
    fn a_divisor_without_error_scales_the_interval() {
        let ratio = ratio_of(&estimate(10.0, 1.0), &estimate(2.0, 0.0)).expect("a ratio");
        assert_eq!(ratio, Interval { estimate: 5.0, low: 4.0, high: 6.0 });
    }

    #[test]
    fn a_divisor_that_may_be_nothing_gives_no_ratio() {
        assert_eq!(ratio_of(&estimate(10.0, 1.0), &estimate(2.0, 1.0)), None);
        assert_eq!(ratio_of(&estimate(10.0, 1.0), &estimate(-2.0, 0.1)), None);
        assert_eq!(ratio_of(&estimate(f64::NAN, 1.0), &estimate(2.0, 0.1)), None);
    }

    #[test]
    fn the_interval_is_the_one_worked_by_hand() {
        // a = 10 (1), b = 5 (0.5), t = 2: 24 r^2 - 100 r + 96 = 0, so r = (100 -+ sqrt(10000 - 9216)) / 48 = 1.5, 2.6667.
        let ratio = ratio_of(&estimate(10.0, 1.0), &estimate(5.0, 0.5)).expect("a ratio");
        assert!((ratio.low - 1.5).abs() < 1e-12 && (ratio.high - 8.0 / 3.0).abs() < 1e-12, "{ratio:?}");
    }

    proptest! {
        #[test]
        fn the_interval_holds_the_ratio(a in -1e6..1e6_f64, b in 1.0..1e6_f64, ea in 0.0..1e3_f64, eb in 0.0..1e3_f64) {
            if let Some(ratio) = ratio_of(&estimate(a, ea), &estimate(b, eb)) {
                prop_assert!(ratio.low <= ratio.estimate + 1e-6 && ratio.estimate <= ratio.high + 1e-6, "{ratio:?}");
            }
        }
    }
}
