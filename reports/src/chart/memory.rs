//! What one instance's memory is made of: a bar a subject, cut into its own pages, its share of common pages, and the kernel's.

use super::axis::Axis;
use super::canvas::{Canvas, Hand, Mark, Point};
use super::density::byte_unit;
use super::{Chart, Ink, WIDE};
use crate::analysis::Analysis;
use crate::density::Climbed;
use crate::text::shortened;
use crate::units;

const LEFT: f64 = 170.0;
const RIGHT: f64 = WIDE - 40.0;
const TOP: f64 = 46.0;
const BAR: f64 = 24.0;
const ROW: f64 = 48.0;

/// The parts, in the order of the bar: name and fill.
const PARTS: [(&str, Ink); 3] = [
    ("its own pages (USS)", Ink::Area(0)),
    ("its share of common pages (PSS less USS)", Ink::Area(5)),
    ("the kernel's memory", Ink::Area(2)),
];

/// The parts of one more instance, in bytes; a part that noise made negative is none.
fn parts(climbed: &Climbed<'_>) -> Option<[f64; 3]> {
    let (uss, pss, kernel) = (climbed.uss.each()?, climbed.pss.each()?, climbed.kernel.each()?);
    Some([uss.max(0.0), (pss - uss).max(0.0), kernel.max(0.0)])
}

/// Draws it; nothing where nothing has slopes.
pub(crate) fn draw(analysis: &Analysis<'_>) -> Option<Chart> {
    let crowd = analysis.density.as_ref()?;
    let rows: Vec<_> = crowd.compared().filter_map(|climbed| Some((climbed, parts(climbed)?))).collect();
    let ends = |(climbed, parts): &(&Climbed<'_>, [f64; 3])| {
        let taken = climbed.taken.line.as_ref().filter(|_| climbed.taken.is_sure()).map_or(0.0, |line| line.slope.high);
        [parts.iter().sum(), climbed.rss.each().unwrap_or(0.0), taken]
    };
    let longest = rows.iter().flat_map(ends).reduce(f64::max)?;
    let (scale, unit) = byte_unit(longest);
    let axis = Axis::linear(longest / scale, LEFT, RIGHT);
    let bottom = TOP + ROW * rows.len() as f64;
    let title = "What an instance’s memory is made of";
    Some(Chart::draw("memory", title, describe(&rows), (WIDE, bottom + 46.0), |canvas| {
        key(canvas);
        axis.draw_below(
            canvas,
            (TOP - 8.0, bottom),
            &axis.named_ticks(|tick| tick.to_string()),
            &format!("for one more instance, {unit}"),
        );
        for ((climbed, parts), row) in rows.iter().zip(0..) {
            let top = TOP + ROW * f64::from(row) + 4.0;
            draw_row(canvas, (climbed, parts), top, |bytes| axis.place(bytes / scale));
        }
    }))
}

fn draw_row(canvas: &Canvas<'_>, (climbed, parts): (&Climbed<'_>, &[f64; 3]), top: f64, at: impl Fn(f64) -> f64) {
    let middle = top + BAR / 2.0;
    canvas.text(&shortened(&climbed.cell.name, 22), (LEFT - 10.0, middle), Hand::plain(Ink::Text).sized(13.0).ending());
    let mut from = 0.0;
    for (bytes, (_, ink)) in parts.iter().zip(PARTS) {
        let (left, right) = (at(from), at(from + bytes));
        from += bytes;
        let gap = if right - left > 2.0 { 0.8 } else { 0.0 };
        canvas.rectangle((left, top), (right - gap, top + BAR), ink);
        let (text, hand) = (units::bytes(*bytes), Hand::plain(Ink::OnArea).sized(11.0).centred());
        if hand.width(&text) + 6.0 <= right - left {
            canvas.text(&text, (f64::midpoint(left, right), middle), hand);
        }
    }
    let y = top + BAR + 9.0;
    if let Some(line) = climbed.taken.line.as_ref().filter(|_| climbed.taken.is_sure()) {
        let (low, high) = (at(line.slope.low.max(0.0)), at(line.slope.high));
        canvas.line([(low, y), (high, y)], Ink::Text, 1.5);
        canvas.mark(Mark::Diamond, (at(line.slope.value), y), 4.6, Ink::Text);
    }
    if let Some(rss) = climbed.rss.each() {
        canvas.mark(Mark::Ring, (at(rss), y), 4.6, Ink::Alarm);
    }
}

fn key(canvas: &Canvas<'_>) {
    let hand = Hand::plain(Ink::Text);
    let mut x = LEFT;
    for (name, ink) in PARTS {
        canvas.rectangle((x, 9.5), (x + 13.0, 22.5), ink);
        canvas.text(name, (x + 18.0, 16.0), hand);
        x += 40.0 + hand.width(name);
    }
    let marks: [(&str, Mark, Ink); 2] =
        [("what the host has less", Mark::Diamond, Ink::Text), ("RSS", Mark::Ring, Ink::Alarm)];
    for (name, mark, ink) in marks {
        let at: Point = (x + 6.0, 16.0);
        canvas.mark(mark, at, 4.6, ink);
        canvas.text(name, (x + 16.0, 16.0), hand);
        x += 36.0 + hand.width(name);
    }
}

fn describe(rows: &[(&Climbed<'_>, [f64; 3])]) -> String {
    let row = |(climbed, [own, common, kernel]): &(&Climbed<'_>, [f64; 3])| {
        let (own, common, kernel) = (units::bytes(*own), units::bytes(*common), units::bytes(*kernel));
        format!("{}: {own} of its own, {common} of common pages, {kernel} of the kernel's.", climbed.cell.name)
    };
    let rows: Vec<String> = rows.iter().map(row).collect();
    format!("One horizontal bar a subject: what one more instance adds. {}", rows.join(" "))
}
