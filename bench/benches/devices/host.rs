//! The host's ends: of the guests' disk, of their cable and of their streams.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::Done;
use super::guest::BULK;

/// What is behind the disk: a file with all of its bytes in place, so that no monitor is the first to write one.
pub(crate) fn disk(folder: &Path) -> io::Result<PathBuf> {
    let file = folder.join("disk");
    fs::write(&file, vec![0xa5; BULK as usize])?;
    Ok(file)
}

/// The cable between the host and the guest whose turn it is, with a name and addresses that no other run has.
pub(crate) struct Cable {
    pub(crate) tap: String,
    /// The host's address; the guest's is the next.
    first: Ipv4Addr,
}

impl Cable {
    /// Of this process: its number makes the name, and with a network's size of four the addresses.
    pub(crate) fn of_this_run() -> Self {
        let number = std::process::id();
        // 10.96.0.0/12, of which each network of four addresses has its number; the first of them is the network's own.
        let network = u32::from(Ipv4Addr::new(10, 96, 0, 0)) + number % (1 << 18) * 4;
        Self { tap: format!("isolab{number}"), first: Ipv4Addr::from(network + 1) }
    }

    pub(crate) fn host(&self) -> Ipv4Addr {
        self.first
    }

    pub(crate) fn guest(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first) + 1)
    }

    /// Gives the host's end its address as soon as the monitor has made it.
    pub(crate) fn switch_on(&self) -> Done<()> {
        let (tap, deadline) = (&self.tap, Instant::now() + Duration::from_secs(20));
        while !Path::new("/sys/class/net").join(tap).exists() {
            if Instant::now() > deadline {
                return Err(format!("there is no {tap}").into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        let (host, mask) = (self.host().to_string(), "255.255.255.252");
        let status = Command::new("busybox").args(["ifconfig", tap, &host, "netmask", mask, "up"]).status()?;
        if status.success() { Ok(()) } else { Err(format!("busybox ifconfig {tap}: {status}").into()) }
    }
}

/// Listens, and meets each who comes on a thread of its own, for as long as this process lives.
fn listen(meet: fn(TcpStream) -> io::Result<()>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let at = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // One who goes in the middle of it is seen by the guest's half.
            thread::spawn(move || meet(stream));
        }
    });
    Ok(at)
}

/// Sends to whoever asks.
pub(crate) fn source() -> io::Result<SocketAddr> {
    listen(|mut stream| {
        stream.read_exact(&mut [0])?;
        let buffer = vec![0x5a; 256 << 10];
        (0..BULK / buffer.len() as u64).try_for_each(|_| stream.write_all(&buffer))
    })
}

/// Takes what comes, and says so at its end.
pub(crate) fn sink() -> io::Result<SocketAddr> {
    listen(|mut stream| {
        let mut buffer = vec![0; 256 << 10];
        while stream.read(&mut buffer)? > 0 {}
        stream.write_all(b"k")
    })
}
