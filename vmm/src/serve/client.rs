//! Asking a server for a clone.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::packet::{Received, receive, send};
use super::{Reply, Request, ServeError};

/// Asks the server at `path` for a clone that has this process's standard input, output and error, and waits for its end;
/// returns its status.
pub fn clone_here(path: &Path, timeout: Option<Duration>) -> Result<u8, ServeError> {
    let failed = |attempt| move |source| ServeError::Socket { attempt, path: path.to_owned(), source };
    let server = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .map_err(failed("make a socket for"))?;
    let address = UnixAddr::new(path).map_err(failed("use the address"))?;
    connect(server.as_raw_fd(), &address).map_err(failed("reach the server at"))?;
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let files = [input.as_fd(), output.as_fd(), errors.as_fd()];
    send(server.as_fd(), &Request::Clone { timeout }, &files).map_err(failed("ask the server at"))?;
    loop {
        match receive(server.as_fd()) {
            Ok(Received::Value(Reply::Ok { .. }, _)) | Err(Errno::EINTR) => {}
            Ok(Received::Value(Reply::Ended { status }, _)) => return Ok(status),
            Ok(Received::Value(Reply::Error(why), _)) => return Err(ServeError::Refused(why)),
            Ok(Received::Garbled | Received::Gone) => return Err(ServeError::NoServer(path.to_owned())),
            Err(errno) => return Err(failed("hear from the server at")(errno)),
        }
    }
}
