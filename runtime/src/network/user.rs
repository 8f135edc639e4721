//! The network of an ordinary user's container.
//!
//! Who is not root may make a network namespace, inside a user namespace, but no cable out of it: the other end would be
//! on the host, where he has no rights. A program in user space helps: it opens a virtual card (tap) inside, reads the
//! packets that come out of it, and says the same outside through ordinary sockets, as any program of this user may. Two
//! such programs are known: pasta(1), and where that is not there slirp4netns(1), which has a whole TCP/IP in it and is
//! slower. It is started beside a container whose namespaces are there. Some versions end with them and some hold on to
//! them, so it is ended with the container.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::claim;
use super::error::NetworkError;
use super::port::{PortWish, Published};
use super::{pasta, slirp};
use crate::container::ProcessId;

/// The program that carries the packets, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    kind: Kind,
    program: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pasta,
    Slirp,
}

impl Kind {
    /// The better one first.
    const ALL: [Self; 2] = [Self::Pasta, Self::Slirp];

    fn name(self) -> &'static str {
        match self {
            Self::Pasta => pasta::NAME,
            Self::Slirp => slirp::NAME,
        }
    }
}

impl Carrier {
    /// Looks for the best one that is here.
    pub fn find() -> Result<Self, NetworkError> {
        Kind::ALL.into_iter().find_map(Self::look_for).ok_or(NetworkError::NoCarrier)
    }

    /// Looks for one of them.
    pub fn named(name: &str) -> Result<Self, NetworkError> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name).and_then(Self::look_for).ok_or(NetworkError::NoCarrier)
    }

    fn look_for(kind: Kind) -> Option<Self> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&folders).map(|folder| folder.join(kind.name()));
        Some(Self { kind, program: program.into_iter().find(|path| path.is_file())? })
    }

    /// The program's name.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Gives the process's namespaces a network, and leads ports of the host to it, which are returned. The program goes on
    /// in the background until it is [ended](Carrier::end). Meanwhile the two talk through a file, `note`, which is gone
    /// afterwards.
    pub fn serve(
        &self,
        pid: i32,
        ports: &[PortWish],
        note: &Path,
    ) -> Result<(ProcessId, Vec<Published>), NetworkError> {
        claim::check(ports)?;
        // What is bound here is let go again: the program binds it itself, and says so if somebody was faster.
        let ports: Vec<Published> = claim::find_ports(ports, &[])?.iter().map(|bound| bound.port).collect();
        let process = match self.kind {
            Kind::Pasta => pasta::start(&self.program, pid, &ports, note)?,
            Kind::Slirp => slirp::start(&self.program, pid, &ports, note)?,
        };
        Ok((process, ports))
    }

    /// Ends one that serves. It may have ended by itself.
    pub fn end(process: &ProcessId) {
        let _ = process.signal(Signal::SIGTERM as i32);
    }
}

/// What a program complains of in its last line.
pub(super) fn last_words(text: &str) -> String {
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed without a word").trim().to_owned()
}
