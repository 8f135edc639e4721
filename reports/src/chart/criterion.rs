//! What criterion has measured: for each benchmark its median with its interval, and how far nine tenths of its samples reach.

use super::axis::{Axis, tick_time};
use super::canvas::{Canvas, Hand, Mark};
use super::{Chart, Ink, WIDE};
use crate::criterion::{Benchmark, Group};
use crate::text::shortened;
use crate::units;

const LEFT: f64 = 260.0;
const RIGHT: f64 = WIDE - 220.0;
const TOP: f64 = 16.0;
const ROW: f64 = 24.0;
const HEADING: f64 = 30.0;

/// Draws it; nothing where there is no benchmark.
pub(crate) fn draw(groups: &[Group]) -> Option<Chart> {
    // Bytes have no place on an axis of times; they are in the tables.
    let groups: &[Group] = &groups.iter().filter(|group| !group.is_bytes()).cloned().collect::<Vec<_>>();
    let all = || groups.iter().flat_map(|group| &group.benchmarks);
    all().next()?;
    let bottom = TOP + HEADING * groups.len() as f64 + ROW * all().count() as f64 + 8.0;
    let axis = Axis::log(all().flat_map(|one| [reach(one).0, reach(one).1]), LEFT, RIGHT);
    let title = "How long each benchmark takes";
    Some(Chart::draw("criterion", title, describe(groups), (WIDE, bottom + 46.0), |canvas| {
        axis.draw_below(canvas, (TOP, bottom), &axis.named_ticks(tick_time), "time of one iteration, log scale");
        let mut y = TOP;
        for (place, group) in groups.iter().enumerate() {
            canvas.text(&shortened(&group.name, 34), (8.0, y + 2.0), Hand::plain(Ink::Text).sized(13.0).bold());
            y += HEADING;
            for one in &group.benchmarks {
                row(canvas, &axis, y, one, place);
                y += ROW;
            }
        }
    }))
}

/// The samples between the fifth and the ninety-fifth percentile.
fn reach(one: &Benchmark) -> (f64, f64) {
    (one.times.quantile(0.05), one.times.quantile(0.95))
}

fn row(canvas: &Canvas<'_>, axis: &Axis, y: f64, one: &Benchmark, place: usize) {
    canvas.text(&shortened(&one.name, 36), (LEFT - 12.0, y), Hand::plain(Ink::Text).sized(12.5).ending());
    let (low, high) = reach(one);
    canvas.line([(axis.place(low), y), (axis.place(high), y)], Ink::Muted, 1.2);
    if one.median.is_bounded() {
        canvas.line([(axis.place(one.median.low), y), (axis.place(one.median.high), y)], Ink::Text, 3.0);
    }
    canvas.mark(Mark::of(place), (axis.place(one.median.estimate), y), 4.6, Ink::Series(place));
    canvas.text(&units::time(one.median.estimate), (RIGHT + 82.0, y), Hand::plain(Ink::Text).bold().ending());
    canvas.text(&units::times(one.median.low, one.median.high), (RIGHT + 210.0, y), Hand::plain(Ink::Text).ending());
}

fn describe(groups: &[Group]) -> String {
    let one = |one: &Benchmark| {
        let (median, interval) = (units::time(one.median.estimate), units::times(one.median.low, one.median.high));
        format!("{}: {median}, 95 % interval {interval}", one.name)
    };
    let group =
        |group: &Group| format!("{}: {}.", group.name, group.benchmarks.iter().map(one).collect::<Vec<_>>().join("; "));
    format!("Medians of benchmarks. {}", groups.iter().map(group).collect::<Vec<_>>().join(" "))
}
