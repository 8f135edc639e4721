//! Asking a server for a clone.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::packet::{Received, receive, send};
use super::{REACH, Reply, Request, ServeError};

/// Asks the server at `path` for a clone that has this process's standard input, output and error, and waits for its end;
/// returns its status.
pub fn clone_here(path: &Path, timeout: Option<Duration>) -> Result<u8, ServeError> {
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    Lent::ask(path, timeout, [input.as_fd(), output.as_fd(), errors.as_fd()])?.wait()
}

/// A clone that a server has made for this process. It ends with this value.
///
/// Its descriptor becomes readable when the clone has ended.
#[derive(Debug)]
pub struct Lent {
    server: OwnedFd,
    path: PathBuf,
    pid: i32,
}

impl AsFd for Lent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.server.as_fd()
    }
}

impl Lent {
    /// Asks the server at `path` for a clone whose standard input, output and error are these.
    pub fn ask(path: &Path, timeout: Option<Duration>, files: [BorrowedFd<'_>; 3]) -> Result<Self, ServeError> {
        let failed = |attempt| move |source| ServeError::Socket { attempt, path: path.to_owned(), source };
        let server = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
            .map_err(failed("make a socket for"))?;
        let address = UnixAddr::new(path).map_err(failed("use the address"))?;
        connect(server.as_raw_fd(), &address).map_err(failed(REACH))?;
        send(server.as_fd(), &Request::Clone { timeout }, &files).map_err(failed("ask the server at"))?;
        let mut lent = Self { server, path: path.to_owned(), pid: 0 };
        match lent.hear()? {
            Reply::Ok { pid } => lent.pid = pid,
            Reply::Error(why) => return Err(ServeError::Refused(why)),
            Reply::Ended { .. } => return Err(ServeError::NoServer(lent.path)),
        }
        Ok(lent)
    }

    /// The process that it is, or is a thread of.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end; returns its status, as a shell would tell it.
    pub fn wait(self) -> Result<u8, ServeError> {
        match self.hear()? {
            Reply::Ended { status } => Ok(status),
            Reply::Error(why) => Err(ServeError::Refused(why)),
            Reply::Ok { .. } => Err(ServeError::NoServer(self.path)),
        }
    }

    /// The server's next words.
    fn hear(&self) -> Result<Reply, ServeError> {
        loop {
            match receive(self.server.as_fd()) {
                Ok(Received::Value(reply, _)) => return Ok(reply),
                Err(Errno::EINTR) => {}
                Ok(Received::Garbled | Received::Gone) => return Err(ServeError::NoServer(self.path.clone())),
                Err(source) => {
                    let (attempt, path) = ("hear from the server at", self.path.clone());
                    return Err(ServeError::Socket { attempt, path, source });
                }
            }
        }
    }
}
