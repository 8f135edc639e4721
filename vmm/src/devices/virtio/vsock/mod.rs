//! Sockets between guest and host (virtio 1.2, section 5.10), with Unix sockets at the host's end.
//!
//! The convention is Firecracker's. A program of the host connects to the socket `PATH`, writes `CONNECT 5000` and a newline,
//! reads `OK` and a number, and then is connected to whoever listens on port 5000 in the guest. A program of the guest that
//! connects to port 5000 of the host (address 2) reaches whoever listens on the socket `PATH_5000`.

mod connection;
mod packet;

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tracing::debug;

use super::config::ConfigSpace;
use super::events::{Events, Interest};
use super::queue::{Chain, Ring, Served};
use super::{Fault, Kind, VirtioDevice};
use crate::memory::Memory;
use connection::{Connection, Packet, Phase};
use packet::{Header, op};

const RECEIVE: usize = 0;
const SEND: usize = 1;
const EVENT: usize = 2;
const QUEUE: u16 = 128;
/// The most connections at a time.
const CONNECTIONS: usize = 512;
/// The most answers that wait for the guest to take them; while there are more, it isn't heard.
const ANSWERS: usize = 256;
/// How many packets are sent before others have their turn.
const TURN: usize = 64;
/// Ports of the host's side of connections that the host began: above those that programs choose.
const FIRST_PORT: u32 = 1 << 30;
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`: all connections are gone, and the address may be another.
const TRANSPORT_RESET: [u8; 4] = [0; 4];
/// What is waited for besides connections.
const LISTENER: u32 = 0;

/// Why there is no vsock.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// An address that no guest has: 0 to 2 are the hypervisor's, this machine's own and the host's.
    #[error("{0} can't be a guest's address (CID): 3 to 4294967294")]
    Cid(u64),
    /// Somebody listens there.
    #[error("the socket {0} is in use by another program")]
    InUse(PathBuf),
    /// A file that nobody can connect to.
    #[error("{0} is there already, and is no socket")]
    NoSocket(PathBuf),
    /// It could not be made.
    #[error("cannot listen on the socket {path}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Sockets for one guest.
#[derive(Debug)]
pub struct Vsock {
    cid: u64,
    path: PathBuf,
    listener: UnixListener,
    connections: HashMap<u32, Connection>,
    /// Which connection is between which ports: the host's, the guest's.
    ports: HashMap<(u32, u32), u32>,
    /// Those that have something for the guest.
    ready: VecDeque<u32>,
    /// What is to be said of connections that are not there.
    answers: VecDeque<Header>,
    next_token: u32,
    next_port: u32,
    /// The guest has to hear that all is new.
    renewed: bool,
}

impl Vsock {
    /// Sockets for the guest with this address. A socket is made at `path`, and removed in the end.
    pub fn new(cid: u64, path: &Path) -> Result<Self, VsockError> {
        if !(3..u64::from(u32::MAX)).contains(&cid) {
            return Err(VsockError::Cid(cid));
        }
        let failed = |source| VsockError::Listen { path: path.to_owned(), source };
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // A monitor that was killed leaves its socket behind. One that lives answers.
                let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
                let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
                if !is_socket {
                    return Err(VsockError::NoSocket(path.to_owned()));
                }
                if !reach(path).is_err_and(refused) {
                    return Err(VsockError::InUse(path.to_owned()));
                }
                std::fs::remove_file(path).map_err(failed)?;
                UnixListener::bind(path)
            }
            other => other,
        };
        let listener = listener.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            cid,
            path: path.to_owned(),
            listener,
            connections: HashMap::new(),
            ports: HashMap::new(),
            ready: VecDeque::new(),
            answers: VecDeque::new(),
            next_token: LISTENER + 1,
            next_port: FIRST_PORT,
            renewed: false,
        })
    }

    /// Takes in a new connection, and waits for what comes from its stream.
    fn add(&mut self, connection: Connection, events: &Events) -> io::Result<u32> {
        let token = self.next_token;
        self.next_token = self.next_token.checked_add(1).unwrap_or(LISTENER + 1);
        events.add(&connection.stream, token, Interest::Edges)?;
        if connection.phase != Phase::Greeting {
            self.ports.insert((connection.host_port, connection.guest_port), token);
        }
        self.connections.insert(token, connection);
        Ok(token)
    }

    fn remove(&mut self, token: u32) {
        if let Some(connection) = self.connections.remove(&token) {
            let ports = (connection.host_port, connection.guest_port);
            if self.ports.get(&ports) == Some(&token) {
                self.ports.remove(&ports);
            }
        }
    }

    /// Puts a connection on the list of those that have something to say, if it has.
    fn queue(&mut self, token: u32) {
        if let Some(connection) = self.connections.get_mut(&token)
            && !connection.queued
            && connection.has_packet()
        {
            connection.queued = true;
            self.ready.push_back(token);
        }
    }

    /// Programs of the host connect.
    fn accept(&mut self, events: &Events) {
        for _ in 0..TURN {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        debug!("virtio vsock: cannot accept a connection: {error}");
                    }
                    return;
                }
            };
            if self.connections.len() >= CONNECTIONS || stream.set_nonblocking(true).is_err() {
                debug!("virtio vsock: there are {CONNECTIONS} connections: no more");
                continue;
            }
            let port = self.next_port;
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
            match self.add(Connection::greeted(stream, port), events) {
                Ok(token) => self.greet(token),
                Err(error) => debug!("virtio vsock: cannot wait for a connection: {error}"),
            }
        }
    }

    /// Looks whether a program of the host has said what it wants.
    fn greet(&mut self, token: u32) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        match connection.greet() {
            Ok(None) => {}
            Ok(Some(port)) => {
                connection.ask(port);
                let ports = (connection.host_port, port);
                self.ports.insert(ports, token);
                self.queue(token);
            }
            Err(error) => {
                debug!("virtio vsock: a program of the host did not say CONNECT and a port: {error}");
                self.remove(token);
            }
        }
    }

    /// Something has happened at a connection's stream.
    fn stir(&mut self, token: u32) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if connection.phase == Phase::Greeting {
            return self.greet(token);
        }
        connection.readable = true;
        connection.flush();
        if is_gone(connection.stream.as_fd()) {
            connection.hang_up();
        }
        self.queue(token);
    }

    /// A packet from the guest.
    fn take(&mut self, memory: &Memory, chain: &mut Chain, events: &Events) -> Result<Served, Fault> {
        if self.answers.len() >= ANSWERS {
            return Ok(Served::Later);
        }
        let bytes = chain.readable.read_array(memory).ok_or(Fault::Request("that is shorter than its header"))?;
        let header = Header::decode(&bytes);
        let length = header.length as usize;
        if length > packet::MOST || length > chain.readable.len() {
            return Err(Fault::Request("with less data than its header says, or more than one may have"));
        }
        let _rest = chain.readable.split_off(length);
        if header.from != self.cid {
            debug!("virtio vsock: the guest sends as {}", header.from);
            return Ok(Served::Used(0));
        }
        let token = self.ports.get(&(header.to_port, header.from_port)).copied();
        if header.to != packet::HOST || header.kind != packet::STREAM {
            self.refuse(&header);
        } else if let Some(token) = token {
            let lives = self
                .connections
                .get_mut(&token)
                .is_some_and(|connection| connection.take(&header, memory, &mut chain.readable));
            if lives { self.queue(token) } else { self.remove(token) }
        } else if header.op == op::REQUEST {
            self.reach_out(&header, events);
        } else {
            self.refuse(&header);
        }
        Ok(Served::Used(0))
    }

    /// There is no such connection. Of one that ends nobody needs to be told that it is not there.
    fn refuse(&mut self, header: &Header) {
        if header.op != op::RESET {
            self.answers.push_back(header.refusal());
        }
    }

    /// The guest wants to connect to a program of the host.
    fn reach_out(&mut self, header: &Header, events: &Events) {
        let mut path: OsString = self.path.clone().into_os_string();
        path.push(format!("_{}", header.to_port));
        let reached = if self.connections.len() < CONNECTIONS {
            reach(Path::new(&path)).and_then(|stream| self.add(Connection::requested(stream, header), events))
        } else {
            Err(io::Error::other("there are too many connections"))
        };
        match reached {
            Ok(token) => self.queue(token),
            Err(error) => {
                debug!("virtio vsock: the guest can't have a connection to port {}: {error}", header.to_port);
                self.refuse(header);
            }
        }
    }

    /// Hands the guest what there is for it, for as long as it has room.
    fn send(&mut self, ring: &mut Ring) -> Result<(), Fault> {
        ring.listen(false)?;
        for _ in 0..TURN {
            if self.answers.is_empty() && self.ready.is_empty() {
                return ring.notify();
            }
            let Some(chain) = ring.pop()? else {
                if ring.listen(true)? {
                    continue;
                }
                return ring.notify();
            };
            self.send_one(ring, chain)?;
        }
        ring.ring_again()?;
        ring.notify()
    }

    fn send_one(&mut self, ring: &mut Ring, mut chain: Chain) -> Result<(), Fault> {
        if chain.writable.len() < packet::LENGTH {
            return Err(Fault::Request("to receive with no room for a header"));
        }
        let memory = ring.memory().clone();
        let mut room = chain.writable.split_off(packet::LENGTH);
        let header = if let Some(header) = self.answers.pop_front() {
            header
        } else {
            let Some(token) = self.ready.pop_front() else {
                ring.put_back(chain);
                return Ok(());
            };
            let packet = match self.connections.get_mut(&token) {
                // A guest without room for data will not have more for the next packet: nothing can be sent to it.
                Some(_) if room.is_empty() => return Err(Fault::Request("to receive with no room for data")),
                Some(connection) => {
                    connection.queued = false;
                    connection.next(self.cid, &memory, &mut room)
                }
                None => Packet::Nothing,
            };
            match packet {
                Packet::Send(header) => {
                    self.queue(token);
                    header
                }
                Packet::Last(header) => {
                    self.remove(token);
                    header
                }
                Packet::Nothing => {
                    ring.put_back(chain);
                    return Ok(());
                }
            }
        };
        chain.writable.write(&memory, &header.encode());
        Ok(ring.push(chain, packet::LENGTH as u32 + header.length)?)
    }

    /// Tells a guest that was copied that its connections were not.
    fn tell(&mut self, ring: &mut Ring) -> Result<(), Fault> {
        if self.renewed
            && let Some(mut chain) = ring.pop()?
        {
            let memory = ring.memory().clone();
            let written = chain.writable.write(&memory, &TRANSPORT_RESET);
            ring.push(chain, written as u32)?;
            self.renewed = false;
        }
        ring.notify()
    }

    /// Everything that can be done with the queues now.
    fn pump(&mut self, rings: &mut [Ring], events: &Events) -> Result<(), Fault> {
        let [receive, send, event] = rings else { return Ok(()) };
        self.send(receive)?;
        send.serve(|memory, chain| self.take(memory, chain, events))?;
        let was_full = self.answers.len() >= ANSWERS;
        self.send(receive)?;
        if was_full && self.answers.len() < ANSWERS {
            send.ring_again()?;
        }
        self.tell(event)
    }
}

/// Connects to a Unix socket, and does not wait for its owner to have time.
fn reach(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    // SAFETY: the descriptor is a connected Unix stream socket that nothing else owns any more.
    Ok(unsafe { UnixStream::from_raw_fd(socket.into_raw_fd()) })
}

/// Whether the other end can neither send nor receive.
fn is_gone(stream: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut wanted = [PollFd::new(stream, PollFlags::empty())];
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
    poll(&mut wanted, PollTimeout::ZERO).is_ok()
        && wanted.iter().filter_map(PollFd::revents).any(|events| events.intersects(gone))
}

impl VirtioDevice for Vsock {
    fn kind(&self) -> Kind {
        Kind::Vsock
    }

    /// Packets to the guest, packets from it, events for it.
    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE, QUEUE, 16]
    }

    fn config(&self) -> Arc<ConfigSpace> {
        ConfigSpace::with_own(self.cid.to_le_bytes().to_vec(), 0..8)
    }

    fn activate(&mut self, _: u64, events: &Events) -> io::Result<()> {
        events.add(&self.listener, LISTENER, Interest::Read)
    }

    fn queue_ready(&mut self, queue: usize, rings: &mut [Ring], events: &Events) -> Result<(), Fault> {
        match (queue, rings) {
            (EVENT, [_, _, event]) => self.tell(event),
            (RECEIVE | SEND, rings) => self.pump(rings, events),
            _ => Ok(()),
        }
    }

    fn file_ready(&mut self, token: u32, rings: &mut [Ring], events: &Events) -> Result<(), Fault> {
        if token == LISTENER {
            self.accept(events);
        } else {
            self.stir(token);
        }
        match rings {
            [receive, ..] => self.send(receive),
            [] => Ok(()),
        }
    }

    fn restored(&mut self) {
        self.renewed = true;
    }

    fn reset(&mut self) {
        self.connections.clear();
        self.ports.clear();
        self.ready.clear();
        self.answers.clear();
        self.renewed = false;
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // somebody may have removed it before
    }
}
