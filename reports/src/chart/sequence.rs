//! Start-up times in the order of the run: one look shows drift, disturbed rounds and when starts failed.

use super::axis::{Axis, spread, tick_time};
use super::canvas::{Canvas, Hand, Mark};
use super::distribution::bottom;
use super::{Chart, HALF, Ink, LETTERS, NAME};
use crate::analysis::{Analysis, Summary};
use crate::series::Start;
use crate::text::shortened;
use crate::units;

const LEFT: f64 = 56.0;
const RIGHT: f64 = HALF - 28.0 - NAME;
const TOP: f64 = 34.0;
/// Under the plot, for starts that failed: they have a round and no time.
const FAILED_LANE: f64 = 16.0;

/// Draws it; nothing without a proved start.
pub(crate) fn draw(analysis: &Analysis<'_>) -> Option<Chart> {
    let cells: Vec<_> = analysis.compared().filter(|cell| cell.figures.is_some()).collect();
    let last = analysis.run.rounds.iter().map(|round| round.index).max()?;
    if cells.is_empty() {
        return None;
    }
    let bottom = bottom(cells.len());
    let floor = bottom - FAILED_LANE;
    let all = cells.iter().flat_map(|cell| cell.series.warmup.iter().chain(&cell.series.ready));
    let times = Axis::log(all.map(|start| start.timing.ready_ns as f64), floor - 4.0, TOP);
    let rounds = Axis::linear(f64::from(last) + 1.0, LEFT, RIGHT);
    let title = "Start-up times in the order of the run";
    Some(Chart::draw("sequence", title, describe(analysis, cells.len()), (HALF, bottom + 46.0), |canvas| {
        bands(canvas, analysis, &rounds, bottom);
        let whole = |round: f64| if round.fract() == 0.0 { format!("{round}") } else { String::new() };
        rounds.draw_below(canvas, (TOP, bottom), &rounds.named_ticks(whole), "round");
        times.draw_left(canvas, (LEFT, RIGHT), &times.named_ticks(tick_time), "start-up time, log scale");
        for cell in &cells {
            points(canvas, (&rounds, &times), cell, analysis.place(cell.cell()), most(cells.len()));
        }
        for cell in analysis.compared() {
            failures(canvas, &rounds, cell, bottom - FAILED_LANE / 2.0, most(cells.len()));
        }
        labels(canvas, analysis, &times, &cells, (TOP + 6.0, floor - 4.0));
    }))
}

/// Warm-up and noisy rounds, behind everything.
fn bands(canvas: &Canvas<'_>, analysis: &Analysis<'_>, rounds: &Axis, bottom: f64) {
    // Neighbours that look alike are one rectangle, since between two a seam of paper would show.
    let mut bands: Vec<(Ink, u32, u32)> = Vec::new();
    for round in &analysis.run.rounds {
        let ink = match (round.warmup, round.noisy.is_empty()) {
            (true, _) => Ink::Shade,
            (false, false) => Ink::Band,
            (false, true) => continue,
        };
        match bands.last_mut() {
            Some((last, _, end)) if *last == ink && *end == round.index => *end += 1,
            _ => bands.push((ink, round.index, round.index + 1)),
        }
    }
    for (ink, from, to) in bands {
        canvas.rectangle((rounds.place(f64::from(from)), TOP), (rounds.place(f64::from(to)), bottom), ink);
    }
    let hand = Hand::plain(Ink::Muted).sized(11.0);
    let mut x = RIGHT;
    let noisy = analysis.noisy().next().map(|_| ("noisy", Ink::Band));
    let warmup = analysis.run.rounds.iter().any(|round| round.warmup).then_some(("warm-up", Ink::Shade));
    for (name, ink) in [noisy, warmup].into_iter().flatten() {
        x -= hand.width(name);
        canvas.text(name, (x, TOP - 16.0), hand);
        canvas.rectangle((x - 16.0, TOP - 22.0), (x - 4.0, TOP - 10.0), ink);
        x -= 28.0;
    }
}

/// So many starts are drawn one by one, of all subjects: a page has room for no more. Of a longer run the median and the slowest of as
/// many in a row each.
const ALL: usize = 3200;

/// How many that is for each of so many subjects.
fn most(subjects: usize) -> usize {
    (ALL / subjects.max(1)).min(400)
}

fn points(canvas: &Canvas<'_>, (rounds, times): (&Axis, &Axis), cell: &Summary<'_>, place: usize, most: usize) {
    let starts: Vec<Start<'_>> = cell.series.warmup.iter().chain(&cell.series.ready).copied().collect();
    let radius = if cell.series.ready.len() > 100 { 1.8 } else { 2.6 };
    for start in thinned(&starts, most) {
        let x = rounds.place(f64::from(start.round) + 0.5);
        let y = times.place(start.timing.ready_ns as f64);
        canvas.mark(Mark::of(place), (x, y), radius, Ink::Series(place));
    }
}

fn thinned<'a>(starts: &[Start<'a>], most: usize) -> Vec<Start<'a>> {
    if starts.len() <= most {
        return starts.to_vec();
    }
    let middle_and_slowest = |block: &[Start<'a>]| {
        let mut block = block.to_vec();
        block.sort_by_key(|start| start.timing.ready_ns);
        let middle = block.get(block.len() / 2).copied();
        [middle, block.last().copied()].into_iter().flatten().collect::<Vec<_>>()
    };
    starts.chunks(starts.len().div_ceil((most / 2).max(1))).flat_map(middle_and_slowest).collect()
}

fn failures(canvas: &Canvas<'_>, rounds: &Axis, cell: &Summary<'_>, y: f64, most: usize) {
    let every = cell.series.failed.len().div_ceil(most.max(1)).max(1);
    for (round, _) in cell.series.failed.iter().step_by(every) {
        canvas.mark(Mark::Cross, (rounds.place(f64::from(*round) + 0.5), y), 3.4, Ink::Alarm);
    }
}

/// Each subject's name beside its points, as high as its median where others leave room.
fn labels(canvas: &Canvas<'_>, analysis: &Analysis<'_>, times: &Axis, cells: &[&Summary<'_>], ends: (f64, f64)) {
    let height =
        |cell: &Summary<'_>| cell.figures.as_ref().map_or(ends.0, |figures| times.place(figures.median.estimate));
    let mut cells: Vec<_> = cells.iter().map(|cell| (height(cell), *cell)).collect();
    cells.sort_by(|a, b| a.0.total_cmp(&b.0));
    let wanted: Vec<f64> = cells.iter().map(|(y, _)| *y).collect();
    for ((y, cell), label) in cells.iter().zip(spread(&wanted, 17.0, ends)) {
        let place = analysis.place(cell.cell());
        canvas.line([(RIGHT + 2.0, *y), (RIGHT + 12.0, label)], Ink::Muted, 0.8);
        canvas.mark(Mark::of(place), (RIGHT + 19.0, label), 4.0, Ink::Series(place));
        canvas.text(&shortened(&cell.cell().name, LETTERS), (RIGHT + 28.0, label), Hand::plain(Ink::Text));
    }
    if analysis.compared().any(|cell| !cell.series.failed.is_empty()) {
        let y = ends.1 + 4.0 + FAILED_LANE / 2.0;
        canvas.mark(Mark::Cross, (RIGHT + 19.0, y), 3.4, Ink::Alarm);
        canvas.text("failed", (RIGHT + 28.0, y), Hand::plain(Ink::Alarm));
    }
}

fn describe(analysis: &Analysis<'_>, subjects: usize) -> String {
    let failed: usize = analysis.compared().map(|cell| cell.series.failed.len()).sum();
    let long = analysis.compared().any(|cell| cell.series.ready.len() + cell.series.warmup.len() > most(subjects));
    let points =
        if long { "The median and the slowest of so many starts in a row each" } else { "Every start as a point" };
    format!(
        "{points}, round by round: {} measured, {} of them noisy; {}.",
        units::count(analysis.measured_rounds(), "round"),
        analysis.noisy().count(),
        if failed == 0 { "no start failed".to_owned() } else { format!("{} failed", units::count(failed, "start")) }
    )
}
