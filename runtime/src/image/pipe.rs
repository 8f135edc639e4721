//! A pipe between two threads: what one writes the other reads, a few pieces behind.
//!
//! Receiving, inflating and placing a layer each wait for something else (the network, a processor, the file system), so
//! each has a thread, and together they take as long as the slowest, not as long as their sum.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// The size of a piece, in bytes: enough to make passing it cheap, little enough to stay in a processor's cache.
const PIECE: usize = 128 << 10;
/// How many pieces a reader may be behind.
const DEPTH: usize = 16;

/// The end that is written to. Dropping it ends the other end's reading.
pub(super) struct PipeWriter(SyncSender<Vec<u8>>);

/// The end that is read from. Dropping it makes writing fail.
pub(super) struct PipeReader {
    pieces: Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

pub(super) fn pipe() -> (PipeWriter, PipeReader) {
    let (sender, pieces) = sync_channel(DEPTH);
    (PipeWriter(sender), PipeReader { pieces, current: Vec::new(), at: 0 })
}

impl PipeWriter {
    fn send(&self, piece: Vec<u8>) -> io::Result<()> {
        self.0.send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            // Whoever wrote is gone: that is the end.
            let Ok(piece) = self.pieces.recv() else { return Ok(0) };
            (self.current, self.at) = (piece, 0);
        }
        let read = self.current.get(self.at..).unwrap_or_default().read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

/// Passes on all that a reader gives. `also` gets it first; it is given the rest too where nobody reads the pipe any
/// more, if `to_the_end`.
pub(super) fn feed(
    from: &mut dyn Read,
    also: &mut dyn Write,
    pipe: PipeWriter,
    to_the_end: bool,
) -> Result<(), FeedError> {
    let mut pipe = Some(pipe);
    loop {
        let piece = read_piece(from).map_err(FeedError::Read)?;
        if piece.is_empty() {
            return Ok(());
        }
        also.write_all(&piece).map_err(FeedError::Write)?;
        // Why it is no longer read, its reader says.
        pipe = pipe.filter(|pipe| pipe.send(piece).is_ok());
        if pipe.is_none() && !to_the_end {
            return Ok(());
        }
    }
}

/// Which side of [`feed`] failed.
#[derive(Debug)]
pub(super) enum FeedError {
    Read(io::Error),
    Write(io::Error),
}

/// As much as there is, at most a piece; nothing at the end.
fn read_piece(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; PIECE];
    let mut length = 0;
    while let Some(free) = piece.get_mut(length..).filter(|free| !free.is_empty()) {
        match from.read(free) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(length);
    Ok(piece)
}
