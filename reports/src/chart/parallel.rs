//! What starting many at once costs: the middle and the tail of start-up time against how many start behind one barrier.

use super::axis::{Axis, spread, tick_time};
use super::canvas::{Canvas, Hand, Mark, Point};
use super::{Chart, HALF, Ink, LETTERS, NAME, WIDE};
use crate::analysis::{Analysis, Figures, Summary};
use crate::model::Role;
use crate::text::shortened;
use crate::units;

const TOP: f64 = 56.0;
const BOTTOM: f64 = 350.0;
/// The plots of the two panels, from left to right; their labels stand to the right of each.
const PANELS: [Point; 2] = [(56.0, HALF - 42.0 - NAME), (WIDE - HALF + 56.0, WIDE - 42.0 - NAME)];

/// A figure of a cell.
type Figure = fn(&Figures) -> f64;

/// One subject's cells, by how many start at once, ascending.
pub(crate) type Ladder<'r, 'a> = Vec<(&'r Summary<'a>, &'r Figures)>;

/// The subjects that were started in more than one number at once.
pub(crate) fn ladders<'r, 'a>(analysis: &'r Analysis<'a>) -> Vec<Ladder<'r, 'a>> {
    let of_subject = |subject: &str| {
        let cells = analysis.cells.iter().filter(|cell| cell.cell().subject == subject);
        let cells = cells.filter(|cell| cell.cell().role != Role::Control);
        let mut ladder: Ladder<'r, 'a> = cells.filter_map(|cell| Some((cell, cell.figures.as_ref()?))).collect();
        ladder.sort_by_key(|(cell, _)| cell.cell().parallel);
        ladder
    };
    let ladders = analysis.subjects().into_iter().map(of_subject);
    ladders.filter(|ladder| ladder.len() > 1).collect()
}

/// Draws it; nothing where nothing was started in more than one number.
pub(crate) fn draw(analysis: &Analysis<'_>) -> Option<Chart> {
    let ladders = ladders(analysis);
    let cells = || ladders.iter().flatten();
    if ladders.is_empty() {
        return None;
    }
    let times = Axis::log(cells().flat_map(|(_, f)| [f.median.estimate, f.tail.value()]), BOTTOM, TOP);
    let mut counts: Vec<u32> = cells().map(|(cell, _)| cell.cell().parallel).collect();
    counts.sort_unstable();
    counts.dedup();
    let title = "What starting many at once costs";
    Some(Chart::draw("parallel", title, describe(&ladders), (WIDE, BOTTOM + 46.0), |canvas| {
        let figures: [(&str, Figure); 2] = [
            ("median, log scale", |f| f.median.estimate),
            ("p99, log scale (of under 100 starts, the maximum)", |f| f.tail.value()),
        ];
        for ((left, right), (name, figure)) in PANELS.into_iter().zip(figures) {
            let numbers = Axis::log(counts.iter().map(|count| f64::from(*count)), left, right);
            let ticks: Vec<_> = counts.iter().map(|count| (f64::from(*count), count.to_string())).collect();
            cpus(canvas, &numbers, analysis.run.host.cpus, &counts);
            numbers.draw_below(canvas, (TOP, BOTTOM), &ticks, "started at once");
            times.draw_left(canvas, (left, right), &times.named_ticks(tick_time), name);
            panel(canvas, analysis, (&numbers, &times), &ladders, figure);
        }
    }))
}

/// A line where there are as many starts as CPUs: past it they wait for each other.
fn cpus(canvas: &Canvas<'_>, numbers: &Axis, cpus: u32, counts: &[u32]) {
    let within = counts.first().is_some_and(|least| *least <= cpus) && counts.last().is_some_and(|most| cpus <= *most);
    if within {
        let x = numbers.place(f64::from(cpus));
        canvas.line([(x, TOP - 4.0), (x, BOTTOM)], Ink::Muted, 1.4);
        let label = units::count(cpus as usize, "CPU");
        canvas.text(&label, (x + 5.0, TOP + 8.0), Hand::plain(Ink::Muted).sized(11.0));
    }
}

fn panel(
    canvas: &Canvas<'_>,
    analysis: &Analysis<'_>,
    (numbers, times): (&Axis, &Axis),
    ladders: &[Ladder<'_, '_>],
    figure: Figure,
) {
    let mut ends = Vec::new();
    for ladder in ladders {
        let Some((first, _)) = ladder.first() else { continue };
        let place = analysis.place(first.cell());
        let at = |(cell, f): &(&Summary<'_>, &Figures)| {
            (numbers.place(f64::from(cell.cell().parallel)), times.place(figure(f)))
        };
        let points: Vec<Point> = ladder.iter().map(at).collect();
        ends.extend(points.last().map(|end| (*end, first.cell().subject.as_str(), place)));
        canvas.line(points.iter().copied(), Ink::Series(place), 1.8);
        for point in points {
            canvas.mark(Mark::of(place), point, 4.2, Ink::Series(place));
        }
    }
    ends.sort_by(|a, b| a.0.1.total_cmp(&b.0.1));
    let wanted: Vec<f64> = ends.iter().map(|((_, y), ..)| *y).collect();
    for ((end, name, place), label) in ends.iter().zip(spread(&wanted, 17.0, (TOP, BOTTOM))) {
        canvas.line([(end.0 + 7.0, end.1), (end.0 + 26.0, label)], Ink::Muted, 0.8);
        canvas.mark(Mark::of(*place), (end.0 + 33.0, label), 4.0, Ink::Series(*place));
        canvas.text(&shortened(name, LETTERS), (end.0 + 42.0, label), Hand::plain(Ink::Text));
    }
}

fn describe(ladders: &[Ladder<'_, '_>]) -> String {
    let rung = |(cell, figures): &(&Summary<'_>, &Figures)| {
        format!(
            "{} at once {} (median), {} ({})",
            cell.cell().parallel,
            units::time(figures.median.estimate),
            units::time(figures.tail.value()),
            figures.tail.name()
        )
    };
    let ladder = |ladder: &Ladder<'_, '_>| {
        let name = ladder.first().map_or("", |(cell, _)| cell.cell().subject.as_str());
        format!("{name}: {}.", ladder.iter().map(rung).collect::<Vec<_>>().join("; "))
    };
    let ladders: Vec<String> = ladders.iter().map(ladder).collect();
    format!("Start-up time against how many start at once, one line a subject. {}", ladders.join(" "))
}
