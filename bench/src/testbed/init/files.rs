//! What the command left in `$OUT`, on its way to the host.

use std::fs;
use std::io::{self, BufWriter, Write};

use super::super::wire::{Frame, LONGEST};
use super::InitError;
use super::command::OUT;
use super::port::Port;

/// Sends all files and folders there, as a tar archive; nothing where there are none.
pub(super) fn send(port: &Port) -> Result<(), InitError> {
    let step = || InitError::step::<io::Error>("send the files of", OUT);
    // The command may have removed the folder itself.
    let has_any = fs::read_dir(OUT).is_ok_and(|mut entries| entries.next().is_some());
    if !has_any {
        return Ok(());
    }
    let mut archive = tar::Builder::new(BufWriter::with_capacity(64 << 10, Frames(port)));
    archive.follow_symlinks(false);
    archive.append_dir_all(".", OUT).map_err(step())?;
    archive.into_inner().and_then(|mut buffer| buffer.flush()).map_err(step())
}

/// A stream that travels in frames.
struct Frames<'a>(&'a Port);

impl Write for Frames<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..LONGEST).unwrap_or(bytes);
        self.0.send(&Frame::Files(piece.to_vec()))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
