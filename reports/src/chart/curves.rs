//! Figures over another figure, a curve a kind: points, lines through them, guides, and where two lines cross.

use super::axis::Axis;
use super::canvas::{Hand, Mark, Point};
use super::{Chart, Ink, LETTERS, NAME};
use crate::stats::Line;
use crate::text::shortened;

const TOP: f64 = 44.0;
const LEFT: f64 = 70.0;

/// A curve.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) name: String,
    /// What stands below its name.
    pub(crate) note: String,
    /// Its points, joined where there is no line.
    pub(crate) points: Vec<Point>,
    /// All single figures behind the points.
    pub(crate) scatter: Vec<Point>,
    /// A straight line through them, on linear axes.
    pub(crate) line: Option<Line>,
}

impl Curve {
    /// Where its line begins and ends: at 0, and at its last point.
    fn ends(&self) -> Option<[Point; 2]> {
        let line = self.line.as_ref()?;
        let end = self.points.iter().map(|point| point.0).fold(0.0, f64::max);
        Some([0.0, end].map(|x| (x, line.intercept.value + line.slope.value * x)))
    }
}

/// One of the two axes.
pub(crate) struct Scale {
    pub(crate) title: String,
    pub(crate) log: bool,
    pub(crate) name: fn(f64) -> String,
    /// Figures to name; those that the axis would choose where there are none.
    pub(crate) ticks: Vec<f64>,
}

/// What is drawn besides curves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extras {
    /// Lines of slope 0 and 1 on two log axes.
    pub(crate) guides: bool,
    /// Where two lines cross, and what to say there.
    pub(crate) crossing: Option<(f64, String)>,
}

/// The chart's place on the page: its size, and the room that names have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) size: Point,
    pub(crate) names: f64,
}

/// Draws it; nothing without a point.
pub(crate) fn draw(
    (slug, title): (&'static str, &str),
    frame: Frame,
    (x, y): (&Scale, &Scale),
    curves: &[Curve],
    extras: &Extras,
) -> Option<Chart> {
    let all: Vec<Point> = curves.iter().flat_map(|curve| curve.points.iter().chain(&curve.scatter)).copied().collect();
    let most = all.iter().copied().reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))?;
    let (right, bottom) = (frame.size.0 - frame.names, frame.size.1 - 46.0);
    let across =
        if x.log { Axis::log(all.iter().map(|point| point.0), LEFT, right) } else { Axis::linear(most.0, LEFT, right) };
    // A line may end above all points: an axis that ended below it would bend it.
    let highest = curves.iter().filter_map(Curve::ends).flatten().map(|end| end.1).fold(most.1, f64::max);
    let up = if y.log {
        Axis::log(all.iter().map(|point| point.1), bottom, TOP)
    } else {
        Axis::linear(highest, bottom, TOP)
    };
    let place = |(a, b): Point| (across.place(a), up.place(b));
    Some(Chart::draw(slug, title, describe(curves, y), frame.size, |canvas| {
        let ticks = if x.ticks.is_empty() {
            across.named_ticks(x.name)
        } else {
            apart(&across, x.ticks.iter().map(|tick| (*tick, (x.name)(*tick))).collect())
        };
        across.draw_below(canvas, (TOP, bottom), &ticks, &x.title);
        up.draw_left(canvas, (LEFT, right), &up.named_ticks(y.name), &y.title);
        if extras.guides {
            guides(canvas, &all, place);
        }
        if let Some((at, text)) = &extras.crossing {
            let x = across.place(*at);
            canvas.line([(x, TOP), (x, bottom)], Ink::Alarm, 1.2);
            let hand = Hand::plain(Ink::Alarm).sized(11.5);
            let (x, hand) = if x > f64::midpoint(LEFT, right) { (x - 5.0, hand.ending()) } else { (x + 5.0, hand) };
            canvas.text(text, (x, TOP + 8.0), hand);
        }
        for (curve, number) in curves.iter().zip(0..) {
            let ink = Ink::Series(number);
            for point in &curve.scatter {
                canvas.mark(Mark::of(number), place(*point), 1.7, ink);
            }
            match curve.ends() {
                Some(ends) => canvas.line(ends.map(place), ink, 1.7),
                None => canvas.line(curve.points.iter().map(|point| place(*point)), ink, 1.7),
            }
            for point in &curve.points {
                canvas.mark(Mark::of(number), place(*point), 3.6, ink);
            }
            let row = TOP + 8.0 + 35.0 * number as f64;
            canvas.mark(Mark::of(number), (right + 19.0, row), 4.2, ink);
            let letters = ((frame.names - 30.0) / NAME * LETTERS as f64) as usize;
            canvas.text(&shortened(&curve.name, letters), (right + 30.0, row), Hand::plain(Ink::Text));
            canvas.text(
                &shortened(&curve.note, letters + 2),
                (right + 30.0, row + 14.0),
                Hand::plain(Ink::Muted).sized(11.0),
            );
        }
    }))
}

/// Without the names that would stand in each other's.
fn apart(axis: &Axis, ticks: Vec<(f64, String)>) -> Vec<(f64, String)> {
    let mut last = f64::MIN;
    let named = |(tick, name): (f64, String)| {
        let place = axis.place(tick);
        let fits = place - last >= 52.0;
        if fits {
            last = place;
        }
        (tick, if fits { name } else { String::new() })
    };
    ticks.into_iter().map(named).collect()
}

/// What costs the same whatever the size, and what grows in proportion to it; from the lower left of all points.
fn guides(canvas: &super::canvas::Canvas<'_>, all: &[Point], place: impl Fn(Point) -> Point) {
    let low = all.iter().copied().reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)));
    let high = all.iter().copied().reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)));
    let (Some(low), Some(high)) = (low, high) else { return };
    // Between the lowest and the highest, so that both fit.
    let start = (low.1 * high.1).sqrt() / (high.0 / low.0).sqrt();
    let start = start.max(low.1);
    let end = (high.0, start * high.0 / low.0);
    let hand = Hand::plain(Ink::Muted).sized(10.5);
    for (to, text) in [((high.0, start), "slope 0: no matter how large"), (end, "slope 1: in proportion")] {
        let (from, to) = (place((low.0, start)), place(to));
        canvas.line([from, to], Ink::Muted, 0.8);
        canvas.text(text, (to.0 - 4.0, to.1 - 8.0), hand.ending());
    }
}

fn describe(curves: &[Curve], y: &Scale) -> String {
    let curve = |curve: &Curve| {
        let ends = curve.points.first().zip(curve.points.last());
        let ends = ends.map(|(first, last)| format!(" from {} to {}", (y.name)(first.1), (y.name)(last.1)));
        format!("{}:{}.", curve.name, ends.unwrap_or_default())
    };
    format!("{}. {}", y.title, curves.iter().map(curve).collect::<Vec<_>>().join(" "))
}
