//! A template in memory, and clones of it on request: the fastest honest clone there is.
//!
//! What makes a start slow can be done once: open the snapshot, check it, ask KVM what the host can do. A server does that,
//! and keeps the snapshot's memory in a memory file that is sealed (`F_SEAL_WRITE`): from then on nobody can change it, not
//! even root. For each request it forks, or begins a thread ([`Home`]). That makes a machine of its own, as
//! [`crate::machine::Machine::restore`] does, and runs it with the three open files that came with the request.
//!
//! ```text
//! client                                server                         child or thread
//! {"do":"clone"} and its files 0, 1, 2 -->
//!                                       fork(2) ---------------------> a machine, restored, runs
//!                                <-- {"ok":{"pid":4711}}
//!                                       pidfd: it has ended <---------
//!                                <-- {"ended":{"status":0}}
//! ```
//!
//! A clone ends with who asked for it, and with the server. It is confined as every monitor is ([`crate::confine`]); where it is a
//! program's, together with its server, and before it is there.

mod client;
mod clone;
mod packet;
mod server;

use std::time::Duration;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

pub use client::{Lent, clone_here};
pub use server::{Home, Server};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    /// A clone; the packet carries three open files.
    Clone {
        /// How long it may run.
        timeout: Option<Duration>,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reply {
    /// It runs, in this process.
    Ok {
        /// Its number.
        pid: i32,
    },
    /// It does not, and why.
    Error(String),
    /// It has ended.
    Ended {
        /// With this status, as a shell would tell it.
        status: u8,
    },
}

/// Why there is no server, or no clone.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket could not be made or reached.
    #[error("cannot {attempt} {}", .path.display())]
    Socket {
        /// What was attempted.
        attempt: &'static str,
        /// Where.
        path: std::path::PathBuf,
        /// What the kernel said.
        source: Errno,
    },
    /// The template's memory could not be taken in.
    #[error("cannot keep the template in memory")]
    Memory(#[source] std::io::Error),
    /// A machine with an operating system has more threads than one.
    #[error("a machine with a kernel is a process of its own")]
    NoThreads,
    /// Threads could not be made to hear that they shall end.
    #[error("cannot let threads be interrupted")]
    Interrupt(#[source] std::io::Error),
    /// Nothing would stand between a guest and the server.
    #[error(transparent)]
    Confine(crate::confine::ConfineError),
    /// Signals could not be listened for.
    #[error("cannot listen for signals")]
    Signals(#[source] nix::errno::Errno),
    /// Nothing could be waited for.
    #[error("cannot wait for requests")]
    Wait(#[source] nix::errno::Errno),
    /// The server would not.
    #[error("{0}")]
    Refused(String),
    /// The server is gone, or is none.
    #[error("what listens at {} hands out no clones", .0.display())]
    NoServer(std::path::PathBuf),
}

impl ServeError {
    /// The next thing to try, where there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Socket { source: Errno::EADDRINUSE, .. } => {
                Some("a server listens there, or one was killed while it did: name another file, or remove that")
            }
            Self::Socket { source: Errno::ECONNREFUSED | Errno::ENOENT, attempt: REACH, .. } | Self::NoServer(_) => {
                Some("nobody hands out clones there: isolab-vm serve NAME@SNAPSHOT --socket FILE does")
            }
            Self::NoThreads => Some("leave --in-process out"),
            _ => None,
        }
    }
}

/// What a client attempts first.
const REACH: &str = "reach the server at";
