//! A question's answer at one glance: each subject's ratio to the baseline with its interval, small enough for a first screen.

use super::axis::{Axis, tick_ratio};
use super::canvas::{Hand, Mark};
use super::{Chart, Ink, LETTERS};
use crate::stats::Interval;
use crate::text::shortened;
use crate::units;

const WIDTH: f64 = 480.0;
/// Room for the longest of our subjects' names, and for as many letters more as hosts need.
const LEFT: f64 = 158.0;
const MORE: usize = 4;
const RIGHT: f64 = WIDTH - 152.0;
const TOP: f64 = 12.0;
const ROW: f64 = 26.0;

/// A subject in it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: String,
    /// Its place among the subjects, which gives it colour and shape.
    pub(crate) place: usize,
    /// How many times the baseline's figure.
    pub(crate) ratio: Interval,
}

/// Draws it; nothing without a row. `floor`: the noise floor, a share of 1.
pub(crate) fn draw(slug: &'static str, title: &str, axis: &str, rows: &[Row], floor: f64) -> Option<Chart> {
    if rows.is_empty() {
        return None;
    }
    let bottom = TOP + ROW * rows.len() as f64 + 4.0;
    let ends = rows.iter().flat_map(|row| row.ratio.points());
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).clamp(LETTERS, LETTERS + MORE);
    let left = LEFT * longest as f64 / LETTERS as f64;
    let scale = Axis::log(ends.chain([1.0, 1.0 - floor, 1.0 + floor]), left, RIGHT);
    Some(Chart::draw(slug, title, describe(rows), (WIDTH, bottom + 44.0), |canvas| {
        canvas.rectangle((scale.place(1.0 - floor), TOP), (scale.place(1.0 + floor), bottom), Ink::Band);
        scale.draw_below(canvas, (TOP, bottom), &scale.named_ticks(tick_ratio), axis);
        canvas.line([(scale.place(1.0), TOP), (scale.place(1.0), bottom)], Ink::Text, 1.2);
        for (row, place) in rows.iter().zip(0..) {
            let y = TOP + 2.0 + ROW * (f64::from(place) + 0.5);
            canvas.text(&shortened(&row.name, longest), (left - 10.0, y), Hand::plain(Ink::Text).sized(13.0).ending());
            scale.whisker(canvas, &row.ratio, y);
            canvas.mark(Mark::of(row.place), (scale.place(row.ratio.estimate), y), 5.0, Ink::Series(row.place));
            let figure = Hand::plain(Ink::Text).sized(12.5);
            canvas.text(&units::ratio(row.ratio.estimate), (RIGHT + 54.0, y), figure.bold().ending());
            if row.ratio.is_bounded() {
                let interval = units::ratios(row.ratio.low, row.ratio.high);
                canvas.text(&interval, (WIDTH - 4.0, y), figure.sized(11.5).ending());
            }
        }
    }))
}

fn describe(rows: &[Row]) -> String {
    let row = |row: &Row| {
        let known = format!("{}: {} the baseline", row.name, units::ratio(row.ratio.estimate));
        if !row.ratio.is_bounded() {
            return format!("{known}.");
        }
        format!("{known}, 95 % interval {}.", units::ratios(row.ratio.low, row.ratio.high))
    };
    rows.iter().map(row).collect::<Vec<_>>().join(" ")
}
