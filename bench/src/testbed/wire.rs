//! What the machine and the host say to each other.
//!
//! The host says everything before the machine starts: a [`Request`] in its file system. From then on only the machine
//! speaks, in frames over one virtio-serial port. One port for all, because frames on one port keep their order: when the
//! exit status arrives, all output has arrived. What the host sends are nudges ([`NUDGE`]), bytes that mean nothing.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the machine finds its request.
pub(super) const REQUEST: &str = "/testbed.json";

/// The port's name, as `/sys/class/virtio-ports/*/name` shows it.
pub(super) const PORT: &str = "isolab.testbed";

/// The longest content that either side accepts, bytes.
pub(super) const LONGEST: usize = 1 << 20;

/// How often the machine says that it is there.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);

/// How often the host sends a byte, for the interrupt that it is in the machine.
///
/// The emulator (QEMU 7.2) loses an interrupt now and then where virtual machines run in it: the CPU was found halted, with interrupts
/// allowed, and its timer's waiting. That fits a bit that two threads change at once without a lock. Linux sets its timer anew only when
/// it has come, so a CPU that has nothing else to do then sleeps for ever. Any other interrupt has the emulator look again.
pub(super) const NUDGE: Duration = Duration::from_millis(100);

/// What the machine is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// The kernel modules to load, as paths, each after those it needs.
    pub(super) modules: Vec<String>,
    /// The program and its arguments.
    pub(super) command: Vec<String>,
}

/// What the machine says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The command was started.
    Started,
    /// The command wrote this to its standard output.
    Stdout(Vec<u8>),
    /// The command wrote this to its standard error.
    Stderr(Vec<u8>),
    /// A piece of the tar archive of the files in `$OUT`.
    Files(Vec<u8>),
    /// The command ended, with this exit status; the last frame.
    Ended(u8),
    /// The machine could not do as asked, in words; the last frame.
    Failed(String),
    /// The machine is there, and says so every [`HEARTBEAT`].
    Alive,
}

impl Frame {
    /// Sends it: a byte that says which, the content's length in four (little-endian), the content.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let (kind, content): (u8, &[u8]) = match self {
            Self::Started => (0, &[]),
            Self::Stdout(bytes) => (1, bytes),
            Self::Stderr(bytes) => (2, bytes),
            Self::Files(bytes) => (3, bytes),
            Self::Ended(status) => (4, std::slice::from_ref(status)),
            Self::Failed(text) => (5, text.as_bytes()),
            Self::Alive => (6, &[]),
        };
        let length = u32::try_from(content.len()).map_err(io::Error::other)?.to_le_bytes();
        // In one piece: each write to the port is an exit of the virtual machine.
        let mut message = Vec::with_capacity(5 + content.len());
        message.push(kind);
        message.extend_from_slice(&length);
        message.extend_from_slice(content);
        to.write_all(&message)
    }

    /// Receives one.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; 5];
        from.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(garbled(format!("a frame of {length} bytes")));
        }
        let mut content = vec![0; length];
        from.read_exact(&mut content)?;
        match (kind, content.as_slice()) {
            (0, []) => Ok(Self::Started),
            (1, _) => Ok(Self::Stdout(content)),
            (2, _) => Ok(Self::Stderr(content)),
            (3, _) => Ok(Self::Files(content)),
            (4, [status]) => Ok(Self::Ended(*status)),
            (5, text) => Ok(Self::Failed(String::from_utf8_lossy(text).into_owned())),
            (6, []) => Ok(Self::Alive),
            _ => Err(garbled(format!("a frame of kind {kind} with {length} bytes"))),
        }
    }
}

fn garbled(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_as_they_were_sent_and_in_their_order() {
        let sent = [
            Frame::Started,
            Frame::Stdout(b"hello\n".to_vec()),
            Frame::Stderr(Vec::new()),
            Frame::Files(vec![0; LONGEST]),
            Frame::Ended(137),
            Frame::Failed("no such thing".to_owned()),
            Frame::Alive,
        ];
        let mut wire = Vec::new();
        for frame in &sent {
            frame.write(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        for frame in &sent {
            assert_eq!(&Frame::read(&mut wire).unwrap(), frame);
        }
        assert_eq!(Frame::read(&mut wire).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bytes in [&[9, 0, 0, 0, 0][..], &[1, 255, 255, 255, 255], &[4, 0, 0, 0, 0], &[0, 1, 0, 0, 0, 7]] {
            assert_eq!(Frame::read(&mut &bytes[..]).unwrap_err().kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        let half = [1, 9, 0, 0, 0, b'x'];
        assert_eq!(Frame::read(&mut &half[..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
