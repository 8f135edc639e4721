//! One connection: a stream of the host's on one side, packets on the other, and the account of both.
//!
//! Each side says how much room it has and how much of what it got it has passed on; the other never has more on the way
//! than that (virtio 1.2, section 5.10.6.3). So a reader that is slow stops its writer, and nobody else.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{MsgFlags, recv};

use super::super::queue::Buffer;
use super::packet::{self, Header, NO_RECEIVE, NO_SEND, op};
use crate::memory::Memory;

/// How much a connection keeps of what the guest sends and the host doesn't read, in bytes.
pub(super) const ROOM: u32 = 128 << 10;
/// The longest line with which a program of the host asks for a port: `CONNECT 4294967295` and a newline.
const LINE: usize = 19;

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// A program of the host has connected, and not yet said to which port.
    Greeting,
    /// The guest was asked whether somebody listens.
    Asked,
    /// Both ends are there.
    Open,
}

/// A connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "any of them can be true beside any other: it is no hidden state")]
pub(super) struct Connection {
    pub(super) stream: UnixStream,
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
    pub(super) phase: Phase,
    /// It is in the list of those that have something to say.
    pub(super) queued: bool,
    /// The stream may have something to read.
    pub(super) readable: bool,
    /// Packets to be sent, besides data.
    request: bool,
    response: bool,
    credit: bool,
    credit_request: bool,
    shutdown: u32,
    pub(super) reset: bool,
    /// From the guest, for the host.
    kept: VecDeque<u8>,
    received: u32,
    passed: u32,
    told: u32,
    /// What the guest has for us, and what it has got.
    peer_room: u32,
    peer_passed: u32,
    sent: u32,
    starved: bool,
    /// What each side has said that it will not do any more.
    guest_done: u32,
    host_done: u32,
    /// What of the guest's end the stream was told already.
    closed: u32,
    /// The host's end takes no more data.
    deaf: bool,
}

/// What a connection has for the guest.
pub(super) enum Packet {
    /// This, and so many bytes of data are behind it already.
    Send(Header),
    /// This, and then the connection is no more.
    Last(Header),
    /// Nothing, for now.
    Nothing,
}

impl Connection {
    fn new(stream: UnixStream, host_port: u32, guest_port: u32, phase: Phase) -> Self {
        Self {
            stream,
            host_port,
            guest_port,
            phase,
            queued: false,
            readable: true,
            request: false,
            response: false,
            credit: false,
            credit_request: false,
            shutdown: 0,
            reset: false,
            kept: VecDeque::new(),
            received: 0,
            passed: 0,
            told: 0,
            peer_room: 0,
            peer_passed: 0,
            sent: 0,
            starved: false,
            guest_done: 0,
            host_done: 0,
            closed: 0,
            deaf: false,
        }
    }

    /// A program of the host has connected.
    pub(super) fn greeted(stream: UnixStream, host_port: u32) -> Self {
        Self::new(stream, host_port, 0, Phase::Greeting)
    }

    /// The guest has connected to a program of the host.
    pub(super) fn requested(stream: UnixStream, header: &Header) -> Self {
        let mut connection = Self::new(stream, header.to_port, header.from_port, Phase::Open);
        connection.response = true;
        connection.account(header);
        connection
    }

    /// Reads the line that says which port is meant. `None`: not yet; an error: it is no such line.
    pub(super) fn greet(&mut self) -> io::Result<Option<u32>> {
        let mut line = [0; LINE];
        // Only the line: what is behind it is for the guest.
        let seen = match recv(self.stream.as_raw_fd(), &mut line, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => line.get(..count).unwrap_or_default(),
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
            return if seen.len() == LINE { Err(io::ErrorKind::InvalidData.into()) } else { Ok(None) };
        };
        let port = seen
            .get(..end)
            .and_then(|line| std::str::from_utf8(line).ok())
            .and_then(|line| line.strip_prefix("CONNECT "))
            .and_then(|port| port.trim_end_matches('\r').parse().ok())
            .ok_or(io::ErrorKind::InvalidData)?;
        self.stream.read_exact(line.get_mut(..=end).unwrap_or_default())?;
        Ok(Some(port))
    }

    /// Asks the guest for this port.
    pub(super) fn ask(&mut self, port: u32) {
        self.guest_port = port;
        self.phase = Phase::Asked;
        self.request = true;
    }

    /// What every packet of the guest says of its side.
    fn account(&mut self, header: &Header) {
        self.peer_room = header.room;
        self.peer_passed = header.passed;
        self.starved = false;
        self.credit_request = false;
    }

    /// How many bytes the guest has room for.
    fn allowed(&self) -> u32 {
        self.peer_room.saturating_sub(self.sent.wrapping_sub(self.peer_passed))
    }

    /// The guest has sent a packet of this connection. False: the connection is over, at once.
    pub(super) fn take(&mut self, header: &Header, memory: &Memory, data: &mut Buffer) -> bool {
        self.account(header);
        match (header.op, self.phase) {
            (op::RESPONSE, Phase::Asked) => {
                self.phase = Phase::Open;
                let answer = format!("OK {}\n", self.host_port);
                // Nothing was written to it yet, so there is room for a line.
                self.reset |= self.stream.write_all(answer.as_bytes()).is_err();
            }
            (op::DATA, Phase::Open) => self.keep(memory, data),
            (op::CREDIT, Phase::Open) => {}
            (op::CREDIT_REQUEST, Phase::Open) => self.credit = true,
            (op::SHUTDOWN, Phase::Open) => {
                self.guest_done |= header.flags & (NO_RECEIVE | NO_SEND);
                self.finish();
            }
            (op::RESET, _) => {
                self.flush(); // what it had sent before, as far as it goes
                return false;
            }
            _ => self.reset = true,
        }
        true
    }

    /// Passes data on to the host, and keeps what doesn't fit.
    fn keep(&mut self, memory: &Memory, data: &mut Buffer) {
        let length = data.len() as u32;
        if length > ROOM - self.received.wrapping_sub(self.passed).min(ROOM) || self.guest_done & NO_SEND != 0 {
            self.reset = true; // more than it was told that there is room for
            return;
        }
        self.received = self.received.wrapping_add(length);
        while self.kept.is_empty() && !data.is_empty() && !self.deaf {
            match data.vectors(memory).write(&self.stream) {
                Ok(count) => {
                    data.skip(count);
                    self.pass(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.lose(),
            }
        }
        if self.deaf {
            return self.lose();
        }
        let mut rest = vec![0; data.len()];
        data.read(memory, &mut rest);
        self.kept.extend(rest);
    }

    fn pass(&mut self, count: usize) {
        self.passed = self.passed.wrapping_add(count as u32);
        // Told with each packet anyway; one for its own sake only if the guest may soon have to wait for it.
        if self.passed.wrapping_sub(self.told) > ROOM / 4 {
            self.credit = true;
        }
    }

    /// The host's end doesn't take data any more. What it had sent before is still for the guest, so this is no reset.
    fn lose(&mut self) {
        self.kept.clear();
        self.passed = self.received;
        self.shutdown |= NO_RECEIVE;
        self.deaf = true;
    }

    /// Passes on what was kept, as far as the host takes it.
    pub(super) fn flush(&mut self) {
        while !self.kept.is_empty() {
            let (front, _) = self.kept.as_slices();
            match (&self.stream).write(front) {
                Ok(count) => {
                    self.kept.drain(..count);
                    self.pass(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.lose(),
            }
        }
        self.finish();
    }

    /// Does what a shutdown asks for, once all that came before it is passed on.
    ///
    /// The stream is told once: shutdown(2) stirs both of its ends each time (`unix_shutdown` in `af_unix.c`), and whoever told it
    /// each time that it stirs would do so for ever.
    fn finish(&mut self) {
        if !self.kept.is_empty() || self.guest_done == self.closed {
            return;
        }
        self.closed = self.guest_done;
        if self.guest_done == NO_RECEIVE | NO_SEND {
            self.reset = true; // the end that both know of (section 5.10.6.5)
        } else if self.guest_done == NO_SEND {
            let _ = self.stream.shutdown(Shutdown::Write);
        } else {
            let _ = self.stream.shutdown(Shutdown::Read);
        }
    }

    fn header(&mut self, guest: u64, op: u16) -> Header {
        self.told = self.passed;
        self.credit = false;
        Header {
            from: packet::HOST,
            to: guest,
            from_port: self.host_port,
            to_port: self.guest_port,
            kind: packet::STREAM,
            op,
            room: ROOM,
            passed: self.passed,
            ..Header::default()
        }
    }

    /// Whether it has, or may have, something for the guest.
    pub(super) fn has_packet(&self) -> bool {
        self.reset
            || self.request
            || self.response
            || self.credit
            || self.credit_request
            || self.shutdown & !self.host_done != 0
            || self.may_read()
    }

    fn may_read(&self) -> bool {
        self.phase == Phase::Open
            && self.readable
            && !self.starved
            && self.host_done & NO_SEND == 0
            && self.guest_done & NO_RECEIVE == 0
    }

    /// The next packet for the guest; data is put into `room` right away.
    pub(super) fn next(&mut self, guest: u64, memory: &Memory, room: &mut Buffer) -> Packet {
        if self.reset {
            return Packet::Last(self.header(guest, op::RESET));
        }
        if std::mem::take(&mut self.request) {
            return Packet::Send(self.header(guest, op::REQUEST));
        }
        if std::mem::take(&mut self.response) {
            return Packet::Send(self.header(guest, op::RESPONSE));
        }
        if self.may_read()
            && let Some(header) = self.read(guest, memory, room)
        {
            return Packet::Send(header);
        }
        if self.shutdown & !self.host_done != 0 {
            self.host_done |= self.shutdown;
            let flags = self.host_done;
            return Packet::Send(Header { flags, ..self.header(guest, op::SHUTDOWN) });
        }
        if self.credit {
            return Packet::Send(self.header(guest, op::CREDIT));
        }
        if std::mem::take(&mut self.credit_request) {
            return Packet::Send(self.header(guest, op::CREDIT_REQUEST));
        }
        Packet::Nothing
    }

    /// Reads from the host as much as the guest has room for.
    fn read(&mut self, guest: u64, memory: &Memory, room: &mut Buffer) -> Option<Header> {
        let allowed = self.allowed().min(packet::MOST as u32) as usize;
        if allowed == 0 {
            self.starved = true; // until the guest says that it has room again; it is asked to
            self.credit_request = true;
            return None;
        }
        let _rest = room.split_off(allowed);
        loop {
            match room.vectors(memory).read(&self.stream) {
                Ok(0) => {
                    self.readable = false;
                    self.shutdown |= NO_SEND;
                    return None;
                }
                Ok(count) => {
                    self.sent = self.sent.wrapping_add(count as u32);
                    return Some(Header { length: count as u32, ..self.header(guest, op::DATA) });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return None;
                }
                Err(_) => {
                    self.shutdown |= NO_SEND | NO_RECEIVE;
                    self.readable = false;
                    return None;
                }
            }
        }
    }

    /// The host's end is gone in both directions, and not only done with sending.
    pub(super) fn hang_up(&mut self) {
        self.shutdown |= NO_RECEIVE;
    }
}
