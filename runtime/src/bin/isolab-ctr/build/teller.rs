//! What a build tells on standard error: a line a step and, in a terminal, a bar below them.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use isolab_runtime::build::Progress;

use crate::print;

/// Fits into 80 columns with a step shortened to [`STEP`].
const BAR: &str = "[{bar:20}] {pos}/{len} {msg}";
/// How much of a step is beside the bar, in characters.
const STEP: usize = 44;

/// Tells each step. It speaks through a descriptor of its own: standard error itself is, for a while, what the programs
/// of the build print to.
pub(super) struct Teller {
    quiet: bool,
    colours: bool,
    /// Nothing where the command was given no standard error: then there is nobody to tell.
    out: Option<File>,
    bar: Option<ProgressBar>,
    /// The number of the step that is being done.
    step: AtomicU64,
}

impl Teller {
    pub(super) fn new(quiet: bool) -> Self {
        let own = || io::stderr().as_fd().try_clone_to_owned().map(File::from);
        let terminal = io::stderr().is_terminal();
        let bar = own().and_then(|input| Ok((input, own()?))).ok().filter(|_| terminal && !quiet);
        let bar = bar.map(|(input, output)| {
            let target = ProgressDrawTarget::term(Term::read_write_pair(input, output), 20);
            let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::with_draw_target(None, target).with_style(style.progress_chars("=> "))
        });
        // Not in a file, not with NO_COLOR, and not in a terminal that has none (TERM=dumb).
        let colours = console::colors_enabled_stderr();
        Self { quiet, colours, out: own().ok(), bar, step: AtomicU64::new(0) }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn say(&self, colour: &str, text: &str) {
        if self.quiet {
            return;
        }
        let text = if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() };
        self.line(text.as_bytes());
    }

    /// A line above the bar, if there is one.
    fn line(&self, line: &[u8]) {
        let write = || {
            // Who has closed it does not want to hear.
            self.out.as_ref().map(|mut out| out.write_all(&[line, b"\n"].concat()).ok())
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        };
    }

    fn is_done(&self) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.step.load(Ordering::Relaxed));
        }
    }
}

impl Progress for Teller {
    fn step(&self, stage: &str, number: usize, of: usize, text: &str) {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.say("1", &format!("[{stage} {number}/{of}] {line}"));
        self.step.store(number as u64, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_length(of as u64);
            bar.set_position(number as u64 - 1);
            bar.set_message(print::shorten(&line, STEP));
        }
    }

    fn cached(&self) {
        self.say("36", "  CACHED");
        self.is_done();
    }

    fn done(&self, took: Duration, layer: Option<(&str, u64)>) {
        let layer = layer.map(|(id, size)| format!(", layer {id}, {}", print::size(size))).unwrap_or_default();
        self.say("32", &format!("  done in {:.1} s{layer}", took.as_secs_f64()));
        self.is_done();
    }

    fn warn(&self, text: &str) {
        self.line(format!("warning: {text}").as_bytes());
    }

    fn printed(&self, line: &[u8]) {
        if !self.quiet {
            self.line(&[b"  | ", line].concat());
        }
    }
}
