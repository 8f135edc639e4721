//! Where starts spend their time: a bar a subject, its segments the steps of a typical start, end to end.

use std::collections::BTreeSet;

use super::axis::{Axis, tick_time};
use super::canvas::{Canvas, Hand, Point};
use super::{Chart, Ink, WIDE};
use crate::analysis::{Analysis, Figures, Summary};
use crate::model::Role;
use crate::phases::{BETWEEN, Step, WHOLE};
use crate::text::shortened;
use crate::units;

const LEFT: f64 = 170.0;
const RIGHT: f64 = WIDE - 90.0;
/// Under the key.
const TOP: f64 = 24.0;
const KEY_LINE: f64 = 22.0;
const BAR: f64 = 36.0;
/// Under the bar, for steps within steps.
const STRIP: f64 = 15.0;
const ROW: f64 = 54.0;
const STRIP_ROW: f64 = ROW + STRIP;

/// The cells that get a bar: the baseline and our own subjects. Where there are only peers, they.
///
/// A peer tells nothing of its steps: it would be one block, and the slowest of them would press all others into a corner.
pub(crate) fn rows<'r, 'a>(analysis: &'r Analysis<'a>) -> Vec<(&'r Summary<'a>, &'r Figures)> {
    let all: Vec<_> = analysis.compared().filter_map(|cell| Some((cell, cell.figures.as_ref()?))).collect();
    let peer = |cell: &Summary<'_>| cell.cell().role == Role::Peer;
    if all.iter().all(|(cell, _)| peer(cell)) {
        return all;
    }
    all.into_iter().filter(|(cell, _)| !peer(cell)).collect()
}

/// Draws it; nothing without a proved start.
pub(crate) fn draw(analysis: &Analysis<'_>) -> Option<Chart> {
    let rows = rows(analysis);
    let longest =
        rows.iter().map(|(cell, figures)| figures.median.points().fold(length(cell), f64::max)).reduce(f64::max)?;
    let axis = Axis::linear(longest, LEFT, RIGHT);
    let areas = areas(&rows);
    let key = key(&areas);
    let top = TOP + key.last().map_or(0.0, |entry| entry.place.1);
    let height = |cell: &Summary<'_>| if cell.all_steps.iter().any(|step| step.depth > 0) { STRIP_ROW } else { ROW };
    let bottom = top + rows.iter().map(|(cell, _)| height(cell)).sum::<f64>();
    let title = "Where a start spends its time";
    Some(Chart::draw("phases", title, describe(&rows), (WIDE, bottom + 46.0), |canvas| {
        for entry in &key {
            let (x, y) = entry.place;
            canvas.rectangle((x, y - 6.5), (x + 13.0, y + 6.5), entry.ink);
            canvas.text(&entry.name, (x + 18.0, y), Hand::plain(Ink::Text));
        }
        axis.draw_below(canvas, (top - 6.0, bottom), &axis.named_ticks(tick_time), "time since the start, linear");
        let mut y = top;
        for (cell, figures) in &rows {
            bar(canvas, &axis, (y, y + height(cell)), (cell, figures), &areas);
            y += height(cell);
        }
    }))
}

/// How long a cell's typical start is, in nanoseconds.
pub(crate) fn length(cell: &Summary<'_>) -> f64 {
    cell.steps.iter().map(|step| step.own_ns).sum()
}

/// A mechanism and its fill.
type Area<'r> = (&'r str, Ink);

/// The mechanisms in the order in which they first appear. There are more of them than fills that eyes tell apart, so one
/// fill may stand for two mechanisms that never meet in a row.
fn areas<'r>(rows: &[(&'r Summary<'_>, &Figures)]) -> Vec<Area<'r>> {
    let in_row = |cell: &'r Summary<'_>| -> BTreeSet<&'r str> {
        cell.all_steps.iter().filter(|step| step.name != BETWEEN).map(Step::area).collect()
    };
    let meet = |a: &str, b: &str| rows.iter().any(|(cell, _)| in_row(cell).is_superset(&BTreeSet::from([a, b])));
    let mut areas: Vec<Area<'r>> = Vec::new();
    for area in rows.iter().flat_map(|(cell, _)| &cell.all_steps).filter(|step| step.name != BETWEEN).map(Step::area) {
        if areas.iter().any(|(name, _)| *name == area) {
            continue;
        }
        let free = |ink: &Ink| !areas.iter().any(|(name, taken)| taken == ink && meet(name, area));
        let ink = (0..Ink::AREAS).map(Ink::Area).find(free).unwrap_or(Ink::Area(areas.len()));
        areas.push((area, ink));
    }
    areas
}

fn ink(areas: &[Area<'_>], step: &Step) -> Ink {
    if step.name == BETWEEN || step.name == WHOLE {
        return Ink::Rest;
    }
    areas.iter().find(|(area, _)| *area == step.area()).map_or(Ink::Rest, |(_, ink)| *ink)
}

/// Which fill is which mechanism.
struct Entry {
    ink: Ink,
    name: String,
    place: Point,
}

/// The key, above the bars, on as many lines as it needs.
fn key(areas: &[Area<'_>]) -> Vec<Entry> {
    let (mut x, mut y) = (LEFT, 16.0);
    let entry = |(name, ink): Area<'_>| {
        let name = shortened(name, 16);
        let width = 36.0 + Hand::plain(Ink::Text).width(&name);
        if x + width > WIDE {
            (x, y) = (LEFT, y + KEY_LINE);
        }
        let place = (x, y);
        x += width;
        Entry { ink, name, place }
    };
    areas.iter().copied().chain([("in no step", Ink::Rest)]).map(entry).collect()
}

/// One subject: its name, its bar, the strip of steps within steps, the bracket of the interval, its median.
fn bar(canvas: &Canvas<'_>, axis: &Axis, ends: Point, (cell, figures): (&Summary<'_>, &Figures), areas: &[Area<'_>]) {
    let (top, middle) = (ends.0 + 7.0, ends.0 + 7.0 + BAR / 2.0);
    let end = axis.place(length(cell));
    canvas.text(&shortened(&cell.cell().name, 22), (LEFT - 10.0, middle), Hand::plain(Ink::Text).sized(13.0).ending());
    canvas.text(&units::time(figures.median.estimate), (end + 8.0, middle), Hand::plain(Ink::Text).sized(13.0).bold());
    canvas.rectangle((LEFT, top), (end, top + BAR), Ink::Rest);
    let mut at = 0.0;
    for step in cell.steps.iter().filter(|step| ink(areas, step) != Ink::Rest) {
        let from = at + step.gap_ns;
        at = from + step.own_ns;
        segment(canvas, step, (axis.place(from), axis.place(at)), (top, top + BAR), areas);
    }
    for step in cell.all_steps.iter().filter(|step| step.depth > 0) {
        let from = (axis.place(step.start_ns), axis.place(step.start_ns + step.own_ns).min(end));
        segment(canvas, step, from, (top + BAR + 1.0, top + BAR + STRIP), areas);
    }
    bracket(canvas, axis, ends.1 - 7.0, figures);
}

/// The median and its interval, where there is one, under the end of the bar.
fn bracket(canvas: &Canvas<'_>, axis: &Axis, y: f64, figures: &Figures) {
    let places: Vec<f64> = figures.median.points().map(|time| axis.place(time)).collect();
    if let [low, .., high] = *places.as_slice() {
        canvas.line([(low, y), (high.max(low + 1.0), y)], Ink::Text, 1.5);
    }
    for x in places {
        canvas.line([(x, y - 2.5), (x, y + 2.5)], Ink::Text, 1.5);
    }
}

/// One step: its fill, and what it is called and takes where there is room.
fn segment(canvas: &Canvas<'_>, step: &Step, (from, to): Point, (top, bottom): Point, areas: &[Area<'_>]) {
    // A hair of paper between neighbours, where it leaves something of them.
    let gap = if to - from > 2.0 { 0.8 } else { 0.0 };
    canvas.rectangle((from, top), (to - gap, bottom), ink(areas, step));
    let hand = Hand::plain(Ink::OnArea).sized(11.0).centred();
    let name = step.name.split_once('.').map_or(step.name.as_str(), |(_, name)| name);
    let time = units::time(step.own_ns);
    let fits = |text: &str| hand.width(text) + 6.0 <= to - from;
    let (x, y) = (f64::midpoint(from, to), f64::midpoint(top, bottom));
    match (fits(name), fits(&time)) {
        (true, true) if bottom - top > 2.0 * hand.size => {
            canvas.text(name, (x, y - 7.0), hand);
            canvas.text(&time, (x, y + 7.5), hand);
        }
        (true, _) => canvas.text(name, (x, y), hand),
        (false, true) => canvas.text(&time, (x, y), hand),
        (false, false) => {}
    }
}

fn describe(rows: &[(&Summary<'_>, &Figures)]) -> String {
    let row = |(cell, figures): &(&Summary<'_>, &Figures)| {
        let mut steps: Vec<&Step> = cell.steps.iter().filter(|step| step.name != WHOLE).collect();
        steps.sort_by(|a, b| b.own_ns.total_cmp(&a.own_ns));
        let longest: Vec<String> =
            steps.iter().take(3).map(|step| format!("{} {}", step.name, units::time(step.own_ns))).collect();
        let most = if longest.is_empty() { String::new() } else { format!(", most of it in {}", longest.join(", ")) };
        format!("{}: {}{most}.", cell.cell().name, units::time(figures.median.estimate))
    };
    let rows: Vec<String> = rows.iter().map(row).collect();
    format!("One horizontal bar a subject, from 0, cut into the steps of a typical start. {}", rows.join(" "))
}
