//! Student's t, which a line through few points needs for an honest interval.
//!
//! Written out (sixty lines) because the statistics crates bring a linear-algebra library with them.

/// The `p`-quantile of Student's t with `freedom` degrees of freedom; none unless `0 < p < 1` and `freedom > 0`.
pub fn student_quantile(p: f64, freedom: f64) -> Option<f64> {
    if !(0.0 < p && p < 1.0 && freedom > 0.0 && freedom.is_finite()) {
        return None;
    }
    if p < 0.5 {
        return student_quantile(1.0 - p, freedom).map(|t| -t);
    }
    // The distribution rises without a break: double until it is past p, then halve the gap to the last bit.
    let (mut low, mut high) = (0.0, 1.0);
    while cumulative(high, freedom) < p && high < f64::MAX / 2.0 {
        low = high;
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if cumulative(middle, freedom) < p { low = middle } else { high = middle }
    }
    Some(f64::midpoint(low, high))
}

/// The share of Student's t at or below `t >= 0` (Abramowitz and Stegun 26.7.1).
fn cumulative(t: f64, freedom: f64) -> f64 {
    1.0 - 0.5 * incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// The regularized incomplete beta function, by its continued fraction (Abramowitz and Stegun 26.5.8).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast only on this side of the mean; the other side is its mirror image.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front = (log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp() / a;
    front / beta_fraction(a, b, x)
}

/// 1 + d1/(1 + d2/(1 + ...)), evaluated from the front: the value is the product of the ratios of successive numerators
/// and of successive denominators (Lentz 1976).
fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let (mut value, mut numerators, mut denominators) = (1.0, 1.0, 0.0);
    for step in 1..500_u32 {
        let half = f64::from(step / 2);
        let coefficient = if step % 2 == 0 {
            half * (b - half) * x / ((a + 2.0 * half - 1.0) * (a + 2.0 * half))
        } else {
            -(a + half) * (a + b + half) * x / ((a + 2.0 * half) * (a + 2.0 * half + 1.0))
        };
        denominators = 1.0 / nonzero(1.0 + coefficient * denominators, TINY);
        numerators = nonzero(1.0 + coefficient / numerators, TINY);
        value *= numerators * denominators;
        if (numerators * denominators - 1.0).abs() < 1e-15 {
            break;
        }
    }
    value
}

fn nonzero(value: f64, tiny: f64) -> f64 {
    if value.abs() < tiny { tiny } else { value }
}

/// ln Γ(x) for x > 0: Stirling's series (Abramowitz and Stegun 6.1.41) where it is exact to the last digits, x >= 10; the
/// recurrence Γ(x + 1) = x Γ(x) carries a smaller x there.
fn log_gamma(x: f64) -> f64 {
    let mut shift = 0.0;
    let mut x = x;
    while x < 10.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    let series =
        inverse.mul_add(inverse.mul_add(inverse.mul_add(-1.0 / 1680.0, 1.0 / 1260.0), -1.0 / 360.0), 1.0 / 12.0);
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series / x - shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_printed_table() {
        // NIST/SEMATECH e-Handbook, 1.3.6.7.2, "Critical Values of the Student's t Distribution", column 0.975.
        for (freedom, t) in [(1.0, 12.706), (2.0, 4.303), (5.0, 2.571), (10.0, 2.228), (30.0, 2.042), (100.0, 1.984)] {
            let found = student_quantile(0.975, freedom).expect("valid");
            assert!((found - t).abs() < 5e-4, "{freedom}: {found} is not {t}");
        }
    }

    #[test]
    fn one_degree_of_freedom_is_the_cauchy_distribution() {
        for p in [0.6, 0.9, 0.99, 0.9999] {
            let exact = (std::f64::consts::PI * (p - 0.5)).tan();
            let found = student_quantile(p, 1.0).expect("valid");
            assert!((found / exact - 1.0).abs() < 1e-9, "{p}: {found} is not {exact}");
        }
    }

    #[test]
    fn many_degrees_of_freedom_are_the_normal_distribution() {
        // Python: statistics.NormalDist().inv_cdf(0.975) == 1.9599639845400536
        let found = student_quantile(0.975, 1e9).expect("valid");
        assert!((found - 1.959_963_984_540_053_6).abs() < 1e-6, "{found}");
    }

    #[test]
    fn the_lower_half_mirrors_the_upper() {
        assert_eq!(student_quantile(0.1, 7.0), student_quantile(0.9, 7.0).map(|t| -t));
    }

    #[test]
    fn what_is_no_probability_has_no_quantile() {
        for (p, freedom) in [(0.0, 5.0), (1.0, 5.0), (f64::NAN, 5.0), (0.5, 0.0), (0.5, f64::INFINITY)] {
            assert_eq!(student_quantile(p, freedom), None);
        }
    }
}
