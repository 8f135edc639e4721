//! Numbers as a reader wants them: three significant digits, and a unit that no line break parts from them.

use crate::stats::Interval;

/// A time, from nanoseconds: `612 µs`, `3.52 ms`.
pub fn time(nanoseconds: f64) -> String {
    let (scale, unit) = time_unit(nanoseconds);
    format!("{}\u{a0}{unit}", digits(nanoseconds / scale))
}

/// Two times in the unit of the larger: `3.41–3.64 ms`.
pub fn times(low: f64, high: f64) -> String {
    if !bounded(low, high) {
        return NO_INTERVAL.to_owned();
    }
    let (scale, unit) = time_unit(low.abs().max(high.abs()));
    format!("{}\u{a0}{unit}", range(low / scale, high / scale))
}

/// Two figures with a dash between them; with a word where a sign would make it two: `−3.10 to 4.20`.
fn range(low: f64, high: f64) -> String {
    let between = if low < 0.0 { " to " } else { "–" };
    format!("{}{between}{}", digits(low), digits(high))
}

/// What stands where too few rounds have a say for an interval.
pub const NO_INTERVAL: &str = "no interval";

fn bounded(low: f64, high: f64) -> bool {
    low.is_finite() && high.is_finite()
}

/// The scale, in nanoseconds, and the name of the unit that suits a time.
pub fn time_unit(nanoseconds: f64) -> (f64, &'static str) {
    // Each unit ends where three digits would round up into the next: 999.6 µs reads better as 1.00 ms.
    match nanoseconds.abs() {
        ns if ns < 999.5 => (1.0, "ns"),
        ns if ns < 999.5e3 => (1e3, "µs"),
        ns if ns < 999.5e6 => (1e6, "ms"),
        _ => (1e9, "s"),
    }
}

/// A size, from bytes: `640 KiB`, `2.31 MiB`.
pub fn bytes(bytes: f64) -> String {
    let (scale, unit) = byte_scale(bytes);
    format!("{}\u{a0}{unit}", digits(bytes / scale))
}

/// Two sizes in the unit of the larger: `380–400 KiB`.
pub fn byte_range(low: f64, high: f64) -> String {
    if !bounded(low, high) {
        return NO_INTERVAL.to_owned();
    }
    let (scale, unit) = byte_scale(low.abs().max(high.abs()));
    format!("{}\u{a0}{unit}", range(low / scale, high / scale))
}

fn byte_scale(bytes: f64) -> (f64, &'static str) {
    let units = [(1.0, "B"), (1024.0, "KiB"), (1_048_576.0, "MiB"), (1_073_741_824.0, "GiB")];
    let fits = |(scale, _): &&(f64, &str)| bytes.abs() / scale < 999.5;
    units.iter().find(fits).copied().unwrap_or((1_073_741_824.0, "GiB"))
}

/// A ratio: `5.63×`.
pub fn ratio(ratio: f64) -> String {
    format!("{}×", digits(ratio))
}

/// Two ratios: `5.41–5.88×`.
pub fn ratios(low: f64, high: f64) -> String {
    if !bounded(low, high) {
        return NO_INTERVAL.to_owned();
    }
    format!("{}×", range(low, high))
}

/// A ratio with its interval: `4.52× (4.31–4.70×)`.
pub fn ratio_within(interval: &Interval) -> String {
    format!("{} ({})", ratio(interval.estimate), ratios(interval.low, interval.high))
}

/// A share of 1 as a percentage: `2.4 %`; past the whole without a decimal, which would say nothing: `222 %`.
pub fn percent(share: f64) -> String {
    let decimals = usize::from(share.abs() < 0.9995);
    format!("{:.decimals$}\u{a0}%", share * 100.0)
}

/// A count and its noun: `1 round`, `2 rounds`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Three significant digits, never in exponent form, and all digits of a larger whole part.
pub fn digits(number: f64) -> String {
    let decimals = match number.abs() {
        0.0 => 0,
        size if size < 0.0995 => 3,
        size if size < 9.995 => 2,
        size if size < 99.95 => 1,
        _ => 0,
    };
    // The sign as the rest of typography has it: a hyphen would be a line's end, and a dash's twin.
    format!("{number:.decimals$}").replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spaced(text: &str) -> String {
        text.replace('\u{a0}', " ")
    }

    #[test]
    fn a_time_has_three_digits_and_its_own_unit() {
        let shown = [612_345.0, 3_519_000.0, 30_840_000.0, 1.5e9, 742.0, 999_600.0, 0.0].map(|ns| spaced(&time(ns)));
        assert_eq!(shown, ["612 µs", "3.52 ms", "30.8 ms", "1.50 s", "742 ns", "1.00 ms", "0 ns"]);
    }

    #[test]
    fn an_interval_has_one_unit() {
        assert_eq!(times(980_000.0, 1_240_000.0), "0.98–1.24\u{a0}ms");
        assert_eq!(times(-345_000.0, 59_000.0), "−345 to 59.0\u{a0}µs");
        let none = Interval::unbounded(2.5);
        assert_eq!(times(none.low, none.high), "no interval");
        assert_eq!(byte_range(none.low, none.high), "no interval");
        assert_eq!(ratio_within(&none), "2.50× (no interval)");
    }

    #[test]
    fn sizes_and_ratios_read_the_same_way() {
        assert_eq!([512.0, 655_360.0, 2_422_210.0].map(|size| spaced(&bytes(size))), ["512 B", "640 KiB", "2.31 MiB"]);
        assert_eq!([0.05, 0.98, 5.634, 48.21, 512.4].map(ratio), ["0.050×", "0.98×", "5.63×", "48.2×", "512×"]);
        assert_eq!(byte_range(389_120.0, 409_600.0), "380–400\u{a0}KiB");
        assert_eq!([0.0241, 2.216].map(percent), ["2.4\u{a0}%", "222\u{a0}%"]);
        assert_eq!([count(1, "round"), count(2, "round")], ["1 round", "2 rounds"]);
    }
}
