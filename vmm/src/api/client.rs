//! Asking a machine, from another process.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{Answer, Reply, Request};

/// Why a machine did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("cannot reach the machine at {}", .0.display())]
    Connect(PathBuf, #[source] io::Error),
    /// It went away in between.
    #[error("the machine at {} ended before it answered", .0.display())]
    Gone(PathBuf),
    /// It said something that is no reply.
    #[error("the machine at {} answered with {answer:?}", .path.display())]
    Garbled {
        /// Where.
        path: PathBuf,
        /// What it said.
        answer: String,
    },
    /// It would not.
    #[error("{0}")]
    Refused(String),
}

/// Asks the machine at `socket`, and waits for its answer.
pub fn ask(socket: &Path, request: &Request) -> Result<Answer, ClientError> {
    let failed = |error| ClientError::Connect(socket.to_owned(), error);
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer) {
        Ok(0) | Err(_) => return Err(ClientError::Gone(socket.to_owned())),
        Ok(_) => {}
    }
    match serde_json::from_str(&answer) {
        Ok(Reply::Ok(answer)) => Ok(answer),
        Ok(Reply::Error(why)) => Err(ClientError::Refused(why)),
        Err(_) => Err(ClientError::Garbled { path: socket.to_owned(), answer }),
    }
}
