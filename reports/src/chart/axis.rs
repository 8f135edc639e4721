//! Axes: from a figure to its place, and the few round figures worth naming on the way.

use super::Ink;
use super::canvas::{Canvas, Hand, Point};
use crate::stats::Interval;
use crate::units;

/// The fewest ticks by which a reader can place a point.
const ENOUGH: usize = 3;
/// How far apart ticks must stand so that their names don't crowd each other: beside each other, and above each other.
const CROWDED: (f64, f64) = (46.0, 22.0);

/// One axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    log: bool,
    low: f64,
    high: f64,
    /// Where `low` lies, in pixels.
    from: f64,
    /// Where `high` lies.
    to: f64,
}

impl Axis {
    /// From 0 to a figure.
    pub(crate) fn linear(high: f64, from: f64, to: f64) -> Self {
        Self { log: false, low: 0.0, high: if high > 0.0 { high } else { 1.0 }, from, to }
    }

    /// From one figure to another, of which one may be below 0.
    pub(crate) fn between(low: f64, high: f64, from: f64, to: f64) -> Self {
        let (low, high) = if low < high { (low, high) } else { (low, low + 1.0) };
        Self { log: false, low, high, from, to }
    }

    /// Around positive figures, each factor as long as the same factor elsewhere.
    pub(crate) fn log(figures: impl IntoIterator<Item = f64>, from: f64, to: f64) -> Self {
        let positive = figures.into_iter().filter(|figure| *figure > 0.0 && figure.is_finite());
        let (low, high) = positive.fold((f64::MAX, 0.0_f64), |(low, high), figure| (low.min(figure), high.max(figure)));
        let (low, high) = if low <= high { (low, high) } else { (1.0, 1.0) };
        // Room at the ends, and breadth where all figures are one.
        let room = (high / low).powf(0.05).max(1.02);
        Self { log: true, low: low / room, high: high * room, from, to }
    }

    /// The place of a figure, never past the ends.
    pub(crate) fn place(&self, figure: f64) -> f64 {
        let share = if self.log {
            (figure.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (figure - self.low) / (self.high - self.low)
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Where it begins and ends, the lesser first.
    fn ends(&self) -> (f64, f64) {
        (self.from.min(self.to), self.from.max(self.to))
    }

    /// The figures to name, with their names.
    pub(crate) fn named_ticks(&self, name: impl Fn(f64) -> String) -> Vec<(f64, String)> {
        self.ticks().into_iter().map(|tick| (tick, name(tick))).collect()
    }

    /// The figures to name.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        if !self.log {
            return self.even_ticks();
        }
        if self.high < 2.0 * self.low {
            return self.even_ticks();
        }
        let sets: [&[f64]; 4] =
            [&[1.0], &[1.0, 3.0], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]];
        let tried: Vec<Vec<f64>> = sets.iter().map(|set| self.decade_ticks(set)).collect();
        let apart = |pair: &[f64]| matches!(pair, [a, b] if (self.place(*a) - self.place(*b)).abs() >= self.crowded());
        let roomy = |ticks: &&Vec<f64>| ticks.windows(2).all(apart);
        let longest = |least: usize| tried.iter().rev().filter(roomy).find(|ticks| ticks.len() >= least);
        // On a short axis of few decades two names are all there is room for.
        match (longest(ENOUGH).or_else(|| longest(2)), tried.first()) {
            (Some(ticks), _) => ticks.clone(),
            // Twenty decades, should anyone measure them, are named in wider steps.
            (None, Some(decades)) if decades.len() >= ENOUGH => {
                decades.iter().copied().step_by(decades.len().div_ceil(self.most_ticks())).collect()
            }
            (None, _) => self.even_ticks(),
        }
    }

    /// As many as its length has room for.
    fn most_ticks(&self) -> usize {
        (((self.to - self.from).abs() / self.crowded()) as usize).clamp(ENOUGH, 9)
    }

    /// An axis that is drawn upwards has its names above each other.
    fn crowded(&self) -> f64 {
        if self.from > self.to { CROWDED.1 } else { CROWDED.0 }
    }

    fn decade_ticks(&self, set: &[f64]) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let all = (first..=last).flat_map(|decade| set.iter().map(move |digit| digit * 10_f64.powi(decade)));
        all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
    }

    /// Steps of 1, 2 or 5 times a power of ten.
    fn even_ticks(&self) -> Vec<f64> {
        let rough = (self.high - self.low) / 6.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let first = (self.low / step).ceil();
        (0..=self.most_ticks().max(7))
            .map(|n| (first + n as f64) * step)
            .take_while(|tick| *tick <= self.high * (1.0 + 1e-12))
            .collect()
    }

    /// Draws it as a horizontal axis under a plot between two heights: a grid line and a name for each tick, and its title.
    pub(crate) fn draw_below(&self, canvas: &Canvas<'_>, (top, bottom): Point, ticks: &[(f64, String)], title: &str) {
        for (tick, name) in ticks {
            let x = self.place(*tick);
            canvas.line([(x, top), (x, bottom)], Ink::Grid, 1.0);
            canvas.text(name, (x, bottom + 13.0), Hand::plain(Ink::Muted).sized(11.5).centred());
        }
        let (left, right) = self.ends();
        canvas.line([(left, bottom), (right, bottom)], Ink::Muted, 1.0);
        let middle = f64::midpoint(left, right);
        canvas.text(title, (middle, bottom + 33.0), Hand::plain(Ink::Text).centred());
    }

    /// Draws an interval at some height of a horizontal axis; nothing of one that nothing bounds.
    pub(crate) fn whisker(&self, canvas: &Canvas<'_>, interval: &Interval, y: f64) {
        if !interval.is_bounded() {
            return;
        }
        let (low, high) = (self.place(interval.low), self.place(interval.high));
        canvas.line([(low, y), (high, y)], Ink::Text, 1.5);
        for end in [low, high] {
            canvas.line([(end, y - 4.0), (end, y + 4.0)], Ink::Text, 1.5);
        }
    }

    /// Draws it as a vertical axis to the left of a plot, with its title above it.
    pub(crate) fn draw_left(&self, canvas: &Canvas<'_>, (left, right): Point, ticks: &[(f64, String)], title: &str) {
        for (tick, name) in ticks {
            let y = self.place(*tick);
            canvas.line([(left, y), (right, y)], Ink::Grid, 1.0);
            canvas.text(name, (left - 7.0, y), Hand::plain(Ink::Muted).sized(11.5).ending());
        }
        let (top, bottom) = self.ends();
        canvas.line([(left, top), (left, bottom)], Ink::Muted, 1.0);
        canvas.text(title, (left, top - 16.0), Hand::plain(Ink::Text));
    }
}

/// The name of a time on an axis: `500 µs`, `2 ms`. Ticks are round, so digits that are 0 say nothing.
pub(crate) fn tick_time(nanoseconds: f64) -> String {
    if nanoseconds == 0.0 {
        return "0".to_owned();
    }
    let (scale, unit) = units::time_unit(nanoseconds);
    format!("{}\u{a0}{unit}", trimmed(nanoseconds / scale))
}

/// The name of a ratio on an axis: `0.5×`.
pub(crate) fn tick_ratio(ratio: f64) -> String {
    format!("{}×", trimmed(ratio))
}

/// All its digits but those of binary fractions: neighbours on a short axis may differ in the fourth.
fn trimmed(number: f64) -> String {
    ((number * 1e6).round() / 1e6).to_string()
}

/// Places for labels, each as near to where it belongs as `gap` allows, in the order given, which must be ascending.
pub(crate) fn spread(wanted: &[f64], gap: f64, (low, high): Point) -> Vec<f64> {
    let mut places: Vec<f64> = Vec::with_capacity(wanted.len());
    for place in wanted {
        places.push(place.max(places.last().map_or(low, |last| last + gap)));
    }
    // What was pushed past the end comes back, and pushes those before it.
    let mut limit = high;
    for place in places.iter_mut().rev() {
        *place = place.min(limit);
        limit = *place - gap;
    }
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_are_round_and_at_least_three_however_short_the_axis() {
        let ticks = |figures: [f64; 2]| Axis::log(figures, 0.0, 300.0).ticks();
        assert_eq!(ticks([1e5, 1e8]), [1e5, 1e6, 1e7, 1e8]);
        assert_eq!(ticks([0.55e6, 30e6]), [5e5, 1e6, 2e6, 5e6, 1e7, 2e7]);
        assert_eq!(ticks([0.55e6, 300e6]), [1e6, 3e6, 1e7, 3e7, 1e8, 3e8]);
        assert_eq!(ticks([0.55e6, 3000e6]), [1e6, 1e7, 1e8, 1e9]);
        assert_eq!(ticks([4.5, 9.5]), [5.0, 6.0, 7.0, 8.0, 9.0]);
        assert!((3..=8).contains(&ticks([1.0, 1.02]).len()), "{:?}", ticks([1.0, 1.02]));
    }

    #[test]
    fn a_tick_has_no_digit_that_says_nothing() {
        let times = [0.0, 5e5, 2e6, 1.5e6, 1e9].map(tick_time);
        assert_eq!(times, ["0", "500\u{a0}µs", "2\u{a0}ms", "1.5\u{a0}ms", "1\u{a0}s"]);
        assert_eq!([0.5, 1.0, 20.0, 100.0].map(tick_ratio), ["0.5×", "1×", "20×", "100×"]);
    }

    #[test]
    fn a_factor_is_as_long_anywhere_on_a_log_axis() {
        let axis = Axis::log([1.0, 100.0], 0.0, 100.0);
        let (low, high) = (axis.place(10.0) - axis.place(1.0), axis.place(100.0) - axis.place(10.0));
        assert!((low - high).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn an_axis_has_few_ticks_and_keeps_everything_within_its_ends(
            figures in prop::collection::vec(1e-3..1e20_f64, 1..20), figure in -1e20..1e20_f64,
        ) {
            for axis in [Axis::log(figures.iter().copied(), 10.0, 90.0), Axis::linear(figures[0], 90.0, 10.0)] {
                let ticks = axis.ticks();
                prop_assert!((2..=8).contains(&ticks.len()), "{ticks:?}");
                prop_assert!((10.0..=90.0).contains(&axis.place(figure)));
            }
        }

        #[test]
        fn labels_that_fit_never_overlap(mut wanted in prop::collection::vec(0.0..300.0_f64, 1..20)) {
            wanted.sort_by(f64::total_cmp);
            let places = spread(&wanted, 15.0, (0.0, 300.0));
            prop_assert!(places.windows(2).all(|pair| pair[1] - pair[0] > 14.99));
            prop_assert!(places.iter().all(|place| (-0.01..=300.01).contains(place)));
        }
    }
}
