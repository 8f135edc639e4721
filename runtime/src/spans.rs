//! The instrument: every step's span, kept in memory until the end.
//!
//! A container starts in two processes: the runtime, and the copy of it that becomes the container. Both write their
//! spans into one ring of fixed-size records in shared memory, made before the copy, so neither has to send anything
//! while the clock runs. The runtime prints at the end, as a lesson ([`Recorder::explain`]) or as JSON lines
//! ([`Recorder::timeline`]). Without a recorder a span costs one comparison.

use std::fmt;
use std::io::{self, Write};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::time::{ClockId, clock_gettime};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Event, Level, Metadata, Subscriber};

/// More steps than any start has; what comes later is counted, not kept.
const CAPACITY: usize = 512;
const CALL: usize = 64;
const WHY: usize = 240;
const ON: usize = 64;

/// How deep the calling process is in spans. A copied process goes on from where its parent was.
static DEPTH: AtomicU32 = AtomicU32::new(0);
/// 0 in the runtime, 1 in the container's first process; each process has its own copy of this.
static ROLE: AtomicU32 = AtomicU32::new(0);

/// Now, in nanoseconds of `CLOCK_MONOTONIC`; 0 if the machine had no such clock.
pub fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// Says that the calling process is, from here on, the container's first one.
pub(crate) fn in_container() {
    ROLE.store(1, Ordering::Relaxed);
}

/// Whether the step that has begun shall fail at this place: in builds of tests only, where that is asked for (`faults`).
#[cfg_attr(not(feature = "fault"), expect(clippy::unnecessary_wraps, reason = "other builds have no faults"))]
pub(crate) fn fault() -> nix::Result<()> {
    #[cfg(feature = "fault")]
    if crate::faults::due() {
        return Err(nix::errno::Errno::EIO);
    }
    Ok(())
}

/// The recorder, where one was installed.
static INSTALLED: OnceLock<Recorder> = OnceLock::new();

/// Notes the number of the container's first process.
pub(crate) fn container_is(pid: u32) {
    if let Some(recorder) = INSTALLED.get() {
        recorder.ring().container.store(pid, Ordering::Relaxed);
    }
}

/// Notes that the container's process has become the payload: its last step ended with that.
pub(crate) fn executed() {
    if let Some(recorder) = INSTALLED.get() {
        recorder.ring().executed.store(now(), Ordering::Release);
    }
}

/// One step, as it lies in shared memory: plain bytes, since the two processes share no heap.
#[derive(Clone, Copy)]
struct Record {
    name: &'static str,
    call: Text<CALL>,
    why: Text<WHY>,
    on: Text<ON>,
    start: u64,
    end: u64,
    depth: u32,
    role: u32,
}

#[derive(Clone, Copy)]
struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    const EMPTY: Self = Self { bytes: [0; N], length: 0 };

    /// Keeps as much of `text` as fits, cut between two characters.
    fn keep(&mut self, text: &str) {
        let length = (0..=text.len().min(N)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        for (kept, byte) in self.bytes.iter_mut().zip(text.bytes().take(length)) {
            *kept = byte;
        }
        self.length = length;
    }

    fn text(&self) -> &str {
        self.bytes.get(..self.length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

/// The shared memory: a counter that both processes draw slots from, then the slots.
struct Ring {
    next: AtomicU32,
    /// When the runtime saw that the container's process had become the payload; 0 before.
    executed: AtomicU64,
    /// The number of the container's first process on the host, which that process itself cannot know.
    container: AtomicU32,
    slots: [Slot; CAPACITY],
}

struct Slot {
    /// 0 while nobody has written the record.
    written: AtomicU32,
    record: std::cell::UnsafeCell<Record>,
}

/// The recorder of this process and of the one copied from it.
pub struct Recorder {
    ring: NonNull<Ring>,
}

// SAFETY: the ring lives until the process ends, and its records are reached through `Ring`'s rules only: a slot is
// drawn by one process with an atomic counter, written by that process alone, and read by others only once `written`.
unsafe impl Send for Recorder {}
// SAFETY: as above.
unsafe impl Sync for Recorder {}

impl Recorder {
    /// Makes the shared memory and records every span from here on, in this process and its copies.
    ///
    /// Fails where the kernel gives no memory, or where a `tracing` subscriber is already set.
    pub fn install() -> io::Result<&'static Self> {
        // SAFETY: a fresh anonymous mapping, of a size that is not zero.
        let ring = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                std::mem::size_of::<Ring>(),
                libc::PROT_READ | libc::PROT_WRITE,
                // MAP_SHARED: what the copied process writes must be seen here; private pages would be copied on write.
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if ring == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let ring = NonNull::new(ring.cast::<Ring>()).ok_or_else(|| io::Error::other("a mapping at address zero"))?;
        let recorder = INSTALLED.get_or_init(|| Self { ring });
        tracing::subscriber::set_global_default(Collector(recorder)).map_err(io::Error::other)?;
        Ok(recorder)
    }

    fn ring(&self) -> &Ring {
        // SAFETY: mapped for ever, zeroed by the kernel (all its atomics are then valid), written by atomics and `write`.
        unsafe { self.ring.as_ref() }
    }

    fn begin(&self, attributes: &Attributes<'_>) -> u64 {
        let index = self.ring().next.fetch_add(1, Ordering::Relaxed) as usize;
        let Some(slot) = self.ring().slots.get(index) else { return index as u64 + 1 };
        let mut record = Record {
            name: attributes.metadata().name(),
            call: Text::EMPTY,
            why: Text::EMPTY,
            on: Text::EMPTY,
            start: 0,
            end: 0,
            depth: 0,
            role: ROLE.load(Ordering::Relaxed),
        };
        attributes.record(&mut Fields(&mut record));
        // SAFETY: the counter gave this slot to this caller alone, and nobody reads it before `written` is set.
        unsafe { slot.record.get().write(record) };
        slot.written.store(1, Ordering::Release);
        index as u64 + 1
    }

    fn change(&self, id: &Id, change: impl FnOnce(&mut Record)) {
        if let Some(slot) = self.ring().slots.get(id.into_u64() as usize - 1) {
            // SAFETY: the process that drew the slot is the only one that writes it, from one thread.
            change(unsafe { &mut *slot.record.get() });
        }
    }

    /// The finished steps, in the order of their beginning.
    fn steps(&self) -> Vec<Record> {
        let executed = self.ring().executed.load(Ordering::Acquire);
        let written = self.ring().slots.iter().filter(|slot| slot.written.load(Ordering::Acquire) == 1);
        // SAFETY: written; a writer may still be setting `end`, which is read once here and checked below.
        let mut steps: Vec<Record> = written.map(|slot| unsafe { slot.record.get().read() }).collect();
        for step in &mut steps {
            // The step that becomes the payload cannot say that it has ended: its process is another program by then.
            if step.end == 0 && step.role == 1 {
                step.end = executed;
            }
        }
        steps.retain(|step| step.start != 0 && step.end >= step.start);
        steps.sort_by_key(|step| step.start);
        steps
    }

    /// Prints the steps as a lesson: when each began, how long it took, what it is, and why it is done.
    ///
    /// Steps of the container's own process are marked `|`: they run at the same time as the runtime's. No line is wider
    /// than `width` characters, where words allow it ([`width`] is the terminal's).
    pub fn explain(&self, out: &mut impl Write, width: usize) -> io::Result<()> {
        let steps = self.steps();
        let origin = steps.first().map_or(0, |step| step.start);
        writeln!(out, "{:>10} {:>10}   step", "from start", "took")?;
        for step in &steps {
            let mark = if step.role == 1 { '|' } else { ' ' };
            let on = step.on.text();
            let name = if on.is_empty() { step.name.to_owned() } else { format!("{} {on}", step.name) };
            let times = [Elapsed(step.start - origin), Elapsed(step.end - step.start)].map(|time| time.to_string());
            let [begun, took] = &times;
            let indent = " ".repeat(step.depth as usize * 2);
            let head = format!("{begun:>10} {took:>10} {mark} {indent}");
            let below = format!("{:>10} {:>10} {mark} {indent}    ", "", "");
            let told = fill(&format!("{name}  [{}]", step.call.text()), &head, &below, width);
            writeln!(out, "{told}\n{}", fill(step.why.text(), &below, &below, width))?;
        }
        if steps.iter().any(|step| step.role == 1) {
            writeln!(out, "lines marked | are the container's own process, beside the runtime's")?;
        }
        let lost = (self.ring().next.load(Ordering::Relaxed) as usize).saturating_sub(CAPACITY);
        if lost > 0 {
            writeln!(out, "{lost} later steps found no place in the recorder")?;
        }
        Ok(())
    }

    /// Writes the steps as JSON lines, with absolute `CLOCK_MONOTONIC` nanoseconds.
    pub fn timeline(&self, out: &mut impl Write) -> io::Result<()> {
        let own = std::process::id();
        let container = self.ring().container.load(Ordering::Relaxed);
        for step in self.steps() {
            let pid = if step.role == 1 { container } else { own };
            let mut line = serde_json::json!({
                "name": step.name, "start_ns": step.start, "end_ns": step.end, "pid": pid, "depth": step.depth,
                "call": step.call.text(), "why": step.why.text(),
            });
            if let (Some(object), false) = (line.as_object_mut(), step.on.text().is_empty()) {
                object.insert("on".to_owned(), step.on.text().into());
            }
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

/// Picks the fields that a step's record has.
struct Fields<'a>(&'a mut Record);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "call" => self.0.call.keep(value),
            "why" => self.0.why.keep(value),
            "on" => self.0.on.keep(value),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// The subscriber: nothing but the recorder's front door.
struct Collector(&'static Recorder);

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::INFO)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        Id::from_u64(self.0.begin(attributes))
    }

    fn enter(&self, id: &Id) {
        #[cfg(feature = "fault")]
        self.0.change(id, |record| crate::faults::strike(record.name));
        let depth = DEPTH.fetch_add(1, Ordering::Relaxed);
        self.0.change(id, |record| {
            record.depth = depth;
            record.start = now();
        });
    }

    fn exit(&self, id: &Id) {
        #[cfg(feature = "fault")]
        self.0.change(id, |record| crate::faults::pass(record.name));
        self.0.change(id, |record| record.end = now());
        DEPTH.fetch_sub(1, Ordering::Relaxed);
    }

    fn record(&self, _: &Id, _: &Values<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::{Elapsed, Text};

    #[test]
    fn a_text_is_cut_between_characters() {
        let mut text = Text::<4>::EMPTY;
        text.keep("abcé");
        assert_eq!(text.text(), "abc");
    }

    #[test]
    fn a_duration_is_told_in_its_own_unit() {
        assert_eq!(Elapsed(1_500).to_string(), "2 µs");
        assert_eq!(Elapsed(2_340_000).to_string(), "2.34 ms");
        assert_eq!(Elapsed(3_000_000_000).to_string(), "3.00 s");
    }
}
