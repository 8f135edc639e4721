//! The listener of a seccomp filter: another program, which decides about the calls that the filter leaves to it (OCI
//! runtime specification, config-linux.md, "Seccomp", `listenerPath`; `seccomp_unotify(2)`).
//!
//! The runtime connects before the container's process is made, since the socket lies on the host. The process itself
//! sends: only it has the descriptor, and one `sendmsg` is all it needs, of text that was laid out before.

use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::json;

use super::error::ContainerError;
use super::init::decimal;
use super::state::Record;
use super::sys::seccomp::send_with_descriptor;

/// A connection to the listener, and what it will be told.
pub(crate) struct Listener {
    socket: RefCell<Option<OwnedFd>>,
    /// The container's process state as JSON, parted where the process's number goes: it stands in there twice.
    text: [String; 3],
    pid: Cell<i32>,
}

impl Listener {
    /// Connects to the socket that the profile names.
    pub(crate) fn connect(profile: &LinuxSeccomp, record: &Record) -> Result<Self, ContainerError> {
        let path = profile.listener_path().clone().unwrap_or_default();
        let connected = (|| {
            let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            connect(socket.as_raw_fd(), &UnixAddr::new(&path)?)?;
            Ok(socket)
        })();
        let socket = connected.map_err(ContainerError::system("connect to", path.display().to_string()))?;
        let mut head = json!({ "ociVersion": record.oci_version, "fds": ["seccompFd"] });
        if let (Some(object), Some(metadata)) = (head.as_object_mut(), profile.listener_metadata()) {
            object.insert("metadata".to_owned(), metadata.as_str().into());
        }
        let head = head.to_string();
        let (before, after) = record.state_around_pid();
        let head = format!("{},\"pid\":", head.strip_suffix('}').unwrap_or_default());
        Ok(Self {
            socket: RefCell::new(Some(socket)),
            text: [head, format!(",\"state\":{before}"), format!("{after}}}")],
            pid: Cell::new(0),
        })
    }

    /// Lets go of the runtime's end: the listener shall hear the connection close when the process has sent.
    pub(crate) fn leave_to_process(&self) {
        drop(self.socket.take());
    }

    /// Notes the number that the host knows the container's process by.
    pub(crate) fn pid_is(&self, pid: i32) {
        self.pid.set(pid);
    }

    /// Hands the filter's descriptor over, once, and closes the connection.
    pub(crate) fn tell(&self, filter: &OwnedFd) -> nix::Result<()> {
        let socket = self.socket.take().ok_or(Errno::ENOTCONN)?;
        let mut digits = [0; 10];
        let pid = decimal(self.pid.get(), &mut digits);
        let [head, middle, end] = &self.text;
        let parts = [head.as_bytes(), pid, middle.as_bytes(), pid, end.as_bytes()];
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let sent = send_with_descriptor(&socket, &parts.map(IoSlice::new), filter)?;
        // The connection is new and its buffer empty, so a text that it doesn't take at once is too long for it.
        if sent == length { Ok(()) } else { Err(Errno::EMSGSIZE) }
    }
}
