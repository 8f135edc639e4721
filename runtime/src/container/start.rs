//! The start signal: how `start`, another command at another time, tells a created container's process to go on.
//!
//! A socket in the state folder, which the process listens at. Whoever connects and says "go" hears what fails from then
//! on, and knows by the connection's end that the process has become its program: it closes at execve.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv, send, socket,
};
use nix::sys::stat::Mode;

use super::error::ContainerError;
use super::init::GO;
use super::report::{Failure, SIZE};
use super::state::{StateError, StateFolder};

/// Makes the socket that the process will listen at.
pub(crate) fn listen_in(folder: &StateFolder) -> Result<OwnedFd, ContainerError> {
    let failed = ContainerError::system("listen at", folder.start_socket().display().to_string());
    let made = (|| {
        let (socket, address, _folder) = socket_in(folder)?;
        bind(socket.as_raw_fd(), &address)?;
        listen(&socket, Backlog::new(1)?)?;
        Ok(socket)
    })();
    made.map_err(failed)
}

/// Says "go" and waits until the process has become its program.
pub(crate) fn tell(folder: &StateFolder) -> Result<(), ContainerError> {
    let failed = |source| ContainerError::System {
        attempt: "talk to the process behind",
        on: folder.start_socket().display().to_string(),
        source,
    };
    let (socket, address, _folder) = socket_in(folder).map_err(failed)?;
    connect(socket.as_raw_fd(), &address).map_err(failed)?;
    send(socket.as_raw_fd(), GO, MsgFlags::MSG_NOSIGNAL).map_err(failed)?;
    let mut bytes = [0; SIZE];
    let heard = loop {
        match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            other => break other.map_err(failed)?,
        }
    };
    // Heard: it runs, or has failed. Either way nobody has to start it any more, and its being there means "created".
    let path = folder.start_socket();
    fs::remove_file(&path).map_err(|source| StateError::Io { attempt: "remove", path, source })?;
    match Failure::from_bytes(&bytes) {
        Some(failure) if heard > 0 => Err(ContainerError::from_init(&failure, None)),
        _ => Ok(()),
    }
}

/// A socket, and the address of the one in the folder. The address is short however deep the folder lies, because it goes
/// through a descriptor, which is returned too: a socket's address has room for 107 bytes only (unix(7)).
fn socket_in(folder: &StateFolder) -> nix::Result<(OwnedFd, UnixAddr, OwnedFd)> {
    let opened = nix::fcntl::open(folder.path(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let name = folder.start_socket();
    let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let address = UnixAddr::new(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()).as_str())?;
    // SOCK_SEQPACKET: a failure arrives whole, as on the first wire.
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    Ok((socket, address, opened))
}
