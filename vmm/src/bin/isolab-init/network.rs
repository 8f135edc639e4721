//! An address for a network card (netdevice(7)), and the way to everybody else (route(7)).

use std::io;
use std::mem::zeroed;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use isolab_vmm::guest::linux::init::Network;
use isolab_vmm::interface::{ask, request};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::InitError;

/// A card is found by a driver that works on its own; it has this long.
const APPEARS: Duration = Duration::from_secs(10);

/// Brings up the loop to oneself, and the card that is named.
pub(crate) fn bring_up(network: Option<&Network>) -> Result<(), InitError> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let Ok(socket) = socket else {
        // A kernel without networks: what was asked for can't be had; what was not, nobody misses.
        return network
            .map_or(Ok(()), |network| Err(failed("find", &network.interface)(io::ErrorKind::Unsupported.into())));
    };
    switch(&socket, "lo", true)?;
    let Some(network) = network else { return Ok(()) };
    let address = network.parsed().ok_or_else(|| InitError::Address(network.address.clone()))?;
    let name = &network.interface;
    wait_for(&socket, name)?;
    give_address(&socket, name, address)?;
    switch(&socket, name, true)?;
    find_way_out(&socket, network)
}

/// Makes a card another one: its hardware address and, where one is said, its address.
pub(crate) fn renew(network: &Network, mac: &str) -> Result<(), InitError> {
    let name = &network.interface;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let socket = socket.map_err(|error| failed("find", name)(error.into()))?;
    // Switched off it forgets who its neighbours were, and to whom it was known.
    switch(&socket, name, false)?;
    set_mac(&socket, name, mac).map_err(failed("give a hardware address to", name))?;
    if !network.address.is_empty() {
        let address = network.parsed().ok_or_else(|| InitError::Address(network.address.clone()))?;
        give_address(&socket, name, address)?;
    }
    switch(&socket, name, true)?;
    find_way_out(&socket, network)
}

fn give_address(socket: &OwnedFd, name: &str, (address, mask): (Ipv4Addr, Ipv4Addr)) -> Result<(), InitError> {
    set(socket, name, libc::SIOCSIFADDR, address).map_err(failed("give an address to", name))?;
    set(socket, name, libc::SIOCSIFNETMASK, mask).map_err(failed("give a network to", name))
}

fn find_way_out(socket: &OwnedFd, network: &Network) -> Result<(), InitError> {
    let way = network.gateway.map_or(Ok(()), |gateway| route(socket, gateway));
    way.map_err(failed("find the way out of", &network.interface))
}

fn set_mac(socket: &OwnedFd, name: &str, mac: &str) -> io::Result<()> {
    let bytes: Option<Vec<u8>> = mac.split(':').map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
    let bytes = bytes.filter(|bytes| bytes.len() == 6).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: all zeroes are a valid `sockaddr`.
    let mut address: libc::sockaddr = unsafe { zeroed() };
    address.sa_family = libc::ARPHRD_ETHER;
    address.sa_data.iter_mut().zip(bytes).for_each(|(to, from)| *to = from as libc::c_char);
    let mut request = request(name);
    request.ifr_ifru.ifru_hwaddr = address;
    ask(socket, libc::SIOCSIFHWADDR, &mut request)
}

fn failed(attempt: &'static str, interface: &str) -> impl FnOnce(io::Error) -> InitError {
    move |source| InitError::Network { attempt, interface: interface.to_owned(), source }
}

fn internet(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: all zeroes are a valid `sockaddr`.
    let mut plain: libc::sockaddr = unsafe { zeroed() };
    plain.sa_family = libc::AF_INET as libc::sa_family_t;
    // `sockaddr_in`: two bytes of port, then the address.
    plain.sa_data.iter_mut().skip(2).zip(address.octets()).for_each(|(to, from)| *to = from as libc::c_char);
    plain
}

fn set(socket: &OwnedFd, name: &str, what: libc::Ioctl, address: Ipv4Addr) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_addr = internet(address);
    ask(socket, what, &mut request)
}

fn switch(socket: &OwnedFd, name: &str, on: bool) -> Result<(), InitError> {
    let mut request = request(name);
    ask(socket, libc::SIOCGIFFLAGS, &mut request).map_err(failed("find", name))?;
    let bits = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the kernel has just filled in the flags.
    let flags = unsafe { &mut request.ifr_ifru.ifru_flags };
    *flags = if on { *flags | bits } else { *flags & !bits };
    ask(socket, libc::SIOCSIFFLAGS, &mut request).map_err(failed("switch on or off", name))
}

fn wait_for(socket: &OwnedFd, name: &str) -> Result<(), InitError> {
    let deadline = Instant::now() + APPEARS;
    while let Err(error) = ask(socket, libc::SIOCGIFINDEX, &mut request(name)) {
        if Instant::now() > deadline {
            return Err(failed("find", name)(error));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn route(socket: &OwnedFd, gateway: Ipv4Addr) -> io::Result<()> {
    // SAFETY: all zeroes are a valid `rtentry`.
    let mut entry: libc::rtentry = unsafe { zeroed() };
    entry.rt_dst = internet(Ipv4Addr::UNSPECIFIED);
    entry.rt_genmask = internet(Ipv4Addr::UNSPECIFIED);
    entry.rt_gateway = internet(gateway);
    entry.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: SIOCADDRT takes an `rtentry`, which lives over the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &raw const entry) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
