//! Network namespaces: a world of interfaces, addresses, routes and ports of its own (`network_namespaces(7)`).
//!
//! A new one is empty but for a loopback interface that is down. It lives as long as a process is in it or a descriptor
//! is open; with it go its interfaces, and with each of them the other end of its cable. Nothing here is ever pinned to
//! a file, so a container that is gone leaves no namespace.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use tracing::info_span;

use super::error::NetworkError;
use super::link;
use super::netlink::{Batch, Socket};

/// The calling thread's namespace. Not the process's: a thread may be elsewhere.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace, kept by a descriptor.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    socket: Socket,
}

impl Namespace {
    /// Makes a new one.
    pub fn create() -> Result<Self, NetworkError> {
        let _span = info_span!(
            "network.namespace",
            call = "unshare(CLONE_NEWNET)",
            why = "a world of interfaces, addresses and ports in which nothing else is"
        )
        .entered();
        away(|| unshare(CloneFlags::CLONE_NEWNET).map_err(failed("make", "a network namespace")))
    }

    /// One that exists, such as that of a container which runs: `/proc/PID/ns/net`.
    pub fn open(path: &Path) -> Result<Self, NetworkError> {
        let other = File::open(path).map_err(NetworkError::io("open", path))?;
        away(|| setns(&other, CloneFlags::CLONE_NEWNET).map_err(failed("enter", path.display())))
    }

    /// How a process with this descriptor names it, for a container's configuration.
    pub fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Switches its loopback interface on.
    pub fn loopback_up(&self) -> Result<(), NetworkError> {
        let mut batch = Batch::default();
        link::add_up(&mut batch, "lo", link::LOOPBACK);
        Ok(self.socket.ask(&batch)?)
    }

    /// A netlink socket in it.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Goes into another namespace, opens it and a socket there, and comes back.
fn away(go: impl FnOnce() -> Result<(), NetworkError>) -> Result<Namespace, NetworkError> {
    let home = File::open(OWN).map_err(NetworkError::io("open", OWN))?;
    go()?;
    let there = File::open(OWN).map_err(NetworkError::io("open", OWN));
    let socket = Socket::route();
    // Who was allowed to leave is allowed to return (setns(2)); should it fail, the caller must end, which an error is for.
    setns(&home, CloneFlags::CLONE_NEWNET).map_err(failed("return to", "the host's network namespace"))?;
    Ok(Namespace { file: there?, socket: socket? })
}

fn failed(attempt: &'static str, on: impl ToString) -> impl FnOnce(Errno) -> NetworkError {
    move |errno| NetworkError::System { attempt, on: on.to_string(), source: errno }
}

/// The number by which the kernel knows the namespace that this thread is in.
pub(super) fn own_number() -> Result<u64, NetworkError> {
    Ok(std::fs::metadata(OWN).map_err(NetworkError::io("look at", OWN))?.ino())
}
