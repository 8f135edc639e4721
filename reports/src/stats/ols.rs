//! A straight line through points, by least squares, and how sure its slope is.

use super::student_quantile;

/// A coefficient with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The least-squares value.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
    /// Lower end of the 95 % interval (Student's t with n - 2 degrees of freedom).
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// y = intercept + slope x.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// What one more x costs.
    pub slope: Estimate,
    /// What none costs.
    pub intercept: Estimate,
    /// The share of y's variance that the line explains, in 0..=1; 1 where y does not vary.
    pub r_squared: f64,
}

/// Ordinary least squares over `(x, y)` points; none for fewer than three, for an x that never varies, or for a number
/// that is not finite.
///
/// Its interval assumes residuals alike all along the line: look at them before trusting it.
pub fn ols(points: &[(f64, f64)]) -> Option<Line> {
    let finite = points.iter().all(|(x, y)| x.is_finite() && y.is_finite());
    if points.len() < 3 || !finite {
        return None;
    }
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    // Deviations from the means, not raw squares: the difference of two large sums would lose every digit that matters.
    let sum = |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|(x, y)| of(x - mean_x, y - mean_y)).sum::<f64>();
    let (sxx, sxy, syy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    if sxx <= 0.0 {
        return None;
    }
    let slope = sxy / sxx;
    let residual = sum(&|x, y| (y - slope * x).powi(2));
    let variance = residual / (count - 2.0);
    let t = student_quantile(0.975, count - 2.0)?;
    let estimate = |value: f64, error: f64| Estimate { value, error, low: value - t * error, high: value + t * error };
    Some(Line {
        slope: estimate(slope, (variance / sxx).sqrt()),
        intercept: estimate(mean_y - slope * mean_x, (variance * (1.0 / count + mean_x * mean_x / sxx)).sqrt()),
        r_squared: if syy > 0.0 { 1.0 - residual / syy } else { 1.0 },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(found: f64, certified: f64) -> bool {
        (found / certified - 1.0).abs() < 1e-9
    }

    /// NIST Statistical Reference Datasets, linear regression, "Norris" (interlaboratory ozone study), as (y, x).
    const NORRIS: [(f64, f64); 36] = [
        (0.1, 0.2),
        (338.8, 337.4),
        (118.1, 118.2),
        (888.0, 884.6),
        (9.2, 10.1),
        (228.1, 226.5),
        (668.5, 666.3),
        (998.5, 996.3),
        (449.1, 448.6),
        (778.9, 777.0),
        (559.2, 558.2),
        (0.3, 0.4),
        (0.1, 0.6),
        (778.1, 775.5),
        (668.8, 666.9),
        (339.3, 338.0),
        (448.9, 447.5),
        (10.8, 11.6),
        (557.7, 556.0),
        (228.3, 228.1),
        (998.0, 995.8),
        (888.8, 887.6),
        (119.6, 120.2),
        (0.3, 0.3),
        (0.6, 0.3),
        (557.6, 556.8),
        (339.3, 339.1),
        (888.0, 887.2),
        (998.5, 999.0),
        (778.9, 779.0),
        (10.2, 11.1),
        (117.6, 118.3),
        (228.9, 229.2),
        (668.4, 669.1),
        (449.2, 448.9),
        (0.2, 0.5),
    ];

    #[test]
    fn the_line_through_norris_has_the_certified_digits() {
        let line = ols(&NORRIS.map(|(y, x)| (x, y))).expect("a line");
        assert!(close(line.slope.value, 1.002_116_818_020_45), "{line:?}");
        assert!(close(line.slope.error, 0.429_796_848_199_937e-3), "{line:?}");
        assert!(close(line.intercept.value, -0.262_323_073_774_029), "{line:?}");
        assert!(close(line.intercept.error, 0.232_818_234_301_152), "{line:?}");
        assert!(close(line.r_squared, 0.999_993_745_883_712), "{line:?}");
    }

    #[test]
    fn the_interval_of_anscombes_first_slope_is_the_textbook_one() {
        // Anscombe, "Graphs in Statistical Analysis" (1973), set I: slope 0.5001, standard error 0.1179; t(0.975, 9) = 2.2622.
        let y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68];
        let x = [10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0];
        let points: Vec<_> = x.into_iter().zip(y).collect();
        let slope = ols(&points).expect("a line").slope;
        assert!((slope.value - 0.5001).abs() < 5e-5 && (slope.error - 0.1179).abs() < 5e-5, "{slope:?}");
        assert!((slope.low - 0.2334).abs() < 1e-4 && (slope.high - 0.7668).abs() < 1e-4, "{slope:?}");
    }

    #[test]
    fn what_determines_no_line_gives_none() {
        assert_eq!(ols(&[(1.0, 1.0), (2.0, 2.0)]), None);
        assert_eq!(ols(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(ols(&[(1.0, 1.0), (2.0, f64::NAN), (3.0, 3.0)]), None);
    }

    proptest! {
        #[test]
        fn points_on_a_line_give_that_line(
            slope in -1e3..1e3_f64, intercept in -1e3..1e3_f64, count in 3..30_u32,
        ) {
            let points: Vec<_> = (0..count).map(|x| (f64::from(x), intercept + slope * f64::from(x))).collect();
            let line = ols(&points).expect("a line");
            prop_assert!((line.slope.value - slope).abs() < 1e-6);
            prop_assert!((line.intercept.value - intercept).abs() < 1e-6);
        }
    }
}
