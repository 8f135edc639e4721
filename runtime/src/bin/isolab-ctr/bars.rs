//! Progress, a bar for each blob that is being moved.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use isolab_runtime::image::Digest;
use isolab_runtime::registry::client::Progress;

/// Fits into 80 columns.
const MOVING: &str = "{prefix}: {bar:24} {bytes:>10} of {total_bytes:10} {bytes_per_sec:>12}";
const DONE: &str = "{prefix}: {msg}";

/// Bars on standard error; where that is no terminal, a line for each blob that is done.
pub(crate) struct Bars {
    quiet: bool,
    drawn: MultiProgress,
    blobs: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Bars {
    pub(crate) fn new(quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self { quiet, drawn: MultiProgress::with_draw_target(target), blobs: Mutex::default() }
    }

    fn bar(&self, digest: &Digest) -> Option<ProgressBar> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }
}

impl Progress for Bars {
    fn begins(&self, digest: &Digest, size: u64) {
        let style = ProgressStyle::with_template(MOVING).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.drawn.add(ProgressBar::new(size).with_style(style.progress_chars("=> ")));
        bar.set_prefix(digest.short());
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest, bar);
    }

    fn at(&self, digest: &Digest, bytes: u64) {
        if let Some(bar) = self.bar(digest) {
            bar.set_position(bytes);
        }
    }

    fn leaves(&self, digest: &Digest) {
        if let Some(bar) = self.blobs.lock().unwrap_or_else(PoisonError::into_inner).remove(digest) {
            bar.finish_and_clear();
            self.drawn.remove(&bar);
        }
    }

    fn ends(&self, digest: &Digest, how: &str) {
        let Some(bar) = self.bar(digest) else { return };
        if let Ok(style) = ProgressStyle::with_template(DONE) {
            bar.set_style(style);
        }
        bar.finish_with_message(how.to_owned());
        if self.drawn.is_hidden() && !self.quiet {
            eprintln!("{}: {how}", digest.short());
        }
    }
}
