//! Published ports: from the host, from elsewhere, from other containers, from the container itself.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::thread;

use libtest_mimic::{Failed, Trial};

use super::checks::{has, same};
use super::lab::{Lab, ask, ask_by_datagram, inside, is_unreachable, run, trial};

const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_published_port_is_reached_from_everywhere", everywhere),
        trial("a_port_of_one_address_is_reached_at_that_one_only", one_address),
        trial("datagrams_find_their_way_in_and_back", datagrams),
        trial("a_range_and_any_free_port_can_be_published", ranges),
        trial("a_port_that_is_taken_is_refused_with_its_holder", taken),
        trial("no_container_reaches_what_listens_on_the_hosts_own_127", guarded),
    ]
}

fn everywhere() -> Result<(), Failed> {
    let (lab, world) = Lab::with_world()?;
    let (web, other) = (lab.container("web", &["8080:80"])?, lab.container("other", &[])?);
    web.serve(80, "web")?;
    let gateway = web.lease().gateway;
    same(ask(Ipv4Addr::LOCALHOST, 8080)?, format!("web {gateway}"))?;
    same(ask(Ipv4Addr::new(127, 3, 2, 1), 8080)?, format!("web {gateway}"))?;
    has(&ask(HERE, 8080)?, "web ")?;
    has(&ask(gateway, 8080)?, "web ")?;
    // From elsewhere the container sees who asks.
    same(inside(&world, || ask(HERE, 8080))?.as_str(), "web 192.0.2.2")?;
    // Through the host and back into the same network, and even to itself.
    same(other.inside(move || ask(gateway, 8080))?, format!("web {gateway}"))?;
    same(web.inside(move || ask(gateway, 8080))?, format!("web {gateway}"))?;
    has(&other.inside(|| ask(HERE, 8080))?, "web ")
}

fn one_address() -> Result<(), Failed> {
    let (lab, world) = Lab::with_world()?;
    let local = lab.container("local", &["127.0.0.1:8080:80"])?;
    local.serve(80, "local")?;
    has(&ask(Ipv4Addr::LOCALHOST, 8080)?, "local ")?;
    is_unreachable(HERE, 8080)?;
    inside(&world, || is_unreachable(HERE, 8080))?;
    // Two containers share a port of the host, each at an address of its own.
    let outer = lab.container("outer", &["192.0.2.1:8080:80"])?;
    outer.serve(80, "outer")?;
    has(&inside(&world, || ask(HERE, 8080))?, "outer ")?;
    has(&ask(Ipv4Addr::LOCALHOST, 8080)?, "local ")
}

fn datagrams() -> Result<(), Failed> {
    let (lab, world) = Lab::with_world()?;
    let container = lab.container("dns", &["5353:53/udp"])?;
    let socket = container.inside(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53))?))?;
    let server = thread::spawn(move || {
        let mut buffer = [0; 16];
        for _ in 0..2 {
            let (length, from) = socket.recv_from(&mut buffer)?;
            socket.send_to(if &buffer[..length] == b"?" { b"!" } else { b"x" }, from)?;
        }
        std::io::Result::Ok(())
    });
    same(ask_by_datagram(Ipv4Addr::LOCALHOST, 5353)?.as_str(), "!")?;
    same(inside(&world, || ask_by_datagram(HERE, 5353))?.as_str(), "!")?;
    Ok(server.join().map_err(|_| "the server panicked")??)
}

fn ranges() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let container = lab.container("many", &["7000-7002:80-82", "90", "91/udp", "7000-7010:99"])?;
    let ports = &container.lease().ports;
    let told: Vec<_> = ports.iter().map(|port| (port.host_port, port.container_port)).collect();
    same(&told[..3], &[(7000, 80), (7001, 81), (7002, 82)])?;
    // Of the last range the first three are this container's own already.
    same(told[5], (7003, 99))?;
    same(told[3].0 > 1023 && told[4].0 > 1023, true)?;
    for (index, (host, inner)) in told.iter().enumerate().filter(|(index, _)| *index != 4) {
        let name = format!("n{index}");
        container.serve(*inner, &name)?;
        has(&ask(Ipv4Addr::LOCALHOST, *host)?, &name)?;
    }
    Ok(())
}

fn taken() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let _web = lab.container("web", &["8080:80"])?;
    let refused = |ports: &[&str]| match lab.container("second", ports) {
        Ok(_) => Err(Failed::from(format!("{ports:?} were given twice"))),
        Err(error) => Ok(error.message().unwrap_or_default().to_owned()),
    };
    has(&refused(&["8080:80"])?, "port 0.0.0.0:8080/tcp of the host leads to container web already")?;
    has(&refused(&["127.0.0.1:8080:80"])?, "leads to container web already")?;
    has(&refused(&["81:81", "8080:80"])?, "leads to container web already")?;
    let _program = TcpListener::bind((Ipv4Addr::LOCALHOST, 8081))?;
    has(&refused(&["8081:80"])?, "cannot take port 0.0.0.0:8081/tcp of the host: Address already in use")?;
    has(&refused(&["192.0.2.9:8082:80"])?, "Cannot assign requested address")?;
    // What was refused has left nothing.
    same(run(&["ip", "-oneline", "link"])?.matches("veth").count(), 1)?;
    let _second = lab.container("second", &["81:81", "8080:80/udp"])?;
    Ok(())
}

fn guarded() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let container = lab.container("thief", &["8080:80"])?;
    let secret = TcpListener::bind((Ipv4Addr::LOCALHOST, 9999))?;
    let gateway = container.lease().gateway.to_string();
    container.inside(move || {
        // What root of a container with enough rights could do: send what is for 127.0.0.1 over the cable.
        run(&["ip", "address", "flush", "dev", "lo"])?;
        run(&["ip", "rule", "add", "pref", "1", "lookup", "77"])?;
        run(&["ip", "rule", "add", "pref", "2", "lookup", "local"])?;
        run(&["ip", "rule", "del", "pref", "0"])?;
        run(&["ip", "route", "add", "127.0.0.0/8", "via", &gateway, "dev", "eth0", "table", "77"])?;
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")?;
        is_unreachable(Ipv4Addr::LOCALHOST, 9999)
    })?;
    secret.set_nonblocking(true)?;
    same(secret.accept().is_err(), true)?;
    // The packets did arrive, and were dropped by the rule: without it the same connection is made.
    run(&["nft", "flush", "chain", "ip", "isolab", "guard"])?;
    container.inside(|| {
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, 9999))
            .map(drop)
            .map_err(|error| format!("not even without the rule: {error}").into())
    })
}
