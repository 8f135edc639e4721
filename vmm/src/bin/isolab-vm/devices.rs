//! The devices of a Linux guest, from the words that name them.

use std::path::PathBuf;
use std::str::FromStr;

use isolab_vmm::devices::virtio::block::Format;
use isolab_vmm::devices::virtio::bucket::{Limits, Rate};
use isolab_vmm::devices::virtio::net::MacError;
use isolab_vmm::guest::linux::init::Network;
use isolab_vmm::machine::pc::{self, Wiring};

use crate::cli::Linux;

/// `FILE[,ro][,format=raw|qcow2][,rate=BYTES][,ops=N]`
#[derive(Debug, Clone)]
pub(crate) struct Disk(pc::Disk);

impl FromStr for Disk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // From the end: a file's name may have a comma in it.
        let (mut path, mut read_only, mut format, mut limits) = (text, false, None, Limits::default());
        while let Some((rest, word)) = path.rsplit_once(',') {
            match word {
                "ro" => read_only = true,
                "format=raw" => format = Some(Format::Raw),
                "format=qcow2" => format = Some(Format::Qcow2),
                _ if word.starts_with("format=") => return Err(format!("no format of disks: {word:?}")),
                _ => match word.split_once('=') {
                    Some(("rate", rate)) => limits.bytes = Some(bytes(rate)?),
                    Some(("ops", rate)) => limits.operations = Some(count(rate)?),
                    _ => break,
                },
            }
            path = rest;
        }
        if path.is_empty() {
            return Err("a disk has a file".to_owned());
        }
        Ok(Self(pc::Disk { limits, ..pc::Disk::new(absolute(path), read_only, format) }))
    }
}

/// From wherever it will be opened.
fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path))
}

/// A number of bytes a second: 500, 20K, 100M, 1G, in powers of 1024.
fn bytes(text: &str) -> Result<Rate, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, unit)) if !unit.is_ascii_digit() => match unit.to_ascii_uppercase() {
            'K' => (text.get(..at), 10),
            'M' => (text.get(..at), 20),
            'G' => (text.get(..at), 30),
            _ => return Err(format!("{text:?} is no rate: 500, 20K, 100M or 1G, in bytes a second")),
        },
        _ => (Some(text), 0),
    };
    let number = count(digits.unwrap_or_default())?.per_second;
    let rate = number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} bytes a second is no limit"))?;
    Ok(Rate::steady(rate))
}

/// A number of requests or frames a second.
fn count(text: &str) -> Result<Rate, String> {
    match text.parse() {
        // Nothing at all would ever pass: that is no device.
        Ok(0) => Err("a rate of 0 lets nothing pass".to_owned()),
        Ok(rate) => Ok(Rate::steady(rate)),
        Err(error) => Err(format!("{text:?} is no rate: {error}")),
    }
}

/// `tap=NAME|bridge=NAME[,mac=MAC][,address=A.B.C.D/N][,gateway=A.B.C.D][,rate=BYTES][,ops=N]`
#[derive(Debug, Clone)]
pub(crate) struct NetCard(pub(crate) pc::Card);

impl FromStr for NetCard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut card = pc::Card::default();
        for word in text.split(',') {
            match word.split_once('=') {
                Some(("tap", name)) => card.tap = Some(name.to_owned()),
                Some(("bridge", name)) => card.bridge = Some(name.to_owned()),
                Some(("mac", mac)) => card.mac = Some(mac.parse().map_err(|error: MacError| error.to_string())?),
                Some(("address", address)) => card.address = Some(network_address(address)?),
                Some(("gateway", gateway)) => {
                    card.gateway = Some(gateway.parse().map_err(|error| format!("{gateway:?}: {error}"))?);
                }
                Some(("rate", rate)) => card.limits.bytes = Some(bytes(rate)?),
                Some(("ops", rate)) => card.limits.operations = Some(count(rate)?),
                _ => return Err(format!("none of tap, bridge, mac, address, gateway, rate and ops: {word:?}")),
            }
        }
        if card.tap.is_some() == card.bridge.is_some() {
            return Err("a network card has a tap or a bridge: tap=NAME, or bridge=NAME".to_owned());
        }
        Ok(Self(card))
    }
}

/// An address and the length of its network's: 10.0.0.2/24.
pub(crate) fn network_address(text: &str) -> Result<String, String> {
    let network = Network { interface: String::new(), address: text.to_owned(), gateway: None };
    network.parsed().map(|_| text.to_owned()).ok_or_else(|| format!("{text:?} is no address: 10.0.0.2/24 would be one"))
}

/// `CID,socket=PATH`
#[derive(Debug, Clone)]
pub(crate) struct Sockets(pub(crate) pc::Sockets);

impl FromStr for Sockets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (cid, path) = text.split_once(",socket=").ok_or("an address and a socket: 3,socket=guest.sock")?;
        let cid = cid.parse().map_err(|error| format!("{cid:?}: {error}"))?;
        Ok(Self(pc::Sockets { cid, path: absolute(path) }))
    }
}

/// What is named, in the order in which the guest finds it: disks, cards, the rest.
pub(crate) fn wirings(linux: &Linux) -> Vec<Wiring> {
    let mut devices: Vec<Wiring> = linux.disk.iter().map(|disk| Wiring::Disk(disk.0.clone())).collect();
    devices.extend(linux.net.iter().map(|card| Wiring::Net(card.0.clone())));
    devices.extend(linux.vsock.iter().map(|sockets| Wiring::Vsock(sockets.0.clone())));
    devices.extend(linux.rng.then_some(Wiring::Rng));
    devices.extend(linux.console.then_some(Wiring::Console));
    devices.extend(linux.balloon.map(|size| Wiring::Balloon(size.0)));
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_a_file_and_what_is_said_of_it() {
        let parse = |text: &str| text.parse::<Disk>().map(|Disk(disk)| (disk.path, disk.read_only, disk.format));
        assert_eq!(parse("/a.img"), Ok(("/a.img".into(), false, None)));
        assert_eq!(parse("/a,b.img,ro"), Ok(("/a,b.img".into(), true, None)));
        assert_eq!(parse("/a,format=qcow2,ro"), Ok(("/a".into(), true, Some(Format::Qcow2))));
        assert!(parse("a").unwrap().0.is_absolute());
        assert!(parse("a,format=vmdk").is_err());
        assert!(parse(",ro").is_err());
    }

    #[test]
    fn a_device_is_held_to_a_rate() {
        let limits = |text: &str| text.parse::<Disk>().map(|disk| disk.0.limits);
        assert_eq!(limits("/a").unwrap(), Limits::default());
        let both = Limits {
            bytes: Some(Rate { per_second: 20 << 20, burst: 2 << 20 }),
            operations: Some(Rate { per_second: 5, burst: 1 }),
        };
        assert_eq!(limits("/a,ops=5,ro,rate=20M").unwrap(), both);
        assert_eq!("tap=t,rate=20m,ops=5".parse::<NetCard>().unwrap().0.limits, both);
        assert_eq!(limits("/a,rate=7").unwrap().bytes, Some(Rate { per_second: 7, burst: 1 }));
        for wrong in ["0", "", "M", "1T", "-1", "99999999999G", "1.5M"] {
            assert!(limits(&format!("/a,rate={wrong}")).is_err(), "{wrong:?}");
            assert!(format!("tap=t,ops={wrong}").parse::<NetCard>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sockets_have_an_address_and_a_place() {
        let sockets: Sockets = "3,socket=/a,b.sock".parse().unwrap();
        assert_eq!((sockets.0.cid, sockets.0.path), (3, "/a,b.sock".into()));
        for wrong in ["", "3", "x,socket=y", "socket=y"] {
            assert!(wrong.parse::<Sockets>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_card_has_a_tap_or_a_bridge_and_may_have_addresses() {
        let parse = |text: &str| text.parse::<NetCard>().map(|card| card.0);
        assert_eq!(parse("tap=t0").unwrap().tap.as_deref(), Some("t0"));
        let card = parse("bridge=b0,mac=02:00:00:00:00:01,address=10.0.0.2/24,gateway=10.0.0.1").unwrap();
        assert!(card.mac.is_some() && card.gateway.is_some());
        assert_eq!(card.address.as_deref(), Some("10.0.0.2/24"));
        let both = "tap=t0,bridge=b0";
        for wrong in
            ["", "t0", "mac=02:00:00:00:00:01", "tap=t0,mac=1", "tap=t0,speed=1", both, "tap=t,address=10.0.0.1"]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
