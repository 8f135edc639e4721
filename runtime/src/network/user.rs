//! The network of an ordinary user's container.
//!
//! Who is not root may make a network namespace, inside a user namespace, but no cable out of it: the other end would be
//! on the host, where he has no rights. A program in user space helps: pasta(1) opens a virtual card (tap) inside, reads
//! the packets that come out of it, and says the same outside through ordinary sockets, as any program of this user may.
//! It is started beside a container whose namespaces are there. Some versions end with them and some hold on to them, so
//! it is ended with the container.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::info_span;

use super::claim;
use super::error::NetworkError;
use super::port::{PortWish, Protocol, Published};
use crate::container::ProcessId;

/// The program, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pasta(PathBuf);

impl Pasta {
    /// Looks for it.
    pub fn find() -> Result<Self, NetworkError> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&folders).map(|folder| folder.join("pasta")).find(|path| path.is_file());
        found.map(Self).ok_or(NetworkError::NoPasta)
    }

    /// Gives the process's namespaces a network, and leads ports of the host to it, which are returned. The program goes on
    /// in the background until it is [ended](Pasta::end). It writes its number into a file, `note`, that is gone afterwards.
    pub fn serve(
        &self,
        pid: i32,
        ports: &[PortWish],
        note: &Path,
    ) -> Result<(ProcessId, Vec<Published>), NetworkError> {
        claim::check(ports)?;
        // What is bound here is let go again: pasta binds it itself, and says so if somebody was faster.
        let ports: Vec<Published> = claim::find_ports(ports, &[])?.iter().map(|bound| bound.port).collect();
        self.start(pid, &ports, note)?;
        let number = fs::read_to_string(note).ok().and_then(|text| text.trim().parse().ok());
        let _ = fs::remove_file(note);
        let process = number.and_then(|number| ProcessId::of(Pid::from_raw(number)));
        let gone = || NetworkError::Pasta { words: "it ended at once".to_owned() };
        Ok((process.ok_or_else(gone)?, ports))
    }

    /// Ends one that serves. It may have ended by itself.
    pub fn end(process: &ProcessId) {
        let _ = process.signal(Signal::SIGTERM as i32);
    }

    fn start(&self, pid: i32, ports: &[Published], note: &Path) -> Result<(), NetworkError> {
        let _span = info_span!(
            "network.pasta",
            call = "execve(pasta)",
            why = "who is not root has no cable to the host: a program carries the packets through ordinary sockets"
        )
        .entered();
        let failed = |source: io::Error| NetworkError::Pasta { words: source.to_string() };
        let output = Command::new(&self.0)
            .args(arguments(ports))
            .arg("--pid")
            .arg(note)
            .arg(pid.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed without a word");
        Err(NetworkError::Pasta { words: last.trim().to_owned() })
    }
}

/// As passt(1) has them.
fn arguments(ports: &[Published]) -> Vec<String> {
    let mut all: Vec<String> =
        ["--config-net", "--quiet", "--no-map-gw", "-T", "none", "-U", "none"].map(str::to_owned).into();
    for (option, protocol) in [("-t", Protocol::Tcp), ("-u", Protocol::Udp)] {
        let mut none = true;
        for port in ports.iter().filter(|port| port.protocol == protocol) {
            none = false;
            let address = Some(port.host_address).filter(|address| !address.is_unspecified());
            let address = address.map(|address| format!("{address}/")).unwrap_or_default();
            all.extend([option.to_owned(), format!("{address}{}:{}", port.host_port, port.container_port)]);
        }
        if none {
            all.extend([option.to_owned(), "none".to_owned()]);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::arguments;
    use crate::network::port::{Protocol, Published};
    use std::net::Ipv4Addr;

    #[test]
    fn ports_are_said_as_pasta_wants_them() {
        let port = |protocol, host_address, host_port, container_port| Published {
            container_port,
            protocol,
            host_address,
            host_port,
        };
        let ports =
            [port(Protocol::Tcp, Ipv4Addr::LOCALHOST, 8080, 80), port(Protocol::Udp, Ipv4Addr::UNSPECIFIED, 5353, 53)];
        let all = arguments(&ports).join(" ");
        assert!(all.ends_with("-t 127.0.0.1/8080:80 -u 5353:53"), "{all}");
        assert!(arguments(&[]).join(" ").ends_with("-t none -u none"));
    }
}
