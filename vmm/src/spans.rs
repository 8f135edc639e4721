//! The instrument: every step's span, kept in memory until the end.
//!
//! A monitor is one process, and what it does for a guest it does on one thread, so a list is enough. Nothing is written
//! while the clock runs. At the end the steps are printed as a lesson ([`Recorder::explain`]) or as JSON lines
//! ([`Recorder::timeline`]). Without a recorder a span costs one comparison, and warnings are still told ([`pass_on_warnings`]).

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::time::{ClockId, clock_gettime};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Event, Level, Metadata, Subscriber};

/// Now, in nanoseconds of `CLOCK_MONOTONIC`; 0 if the machine had no such clock.
pub fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// One step.
#[derive(Debug, Default, Clone)]
struct Step {
    name: &'static str,
    call: String,
    why: String,
    start: u64,
    end: u64,
    depth: usize,
}

#[derive(Debug, Default)]
struct Story {
    steps: Vec<Step>,
    /// What was said beside the steps.
    notes: Vec<String>,
    depth: usize,
}

/// The recorder of this process.
#[derive(Debug)]
pub struct Recorder(Mutex<Story>);

/// What a start has, and more: the list should not grow while the clock runs.
const USUAL: usize = 64;

impl Recorder {
    /// Records every span, and every event of level debug and up, from here on. Warnings are told at once.
    ///
    /// Fails where a `tracing` subscriber is already set.
    pub fn install() -> io::Result<&'static Self> {
        let story = Story { steps: Vec::with_capacity(USUAL), ..Story::default() };
        // For as long as the process lives: the subscriber is global.
        let recorder: &'static Self = Box::leak(Box::new(Self(Mutex::new(story))));
        tracing::subscriber::set_global_default(Collector(recorder)).map_err(io::Error::other)?;
        Ok(recorder)
    }

    fn story(&self) -> MutexGuard<'_, Story> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The finished steps, in the order of their beginning.
    fn steps(&self) -> Vec<Step> {
        let mut steps = self.story().steps.clone();
        steps.retain(|step| step.start != 0 && step.end >= step.start);
        steps.sort_by_key(|step| step.start);
        steps
    }

    /// What was said beside the steps, in order.
    pub fn notes(&self) -> Vec<String> {
        self.story().notes.clone()
    }

    /// Prints the steps as a lesson: when each began, how long it took, what it is, and why it is done. No line is wider
    /// than `width` characters, where words allow it ([`width`] is the terminal's).
    pub fn explain(&self, out: &mut impl Write, width: usize) -> io::Result<()> {
        let steps = self.steps();
        let origin = steps.first().map_or(0, |step| step.start);
        writeln!(out, "{:>10} {:>10}   step", "from start", "took")?;
        for step in &steps {
            let times = [Elapsed(step.start - origin), Elapsed(step.end - step.start)].map(|time| time.to_string());
            let [begun, took] = &times;
            let indent = " ".repeat(step.depth * 2);
            let head = format!("{begun:>10} {took:>10}   {indent}");
            let below = format!("{:>10} {:>10}   {indent}    ", "", "");
            let told = fill(&format!("{}  [{}]", step.name, step.call), &head, &below, width);
            writeln!(out, "{told}\n{}", fill(&step.why, &below, &below, width))?;
        }
        self.notes().iter().try_for_each(|note| writeln!(out, "{note}"))
    }

    /// Writes the steps as JSON lines, with absolute `CLOCK_MONOTONIC` nanoseconds.
    pub fn timeline(&self, out: &mut impl Write) -> io::Result<()> {
        let pid = std::process::id();
        for step in self.steps() {
            let line = serde_json::json!({
                "name": step.name, "start_ns": step.start, "end_ns": step.end, "pid": pid, "depth": step.depth,
                "call": step.call, "why": step.why,
            });
            writeln!(out, "{line}")?;
        }
        out.flush()
    }
}

/// How many characters a line of standard error has: the terminal's columns; without an end where it is none.
pub fn width() -> usize {
    terminal_size::terminal_size_of(io::stderr()).map_or(usize::MAX, |(columns, _)| usize::from(columns.0))
}

/// Breaks a text between words.
fn fill(text: &str, head: &str, below: &str, width: usize) -> String {
    let options = textwrap::Options::new(width).initial_indent(head).subsequent_indent(below).break_words(false);
    textwrap::fill(text, options)
}

/// A duration in the unit that a reader would choose.
struct Elapsed(u64);

impl fmt::Display for Elapsed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000_000 => write!(formatter, "{:.0} µs", self.0 as f64 / 1e3),
            1_000_000..1_000_000_000 => write!(formatter, "{:.2} ms", self.0 as f64 / 1e6),
            _ => write!(formatter, "{:.2} s", self.0 as f64 / 1e9),
        }
    }
}

impl Visit for Step {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "call" => value.clone_into(&mut self.call),
            "why" => value.clone_into(&mut self.why),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// The text of an event.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Says on standard error, while the machine runs, what whoever runs it should know of its guest.
fn warn(event: &Event<'_>) {
    let mut message = Message::default();
    event.record(&mut message);
    // In one piece; and where nobody listens nobody is told.
    let _ = io::stderr().write_all(format!("warning: {}\n", message.0).as_bytes());
}

/// The subscriber of a process without a recorder: it hears of no step, and passes warnings on.
struct Warnings;

/// Passes on warnings, such as of a device that has stopped, from here on. A [`Recorder`] does so too.
///
/// Fails where a `tracing` subscriber is already set.
pub fn pass_on_warnings() -> io::Result<()> {
    tracing::subscriber::set_global_default(Warnings).map_err(io::Error::other)
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !metadata.is_span() && *metadata.level() <= Level::WARN
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    /// None is enabled, so this is the number of none.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        warn(event);
    }

    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
    fn record(&self, _: &Id, _: &Values<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

/// The subscriber: nothing but the recorder's front door. A span's number is its place in the list, counted from 1.
struct Collector(&'static Recorder);

impl Collector {
    fn change(&self, id: &Id, change: impl FnOnce(&mut Step, &mut usize)) {
        let story = &mut *self.0.story();
        if let Some(step) = story.steps.get_mut(id.into_u64() as usize - 1) {
            change(step, &mut story.depth);
        }
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = if metadata.is_span() { Level::INFO } else { Level::DEBUG };
        *metadata.level() <= level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut step = Step { name: attributes.metadata().name(), ..Step::default() };
        attributes.record(&mut step);
        let steps = &mut self.0.story().steps;
        steps.push(step);
        Id::from_u64(steps.len() as u64)
    }

    fn enter(&self, id: &Id) {
        self.change(id, |step, depth| {
            step.depth = *depth;
            *depth += 1;
            step.start = now();
        });
    }

    fn exit(&self, id: &Id) {
        let end = now();
        self.change(id, |step, depth| {
            step.end = end;
            *depth = depth.saturating_sub(1);
        });
    }

    fn event(&self, event: &Event<'_>) {
        if *event.metadata().level() <= Level::WARN {
            return warn(event);
        }
        let mut message = Message::default();
        event.record(&mut message);
        self.0.story().notes.push(message.0);
    }

    fn record(&self, _: &Id, _: &Values<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use tracing::{debug, info_span, trace};

    use super::*;

    #[test]
    fn steps_and_what_was_said_are_told_in_order() {
        let recorder = Recorder::install().unwrap();
        {
            let _outer = info_span!("area.outer", call = "outer(2)", why = "one reason").entered();
            let _inner = info_span!("area.inner", call = "inner(2)", why = "another").entered();
            debug!("said {} times", 3);
            trace!("too fine");
        }
        let mut lesson = Vec::new();
        recorder.explain(&mut lesson, usize::MAX).unwrap();
        let lesson = String::from_utf8(lesson).unwrap();
        let order = ["area.outer  [outer(2)]", "one reason", "  area.inner  [inner(2)]", "another", "said 3 times"];
        let places: Vec<_> = order.iter().map(|text| lesson.find(text).unwrap_or(usize::MAX)).collect();
        assert!(places.is_sorted() && places.last() != Some(&usize::MAX), "{lesson}");
        assert!(!lesson.contains("too fine"));
        let mut narrow = Vec::new();
        recorder.explain(&mut narrow, 40).unwrap();
        let narrow = String::from_utf8(narrow).unwrap();
        assert!(narrow.contains("area.outer\n") && narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        let mut lines = Vec::new();
        recorder.timeline(&mut lines).unwrap();
        let lines: Vec<serde_json::Value> =
            String::from_utf8(lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[1]["name"], &lines[1]["depth"]), (2, &"area.inner".into(), &1.into()));
        assert!(lines[0]["end_ns"].as_u64() >= lines[1]["end_ns"].as_u64());
    }

    #[test]
    fn a_duration_is_told_in_its_own_unit() {
        assert_eq!(Elapsed(1_500).to_string(), "2 µs");
        assert_eq!(Elapsed(2_340_000).to_string(), "2.34 ms");
        assert_eq!(Elapsed(3_000_000_000).to_string(), "3.00 s");
    }
}
