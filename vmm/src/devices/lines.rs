//! A console that passes on whole lines.
//!
//! A serial port hands over one byte at a time, and wants each one flushed. A system call for each would cost more than the
//! machine's start, and a reader would see a line grow.

use std::io::{self, Write};

/// A longer line is passed on in pieces.
const LONGEST: usize = 4096;

/// Collects bytes until a line is complete.
pub(super) struct Lines<W: Write> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write> Lines<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, line: Vec::with_capacity(128) }
    }

    /// Whether all there was has been passed on.
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Passes on what there is.
    pub(super) fn pass_on(&mut self) -> io::Result<()> {
        if self.line.is_empty() {
            return Ok(());
        }
        let passed = self.out.write_all(&self.line).and_then(|()| self.out.flush());
        self.line.clear(); // also after an error: the same bytes would only fail again
        passed
    }
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if bytes.contains(&b'\n') || self.line.len() >= LONGEST {
            self.pass_on()?;
        }
        Ok(bytes.len())
    }

    /// The serial port says this after each byte; see above.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
