//! What one more costs: memory over the number alive, the line through it, and what the line leaves unexplained.

use super::axis::{Axis, spread, tick_time};
use super::canvas::{Canvas, Hand, Mark, Point};
use super::{Chart, HALF, Ink, LETTERS, NAME, WIDE};
use crate::analysis::Analysis;
use crate::density::{Climbed, Crowd};
use crate::text::shortened;
use crate::units;

const LEFT: f64 = 70.0;
const RIGHT: f64 = WIDE - 290.0;
const TOP: f64 = 40.0;
/// The least height of the lines' plot, and how far apart the labels beside it stand.
const LOWEST: f64 = 400.0;
const LABEL: f64 = 30.0;
/// The two smaller charts.
const HALF_RIGHT: f64 = HALF - 30.0 - NAME;
const HALF_BOTTOM: f64 = 300.0;

/// The cells that were ever alive and have a line.
fn cells<'r, 'a>(crowd: &'r Crowd<'a>) -> Vec<&'r Climbed<'a>> {
    crowd.compared().filter(|climbed| climbed.cost().line.is_some()).collect()
}

/// Draws the lines; nothing where nothing has one.
pub(crate) fn draw(analysis: &Analysis<'_>) -> Option<Chart> {
    let crowd = analysis.density.as_ref()?;
    let cells = cells(crowd);
    let most = cells.iter().map(|climbed| climbed.most()).max()?;
    let all = cells.iter().flat_map(|climbed| climbed.cost().points.iter().map(|(_, bytes)| *bytes));
    let (low, high) = all.fold((0.0_f64, 0.0_f64), |(low, high), bytes| (low.min(bytes), high.max(bytes)));
    let (scale, unit) = byte_unit(high.max(-low));
    let alive = Axis::linear(f64::from(most), LEFT, RIGHT);
    let bottom = LOWEST.max(TOP + LABEL * cells.len() as f64);
    let bytes = Axis::between(low / scale, high / scale, bottom, TOP);
    let title = "What one more costs";
    Some(Chart::draw("density", title, describe(&cells, crowd), (WIDE, bottom + 46.0), |canvas| {
        // Bands lie behind everything, the grid included.
        for climbed in &cells {
            canvas.polygon(&band(climbed, &alive, &bytes, scale), Ink::Shade);
        }
        alive.draw_below(canvas, (TOP, bottom), &alive.named_ticks(whole), "instances alive at once");
        let title = format!("{}, {unit}", crowd.measure.name());
        bytes.draw_left(canvas, (LEFT, RIGHT), &bytes.named_ticks(|tick| tick.to_string()), &title);
        for climbed in &cells {
            let place = analysis.place(climbed.cell);
            for (x, y) in &climbed.cost().points {
                canvas.mark(Mark::of(place), (alive.place(*x), bytes.place(y / scale)), 3.2, Ink::Series(place));
            }
            let end = f64::from(climbed.most());
            let line = [0.0, end].map(|x| (alive.place(x), bytes.place(climbed.cost().at(x).estimate / scale)));
            canvas.line(line, Ink::Series(place), 1.8);
        }
        labels(canvas, analysis, (&cells, bottom), |climbed| {
            let end = f64::from(climbed.most());
            (alive.place(end), bytes.place(climbed.cost().at(end).estimate / scale))
        });
    }))
}

/// The 95 % interval of the line, as a polygon.
fn band(climbed: &Climbed<'_>, alive: &Axis, bytes: &Axis, scale: f64) -> Vec<Point> {
    const STEPS: u32 = 24;
    let end = f64::from(climbed.most());
    let at = |step: u32| end * f64::from(step) / f64::from(STEPS);
    let place = |x: f64, y: f64| (alive.place(x), bytes.place(y / scale));
    let upper = (0..=STEPS).map(|step| place(at(step), climbed.cost().at(at(step)).high));
    let lower = (0..=STEPS).rev().map(|step| place(at(step), climbed.cost().at(at(step)).low));
    upper.chain(lower).collect()
}

/// Each subject's name and slope to the right of its line's end.
fn labels(
    canvas: &Canvas<'_>,
    analysis: &Analysis<'_>,
    (cells, bottom): (&[&Climbed<'_>], f64),
    end: impl Fn(&Climbed<'_>) -> Point,
) {
    let mut ends: Vec<_> = cells.iter().map(|climbed| (end(climbed), *climbed)).collect();
    ends.sort_by(|a, b| a.0.1.total_cmp(&b.0.1));
    let wanted: Vec<f64> = ends.iter().map(|(place, _)| place.1).collect();
    for ((from, climbed), y) in ends.iter().zip(spread(&wanted, LABEL, (TOP + 6.0, bottom - 8.0))) {
        let place = analysis.place(climbed.cell);
        canvas.line([(from.0 + 4.0, from.1), (RIGHT + 18.0, y)], Ink::Muted, 0.8);
        canvas.mark(Mark::of(place), (RIGHT + 27.0, y), 4.2, Ink::Series(place));
        canvas.text(&shortened(&climbed.cell.name, 20), (RIGHT + 40.0, y - 6.0), Hand::plain(Ink::Text).bold());
        canvas.text(&slope(climbed), (RIGHT + 40.0, y + 9.0), Hand::plain(Ink::Muted).sized(11.5));
    }
}

/// `390 KiB each (380–400 KiB), R² 0.99`
fn slope(climbed: &Climbed<'_>) -> String {
    let Some(line) = &climbed.cost().line else { return String::new() };
    let (low, high) = (line.slope.low, line.slope.high);
    format!("{} each ({}), R² {:.2}", units::bytes(line.slope.value), units::byte_range(low, high), line.r_squared)
}

/// What the points are off their line by.
pub(crate) fn residuals(analysis: &Analysis<'_>) -> Option<Chart> {
    let crowd = analysis.density.as_ref()?;
    let cells = cells(crowd);
    let most = cells.iter().map(|climbed| climbed.most()).max()?;
    let all = cells.iter().flat_map(|climbed| climbed.cost().residuals());
    let widest = all.map(|(_, off)| off.abs()).fold(0.0, f64::max);
    let (scale, unit) = byte_unit(widest);
    let alive = Axis::log([1.0, f64::from(most)], 62.0, HALF_RIGHT);
    let bytes = Axis::between(-widest / scale, widest / scale, HALF_BOTTOM, TOP);
    let desc = format!(
        "How far each point lies from its subject's line, over the number alive; the farthest is {} off.",
        units::bytes(widest)
    );
    let title = "What the lines leave unexplained";
    Some(Chart::draw("residuals", title, desc, (HALF, HALF_BOTTOM + 46.0), |canvas| {
        alive.draw_below(canvas, (TOP, HALF_BOTTOM), &alive.named_ticks(whole), "instances alive at once, log scale");
        bytes.draw_left(
            canvas,
            (62.0, HALF_RIGHT),
            &bytes.named_ticks(|tick| tick.to_string()),
            &format!("off the line by, {unit}"),
        );
        canvas.line([(62.0, bytes.place(0.0)), (HALF_RIGHT, bytes.place(0.0))], Ink::Text, 1.0);
        for climbed in &cells {
            let place = analysis.place(climbed.cell);
            for (x, off) in climbed.cost().residuals().iter().filter(|(x, _)| *x > 0.0) {
                canvas.mark(Mark::of(place), (alive.place(*x), bytes.place(off / scale)), 3.0, Ink::Series(place));
            }
        }
        key(canvas, analysis, &cells);
    }))
}

/// How long each took to start, over how many were alive already.
pub(crate) fn starts(analysis: &Analysis<'_>) -> Option<Chart> {
    let crowd = analysis.density.as_ref()?;
    let cells = cells(crowd);
    let most = cells.iter().map(|climbed| climbed.most()).max()?;
    let curves: Vec<_> = cells.iter().map(|climbed| (*climbed, binned(&climbed.starts(), most))).collect();
    let times = curves.iter().flat_map(|(_, curve)| curve.iter().map(|(_, time)| *time));
    let alive = Axis::linear(f64::from(most), 62.0, HALF_RIGHT);
    let time = Axis::log(times, HALF_BOTTOM, TOP);
    let sentence = |(climbed, curve): &(&Climbed<'_>, Vec<Point>)| {
        let (first, last) = (curve.first()?.1, curve.last()?.1);
        Some(format!(
            "{}: {} among the first, {} among the last.",
            climbed.cell.name,
            units::time(first),
            units::time(last)
        ))
    };
    let desc = curves.iter().filter_map(sentence).collect::<Vec<_>>().join(" ");
    let title = "Whether a full house slows the next start";
    Some(Chart::draw("starts", title, desc, (HALF, HALF_BOTTOM + 46.0), |canvas| {
        alive.draw_below(canvas, (TOP, HALF_BOTTOM), &alive.named_ticks(whole), "instances alive already");
        time.draw_left(canvas, (62.0, HALF_RIGHT), &time.named_ticks(tick_time), "start-up time, medians, log scale");
        for (climbed, curve) in &curves {
            let place = analysis.place(climbed.cell);
            let points: Vec<Point> = curve.iter().map(|(x, y)| (alive.place(*x), time.place(*y))).collect();
            canvas.line(points.iter().copied(), Ink::Series(place), 1.5);
            for point in points {
                canvas.mark(Mark::of(place), point, 2.8, Ink::Series(place));
            }
        }
        key(canvas, analysis, &cells);
    }))
}

/// Medians of sixteen equal parts of the axis, each at the middle of what is in it.
fn binned(starts: &[Point], most: u32) -> Vec<Point> {
    const PARTS: usize = 16;
    let mut parts: Vec<Vec<Point>> = vec![Vec::new(); PARTS];
    for start in starts {
        let part = ((start.0 / f64::from(most.max(1))) * PARTS as f64) as usize;
        if let Some(part) = parts.get_mut(part.min(PARTS - 1)) {
            part.push(*start);
        }
    }
    let middle = |part: &Vec<Point>, of: fn(&Point) -> f64| {
        crate::stats::Sorted::new(part.iter().map(of)).map(|sorted| sorted.median())
    };
    parts.iter().filter_map(|part| Some((middle(part, |start| start.0)?, middle(part, |start| start.1)?))).collect()
}

/// Names to the right of the smaller charts.
fn key(canvas: &Canvas<'_>, analysis: &Analysis<'_>, cells: &[&Climbed<'_>]) {
    for (climbed, row) in cells.iter().zip(0..) {
        let (y, place) = (TOP + 8.0 + 19.0 * f64::from(row), analysis.place(climbed.cell));
        canvas.mark(Mark::of(place), (HALF_RIGHT + 19.0, y), 4.0, Ink::Series(place));
        canvas.text(&shortened(&climbed.cell.name, LETTERS), (HALF_RIGHT + 30.0, y), Hand::plain(Ink::Text));
    }
}

/// Names whole numbers only: there is no half instance.
fn whole(tick: f64) -> String {
    if tick.fract() == 0.0 { tick.to_string() } else { String::new() }
}

/// The scale, in bytes, and the name of the unit that suits an axis up to so many.
pub(super) fn byte_unit(most: f64) -> (f64, &'static str) {
    match most {
        most if most < 4096.0 => (1.0, "B"),
        most if most < 4_194_304.0 => (1024.0, "KiB"),
        most if most < 4_294_967_296.0 => (1_048_576.0, "MiB"),
        _ => (1_073_741_824.0, "GiB"),
    }
}

fn describe(cells: &[&Climbed<'_>], crowd: &Crowd<'_>) -> String {
    let cell = |climbed: &&Climbed<'_>| format!("{}: {}.", climbed.cell.name, slope(climbed));
    let cells: Vec<String> = cells.iter().map(cell).collect();
    format!("The {} over the number of instances alive, a line a subject. {}", crowd.measure.name(), cells.join(" "))
}
