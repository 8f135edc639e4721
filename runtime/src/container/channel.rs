//! The wire between the runtime and the container's first process, while the container is being made.
//!
//! A socket pair that keeps messages apart. It also tells each end of the other's death: the process ends when it hears
//! the end of the wire while it waits, and the runtime knows that `execve` has happened when the wire, which closes at
//! that moment, ends.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::Pid;

use super::report::{At, Failure, SIZE, Step};

/// What the runtime tells the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Word {
    /// The user namespace has its numbers.
    Mapped = b'm',
    /// All that only an outsider can write is written; the host knows the process by the number that comes with the word.
    Furnished = b'f',
    /// The hooks that want to see the container before it has its root have run.
    HooksDone = b'h',
    /// The container is written down: the process may outlive the runtime.
    Released = b'r',
}

/// What the runtime hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The namespaces and mounts are there, the old root still is: the time for hooks.
    AtHooks,
    /// All is done but the program's first instruction.
    Ready,
    /// The process has become the program, or has ended.
    Ended,
    /// A joining process has made the one that stays.
    Child(Pid),
    /// A step failed.
    Failed(Failure),
}

/// The runtime's end.
#[derive(Debug)]
pub(crate) struct RuntimeEnd(OwnedFd);

/// The process's end.
#[derive(Debug)]
pub(crate) struct ProcessEnd(OwnedFd);

/// Makes the two ends.
pub(crate) fn pair() -> nix::Result<(RuntimeEnd, ProcessEnd)> {
    // SOCK_SEQPACKET: a message arrives whole or not at all, so nobody has to know lengths.
    let (runtime, process) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((RuntimeEnd(runtime), ProcessEnd(process)))
}

impl RuntimeEnd {
    /// Sends a word. A process that has ended already is no error here: its end is heard soon enough.
    pub(crate) fn say(&self, word: Word, pid: Pid) -> nix::Result<()> {
        let [a, b, c, d] = pid.as_raw().to_ne_bytes();
        match send(self.0.as_raw_fd(), &[word as u8, a, b, c, d], MsgFlags::MSG_NOSIGNAL) {
            Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Waits for the next message.
    pub(crate) fn hear(&self) -> nix::Result<Heard> {
        let mut bytes = [0; SIZE];
        loop {
            return match recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                // ECONNRESET, told once: the process has ended without having heard all we said. What it said is still there.
                Err(Errno::EINTR | Errno::ECONNRESET) => continue,
                Ok(0) => Ok(Heard::Ended),
                Ok(_) => Ok(match (bytes[0], Failure::from_bytes(&bytes)) {
                    (_, Some(failure)) => Heard::Failed(failure),
                    (b'H', None) => Heard::AtHooks,
                    (b'P', None) => {
                        Heard::Child(Pid::from_raw(i32::from_ne_bytes([bytes[1], bytes[2], bytes[3], bytes[4]])))
                    }
                    _ => Heard::Ready,
                }),
                Err(errno) => Err(errno),
            };
        }
    }
}

impl AsFd for RuntimeEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ProcessEnd {
    /// Waits for this word; returns the number that came with it. The runtime's end is this process's end.
    pub(crate) fn await_word(&self, word: Word) -> Result<i32, Failure> {
        let mut bytes = [0; 5];
        loop {
            match recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Ok(5) if bytes[0] == word as u8 => {
                    let [_, pid @ ..] = bytes;
                    return Ok(i32::from_ne_bytes(pid));
                }
                Ok(0) => super::sys::clone::exit_now(1),
                Ok(_) => return Err(Failure::new(Step::Protocol, 0, Errno::EBADMSG)),
                Err(errno) => return Err(Failure::new(Step::Protocol, 0, errno)),
            }
        }
    }

    /// Ends this process where the runtime has ended. Its end of the wire is closed before a parent's death is signalled
    /// (`exit(2)` closes files first), so after `PR_SET_PDEATHSIG` this finds whoever died too early for the signal.
    pub(crate) fn end_without_runtime(&self) {
        let mut byte = [0];
        if let Ok(0) = recv(self.0.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            super::sys::clone::exit_now(1);
        }
    }

    /// Says that the time for hooks has come.
    pub(crate) fn at_hooks(&self) -> Result<(), Failure> {
        self.tell(b"H")
    }

    /// Says that all is done.
    pub(crate) fn ready(&self) -> Result<(), Failure> {
        self.tell(b"R")
    }

    /// Says which process is the one that stays.
    pub(crate) fn has_child(&self, child: Pid) -> Result<(), Failure> {
        let [a, b, c, d] = child.as_raw().to_ne_bytes();
        self.tell(&[b'P', a, b, c, d])
    }

    /// Says what failed; nobody listening is no news.
    pub(crate) fn failed(&self, failure: Failure) {
        let _ = send(self.0.as_raw_fd(), &failure.to_bytes(), MsgFlags::MSG_NOSIGNAL);
    }

    fn tell(&self, message: &[u8]) -> Result<(), Failure> {
        send(self.0.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL).map(drop).at(Step::Protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::{Heard, Word, pair};
    use crate::container::report::{Failure, Step};
    use nix::errno::Errno;
    use nix::unistd::Pid;

    #[test]
    fn a_failure_is_heard_though_our_words_were_not() {
        let (runtime, process) = pair().expect("a socket pair");
        runtime.say(Word::Furnished, Pid::from_raw(42)).expect("said");
        process.failed(Failure::new(Step::Mount, 3, Errno::EPERM));
        drop(process);
        let Ok(Heard::Failed(failure)) = runtime.hear() else { panic!("no failure heard") };
        assert_eq!((failure.step, failure.index), (Step::Mount, 3));
        assert!(matches!(runtime.hear(), Ok(Heard::Ended)));
    }

    #[test]
    fn each_end_hears_the_other() {
        let (runtime, process) = pair().expect("a socket pair");
        runtime.say(Word::Furnished, Pid::from_raw(42)).expect("said");
        assert_eq!(process.await_word(Word::Furnished).ok(), Some(42));
        process.ready().expect("said");
        assert!(matches!(runtime.hear(), Ok(Heard::Ready)));
        process.failed(Failure::new(Step::Pivot, 0, Errno::EBUSY));
        drop(process);
        let Ok(Heard::Failed(failure)) = runtime.hear() else { panic!("no failure heard") };
        assert_eq!((failure.step, failure.errno), (Step::Pivot, Errno::EBUSY));
        assert!(matches!(runtime.hear(), Ok(Heard::Ended)));
        runtime.say(Word::Released, Pid::from_raw(1)).expect("nobody hears, nobody minds");
    }
}
