//! What passes between the process that stands by a container and those who talk to it: messages of one letter and some
//! bytes, over a socket that keeps them apart (`SOCK_SEQPACKET`, unix(7)).
//!
//! | letter | from whom | what |
//! |---|---|---|
//! | `S` | keeper | the container is started; the number of its first process |
//! | `F` | keeper | it could not be started; why, as JSON |
//! | `o`, `e` | keeper | what was printed: output, error |
//! | `x` | keeper | it has ended; its status |
//! | `i` | guest | what was typed |
//! | `c` | guest | there is no more to be typed |
//! | `w` | guest | rows and columns of the guest's window |
//! | `k` | guest | the number of a signal |

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen, recv, send, socket,
    socketpair,
};
use nix::sys::stat::Mode;

/// The most that one message carries, in bytes.
pub(super) const MOST: usize = (16 << 10) - 1;

/// One end of the connection.
#[derive(Debug)]
pub(super) struct Wire(OwnedFd);

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) bytes: Vec<u8>,
}

impl Wire {
    /// Both ends of a new connection.
    pub(super) fn pair() -> nix::Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(one), Self(other)))
    }

    pub(super) fn of(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    pub(super) fn into_inner(self) -> OwnedFd {
        self.0
    }

    /// Connects to who listens behind a path.
    pub(super) fn connect(path: &Path) -> nix::Result<Self> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        let (address, _folder) = address(path)?;
        connect(socket.as_raw_fd(), &address)?;
        Ok(Self(socket))
    }

    /// Says something; waits for room.
    pub(super) fn say(&self, kind: u8, bytes: &[u8]) -> nix::Result<()> {
        self.send(kind, bytes, MsgFlags::empty())
    }

    /// Says something if there is room for it.
    pub(super) fn try_say(&self, kind: u8, bytes: &[u8]) -> nix::Result<()> {
        self.send(kind, bytes, MsgFlags::MSG_DONTWAIT)
    }

    fn send(&self, kind: u8, bytes: &[u8], how: MsgFlags) -> nix::Result<()> {
        let mut all = [0_u8; MOST + 1];
        let length = bytes.len().min(MOST);
        if let Some((first, rest)) = all.split_first_mut() {
            *first = kind;
            rest.get_mut(..length).unwrap_or_default().copy_from_slice(bytes.get(..length).unwrap_or_default());
        }
        loop {
            let sent = send(self.0.as_raw_fd(), all.get(..=length).unwrap_or_default(), how | MsgFlags::MSG_NOSIGNAL);
            match sent {
                Err(Errno::EINTR) => {}
                other => return other.map(drop),
            }
        }
    }

    /// What was said next; nothing where the other end is gone.
    pub(super) fn hear(&self) -> nix::Result<Option<Message>> {
        self.receive(MsgFlags::empty())
    }

    /// What was said next, if anything was: `EAGAIN` otherwise.
    pub(super) fn try_hear(&self) -> nix::Result<Option<Message>> {
        self.receive(MsgFlags::MSG_DONTWAIT)
    }

    fn receive(&self, how: MsgFlags) -> nix::Result<Option<Message>> {
        let mut all = [0_u8; MOST + 1];
        let length = loop {
            match recv(self.0.as_raw_fd(), &mut all, how) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => break 0,
                other => break other?,
            }
        };
        let message = all.get(..length).and_then(<[u8]>::split_first);
        Ok(message.map(|(kind, bytes)| Message { kind: *kind, bytes: bytes.to_vec() }))
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Listens at a path, in a folder that exists and is its user's alone.
pub(super) fn listen_at(path: &Path) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)));
        }
        _ => {}
    }
    let (address, _folder) = address(path)?;
    bind(socket.as_raw_fd(), &address)?;
    listen(&socket, Backlog::new(8)?)?;
    Ok(socket)
}

/// Lets in who has come, if anybody has.
pub(super) fn let_in(door: &OwnedFd) -> nix::Result<Wire> {
    use std::os::fd::FromRawFd;
    let number = accept4(door.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(Wire(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// The address of a socket at a path of any length: it goes through a descriptor of the folder, which is returned too,
/// since an address has room for 107 bytes only (unix(7)).
fn address(path: &Path) -> nix::Result<(UnixAddr, OwnedFd)> {
    let (folder, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
    let opened = nix::fcntl::open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let short = format!("/proc/self/fd/{}/{}", opened.as_raw_fd(), name.to_string_lossy());
    Ok((UnixAddr::new(short.as_str())?, opened))
}

#[cfg(test)]
mod tests {
    use super::{MOST, Message, Wire, let_in, listen_at};

    #[test]
    fn messages_arrive_whole_and_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("x".repeat(120));
        std::fs::create_dir(&deep).expect("there is room");
        let path = deep.join("door");
        let door = listen_at(&path).expect("it listens");
        let guest = Wire::connect(&path).expect("it is let in");
        let host = let_in(&door).expect("somebody came");
        host.say(b'o', b"one").expect("there is room");
        host.say(b'x', b"").expect("there is room");
        host.say(b'e', &[7; MOST]).expect("there is room");
        drop(host);
        let mut heard = std::iter::from_fn(|| guest.hear().expect("it is there"));
        assert_eq!(heard.next(), Some(Message { kind: b'o', bytes: b"one".to_vec() }));
        assert_eq!(heard.next(), Some(Message { kind: b'x', bytes: Vec::new() }));
        assert_eq!(heard.next().map(|message| message.bytes.len()), Some(MOST));
        assert_eq!(heard.next(), None);
    }
}
