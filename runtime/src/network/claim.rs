//! Taking ports of the host: each is one container's, and none that a program of the host listens on.
//!
//! The rules would take a port away from whoever listens on it, silently. So each is first bound, as a server would; the
//! kernel then says whether it is free, and chooses one where any will do. What is bound stays so until the rules lead to
//! the container, that nobody else takes it in between.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};

use tracing::info_span;

use super::error::NetworkError;
use super::lease::Claim;
use super::port::{PortWish, Protocol, Published};

/// How often the kernel is asked for another port, when it chose one that is a container's.
const TRIES: usize = 200;

/// A port that is held by a socket of ours.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) port: Published,
    _socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(#[expect(dead_code, reason = "held, and let go by its end")] TcpListener),
    Udp(#[expect(dead_code, reason = "held, and let go by its end")] UdpSocket),
}

/// Finds a port of the host for each wish. `taken` are those of other containers.
pub(super) fn find_ports(wishes: &[PortWish], taken: &[Claim]) -> Result<Vec<Bound>, NetworkError> {
    if wishes.is_empty() {
        return Ok(Vec::new());
    }
    let _span = info_span!(
        "network.claim",
        call = "bind(2)",
        why = "a port that a program of the host listens on must not be led away from it; the kernel knows which are free"
    )
    .entered();
    let mut all: Vec<Bound> = Vec::new();
    for wish in wishes {
        let again = wish.preferred.and_then(|port| bind(candidate(wish, port), &all, taken).ok());
        let bound = match wish.host_ports {
            _ if again.is_some() => again,
            None => Some(any(wish, &all, taken)?),
            Some((only, last)) if only == last => Some(bind(candidate(wish, only), &all, taken)?),
            Some((first, last)) => Some(one_of(wish, first, last, &all, taken)?),
        };
        all.extend(bound);
    }
    Ok(all)
}

fn candidate(wish: &PortWish, host_port: u16) -> Published {
    let PortWish { protocol, host_address, container_port, .. } = *wish;
    Published { container_port, protocol, host_address, host_port }
}

/// Whichever port the kernel says is free.
fn any(wish: &PortWish, own: &[Bound], taken: &[Claim]) -> Result<Bound, NetworkError> {
    // Kept until one is found, so that the kernel doesn't choose it again.
    let mut unusable = Vec::new();
    for _ in 0..TRIES {
        let bound = open(candidate(wish, 0))?;
        if holder(&bound.port, own, taken).is_none() {
            return Ok(bound);
        }
        unusable.push(bound);
    }
    Err(NetworkError::NoPort { first: 1, last: u16::MAX, container_port: wish.container_port })
}

fn one_of(wish: &PortWish, first: u16, last: u16, own: &[Bound], taken: &[Claim]) -> Result<Bound, NetworkError> {
    for port in first..=last {
        match bind(candidate(wish, port), own, taken) {
            Err(NetworkError::PortTaken { .. }) => {}
            Err(NetworkError::PortBusy { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {}
            other => return other,
        }
    }
    Err(NetworkError::NoPort { first, last, container_port: wish.container_port })
}

fn bind(port: Published, own: &[Bound], taken: &[Claim]) -> Result<Bound, NetworkError> {
    match holder(&port, own, taken) {
        Some(holder) => Err(NetworkError::PortTaken { port, holder }),
        None => open(port),
    }
}

/// Who has a port that this one would collide with.
fn holder(port: &Published, own: &[Bound], taken: &[Claim]) -> Option<String> {
    let ours = own.iter().any(|bound| bound.port.collides(port)).then(|| "twice: it".to_owned());
    let theirs = || taken.iter().find(|claim| claim.port.collides(port)).map(|claim| claim.container.clone());
    ours.or_else(theirs)
}

fn open(port: Published) -> Result<Bound, NetworkError> {
    let address = SocketAddrV4::new(port.host_address, port.host_port);
    let failed = |source| NetworkError::PortBusy { port, source };
    let (socket, number) = match port.protocol {
        Protocol::Tcp => {
            let socket = TcpListener::bind(address).map_err(failed)?;
            let number = socket.local_addr().map_err(failed)?.port();
            (Socket::Tcp(socket), number)
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(address).map_err(failed)?;
            let number = socket.local_addr().map_err(failed)?.port();
            (Socket::Udp(socket), number)
        }
    };
    Ok(Bound { port: Published { host_port: number, ..port }, _socket: socket })
}

/// Whether it is one of the host's addresses, or all of them, is for bind(2) to say; that it is none of a group is not.
pub(super) fn check(wishes: &[PortWish]) -> Result<(), NetworkError> {
    let wrong = |address: Ipv4Addr| address.is_multicast() || address.is_broadcast();
    match wishes.iter().find(|wish| wrong(wish.host_address)) {
        None => Ok(()),
        Some(wish) => Err(NetworkError::PortBusy {
            port: candidate(wish, wish.host_ports.map_or(0, |(first, _)| first)),
            source: io::ErrorKind::AddrNotAvailable.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::find_ports;
    use crate::network::NetworkError;
    use crate::network::lease::Claim;
    use crate::network::port::{PortWish, Published};
    use std::net::{Ipv4Addr, TcpListener};

    fn wishes(text: &str) -> Vec<PortWish> {
        PortWish::parse(text).expect("wishes")
    }

    fn busy() -> (TcpListener, u16) {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = socket.local_addr().expect("an address").port();
        (socket, port)
    }

    #[test]
    fn any_port_is_one_that_nobody_has_and_none_twice() {
        let all = [wishes("127.0.0.1::80"), wishes("127.0.0.1::81"), wishes("127.0.0.1::80/udp")].concat();
        let bound = find_ports(&all, &[]).expect("three ports");
        assert!(bound.iter().all(|it| it.port.host_port > 0));
        assert_ne!(bound[0].port.host_port, bound[1].port.host_port);
    }

    #[test]
    fn a_port_on_which_a_program_listens_is_not_taken_from_it() {
        let (_socket, port) = busy();
        let refused = find_ports(&wishes(&format!("127.0.0.1:{port}:80")), &[]).expect_err("busy");
        assert!(matches!(refused, NetworkError::PortBusy { .. }), "{refused}");
        assert!(find_ports(&wishes("192.0.2.77:8080:80"), &[]).is_err());
    }

    #[test]
    fn a_port_is_one_containers() {
        let (socket, host_port) = busy();
        drop(socket);
        let text = format!("127.0.0.1:{host_port}:80");
        let port = Published { host_port, ..find_ports(&wishes("127.0.0.1::80"), &[]).expect("a port")[0].port };
        let claim = Claim { port, container: "other".to_owned() };
        let refused = find_ports(&wishes(&text), &[claim]).expect_err("taken");
        assert!(refused.to_string().contains("leads to container other"), "{refused}");
        let twice = [wishes(&text), wishes(&text)].concat();
        assert!(matches!(find_ports(&twice, &[]).expect_err("twice"), NetworkError::PortTaken { .. }));
    }

    #[test]
    fn a_port_that_it_was_before_is_chosen_again_if_it_is_free() {
        let (socket, port) = busy();
        let wish = PortWish { preferred: Some(port), ..wishes("127.0.0.1::80")[0].clone() };
        let other = find_ports(std::slice::from_ref(&wish), &[]).expect("a port")[0].port.host_port;
        drop(socket);
        let same = find_ports(std::slice::from_ref(&wish), &[]).expect("a port")[0].port.host_port;
        assert!(other != port && same == port);
    }

    #[test]
    fn of_a_range_the_first_free_one_is_taken() {
        let (_socket, port) = busy();
        if port < u16::MAX - 20 {
            let bound = find_ports(&wishes(&format!("127.0.0.1:{port}-{}:80", port + 20)), &[]).expect("a port");
            assert!(bound[0].port.host_port > port);
        }
        assert!(matches!(
            find_ports(&[PortWish { host_ports: Some((port, port)), ..wishes("127.0.0.1::80")[0].clone() }], &[]),
            Err(NetworkError::PortBusy { .. })
        ));
    }
}
