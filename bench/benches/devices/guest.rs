//! The guest's half: moves bytes over its disk and its card, and says how long each took.
//!
//! The time is the guest's own, which both monitors' guests have from the same clock of KVM (`kvm-clock`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

/// What it is called with.
pub(crate) const IN_THE_GUEST: &str = "in-the-guest";
/// What a line begins with that tells of a deed.
pub(crate) const TOOK: &str = "took:";
/// The last line.
pub(crate) const DONE: &str = "all done";
/// How often each deed is done in one machine.
pub(crate) const TIMES: usize = 3;
/// How much is moved by large pieces, in bytes.
pub(crate) const BULK: u64 = 32 << 20;
/// How many small pieces are moved.
const PIECES: u64 = 500;
const KIB: usize = 1 << 10;

/// What is done: its name, and how.
type Deed<'a> = (&'static str, &'a dyn Fn() -> io::Result<()>);

/// Does everything, with the host's ends at `source`, which sends, and `sink`, which takes.
pub(crate) fn work(source: SocketAddr, sink: SocketAddr) -> io::Result<()> {
    // Past the guest's own cache: each piece is a request to the device.
    let disk = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open("/dev/vda")?;
    let deeds: [Deed; 6] = [
        ("disk-read-64k", &|| read(&disk, 64 * KIB, BULK)),
        ("disk-write-64k", &|| write(&disk, 64 * KIB, BULK)),
        ("disk-read-4k", &|| read(&disk, 4 * KIB, PIECES * 4 * KIB as u64)),
        ("disk-write-4k", &|| write(&disk, 4 * KIB, PIECES * 4 * KIB as u64)),
        ("net-to-guest", &|| take(source)),
        ("net-to-host", &|| give(sink)),
    ];
    wait_for(source)?;
    for _ in 0..TIMES {
        for (name, deed) in &deeds {
            let start = Instant::now();
            deed()?;
            println!("{TOOK} {name} {}", start.elapsed().as_nanos());
        }
    }
    println!("{DONE}");
    Ok(())
}

/// A page's border is what the device wants of memory that is moved past the cache.
struct Aligned(Vec<u8>, usize);

impl Aligned {
    fn new(size: usize) -> Self {
        let bytes = vec![0x5a; size + 4 * KIB];
        let start = bytes.as_ptr().align_offset(4 * KIB);
        Self(bytes, start)
    }

    fn bytes(&mut self, size: usize) -> &mut [u8] {
        &mut self.0[self.1..self.1 + size]
    }
}

fn read(disk: &File, piece: usize, all: u64) -> io::Result<()> {
    let mut buffer = Aligned::new(piece);
    (0..all).step_by(piece).try_for_each(|at| disk.read_exact_at(buffer.bytes(piece), at))
}

fn write(disk: &File, piece: usize, all: u64) -> io::Result<()> {
    let mut buffer = Aligned::new(piece);
    (0..all).step_by(piece).try_for_each(|at| disk.write_all_at(buffer.bytes(piece), at))
}

/// The host gives its end of the cable an address while the guest boots.
fn wait_for(host: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpStream::connect_timeout(&host, Duration::from_millis(500)) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Takes what the host sends, to its end.
fn take(source: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(source)?;
    stream.write_all(b"g")?;
    let mut buffer = vec![0; 256 * KIB];
    let mut all = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 if all == BULK => return Ok(()),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => all += count as u64,
        }
    }
}

/// Sends as much to the host, and waits until it has all of it.
fn give(sink: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(sink)?;
    let buffer = vec![0x5a; 256 * KIB];
    for _ in 0..BULK / buffer.len() as u64 {
        stream.write_all(&buffer)?;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0])
}
