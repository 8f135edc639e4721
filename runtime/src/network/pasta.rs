//! pasta(1): a tap device inside, and for each connection of the container an ordinary socket outside, without a TCP/IP of
//! its own in between. It takes the host's addresses and routes for the container's.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::Pid;
use tracing::info_span;

use super::error::NetworkError;
use super::port::{Protocol, Published};
use super::user::last_words;
use crate::container::ProcessId;

/// The program's name.
pub(super) const NAME: &str = "pasta";

/// Starts it. It goes into the background by itself, and writes its number into a file, `note`, that is gone afterwards.
pub(super) fn start(program: &Path, pid: i32, ports: &[Published], note: &Path) -> Result<ProcessId, NetworkError> {
    let _span = info_span!(
        "network.pasta",
        call = "execve(pasta)",
        why = "who is not root has no cable to the host: a program carries the packets through ordinary sockets"
    )
    .entered();
    let failed = |words: String| NetworkError::Carrier { name: NAME, words };
    let output = Command::new(program)
        .args(arguments(ports))
        .arg("--pid")
        .arg(note)
        .arg(pid.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|source: io::Error| failed(source.to_string()))?;
    if !output.status.success() {
        return Err(failed(last_words(&String::from_utf8_lossy(&output.stderr))));
    }
    let number = fs::read_to_string(note).ok().and_then(|text| text.trim().parse().ok());
    let _ = fs::remove_file(note);
    let process = number.and_then(|number| ProcessId::of(Pid::from_raw(number)));
    process.ok_or_else(|| failed("it ended at once".to_owned()))
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
