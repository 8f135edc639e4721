//! What snapshots and clones cost: over size, over what is written, over depth, over how many at once; and bytes.

use super::answer::Row;
use super::axis::{Axis, tick_time};
use super::canvas::{Hand, Point};
use super::curves::{Curve, Extras, Frame, Scale, draw};
use super::density::byte_unit;
use super::{Chart, HALF, Ink, NAME, WIDE, answer};
use crate::copies::{Costed, Costs, Crossing, Key, Trend, UNTOUCHED, word};
use crate::model::{Act, CopyCell, Sweep};
use crate::text::shortened;
use crate::units;

const WHOLE: Frame = Frame { size: (WIDE, 430.0), names: 270.0 };
/// A mebibyte.
const MIB: f64 = 1_048_576.0;
const PART: Frame = Frame { size: (HALF, 330.0), names: 30.0 + NAME };

/// The name of bytes on an axis.
fn tick_bytes(bytes: f64) -> String {
    let (scale, unit) = byte_unit((bytes * 4.0).min(bytes.max(1.0) * 4.0));
    let number = bytes / scale;
    if bytes == 0.0 { "0".to_owned() } else { format!("{}\u{a0}{unit}", (number * 100.0).round() / 100.0) }
}

fn tick_mib(mib: f64) -> String {
    format!("{mib}\u{a0}MiB")
}

fn tick_number(number: f64) -> String {
    if number.fract() == 0.0 { number.to_string() } else { String::new() }
}

/// The points of a trend: medians of a figure over what is varied.
fn points(costs: &Costs<'_>, trend: &Trend<'_>, figure: impl Fn(&Costed<'_>) -> Option<f64>) -> Vec<Point> {
    let point = |costed: &Costed<'_>| Some((varied(costed), figure(costed)?));
    costs.of_trend(trend).filter_map(point).collect()
}

fn varied(costed: &Costed<'_>) -> f64 {
    let cell = costed.cell;
    match cell.sweep {
        Sweep::Size => cell.size_bytes as f64,
        Sweep::Touch => cell.touch_bytes as f64,
        Sweep::Depth => f64::from(cell.depth),
        Sweep::Together => f64::from(cell.together),
    }
}

fn ready(costed: &Costed<'_>) -> Option<f64> {
    costed.ready.map(|it| it.estimate)
}

fn whole(costed: &Costed<'_>) -> Option<f64> {
    costed.whole.map(|it| it.estimate)
}

/// Figures that the x axis names: those that were measured.
fn ticks(curves: &[Curve]) -> Vec<f64> {
    let mut ticks: Vec<f64> = curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.0)).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    ticks
}

fn plain(name: String, note: String, points: Vec<Point>) -> Curve {
    Curve { name, note, points, scatter: Vec::new(), line: None }
}

/// The power by which a trend grows, in words.
fn power(trend: &Trend<'_>) -> String {
    trend.line.as_ref().map_or_else(String::new, |line| format!("power {:.2}", line.slope.value))
}

/// Cost over the size of machines, on log axes.
pub(crate) fn sizes(costs: &Costs<'_>) -> Option<Chart> {
    let machines = |trend: &&Trend<'_>| trend.key.sweep == Sweep::Size && trend.key.subject != "container";
    let of: Vec<&Trend<'_>> =
        costs.trends.iter().filter(machines).filter(|trend| trend.key.act != Act::Checkpoint).collect();
    let most = of.iter().map(|trend| trend.cells.len()).max()?;
    let shown = of.iter().filter(|trend| trend.cells.len() == most).map(|trend| trend.key.share).min()?;
    let mut curves = Vec::new();
    for trend in of {
        let name = |what: &str| format!("{what}, {}", written(&trend.key));
        match trend.key.act {
            Act::Create | Act::Plain => {
                curves.push(plain(name(word(trend.key.act)), power(trend), points(costs, trend, ready)));
            }
            act if trend.key.share == UNTOUCHED => {
                curves.push(plain(name(word(act)), power(trend), points(costs, trend, ready)));
            }
            act if trend.key.share == shown => {
                curves.push(plain(name(word(act)), power(trend), points(costs, trend, ready)));
                let touched = name(&format!("{} + touched", word(act)));
                curves.push(plain(touched, "all of it written again".to_owned(), points(costs, trend, whole)));
            }
            _ => {}
        }
    }
    curves.retain(|curve| !curve.points.is_empty());
    let x = Scale {
        title: "memory of the machine, log scale".to_owned(),
        log: true,
        name: tick_bytes,
        ticks: ticks(&curves),
    };
    let y = Scale { title: "time, medians, log scale".to_owned(), log: true, name: tick_time, ticks: Vec::new() };
    let title = "What a snapshot costs, however large the machine";
    draw(("sizes", title), WHOLE, (&x, &y), &curves, &Extras { guides: true, crossing: None })
}

/// `1 in 8 written`
fn written(key: &Key<'_>) -> String {
    match key.share {
        UNTOUCHED => "nothing written".to_owned(),
        2.. => format!("1 in {} written", key.share),
        _ => "all written".to_owned(),
    }
}

/// Time of the whole over what is written, with lines and their crossing.
fn over_writes(
    (slug, title): (&'static str, &str),
    costs: &Costs<'_>,
    subject: &str,
    acts: &[Act],
    (frame, [across, up]): (Frame, [&str; 2]),
) -> Option<Chart> {
    let trends: Vec<&Trend<'_>> = acts.iter().filter_map(|act| costs.trend(subject, *act, Sweep::Touch)).collect();
    let curve = |trend: &&Trend<'_>| {
        let scatter = costs.of_trend(trend).flat_map(|costed| {
            let x = varied(costed);
            costed.done.iter().map(move |cost| (x, (cost.ready_ns + cost.write_ns.unwrap_or(0)) as f64))
        });
        let slope = trend.line.as_ref().map(|line| line.slope.value * f64::from(1 << 20));
        let note = slope.map_or_else(String::new, |slope| format!("{} a MiB", units::time(slope)));
        let points = points(costs, trend, whole);
        let highest = points.iter().map(|point| point.1).fold(0.0, f64::max);
        // One start that a busy host held up would press all others flat; it is in the tables.
        let scatter = scatter.filter(|point| point.1 <= 1.5 * highest).collect();
        Curve { name: word(trend.key.act).to_owned(), note, points, scatter, line: trend.line }
    };
    let curves: Vec<Curve> = trends.iter().map(curve).filter(|curve| !curve.points.is_empty()).collect();
    let crossing = match acts {
        [sharing, full, ..] => match costs.crossing(subject, *sharing, *full) {
            Some(Crossing::At(bytes)) => Some((bytes, format!("they cross at {}", units::bytes(bytes)))),
            _ => None,
        },
        _ => None,
    };
    let x = Scale { title: across.to_owned(), log: false, name: tick_bytes, ticks: ticks(&curves) };
    let y = Scale { title: up.to_owned(), log: false, name: tick_time, ticks: Vec::new() };
    draw((slug, title), frame, (&x, &y), &curves, &Extras { guides: false, crossing })
}

/// What the axes of copies that write again show.
const WRITING: [&str; 2] = ["written again", "until it runs and has written"];

/// Saving what has changed, beside saving all.
pub(crate) fn changes(costs: &Costs<'_>) -> Option<Chart> {
    let title = "What it costs to save only the changes";
    let axes = ["written since the last snapshot", "until it is saved"];
    over_writes(("changes", title), costs, "microvm-app", &[Act::Diff, Act::Create], (PART, axes))
}

/// Restoring and touching again.
pub(crate) fn touched(costs: &Costs<'_>) -> Option<Chart> {
    let title = "What is saved at the start is paid at the touch";
    let acts = [Act::Lazy, Act::Eager, Act::Served, Act::Prefetched];
    over_writes(("touched", title), costs, "microvm-app", &acts, (WHOLE, WRITING))
}

/// Linked against full: times.
pub(crate) fn clone_times(costs: &Costs<'_>, subject: &str) -> Option<Chart> {
    let slug = if subject == "container" { "container-times" } else { "machine-times" };
    let title = format!("{subject}: time, linked against full");
    over_writes((slug, &title), costs, subject, &[Act::Linked, Act::Full], (PART, WRITING))
}

/// Linked against full: bytes of disk and memory.
pub(crate) fn clone_bytes(costs: &Costs<'_>, subject: &str) -> Option<Chart> {
    let slug = if subject == "container" { "container-bytes" } else { "machine-bytes" };
    let curve = |act: Act| {
        let trend = costs.trend(subject, act, Sweep::Touch)?;
        let point = |costed: &Costed<'_>| Some((varied(costed), costed.bytes()?));
        let points: Vec<Point> = costs.of_trend(trend).filter_map(point).collect();
        let note = points.first().map_or_else(String::new, |first| format!("{} at once", units::bytes(first.1)));
        // In the axis' unit, so that its ticks are round.
        let points = points.into_iter().map(|(x, bytes)| (x, bytes / MIB)).collect();
        Some(plain(word(act).to_owned(), note, points))
    };
    let curves: Vec<Curve> =
        [Act::Linked, Act::Full].into_iter().filter_map(curve).filter(|curve| !curve.points.is_empty()).collect();
    let x = Scale { title: "written again".to_owned(), log: false, name: tick_bytes, ticks: ticks(&curves) };
    let y = Scale { title: "disk and memory of its own".to_owned(), log: false, name: tick_mib, ticks: Vec::new() };
    let title = format!("{subject}: bytes, linked against full");
    draw((slug, &title), PART, (&x, &y), &curves, &Extras::default())
}

/// Committing a container, and running the image.
pub(crate) fn commits(costs: &Costs<'_>) -> Option<Chart> {
    let curve = |(act, name): (Act, &str)| {
        let trend = costs.trend("container", act, Sweep::Size)?;
        Some(plain(name.to_owned(), power(trend), points(costs, trend, ready)))
    };
    let curves: Vec<Curve> = [(Act::Commit, "commit"), (Act::Lazy, "run of the image")]
        .into_iter()
        .filter_map(curve)
        .filter(|curve| !curve.points.is_empty())
        .collect();
    let x = Scale {
        title: "written by the container, log scale".to_owned(),
        log: true,
        name: tick_bytes,
        ticks: ticks(&curves),
    };
    let y = Scale { title: "time, medians, log scale".to_owned(), log: true, name: tick_time, ticks: Vec::new() };
    let title = "What a container's commit costs";
    draw(("commits", title), PART, (&x, &y), &curves, &Extras { guides: true, crossing: None })
}

/// Time over depth, or over how many at once.
pub(crate) fn over_number(costs: &Costs<'_>, sweep: Sweep) -> Option<Chart> {
    let curve = |trend: &Trend<'_>| {
        let points = points(costs, trend, ready);
        let note = match (points.first(), points.last()) {
            (Some(first), Some(last)) => format!("{} to {}", units::time(first.1), units::time(last.1)),
            _ => String::new(),
        };
        plain(trend.key.name(), note, points)
    };
    let of = costs.trends.iter().filter(|trend| trend.key.sweep == sweep);
    let curves: Vec<Curve> = of.map(curve).filter(|curve| !curve.points.is_empty()).collect();
    let (slug, title, axis) = if sweep == Sweep::Depth {
        ("depth", "A clone of a clone of a clone", "how many times a copy of a copy, log scale")
    } else {
        ("together", "Several clones at once", "made at once, log scale")
    };
    let x = Scale { title: axis.to_owned(), log: true, name: tick_number, ticks: ticks(&curves) };
    let y = Scale { title: "until it runs, log scale".to_owned(), log: true, name: tick_time, ticks: Vec::new() };
    draw((slug, title), PART, (&x, &y), &curves, &Extras::default())
}

/// Bytes of snapshots: allocated in a box as long as the files say they are.
pub(crate) fn disk(costs: &Costs<'_>) -> Option<Chart> {
    const LEFT: f64 = 176.0;
    const RIGHT: f64 = HALF - 74.0;
    const ROW: f64 = 24.0;
    const TOP: f64 = 30.0;
    let saves = [Act::Create, Act::Diff];
    // Of the saves of changes the smallest and the largest: what lies between, the chart above says.
    let ends = |cell: &CopyCell| {
        let trend = costs.trend(&cell.subject, cell.act, Sweep::Touch);
        let of = trend.into_iter().flat_map(|trend| costs.of_trend(trend)).map(|costed| costed.cell.touch_bytes);
        let (least, most) = of.fold((u64::MAX, 0), |(least, most), touch| (least.min(touch), most.max(touch)));
        cell.sweep == Sweep::Size || cell.act == Act::Diff && [least, most].contains(&cell.touch_bytes)
    };
    let created = |costed: &&Costed<'_>| saves.contains(&costed.cell.act) && ends(costed.cell);
    let name = |cell: &CopyCell| match cell.act {
        Act::Diff => format!("{} of changes", units::bytes(cell.touch_bytes as f64)),
        _ => cell.name.clone(),
    };
    let row = |costed: &Costed<'_>| Some((name(costed.cell), costed.disk()?, costed.apparent()?));
    let rows: Vec<(String, f64, f64)> = costs.cells.iter().filter(created).filter_map(row).collect();
    let longest = rows.iter().map(|(_, disk, apparent)| disk.max(*apparent)).reduce(f64::max)?;
    let (scale, unit) = byte_unit(longest);
    let axis = Axis::linear(longest / scale, LEFT, RIGHT);
    let bottom = TOP + ROW * rows.len() as f64;
    let sentence = |(name, disk, apparent): &(String, f64, f64)| {
        format!("{name}: {} allocated of {}.", units::bytes(*disk), units::bytes(*apparent))
    };
    let desc = rows.iter().map(sentence).collect::<Vec<_>>().join(" ");
    let title = "Bytes on disk, allocated and apparent";
    Some(Chart::draw("disk", title, desc, (HALF, bottom + 46.0), |canvas| {
        canvas.rectangle((LEFT, 9.0), (LEFT + 12.0, 20.0), Ink::Area(0));
        canvas.text("allocated", (LEFT + 17.0, 14.5), Hand::plain(Ink::Text));
        canvas.rectangle((LEFT + 90.0, 9.0), (LEFT + 102.0, 20.0), Ink::Rest);
        canvas.text("holes", (LEFT + 107.0, 14.5), Hand::plain(Ink::Text));
        axis.draw_below(canvas, (TOP, bottom), &axis.named_ticks(|tick| tick.to_string()), &format!("bytes, {unit}"));
        for ((name, disk, apparent), number) in rows.iter().zip(0..) {
            let top = TOP + ROW * f64::from(number) + 3.0;
            let at = |bytes: f64| axis.place(bytes / scale);
            let name = name.rsplit_once(": ").map_or(name.as_str(), |(_, rest)| rest);
            canvas.text(&shortened(name, 24), (LEFT - 9.0, top + 8.5), Hand::plain(Ink::Text).ending());
            canvas.rectangle((LEFT, top), (at(*apparent), top + 17.0), Ink::Rest);
            canvas.rectangle((LEFT, top), (at(*disk), top + 17.0), Ink::Area(0));
            let end = at(disk.max(*apparent)) + 6.0;
            canvas.text(&units::bytes(*disk), (end, top + 8.5), Hand::plain(Ink::Muted).sized(11.0));
        }
    }))
}

/// What sharing saves, at a glance: the largest snapshot, and each kind of clone at once and wholly written.
pub(crate) fn shared(snapshot: Option<&Costs<'_>>, clone: Option<&Costs<'_>>) -> Option<Chart> {
    let mut rows = Vec::new();
    let mut push = |costs: &Costs<'_>, costed: Option<&Costed<'_>>, name: String| {
        if let Some(ratio) = costed.and_then(|costed| costs.ratio(costed)) {
            rows.push(Row { name, place: rows.len(), ratio });
        }
    };
    if let Some(costs) = snapshot {
        let trend = costs.trend("microvm-app", Act::Lazy, Sweep::Touch);
        let mut cells = trend.into_iter().flat_map(|trend| costs.of_trend(trend));
        let (first, last) = (cells.next(), cells.last());
        push(costs, first, "restore".to_owned());
        push(costs, last, "restore, touched".to_owned());
    }
    if let Some(costs) = clone {
        for (subject, name) in [("microvm-app", "VM clone"), ("container", "container")] {
            let trend = costs.trend(subject, Act::Linked, Sweep::Touch);
            let mut cells = trend.into_iter().flat_map(|trend| costs.of_trend(trend));
            let (first, last) = (cells.next(), cells.last());
            push(costs, first, name.to_owned());
            push(costs, last, format!("{name}, written"));
        }
    }
    let (title, axis) = ("What does sharing save?", "time beside a copy that shares nothing, log scale");
    answer::draw("shared", title, axis, &rows, 0.0)
}
