//! Two runs, figure by figure: the ratio of the second to the first, and the band within which nothing is said.

use super::axis::{Axis, tick_ratio};
use super::canvas::{Hand, Mark};
use super::{Chart, Ink, WIDE};
use crate::compare::{Comparison, Figure, Row, change, place};
use crate::text::shortened;
use crate::units;

const LEFT: f64 = 220.0;
const RIGHT: f64 = WIDE - 330.0;
const TOP: f64 = 40.0;
const ROW: f64 = 25.0;

/// Draws it; nothing where the runs have no figure in common.
pub(crate) fn draw(comparison: &Comparison<'_>) -> Option<Chart> {
    let rows = &comparison.rows;
    if rows.is_empty() {
        return None;
    }
    let bottom = TOP + ROW * rows.len() as f64 + 8.0;
    let floor = comparison.floor;
    let ends = rows.iter().flat_map(|row| row.ratio.points());
    let axis = Axis::log(ends.chain([1.0, 1.0 - floor, 1.0 + floor]), LEFT, RIGHT);
    let desc = rows.iter().map(describe).collect::<Vec<_>>().join(" ");
    Some(Chart::draw("compare", "B against A", desc, (WIDE, bottom + 46.0), |canvas| {
        canvas.rectangle((axis.place(1.0 - floor), TOP), (axis.place(1.0 + floor), bottom), Ink::Band);
        let label = format!("noise, ±{}", units::percent(floor));
        canvas.text(&label, (axis.place(1.0), TOP - 14.0), Hand::plain(Ink::Muted).sized(11.5).centred());
        axis.draw_below(canvas, (TOP, bottom), &axis.named_ticks(tick_ratio), "B to A, log scale");
        canvas.line([(axis.place(1.0), TOP), (axis.place(1.0), bottom)], Ink::Text, 1.2);
        for (row, line) in rows.iter().zip(0..) {
            let (y, place) = (TOP + 4.0 + ROW * (f64::from(line) + 0.5), place(comparison, row));
            canvas.text(&shortened(&name(row), 30), (LEFT - 12.0, y), Hand::plain(Ink::Text).sized(13.0).ending());
            axis.whisker(canvas, &row.ratio, y);
            canvas.mark(Mark::of(place), (axis.place(row.ratio.estimate), y), 5.0, Ink::Series(place));
            let hand = Hand::plain(Ink::Text);
            canvas.text(&units::ratio(row.ratio.estimate), (RIGHT + 62.0, y), hand.bold().ending());
            canvas.text(&units::ratios(row.ratio.low, row.ratio.high), (RIGHT + 160.0, y), hand.ending());
            canvas.text(change(row), (RIGHT + 182.0, y), Hand::plain(Ink::Muted));
        }
    }))
}

fn name(row: &Row) -> String {
    match row.figure {
        Figure::Ready => row.cell.clone(),
        Figure::Memory => format!("{}, memory", row.cell),
    }
}

fn describe(row: &Row) -> String {
    let (ratio, interval) = (units::ratio(row.ratio.estimate), units::ratios(row.ratio.low, row.ratio.high));
    format!("{}: {ratio}, 95 % interval {interval}, {}.", name(row), change(row))
}
