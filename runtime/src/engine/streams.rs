//! Standard input, output and error, changed for a while: a new process gets those of its maker.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::error::{EngineError, io_error};

/// The streams from before; they come back when this is dropped.
#[derive(Debug)]
pub(super) struct Streams {
    before: [OwnedFd; 3],
}

impl Streams {
    /// Puts others in their place.
    pub(super) fn replace(input: BorrowedFd<'_>, output: BorrowedFd<'_>, error: BorrowedFd<'_>) -> io::Result<Self> {
        // What is buffered belongs where it was written to.
        io::stdout().flush()?;
        let before = [
            io::stdin().as_fd().try_clone_to_owned()?,
            io::stdout().as_fd().try_clone_to_owned()?,
            io::stderr().as_fd().try_clone_to_owned()?,
        ];
        let streams = Self { before };
        dup2_stdin(input)?;
        dup2_stdout(output)?;
        dup2_stderr(error)?;
        Ok(streams)
    }

    /// Puts nothing in their place.
    pub(super) fn silence() -> Result<Self, EngineError> {
        let null = null()?;
        Self::replace(null.as_fd(), null.as_fd(), null.as_fd()).map_err(io_error("use", "/dev/null"))
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        let [input, output, error] = &self.before;
        // They are open descriptors, and the numbers exist: there is nothing that could fail.
        let _ = dup2_stdin(input);
        let _ = dup2_stdout(output);
        let _ = dup2_stderr(error);
    }
}

/// /dev/null, to read and to write.
pub(super) fn null() -> Result<File, EngineError> {
    let path = "/dev/null";
    File::options().read(true).write(true).open(path).map_err(io_error("open", path))
}
