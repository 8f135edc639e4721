//! What is typed at a machine's serial port: from a terminal, or from a file.
//!
//! A terminal collects a line, shows what is typed and turns Ctrl-C into a signal. The guest has a terminal driver of its
//! own and does all that itself; so while it runs, the monitor's terminal hands over each key as it is ("raw mode").

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::termios::{self, SetArg, Termios};
use nix::unistd;

/// Ctrl-A: what comes next is meant for the monitor.
const ESCAPE: u8 = 0x01;

/// A terminal in raw mode; it is as it was once this is dropped.
#[derive(Debug)]
pub struct Terminal<'a> {
    file: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Terminal<'a> {
    /// Sets a terminal to raw mode; none where the file is none.
    pub fn raw(file: BorrowedFd<'a>) -> io::Result<Option<Self>> {
        let before = match termios::tcgetattr(file) {
            Ok(before) => before,
            Err(Errno::ENOTTY) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        // What the guest prints still gets a carriage return before each line feed, as everything else that is printed here.
        raw.output_flags = before.output_flags;
        termios::tcsetattr(file, SetArg::TCSANOW, &raw)?;
        Ok(Some(Self { file, before }))
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing set.
        let _ = termios::tcsetattr(self.file, SetArg::TCSANOW, &self.before);
    }
}

/// What was typed means this.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Bytes for the guest.
    Bytes(Vec<u8>),
    /// The machine shall end: Ctrl-A, x.
    Quit,
    /// No more will come.
    End,
}

/// Reads what is typed. In raw mode Ctrl-A and a key speak to the monitor: `x` ends the machine, Ctrl-A is itself.
pub(super) struct Input<'a> {
    file: BorrowedFd<'a>,
    terminal: bool,
    escaped: bool,
}

impl<'a> Input<'a> {
    pub(super) fn new(file: BorrowedFd<'a>) -> Self {
        Self { file, terminal: unistd::isatty(file).unwrap_or(false), escaped: false }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Reads at most `room` bytes.
    pub(super) fn read(&mut self, room: usize) -> io::Result<Typed> {
        let mut bytes = vec![0; room];
        match unistd::read(self.file, &mut bytes) {
            // A terminal that is gone says EIO.
            Ok(0) | Err(Errno::EIO) => Ok(Typed::End),
            Ok(length) => {
                bytes.truncate(length);
                Ok(if self.terminal { self.understand(&bytes) } else { Typed::Bytes(bytes) })
            }
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(Typed::Bytes(Vec::new())),
            Err(error) => Err(error.into()),
        }
    }

    fn understand(&mut self, bytes: &[u8]) -> Typed {
        let mut meant = Vec::with_capacity(bytes.len());
        for byte in bytes {
            match (std::mem::take(&mut self.escaped), *byte) {
                (false, ESCAPE) => self.escaped = true,
                (true, b'x') => return Typed::Quit,
                (_, byte) => meant.push(byte),
            }
        }
        Typed::Bytes(meant)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_key_after_ctrl_a_speaks_to_the_monitor() {
        let file = tempfile::tempfile().unwrap();
        let mut input = Input { file: file.as_fd(), terminal: true, escaped: false };
        assert_eq!(input.understand(b"ab"), Typed::Bytes(b"ab".to_vec()));
        assert_eq!(input.understand(b"a\x01"), Typed::Bytes(b"a".to_vec()));
        assert_eq!(input.understand(b"\x01x"), Typed::Bytes(b"\x01x".to_vec()), "Ctrl-A twice is one");
        assert_eq!(input.understand(b"\x01"), Typed::Bytes(vec![]));
        assert_eq!(input.understand(b"xy"), Typed::Quit);
    }

    #[test]
    fn what_is_piped_is_handed_on_as_it_is_and_has_an_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"a\x01x").unwrap();
        drop(writer);
        let mut input = Input::new(reader.as_fd());
        assert_eq!(input.read(2).unwrap(), Typed::Bytes(b"a\x01".to_vec()));
        assert_eq!(input.read(64).unwrap(), Typed::Bytes(b"x".to_vec()));
        assert_eq!(input.read(64).unwrap(), Typed::End);
        assert!(Terminal::raw(reader.as_fd()).unwrap().is_none());
    }
}
