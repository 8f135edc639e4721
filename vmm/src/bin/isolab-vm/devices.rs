//! The devices of a Linux guest, from the words that name them.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;

use isolab_vmm::devices::virtio::VirtioDevice;
use isolab_vmm::devices::virtio::balloon::Balloon;
use isolab_vmm::devices::virtio::block::{self, Block, DiskError, Format, Options};
use isolab_vmm::devices::virtio::console::Console;
use isolab_vmm::devices::virtio::net::{Mac, MacError, Net, Tap, TapError, Wire};
use isolab_vmm::devices::virtio::rng::Rng;
use isolab_vmm::devices::virtio::vsock::{Vsock, VsockError};

use crate::cli::Linux;

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceFailure {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Tap(#[from] TapError),
    #[error(transparent)]
    Vsock(#[from] VsockError),
    #[error("cannot hand the terminal to the guest")]
    Terminal(#[source] io::Error),
    #[error("cannot set the size of the balloon")]
    Balloon(#[source] io::Error),
}

impl DeviceFailure {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Disk(error) => error.hint(),
            Self::Tap(error) => error.hint(),
            Self::Vsock(_) | Self::Terminal(_) | Self::Balloon(_) => None,
        }
    }
}

/// `FILE[,ro][,format=raw|qcow2]`
#[derive(Debug, Clone)]
pub(crate) struct Disk(Options);

impl FromStr for Disk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // From the end: a file's name may have a comma in it.
        let (mut path, mut read_only, mut format) = (text, false, None);
        while let Some((rest, word)) = path.rsplit_once(',') {
            match word {
                "ro" => read_only = true,
                "format=raw" => format = Some(Format::Raw),
                "format=qcow2" => format = Some(Format::Qcow2),
                _ if word.starts_with("format=") => return Err(format!("no format of disks: {word:?}")),
                _ => break,
            }
            path = rest;
        }
        if path.is_empty() {
            return Err("a disk has a file".to_owned());
        }
        Ok(Self(Options { path: PathBuf::from(path), read_only, format }))
    }
}

impl Disk {
    /// Its name for the guest, of at most 20 bytes: that of its file.
    fn name(&self) -> String {
        self.0.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// `tap=NAME[,mac=MAC]`
#[derive(Debug, Clone)]
pub(crate) struct NetCard {
    tap: String,
    mac: Option<Mac>,
}

impl FromStr for NetCard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut tap, mut mac) = (None, None);
        for word in text.split(',') {
            match word.split_once('=') {
                Some(("tap", name)) => tap = Some(name.to_owned()),
                Some(("mac", address)) => mac = Some(address.parse().map_err(|error: MacError| error.to_string())?),
                _ => return Err(format!("neither tap=NAME nor mac=MAC: {word:?}")),
            }
        }
        Ok(Self { tap: tap.ok_or("a network card has a tap: tap=NAME")?, mac })
    }
}

/// `CID,socket=PATH`
#[derive(Debug, Clone)]
pub(crate) struct Sockets {
    cid: u64,
    path: PathBuf,
}

impl FromStr for Sockets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (cid, path) = text.split_once(",socket=").ok_or("an address and a socket: 3,socket=guest.sock")?;
        let cid = cid.parse().map_err(|error| format!("{cid:?}: {error}"))?;
        Ok(Self { cid, path: PathBuf::from(path) })
    }
}

/// Opens what is named, in the order in which the guest finds it: disks, cards, the rest.
pub(crate) fn open(linux: &Linux) -> Result<Vec<Box<dyn VirtioDevice>>, DeviceFailure> {
    let mut devices: Vec<Box<dyn VirtioDevice>> = Vec::new();
    for disk in &linux.disk {
        devices.push(Box::new(Block::new(block::open(&disk.0)?, disk.0.read_only, &disk.name())));
    }
    for card in &linux.net {
        let wire = Wire::Tap(Tap::open(&card.tap)?);
        devices.push(Box::new(Net::new(wire, card.mac.unwrap_or_else(Mac::random))));
    }
    if let Some(sockets) = &linux.vsock {
        devices.push(Box::new(Vsock::new(sockets.cid, &sockets.path)?));
    }
    if linux.rng {
        devices.push(Box::new(Rng::new()));
    }
    if linux.console {
        let own = |file: std::os::fd::BorrowedFd<'_>| file.try_clone_to_owned().map_err(DeviceFailure::Terminal);
        devices.push(Box::new(Console::new(Some(own(io::stdin().as_fd())?), own(io::stdout().as_fd())?)));
    }
    if let Some(size) = linux.balloon {
        let (balloon, hand) = Balloon::new();
        hand.set(size).map_err(DeviceFailure::Balloon)?;
        devices.push(Box::new(balloon));
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_a_file_and_what_is_said_of_it() {
        let parse = |text: &str| text.parse::<Disk>().map(|Disk(disk)| (disk.path, disk.read_only, disk.format));
        assert_eq!(parse("a.img"), Ok(("a.img".into(), false, None)));
        assert_eq!(parse("a,b.img,ro"), Ok(("a,b.img".into(), true, None)));
        assert_eq!(parse("a,format=qcow2,ro"), Ok(("a".into(), true, Some(Format::Qcow2))));
        assert!(parse("a,format=vmdk").is_err());
        assert!(parse(",ro").is_err());
    }

    #[test]
    fn sockets_have_an_address_and_a_place() {
        let sockets: Sockets = "3,socket=a,b.sock".parse().unwrap();
        assert_eq!((sockets.cid, sockets.path), (3, "a,b.sock".into()));
        for wrong in ["", "3", "x,socket=y", "socket=y"] {
            assert!(wrong.parse::<Sockets>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_card_has_a_tap_and_may_have_an_address() {
        let parse = |text: &str| text.parse::<NetCard>();
        assert_eq!(parse("tap=t0").unwrap().tap, "t0");
        assert!(parse("tap=t0,mac=02:00:00:00:00:01").unwrap().mac.is_some());
        for wrong in ["", "t0", "mac=02:00:00:00:00:01", "tap=t0,mac=1", "tap=t0,speed=1"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
