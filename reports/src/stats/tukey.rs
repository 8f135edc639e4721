//! Outliers: named, counted, and kept.

/// How far out a number lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlier {
    /// Past an inner fence: more than 1.5 interquartile ranges from the nearer quartile.
    Mild,
    /// Past an outer fence: more than 3.
    Severe,
}

/// Tukey's fences (Exploratory Data Analysis, 1977). They label numbers for a reader; no statistic here leaves one out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fences {
    /// Below the first and above the second lies a mild outlier.
    pub inner: (f64, f64),
    /// Below the first and above the second lies a severe one.
    pub outer: (f64, f64),
}

impl Fences {
    /// The fences around two quartiles.
    pub fn around(lower: f64, upper: f64) -> Self {
        let range = upper - lower;
        let fences = |reach: f64| (lower - reach * range, upper + reach * range);
        Self { inner: fences(1.5), outer: fences(3.0) }
    }

    /// What a number is called; none where it lies within the fences.
    pub fn label(&self, number: f64) -> Option<Outlier> {
        let outside = |(low, high): (f64, f64)| number < low || high < number;
        if outside(self.outer) {
            Some(Outlier::Severe)
        } else if outside(self.inner) {
            Some(Outlier::Mild)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Sorted;

    #[test]
    fn fences_stand_where_the_textbook_puts_them() {
        // NIST/SEMATECH e-Handbook, 7.1.6: with Q1 = 429.75 and Q3 = 742.25 the fences are at -39.0, 1211.0 and -507.75, 1679.75.
        let fences = Fences::around(429.75, 742.25);
        assert_eq!(fences.inner, (-39.0, 1211.0));
        assert_eq!(fences.outer, (-507.75, 1679.75));
        assert_eq!(fences.label(1441.0), Some(Outlier::Mild));
        assert_eq!(fences.label(1680.0), Some(Outlier::Severe));
        assert_eq!(fences.label(1211.0), None);
    }

    #[test]
    fn equal_numbers_have_no_outlier() {
        let same = Sorted::new([7.0; 9]).expect("finite");
        assert_eq!(same.fences().label(7.0), None);
    }
}
