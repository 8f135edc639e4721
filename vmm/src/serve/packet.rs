//! Packets between client and server: a value in JSON, and open files beside it (unix(7), `SCM_RIGHTS`).
//!
//! The sockets are of kind `SOCK_SEQPACKET`: what is sent as one packet is received as one, so a request can't be half
//! there, and the files that belong to it come with it.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest packet, in bytes.
const LONGEST: usize = 4096;

/// Sends a value and open files. Never waits: who does not read its replies loses them.
pub(super) fn send(socket: BorrowedFd<'_>, value: &impl Serialize, files: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(value).map_err(|_| Errno::EINVAL)?;
    let numbers: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None).map(|_| ())
}

/// What came.
pub(super) enum Received<T> {
    /// A value, and open files.
    Value(T, Vec<OwnedFd>),
    /// Something that is no such value.
    Garbled,
    /// The other side is gone.
    Gone,
}

/// Receives a value and open files; waits for it.
pub(super) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<Received<T>, Errno> {
    let mut bytes = [0_u8; LONGEST];
    let mut vectors = [IoSliceMut::new(&mut bytes)];
    let mut control = nix::cmsg_space!([i32; 3]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut vectors, Some(&mut control), flags)?;
    // Taken over first: whatever else is wrong with the packet, the files must not stay open.
    let mut files = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            // SAFETY: the kernel has just made these descriptors for this process; nobody else has them.
            files.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    let (length, cut) = (message.bytes, message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC));
    if length == 0 {
        return Ok(Received::Gone);
    }
    match bytes.get(..length).and_then(|bytes| serde_json::from_slice(bytes).ok()) {
        Some(value) if !cut => Ok(Received::Value(value, files)),
        _ => Ok(Received::Garbled),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[test]
    fn a_value_comes_with_its_files() {
        let (one, other) = pair();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(one.as_fd(), &[1, 2], &[writer.as_fd()]).unwrap();
        drop(writer);
        let Received::Value(value, files) = receive::<Vec<u8>>(other.as_fd()).unwrap() else { panic!("no value") };
        assert_eq!((value, files.len()), (vec![1, 2], 1));
        std::fs::File::from(files.into_iter().next().unwrap()).write_all(b"hello").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn what_is_no_value_is_told_and_its_files_are_closed() {
        let (one, other) = pair();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(one.as_fd(), &"text", &[writer.as_fd()]).unwrap();
        drop(writer);
        assert!(matches!(receive::<Vec<u8>>(other.as_fd()).unwrap(), Received::Garbled));
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "nobody holds the other end");
        drop(one);
        assert!(matches!(receive::<Vec<u8>>(other.as_fd()).unwrap(), Received::Gone));
    }
}
