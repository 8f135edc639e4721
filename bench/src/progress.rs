//! How far a run is and how long it will still take: a bar in a terminal, a plain line now and then elsewhere.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Lines are this far apart: a log of a run of three minutes has a dozen.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Tells of rounds on standard error. It draws between rounds only, so it never takes time from a start.
pub(crate) struct Progress {
    rounds: usize,
    form: Form,
}

enum Form {
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Progress {
    pub(crate) fn of(rounds: usize) -> Self {
        let form = if stderr().is_terminal() {
            // No ticker: a thread that redraws would run beside what is measured.
            let bar = ProgressBar::with_draw_target(Some(rounds as u64), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:32} round {pos} of {len}  {msg}") {
                bar.set_style(style);
            }
            Form::Bar(bar)
        } else {
            Form::Lines { last: Instant::now() }
        };
        Self { rounds, form }
    }

    /// A round has ended; `left` is how long the rest will take.
    pub(crate) fn round(&mut self, done: usize, left: Duration) {
        let rest = format!("{} left", HumanDuration(left));
        match &mut self.form {
            Form::Bar(bar) => {
                bar.set_message(rest);
                bar.set_position(done as u64);
            }
            Form::Lines { last } if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                eprintln!("round {done} of {}, {rest}", self.rounds);
            }
            Form::Lines { .. } => {}
        }
    }

    /// Something that the user should see at once.
    pub(crate) fn say(&self, line: &str) {
        match &self.form {
            Form::Bar(bar) => bar.suspend(|| eprintln!("{line}")),
            Form::Lines { .. } => eprintln!("{line}"),
        }
    }

    pub(crate) fn end(self) {
        if let Form::Bar(bar) = self.form {
            bar.finish_and_clear();
        }
    }
}
