//! Sockets between guest and host, with Unix sockets at one end and packets at the other.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use isolab_vmm::devices::virtio::config::ConfigSpace;
use isolab_vmm::devices::virtio::events::Events;
use isolab_vmm::devices::virtio::queue::Ring;
use isolab_vmm::devices::virtio::vsock::{Vsock, VsockError};
use isolab_vmm::devices::virtio::{Fault, Kind, VirtioDevice};
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::driver::Driver;
use crate::needs::{Done, trial};

const RECEIVE: usize = 0;
const SEND: usize = 1;
const EVENT: usize = 2;
const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const SHUTDOWN: u16 = 4;
const DATA: u16 = 5;
const CREDIT: u16 = 6;
const CREDIT_REQUEST: u16 = 7;
/// How much the host has room for: what its packets say.
const HOST_ROOM: usize = 128 << 10;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_host_reaches_a_port_of_the_guest", &[], host_to_guest),
        trial("the_guest_reaches_a_socket_of_the_host", &[], guest_to_host),
        trial("neither_side_has_more_on_the_way_than_the_other_has_room_for", &[], credit),
        trial("a_megabyte_each_way_arrives_as_it_was_sent", &[], bulk),
        trial("a_half_that_is_closed_leaves_the_other_half", &[], half_closed),
        trial("a_program_of_the_host_that_ends_is_heard_to_the_end", &[], closed),
        trial("a_connection_that_is_half_closed_lets_its_device_sleep", &[], half_closed_and_still),
        trial("a_guest_without_room_for_word_of_a_hang_up_lets_its_device_sleep", &[], no_room_for_word),
        trial("what_nobody_listens_to_is_refused", &[], refused),
        trial("packets_that_make_no_sense_are_answered_or_stop_the_device", &[], nonsense),
        trial("answers_to_a_guest_that_does_not_take_them_are_bounded", &[], flood),
        trial("a_program_that_does_not_say_what_it_wants_is_let_go", &[], no_greeting),
        trial("a_copied_guest_hears_that_its_connections_are_gone", &[], copied),
        trial("a_socket_that_is_in_use_or_left_behind", &[], sockets),
    ]
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Packet {
    from_port: u32,
    to_port: u32,
    op: u16,
    flags: u32,
    passed: u32,
    data: Vec<u8>,
}

/// The guest's end.
struct Guest {
    driver: Driver,
    folder: TempDir,
    /// What the guest says that it has room for, and has passed on.
    room: u32,
    passed: u32,
    /// How often the device was woken by a stream.
    stirs: Arc<AtomicUsize>,
}

/// The device, and how often its thread has to look at a stream.
struct Counted {
    vsock: Vsock,
    stirs: Arc<AtomicUsize>,
}

impl VirtioDevice for Counted {
    fn kind(&self) -> Kind {
        self.vsock.kind()
    }

    fn queue_sizes(&self) -> &[u16] {
        self.vsock.queue_sizes()
    }

    fn config(&self) -> Arc<ConfigSpace> {
        self.vsock.config()
    }

    fn activate(&mut self, features: u64, events: &Events) -> io::Result<()> {
        self.vsock.activate(features, events)
    }

    fn queue_ready(&mut self, queue: usize, rings: &mut [Ring], events: &Events) -> Result<(), Fault> {
        self.vsock.queue_ready(queue, rings, events)
    }

    fn file_ready(&mut self, token: u32, rings: &mut [Ring], events: &Events) -> Result<(), Fault> {
        self.stirs.fetch_add(1, Ordering::Relaxed);
        self.vsock.file_ready(token, rings, events)
    }

    fn reset(&mut self) {
        self.vsock.reset();
    }
}

impl Guest {
    fn new() -> std::io::Result<Self> {
        let folder = TempDir::new()?;
        let stirs = Arc::<AtomicUsize>::default();
        let vsock = Vsock::new(3, &folder.path().join("vsock")).unwrap();
        let driver = Driver::start(Box::new(Counted { vsock, stirs: stirs.clone() }));
        let mut guest = Self { driver, folder, room: 1 << 20, passed: 0, stirs };
        guest.offer(32);
        Ok(guest)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("vsock")
    }

    /// Gives the device buffers to fill.
    fn offer(&mut self, count: usize) {
        for _ in 0..count {
            self.driver.add(RECEIVE, &[], &[44, 4096]);
        }
        self.driver.ring(RECEIVE);
    }

    fn raw(
        &self,
        (from, to): (u64, u64),
        ports: (u32, u32),
        (kind, op): (u16, u16),
        flags: u32,
        length: usize,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(from.to_le_bytes());
        bytes.extend(to.to_le_bytes());
        for number in [ports.0, ports.1, length as u32] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(kind.to_le_bytes());
        bytes.extend(op.to_le_bytes());
        for number in [flags, self.room, self.passed] {
            bytes.extend(number.to_le_bytes());
        }
        bytes
    }

    fn send(&mut self, ports: (u32, u32), op: u16, flags: u32, data: &[u8]) {
        let header = self.raw((3, 2), ports, (1, op), flags, data.len());
        let whole: Vec<&[u8]> = [&header[..], data].into_iter().filter(|part| !part.is_empty()).collect();
        assert_eq!(self.driver.ask(SEND, &whole, &[]).written, 0);
    }

    fn packet(&mut self, longest: Duration) -> Option<Packet> {
        let answer = self.driver.wait_for(RECEIVE, longest)?;
        self.offer(1);
        let number = |at: usize| u32::from_le_bytes(answer.data[at..at + 4].try_into().unwrap());
        assert_eq!((number(0), number(4), number(8), number(12)), (2, 0, 3, 0), "from the host, to the guest");
        let length = number(24) as usize;
        assert_eq!(answer.written, 44 + length);
        assert_eq!(number(28) & 0xffff, 1, "a stream");
        Some(Packet {
            from_port: number(16),
            to_port: number(20),
            op: (number(28) >> 16) as u16,
            flags: number(32),
            passed: number(40),
            data: answer.data[44..44 + length].to_vec(),
        })
    }

    /// The next packet that is not only about credit.
    fn next(&mut self) -> Packet {
        loop {
            let packet = self.packet(Duration::from_secs(10)).expect("the host says nothing");
            if packet.op != CREDIT {
                return packet;
            }
        }
    }

    /// How often the device is woken by its streams in a tenth of a second in which nobody does anything.
    fn stirs_in_peace(&self) -> usize {
        let before = self.stirs.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(100));
        self.stirs.load(Ordering::Relaxed) - before
    }

    fn is_silent(&mut self) -> bool {
        self.packet(Duration::from_millis(50)).is_none()
    }

    /// A program of the host connects to this port; its stream, and the connection's ports as the guest says them.
    fn reached(&mut self, port: u32) -> std::io::Result<(UnixStream, (u32, u32))> {
        let mut stream = UnixStream::connect(self.path())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        writeln!(stream, "CONNECT {port}")?;
        let request = self.next();
        assert_eq!((request.op, request.to_port), (REQUEST, port));
        let ports = (port, request.from_port);
        self.send(ports, RESPONSE, 0, &[]);
        let mut line = String::new();
        let mut bytes = [0];
        while !line.ends_with('\n') {
            stream.read_exact(&mut bytes)?;
            line.push(bytes[0].into());
        }
        assert_eq!(line, format!("OK {}\n", request.from_port));
        Ok((stream, ports))
    }
}

fn host_to_guest() -> Done {
    let mut guest = Guest::new()?;
    let (mut stream, ports) = guest.reached(5000)?;
    stream.write_all(b"to the guest")?;
    let packet = guest.next();
    assert_eq!((packet.op, &packet.data[..]), (DATA, &b"to the guest"[..]));
    assert_eq!((packet.to_port, packet.from_port), ports);
    guest.send(ports, DATA, 0, b"to the host");
    let mut bytes = [0; 11];
    stream.read_exact(&mut bytes)?;
    assert_eq!(&bytes, b"to the host");
    // What is behind the greeting in the same write is data.
    let mut hasty = UnixStream::connect(guest.path())?;
    hasty.write_all(b"CONNECT 6000\nat once")?;
    let request = guest.next();
    guest.send((6000, request.from_port), RESPONSE, 0, &[]);
    assert_eq!(guest.next().data, b"at once");
    Ok(())
}

fn listen(guest: &Guest, port: u32) -> std::io::Result<UnixListener> {
    UnixListener::bind(format!("{}_{port}", guest.path().display()))
}

fn guest_to_host() -> Done {
    let mut guest = Guest::new()?;
    let listener = listen(&guest, 52)?;
    guest.send((1024, 52), REQUEST, 0, &[]);
    let answer = guest.next();
    assert_eq!((answer.op, answer.from_port, answer.to_port), (RESPONSE, 52, 1024));
    let (mut stream, _) = listener.accept()?;
    guest.send((1024, 52), DATA, 0, b"a question\n");
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    assert_eq!(line, "a question\n");
    stream.write_all(b"an answer")?;
    assert_eq!(guest.next().data, b"an answer");
    guest.send((1024, 52), SHUTDOWN, 3, &[]);
    assert_eq!(guest.next().op, RESET);
    assert_eq!(stream.read(&mut [0; 10])?, 0);
    // The ports may be used again.
    guest.send((1024, 52), REQUEST, 0, &[]);
    assert_eq!(guest.next().op, RESPONSE);
    Ok(())
}

fn credit() -> Done {
    let mut guest = Guest::new()?;
    guest.room = 1000;
    let (mut stream, ports) = guest.reached(7)?;
    stream.write_all(&[b'x'; 2500])?;
    let mut got = 0;
    while got < 1000 {
        got += guest.next().data.len();
    }
    assert_eq!(got, 1000);
    assert_eq!(guest.next().op, CREDIT_REQUEST, "it asks once for more");
    assert!(guest.is_silent());
    guest.passed = 600;
    guest.send(ports, CREDIT, 0, &[]);
    assert_eq!(guest.next().data.len(), 600);
    guest.next();
    guest.passed = 1600;
    guest.send(ports, CREDIT, 0, &[]);
    assert_eq!(guest.next().data.len(), 900);
    // The other way: nobody reads, so what is sent is kept, until it is too much.
    guest.send(ports, CREDIT_REQUEST, 0, &[]);
    let start = guest.packet(Duration::from_secs(5)).ok_or("no word of credit")?;
    assert_eq!((start.op, start.passed), (CREDIT, 0));
    let mut sent = 0;
    let mut passed;
    loop {
        guest.send(ports, CREDIT_REQUEST, 0, &[]);
        passed = loop {
            // One that was sent for its own sake may be before the one that was asked for.
            let packet = guest.packet(Duration::from_secs(5)).ok_or("no word of credit")?;
            if guest.is_silent() {
                break packet.passed as usize;
            }
        };
        if HOST_ROOM - (sent - passed) < 4096 {
            break;
        }
        guest.send(ports, DATA, 0, &[7; 4096]);
        sent += 4096;
    }
    assert!(sent > HOST_ROOM, "the stream takes some too");
    guest.send(ports, DATA, 0, &[7; 4096]);
    assert_eq!(guest.next().op, RESET, "more than there is room for");
    Ok(())
}

fn bulk() -> Done {
    let mut guest = Guest::new()?;
    let (mut stream, ports) = guest.reached(7)?;
    let bytes: Vec<u8> = (0..1 << 20).map(|place: u32| (place.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut writer = stream.try_clone()?;
    let expected = bytes.clone();
    let echo = std::thread::spawn(move || {
        let mut all = vec![0; expected.len()];
        stream.read_exact(&mut all).unwrap();
        assert!(all == expected);
    });
    let sent = bytes.clone();
    let source = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let (mut got, mut sent, mut passed) = (Vec::new(), 0, 0);
    while got.len() < bytes.len() || passed < bytes.len() {
        if sent < bytes.len() && HOST_ROOM - (sent - passed) >= 3000 {
            let end = (sent + 3000).min(bytes.len());
            guest.send(ports, DATA, 0, &bytes[sent..end]);
            sent = end;
        }
        let longest = if sent < bytes.len() { Duration::from_millis(1) } else { Duration::from_millis(200) };
        let Some(packet) = guest.packet(longest) else {
            guest.send(ports, CREDIT_REQUEST, 0, &[]);
            continue;
        };
        passed = packet.passed as usize;
        got.extend(packet.data);
        guest.passed = got.len() as u32;
        if got.len() % (64 << 10) < 4096 {
            guest.send(ports, CREDIT, 0, &[]);
        }
    }
    assert!(got == bytes);
    source.join().map_err(|_| "the host's writer failed")?;
    echo.join().map_err(|_| "the host's reader failed")?;
    Ok(())
}

fn half_closed() -> Done {
    let mut guest = Guest::new()?;
    let (mut stream, ports) = guest.reached(7)?;
    stream.write_all(b"all I have to say")?;
    stream.shutdown(Shutdown::Write)?;
    assert_eq!(guest.next().data, b"all I have to say");
    let packet = guest.next();
    assert_eq!((packet.op, packet.flags), (SHUTDOWN, 2));
    guest.send(ports, DATA, 0, b"the answer");
    guest.send(ports, SHUTDOWN, 2, &[]);
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    assert_eq!(text, "the answer");
    // Both halves are closed, and the guest is told; it ends the connection.
    let packet = guest.next();
    assert_eq!((packet.op, packet.flags), (SHUTDOWN, 3));
    guest.send(ports, RESET, 0, &[]);
    assert!(guest.is_silent());
    Ok(())
}

fn closed() -> Done {
    let mut guest = Guest::new()?;
    let (mut stream, ports) = guest.reached(7)?;
    guest.send(ports, DATA, 0, b"never read");
    stream.write_all(&[b'x'; 10_000])?;
    drop(stream);
    let mut got = 0;
    let mut flags = 0;
    while flags != 3 {
        let packet = guest.next();
        match packet.op {
            DATA => got += packet.data.len(),
            SHUTDOWN => flags |= packet.flags,
            // The kernel tells a writer of a Unix socket that its data was not read by ECONNRESET, and its own is lost.
            other => panic!("{other}"),
        }
    }
    guest.send(ports, DATA, 0, b"to nobody");
    guest.send(ports, RESET, 0, &[]);
    assert!(got == 10_000 || got == 0, "{got}");
    guest.send(ports, DATA, 0, b"to nobody");
    assert_eq!(guest.next().op, RESET);
    Ok(())
}

/// Each end in turn is done with sending; neither needs to be looked at until something happens.
fn half_closed_and_still() -> Done {
    let mut guest = Guest::new()?;
    let (mut stream, ports) = guest.reached(7)?;
    guest.send(ports, SHUTDOWN, 2, &[]);
    assert_eq!(stream.read(&mut [0; 10])?, 0);
    assert!(guest.stirs_in_peace() < 5, "the guest's half is closed");
    stream.write_all(b"and yet")?;
    assert_eq!(guest.next().data, b"and yet");
    drop(stream);
    assert_eq!(guest.next().op, SHUTDOWN);
    // A guest that doesn't answer to that costs nothing either.
    assert!(guest.stirs_in_peace() < 5, "both are closed");
    Ok(())
}

/// The host's end hangs up on a guest that has said that it sends no more, and has no buffer for a packet.
fn no_room_for_word() -> Done {
    let mut guest = Guest::new()?;
    let (stream, ports) = guest.reached(7)?;
    guest.send(ports, SHUTDOWN, 2, &[]);
    // Connections that nobody in the guest answers take one buffer each, until none is left.
    let path = guest.path();
    let knock = || -> Result<UnixStream, Box<dyn std::error::Error>> {
        let mut stream = UnixStream::connect(&path)?;
        writeln!(stream, "CONNECT 9")?;
        Ok(stream)
    };
    let _knocking = (0..40).map(|_| knock()).collect::<Result<Vec<_>, _>>()?;
    let full = |guest: &Guest| guest.driver.shown(RECEIVE) == 32;
    for _ in 0..500 {
        if full(&guest) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(full(&guest), "{} buffers are used", guest.driver.shown(RECEIVE));
    drop(stream);
    let stirs = guest.stirs_in_peace();
    assert!(stirs < 60, "{stirs} times in a tenth of a second");
    assert_eq!(guest.stirs_in_peace(), 0, "it waits for room, and for nothing else");
    let word = loop {
        let packet = guest.next();
        if packet.op != REQUEST {
            break packet;
        }
    };
    assert_eq!((word.op, word.to_port), (SHUTDOWN, ports.0), "told once there is room");
    Ok(())
}

fn refused() -> Done {
    let mut guest = Guest::new()?;
    guest.send((1, 99), REQUEST, 0, &[]);
    let answer = guest.next();
    assert_eq!((answer.op, answer.from_port, answer.to_port), (RESET, 99, 1));
    // Nobody in the guest listens.
    let mut stream = UnixStream::connect(guest.path())?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    writeln!(stream, "CONNECT 1")?;
    let request = guest.next();
    guest.send((1, request.from_port), RESET, 0, &[]);
    assert_eq!(stream.read(&mut [0; 10])?, 0);
    Ok(())
}

fn nonsense() -> Done {
    let mut guest = Guest::new()?;
    let (_stream, ports) = guest.reached(7)?;
    let other = (70, 71);
    // Of a connection that is not there; of another kind; to somebody else; in the name of somebody else; an end of nothing.
    let packets = [
        (guest.raw((3, 2), other, (1, DATA), 0, 0), true),
        (guest.raw((3, 2), other, (2, REQUEST), 0, 0), true),
        (guest.raw((3, 9), other, (1, REQUEST), 0, 0), true),
        (guest.raw((4, 2), other, (1, REQUEST), 0, 0), false),
        (guest.raw((3, 2), other, (1, RESET), 0, 0), false),
    ];
    for (packet, answered) in packets {
        guest.driver.ask(SEND, &[&packet], &[]);
        // The refusal of what went to somebody else comes from there, so it is looked at as it is.
        let answer = guest.driver.wait_for(RECEIVE, Duration::from_millis(if answered { 5000 } else { 50 }));
        assert_eq!(answer.is_some(), answered);
        guest.offer(usize::from(answered));
    }
    guest.send(ports, 77, 0, &[]);
    assert_eq!(guest.next().op, RESET, "what is not known ends its connection");
    let large = vec![0; 65_537];
    for (data, length) in [(&b"abc"[..], 4), (&large[..], 65_537), (&b"a"[..], u32::MAX as usize)] {
        let header = guest.raw((3, 2), ports, (1, DATA), 0, length);
        guest.driver.add(SEND, &[&header, data], &[]);
        guest.driver.ring(SEND);
        guest.driver.wait_for_break_down();
        guest.driver.bring_up(u64::MAX);
    }
    guest.driver.add(SEND, &[&[0; 43]], &[]);
    guest.driver.ring(SEND);
    guest.driver.wait_for_break_down();
    guest.driver.bring_up(u64::MAX);
    guest.offer(10);
    guest.reached(8)?;
    Ok(())
}

fn flood() -> Done {
    let mut guest = Guest::new()?;
    guest.driver.bring_up(u64::MAX); // no buffer to answer into
    let packet = guest.raw((3, 2), (1, 2), (1, DATA), 0, 0);
    let mut taken = 0;
    for _ in 0..100 {
        for _ in 0..10 {
            guest.driver.add(SEND, &[&packet], &[]);
        }
        guest.driver.ring(SEND);
        let mut done = 0;
        while done < 10 && guest.driver.wait_for(SEND, Duration::from_millis(100)).is_some() {
            done += 1;
        }
        taken += done;
        if done < 10 {
            break;
        }
    }
    assert!((200..400).contains(&taken), "{taken} packets were taken");
    guest.offer(50);
    for _ in 0..200 {
        assert_eq!(guest.next().op, RESET);
    }
    Ok(())
}

fn no_greeting() -> Done {
    let guest = Guest::new()?;
    for text in ["HELLO 1\n", "CONNECT\n", "CONNECT x\n", "CONNECT 4294967296\n", "CONNECT 1 and a very long line"] {
        let mut stream = UnixStream::connect(guest.path())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(text.as_bytes())?;
        match stream.read(&mut [0; 10]) {
            Ok(count) => assert_eq!(count, 0, "{text:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{text:?}"),
        }
    }
    Ok(())
}

fn copied() -> Done {
    let mut guest = Guest::new()?;
    let (mut stream, _) = guest.reached(7)?;
    let path = guest.path();
    guest.driver.add(EVENT, &[], &[4]);
    guest.driver.save_and_restore(|| Box::new(Vsock::new(3, &path).unwrap()));
    assert_eq!(guest.driver.wait(EVENT).data, [0; 4], "all connections are gone");
    assert_eq!(stream.read(&mut [0; 10])?, 0);
    guest.reached(8)?;
    Ok(())
}

fn sockets() -> Done {
    let folder = TempDir::new()?;
    let path = folder.path().join("vsock");
    for cid in [0, 2, u64::from(u32::MAX), u64::MAX] {
        assert!(matches!(Vsock::new(cid, &path), Err(VsockError::Cid(_))));
    }
    let first = Vsock::new(3, &path)?;
    assert!(matches!(Vsock::new(3, &path), Err(VsockError::InUse(_))));
    drop(first);
    assert!(!path.exists(), "it is removed");
    drop(UnixListener::bind(&path)?); // what a killed monitor leaves behind
    drop(Vsock::new(3, &path)?);
    std::fs::write(&path, b"a file of somebody")?;
    assert!(matches!(Vsock::new(3, &path), Err(VsockError::NoSocket(_))));
    assert_eq!(std::fs::read(&path)?, b"a file of somebody");
    assert!(matches!(Vsock::new(3, Path::new("/nowhere/vsock")), Err(VsockError::Listen { .. })));
    Ok(())
}
