//! A netlink socket: a batch goes in, the kernel's answers come out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::Batch;
use super::read::{Message, find, messages, native_u32};
use crate::network::sys;

/// `NLMSG_ERROR`: an errno, or 0 for "done as asked".
const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a list.
const DONE: u16 = 3;
/// `NLM_F_MULTI`: more messages of the same list follow.
const MULTI: u16 = 0x2;
/// `NLM_F_CAPPED`: the error doesn't repeat the request.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes follow the error.
const EXPLAINED: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words.
const WORDS: u16 = 1;
/// The kernel fills at most this much at once.
const BUFFER: usize = 64 << 10;

/// Why the kernel did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No such socket.
    #[error("cannot open a netlink socket")]
    Open(#[source] Errno),
    /// The socket failed.
    #[error("cannot {attempt}: netlink")]
    Talk {
        /// What it was for.
        attempt: String,
        /// What the system said.
        source: Errno,
    },
    /// The kernel refused.
    #[error("cannot {attempt}{}", words.as_ref().map(|words| format!(" ({words})")).unwrap_or_default())]
    Refused {
        /// What was asked for.
        attempt: String,
        /// What the kernel says in words, where it does.
        words: Option<String>,
        /// And as a number.
        source: Errno,
    },
    /// Neither yes nor no.
    #[error("cannot {attempt}: the kernel did not answer")]
    Silent {
        /// What was asked for.
        attempt: String,
    },
}

impl NetlinkError {
    /// The kernel's number, where it refused.
    pub(in crate::network) fn refusal(&self) -> Option<Errno> {
        match self {
            Self::Refused { source, .. } => Some(*source),
            _ => None,
        }
    }
}

/// A socket to one of the kernel's netlink families, in the network namespace in which it was opened.
#[derive(Debug)]
pub(in crate::network) struct Socket(OwnedFd);

impl Socket {
    /// For interfaces, addresses and routes.
    pub(in crate::network) fn route() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// For packet rules.
    pub(in crate::network) fn netfilter() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(family: SockProtocol) -> Result<Self, NetlinkError> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, family)
            .map_err(NetlinkError::Open)?;
        // Errors in words, and without a copy of the request. A kernel that cannot is one that says less.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            let _ = sys::enable_netlink(&socket, option);
        }
        Ok(Self(socket))
    }

    /// Brings a batch to the kernel, in which at least one message asks for an answer. The kernel works through it before
    /// send(2) returns, so that what it has to say is there then, and nothing is waited for.
    pub(in crate::network) fn ask(&self, batch: &Batch) -> Result<(), NetlinkError> {
        self.exchange(batch, |_| {})
    }

    /// As [`Socket::ask`], with a look at each message that is not a mere yes or no.
    pub(in crate::network) fn exchange(
        &self,
        batch: &Batch,
        mut hear: impl FnMut(Message<'_>),
    ) -> Result<(), NetlinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let talk = |source| NetlinkError::Talk { attempt: batch.attempt(0).to_owned(), source };
        send(self.raw(), batch.bytes(), MsgFlags::empty()).map_err(talk)?;
        let (mut refusal, mut answered) = (None, false);
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match recv(self.raw(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(source) => return Err(talk(source)),
            };
            for message in messages(buffer.get(..length).unwrap_or_default()) {
                answered |= matches!(message.kind, ERROR | DONE) || message.flags & MULTI == 0;
                match message.kind {
                    // The first one: those behind it may only be its consequences.
                    ERROR => refusal = refusal.or_else(|| refused(message, batch)),
                    DONE => {}
                    _ => hear(message),
                }
            }
        }
        match refusal {
            Some(refusal) => Err(refusal),
            None if answered => Ok(()),
            None => Err(NetlinkError::Silent { attempt: batch.attempt(0).to_owned() }),
        }
    }

    fn raw(&self) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(&self.0)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What an error message says; nothing where it says that all is well.
fn refused(message: Message<'_>, batch: &Batch) -> Option<NetlinkError> {
    let errno = native_u32(message.body.get(..4)?)? as i32;
    if errno == 0 {
        return None;
    }
    let request = message.body.get(4..)?;
    // Behind the number comes the request: its header alone, or all of it.
    let length = if message.flags & CAPPED == 0 { native_u32(request.get(..4)?)? as usize } else { super::HEADER };
    let behind = request.get(super::aligned(length)..).unwrap_or_default();
    let words = (message.flags & EXPLAINED != 0).then(|| find(behind, WORDS)).flatten();
    let words = words.map(|words| String::from_utf8_lossy(words).trim_end_matches('\0').to_owned());
    let attempt = batch.attempt(message.number).to_owned();
    Some(NetlinkError::Refused { attempt, words, source: Errno::from_raw(-errno) })
}
