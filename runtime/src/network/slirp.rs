//! slirp4netns(1): a tap device inside, and behind it a TCP/IP in user space that ends the container's connections and makes
//! ordinary ones outside in their place.
//!
//! It stays in the foreground, so it is left running. It says by a byte when the card is there, and hears through a socket
//! which ports of the host it shall lead inside (slirp4netns(1), "API SOCKET").

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::OFlag;
use nix::unistd::{Pid, pipe2};
use serde_json::{Value, json};
use tracing::info_span;

use super::error::NetworkError;
use super::port::Published;
use super::user::last_words;
use crate::container::{ProcessId, inheritable};

/// The program's name.
pub(super) const NAME: &str = "slirp4netns";
/// The card inside.
const CARD: &str = "tap0";
/// The largest that it can: each packet costs a turn through user space.
const MTU: &str = "65520";

/// Starts it and waits until the card is there and the ports lead inside. `note` is where its socket is meanwhile.
pub(super) fn start(program: &Path, pid: i32, ports: &[Published], note: &Path) -> Result<ProcessId, NetworkError> {
    let _span = info_span!(
        "network.slirp",
        call = "execve(slirp4netns)",
        why = "who is not root has no cable to the host: a program ends each connection and makes another one outside"
    )
    .entered();
    let complaints = Removed(note.with_extension("err"));
    let socket = Removed(note.to_owned());
    let _ = fs::remove_file(&socket.0);
    let mut started = Started::new(program, pid, &socket.0, &complaints.0)?;
    for port in ports {
        ask(&socket.0, &wish(port)).map_err(|error| failed(error.to_string()))?;
    }
    let process = ProcessId::of(Pid::from_raw(started.child.id() as i32));
    let process = process.ok_or_else(|| failed("it ended at once".to_owned()))?;
    started.stays = true;
    Ok(process)
}

/// A file that is gone with this.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_file(&self.0);
    }
}

/// The program while it begins; ended with this, unless it stays.
struct Started {
    child: Child,
    stays: bool,
}

impl Started {
    /// Starts it, and returns when it says that the card is there.
    fn new(program: &Path, pid: i32, socket: &Path, complaints: &Path) -> Result<Self, NetworkError> {
        let (ready, says) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed(errno.to_string()))?;
        let told = inheritable(&says).map_err(|errno| failed(errno.to_string()))?;
        drop(says);
        let child = Command::new(program)
            .args(["--configure", "--disable-host-loopback", "--mtu", MTU, "--ready-fd"])
            .arg(told.as_raw_fd().to_string())
            .arg("--api-socket")
            .arg(socket)
            .args([&pid.to_string(), CARD])
            // What a terminal's keys send is not meant for it.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(complaints).map_err(|error| failed(error.to_string()))?)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        drop(told);
        let started = Self { child, stays: false };
        match File::from(ready).read(&mut [0]) {
            Ok(1) => Ok(started),
            // It ended without a word here, and has said why there.
            _ => Err(failed(last_words(&fs::read_to_string(complaints).unwrap_or_default()))),
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.stays {
            // It may have ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Asks it for one thing.
fn ask(socket: &Path, wish: &Value) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(wish.to_string().as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let answer: Value = serde_json::from_str(&answer)?;
    match answer.get("error") {
        None => Ok(()),
        Some(error) => Err(io::Error::other(error["desc"].as_str().unwrap_or("it refused").to_owned())),
    }
}

fn failed(words: String) -> NetworkError {
    NetworkError::Carrier { name: NAME, words }
}

/// A port, as it wants to hear of it.
fn wish(port: &Published) -> Value {
    json!({ "execute": "add_hostfwd", "arguments": {
        "proto": port.protocol.to_string(),
        "host_addr": port.host_address,
        "host_port": port.host_port,
        "guest_port": port.container_port,
    } })
}

#[cfg(test)]
mod tests {
    use super::wish;
    use crate::network::port::{Protocol, Published};
    use std::net::Ipv4Addr;

    #[test]
    fn a_port_is_said_as_slirp4netns_wants_it() {
        let port = Published {
            container_port: 53,
            protocol: Protocol::Udp,
            host_address: Ipv4Addr::LOCALHOST,
            host_port: 5353,
        };
        let text = r#"{"arguments":{"guest_port":53,"host_addr":"127.0.0.1","host_port":5353,"proto":"udp"},"execute":"add_hostfwd"}"#;
        assert_eq!(wish(&port).to_string(), text);
    }
}
