//! Each cell against the baseline: the ratio of medians with its interval, and the band within which nothing is said.

use super::axis::{Axis, tick_ratio};
use super::canvas::{Canvas, Hand, Mark};
use super::{Chart, Ink, WIDE};
use crate::analysis::{Analysis, Summary};
use crate::model::Verdict;
use crate::text::shortened;
use crate::units;
use crate::words;

const LEFT: f64 = 200.0;
const RIGHT: f64 = WIDE - 310.0;
const TOP: f64 = 40.0;
const ROW: f64 = 27.0;

/// Draws it; nothing where nothing is held against a baseline.
pub(crate) fn draw(analysis: &Analysis<'_>) -> Option<Chart> {
    let rows: Vec<_> = analysis.cells.iter().filter_map(|cell| Some((cell, cell.verdict.as_ref()?))).collect();
    if rows.is_empty() {
        return None;
    }
    let bottom = TOP + ROW * rows.len() as f64 + 8.0;
    let floor = analysis.floor();
    let ends = rows.iter().flat_map(|(_, verdict)| verdict.interval().points().collect::<Vec<_>>());
    let axis = Axis::log(ends.chain([1.0, 1.0 - floor, 1.0 + floor]), LEFT, RIGHT);
    let title = "Each subject against the baseline";
    Some(Chart::draw("forest", title, describe(&rows, floor), (WIDE, bottom + 46.0), |canvas| {
        if analysis.noise.is_some() {
            canvas.rectangle((axis.place(1.0 - floor), TOP), (axis.place(1.0 + floor), bottom), Ink::Band);
            let label = format!("noise floor ±{}", units::percent(floor));
            canvas.text(&label, (axis.place(1.0), TOP - 14.0), Hand::plain(Ink::Muted).sized(11.5).centred());
        }
        axis.draw_below(
            canvas,
            (TOP, bottom),
            &axis.named_ticks(tick_ratio),
            "ratio of median start-up times, log scale",
        );
        canvas.line([(axis.place(1.0), TOP), (axis.place(1.0), bottom)], Ink::Text, 1.2);
        for (row, (cell, verdict)) in rows.iter().enumerate() {
            let y = TOP + 4.0 + ROW * (row as f64 + 0.5);
            draw_row(canvas, &axis, y, verdict, (cell, analysis.place(cell.cell())));
        }
    }))
}

fn draw_row(canvas: &Canvas<'_>, axis: &Axis, y: f64, verdict: &Verdict, (cell, place): (&Summary<'_>, usize)) {
    canvas.text(&shortened(&cell.cell().name, 26), (LEFT - 12.0, y), Hand::plain(Ink::Text).sized(13.0).ending());
    axis.whisker(canvas, &verdict.interval(), y);
    canvas.mark(Mark::of(place), (axis.place(verdict.ratio), y), 5.0, Ink::Series(place));
    let hand = Hand::plain(Ink::Text);
    canvas.text(&units::ratio(verdict.ratio), (RIGHT + 62.0, y), hand.bold().ending());
    canvas.text(&units::ratios(verdict.low, verdict.high), (RIGHT + 160.0, y), hand.ending());
    canvas.text(words::of_cell(cell, verdict), (RIGHT + 182.0, y), Hand::plain(Ink::Muted));
}

fn describe(rows: &[(&Summary<'_>, &Verdict)], floor: f64) -> String {
    let row = |(cell, verdict): &(&Summary<'_>, &Verdict)| {
        let (ratio, interval) = (units::ratio(verdict.ratio), units::ratios(verdict.low, verdict.high));
        format!(
            "{} against {}: {ratio}, 95 % interval {interval}, {}.",
            verdict.cell,
            verdict.against,
            words::of_cell(cell, verdict)
        )
    };
    let rows: Vec<String> = rows.iter().map(row).collect();
    format!(
        "Ratios of median start-up times; the noise floor is {} around 1. {}",
        units::percent(floor),
        rows.join(" ")
    )
}
