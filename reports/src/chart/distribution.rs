//! How start-up times are distributed: for each time, the share of starts that took no longer.

use super::axis::{Axis, tick_time};
use super::canvas::{Canvas, Hand, Mark, Point};
use super::{Chart, HALF, Ink, LETTERS, NAME};
use crate::analysis::{Analysis, Figures, Summary};
use crate::stats::ecdf;
use crate::text::shortened;
use crate::units;

const LEFT: f64 = 46.0;
const RIGHT: f64 = HALF - 47.0 - NAME;
const TOP: f64 = 34.0;
const KEY_ROW: f64 = 34.0;
/// Steps that are smaller than this, in pixels, in both directions are not drawn.
const FINEST: f64 = 0.4;

/// The lowest line of a half-width chart's plot: two neighbours with as many subjects are as high.
pub(super) fn bottom(subjects: usize) -> f64 {
    TOP + (KEY_ROW * subjects as f64).max(300.0)
}

/// Draws it; nothing without a proved start.
pub(crate) fn draw(analysis: &Analysis<'_>) -> Option<Chart> {
    let mut cells: Vec<_> = analysis.compared().filter_map(|cell| Some((cell, cell.figures.as_ref()?))).collect();
    if cells.is_empty() {
        return None;
    }
    let bottom = bottom(cells.len());
    cells.sort_by(|(_, a), (_, b)| a.median.estimate.total_cmp(&b.median.estimate));
    let times =
        Axis::log(cells.iter().flat_map(|(_, figures)| [figures.ready.min(), figures.ready.max()]), LEFT, RIGHT);
    let shares = Axis::linear(1.0, bottom, TOP);
    let title = "How start-up times are distributed";
    Some(Chart::draw("distribution", title, describe(&cells), (HALF, bottom + 46.0), |canvas| {
        times.draw_below(canvas, (TOP, bottom), &times.named_ticks(tick_time), "start-up time, log scale");
        let named = [0.0, 0.25, 0.5, 0.75, 0.9, 1.0].map(|share| (share, format!("{} %", share * 100.0)));
        shares.draw_left(canvas, (LEFT, RIGHT), &named, "starts that took no longer");
        for (row, (cell, figures)) in cells.iter().enumerate() {
            let place = analysis.place(cell.cell());
            curve(canvas, &times, &shares, figures, place);
            key(canvas, TOP + 8.0 + KEY_ROW * row as f64, (cell, figures), place);
        }
    }))
}

fn curve(canvas: &Canvas<'_>, times: &Axis, shares: &Axis, figures: &Figures, place: usize) {
    let mut stairs: Vec<Point> = Vec::new();
    let mut height = shares.place(0.0);
    for step in ecdf(&figures.ready) {
        let (x, y) = (times.place(step.at), shares.place(step.share));
        // Of a long run's steps, those that an eye can tell from the last one drawn; always the last.
        let (dx, dy) = stairs.last().map_or((f64::MAX, f64::MAX), |(last, top)| (x - last, top - y));
        if dx < FINEST && dy < FINEST && step.share < 1.0 {
            continue;
        }
        stairs.push((x, height));
        height = y;
        stairs.push((x, height));
    }
    canvas.line(stairs, Ink::Series(place), 1.8);
    let median = (times.place(figures.median.estimate), shares.place(0.5));
    canvas.mark(Mark::of(place), median, 4.2, Ink::Series(place));
}

/// One subject's line, shape, name and median, beside the plot, in the order of the curves.
fn key(canvas: &Canvas<'_>, y: f64, (cell, figures): (&Summary<'_>, &Figures), place: usize) {
    let x = RIGHT + 14.0;
    canvas.line([(x, y), (x + 26.0, y)], Ink::Series(place), 1.8);
    canvas.mark(Mark::of(place), (x + 13.0, y), 4.2, Ink::Series(place));
    canvas.text(&shortened(&cell.cell().name, LETTERS), (x + 33.0, y), Hand::plain(Ink::Text));
    let median = units::time(figures.median.estimate);
    canvas.text(&median, (x + 33.0, y + 14.0), Hand::plain(Ink::Muted).sized(11.0));
}

fn describe(cells: &[(&Summary<'_>, &Figures)]) -> String {
    let cell = |(cell, figures): &(&Summary<'_>, &Figures)| {
        let (p90, tail) = (units::time(figures.p90), units::time(figures.tail.value()));
        let median = units::time(figures.median.estimate);
        format!("{}: half within {median}, 90 % within {p90}, {} {tail}.", cell.cell().name, figures.tail.name())
    };
    let cells: Vec<String> = cells.iter().map(cell).collect();
    format!("Empirical distribution of start-up times, one rising curve a subject. {}", cells.join(" "))
}
