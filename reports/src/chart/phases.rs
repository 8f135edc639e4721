//! Where starts spend their time: a bar a subject, its segments the steps of a typical start, end to end.

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
const ROW: f64 = 52.0;

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
    let longest = rows.iter().map(|(cell, figures)| length(cell).max(figures.median.high)).reduce(f64::max)?;
    let axis = Axis::linear(longest, LEFT, RIGHT);
    let areas = areas(&rows);
    let key = key(&areas);
    let top = TOP + key.last().map_or(0.0, |entry| entry.place.1);
    let bottom = top + ROW * rows.len() as f64;
    let title = "Where a start spends its time";
    Some(Chart::draw("phases", title, describe(&rows), (WIDE, bottom + 46.0), |canvas| {
        for entry in &key {
            let (x, y) = entry.place;
            canvas.rectangle((x, y - 6.5), (x + 13.0, y + 6.5), entry.ink);
            canvas.text(&entry.name, (x + 18.0, y), Hand::plain(Ink::Text));
        }
        axis.draw_below(canvas, (top - 6.0, bottom), &axis.named_ticks(tick_time), "time since the start, linear");
        for (row, (cell, figures)) in rows.iter().enumerate() {
            bar(canvas, &axis, top + ROW * row as f64, (cell, figures), &areas);
        }
    }))
}

/// How long a cell's typical start is, in nanoseconds.
pub(crate) fn length(cell: &Summary<'_>) -> f64 {
    cell.steps.iter().map(|step| step.own_ns).sum()
}

/// The mechanisms in the order in which they first appear.
fn areas<'r>(rows: &[(&'r Summary<'_>, &Figures)]) -> Vec<&'r str> {
    let mut areas = Vec::new();
    for step in rows.iter().flat_map(|(cell, _)| &cell.steps) {
        if ink(&[], step) != Ink::Rest && !areas.contains(&step.area()) {
            areas.push(step.area());
        }
    }
    areas
}

fn ink(areas: &[&str], step: &Step) -> Ink {
    if step.name == BETWEEN || step.name == WHOLE {
        return Ink::Rest;
    }
    Ink::Area(areas.iter().position(|area| *area == step.area()).unwrap_or(0))
}

/// Which fill is which mechanism.
struct Entry {
    ink: Ink,
    name: String,
    place: Point,
}

/// The key, above the bars, on as many lines as it needs.
fn key(areas: &[&str]) -> Vec<Entry> {
    let inks = areas.iter().enumerate().map(|(place, area)| (Ink::Area(place), *area));
    let (mut x, mut y) = (LEFT, 16.0);
    let entry = |(ink, name): (Ink, &str)| {
        let name = shortened(name, 16);
        let width = 36.0 + Hand::plain(Ink::Text).width(&name);
        if x + width > WIDE {
            (x, y) = (LEFT, y + KEY_LINE);
        }
        let place = (x, y);
        x += width;
        Entry { ink, name, place }
    };
    inks.chain([(Ink::Rest, "in no span")]).map(entry).collect()
}

fn bar(canvas: &Canvas<'_>, axis: &Axis, top: f64, (cell, figures): (&Summary<'_>, &Figures), areas: &[&str]) {
    let middle = top + ROW / 2.0;
    let (top, bottom) = (middle - BAR / 2.0, middle + BAR / 2.0);
    canvas.text(&shortened(&cell.cell().name, 22), (LEFT - 10.0, middle), Hand::plain(Ink::Text).sized(13.0).ending());
    let mut at = 0.0;
    for step in &cell.steps {
        let (from, to) = (axis.place(at), axis.place(at + step.own_ns));
        // A hair of paper between neighbours, where there is room for it.
        let gap = if to - from > 2.0 { 0.8 } else { 0.0 };
        canvas.rectangle((from, top), (to - gap, bottom), ink(areas, step));
        segment_label(canvas, step, (from, to), middle);
        at += step.own_ns;
    }
    let (low, high) = (axis.place(figures.median.low), axis.place(figures.median.high));
    let below = bottom + 4.0;
    canvas.line([(low, below), (high.max(low + 1.0), below)], Ink::Text, 1.5);
    for x in [low, axis.place(figures.median.estimate), high.max(low + 1.0)] {
        canvas.line([(x, below - 2.5), (x, below + 2.5)], Ink::Text, 1.5);
    }
    canvas.text(
        &units::time(figures.median.estimate),
        (axis.place(at) + 8.0, middle),
        Hand::plain(Ink::Text).sized(13.0).bold(),
    );
}

/// The step's name and length, where the segment is wide enough for them.
fn segment_label(canvas: &Canvas<'_>, step: &Step, (from, to): (f64, f64), middle: f64) {
    let hand = Hand::plain(Ink::OnArea).sized(11.0).centred();
    let name = step.name.split_once('.').map_or(step.name.as_str(), |(_, name)| name);
    let name = if step.name == BETWEEN || step.name == WHOLE { "" } else { name };
    let time = units::time(step.own_ns);
    let fits = |text: &str| hand.width(text) + 6.0 <= to - from;
    let centre = f64::midpoint(from, to);
    match (!name.is_empty() && fits(name), fits(&time)) {
        (true, true) => {
            canvas.text(name, (centre, middle - 7.0), hand);
            canvas.text(&time, (centre, middle + 7.5), hand);
        }
        (true, false) => canvas.text(name, (centre, middle), hand),
        (false, true) => canvas.text(&time, (centre, middle), hand),
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
