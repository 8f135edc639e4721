//! What a PC's devices are wired to: files, taps and sockets of the host, in words.
//!
//! A device that was saved is registers and positions in rings; what it stood for on the host is not in them. So a machine
//! keeps a list of what it was given, in the order in which its guest finds it. A snapshot has that list with its own copies
//! of the disks in it, and whoever goes on from it opens everything anew, some of it as another ([`renewed`]).

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::devices::virtio::VirtioDevice;
use crate::devices::virtio::balloon::Balloon;
use crate::devices::virtio::block::{self, Block, DiskError, Format, Options, image};
use crate::devices::virtio::bucket::Limits;
use crate::devices::virtio::console::Console;
use crate::devices::virtio::net::{Mac, Net, Tap, TapError, Wire};
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::vsock::{Vsock, VsockError};
use crate::guest::linux::init;
use crate::snapshot::state::Impossible;
use crate::units::Mib;

/// A device and what is on the host's side of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Wiring {
    /// A disk.
    Disk(Disk),
    /// A network card.
    Net(Card),
    /// Sockets between guest and host.
    Vsock(Sockets),
    /// Random bytes.
    Rng,
    /// A terminal that has standard input and output.
    Console,
    /// A balloon, and how much of the guest's memory it shall hold, in MiB.
    Balloon(u64),
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its file. In a snapshot a name without folders is a file beside the state.
    pub path: PathBuf,
    /// Whether the guest may not write.
    #[serde(default)]
    pub read_only: bool,
    /// Its format; where none is said, its name says it.
    #[serde(default)]
    pub format: Option<Format>,
    /// What the guest is told that it is called.
    #[serde(default)]
    pub name: String,
    /// How much the guest may read and write of it.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

impl Disk {
    /// A disk that is called as its file.
    pub fn new(path: PathBuf, read_only: bool, format: Option<Format>) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self { path, read_only, format, name, limits: Limits::default() }
    }

    /// The format that was said, or that its name says.
    pub fn format(&self) -> Format {
        self.format.unwrap_or_else(|| image::format_of(&self.path))
    }

    /// Whether it lies beside a snapshot's state.
    pub fn is_kept(&self) -> bool {
        matches!(self.path.components().collect::<Vec<_>>().as_slice(), [Component::Normal(_)])
    }
}

/// A network card: on a tap of this name, or on one that is made for it and plugged into a bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// The bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Its hardware address; nothing for a random one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The address that the guest's first process shall give it, with the length of its network's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Who knows the way to everybody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// How much may come and go by it, each for itself.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

/// Sockets between guest and host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sockets {
    /// The guest's address.
    pub cid: u64,
    /// The socket of the host, and the beginning of the names of others.
    pub path: PathBuf,
}

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// A disk can't be had.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A network card has no cable.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A network card has two cables, or none.
    #[error("a network card has either a tap or a bridge")]
    Cable,
    /// Sockets can't be had.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// There is no terminal to hand over.
    #[error("cannot hand the terminal to the guest")]
    Terminal(#[source] io::Error),
    /// The balloon can't be set.
    #[error("cannot set the size of the balloon")]
    Balloon(#[source] io::Error),
    /// A device can't be held to a rate.
    #[error("cannot make the timer of a device that is held to a rate")]
    Rate(#[source] io::Error),
    /// There is no place for what a machine writes to its disks.
    #[error("cannot make a place for what the machine writes to its disks")]
    Place(#[source] io::Error),
}

impl WiringError {
    /// The next thing to try, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Disk(error) => error.hint(),
            Self::Tap(error) => error.hint(),
            _ => None,
        }
    }
}

/// A device's words, and what a snapshot needs of it besides.
#[derive(Debug)]
pub(super) struct Wired {
    pub(super) wiring: Wiring,
    /// The file of a disk that the guest may write to, wherever its name leads by now.
    pub(super) file: Option<File>,
}

impl Wiring {
    /// Opens the host's side, and makes the device. A card without an address gets one.
    pub(super) fn open(mut self) -> Result<(Box<dyn VirtioDevice>, Wired), WiringError> {
        let mut file = None;
        let device: Box<dyn VirtioDevice> = match &mut self {
            Self::Disk(disk) => {
                let options = Options { path: disk.path.clone(), read_only: disk.read_only, format: disk.format };
                let opened = block::open(&options)?;
                if !disk.read_only {
                    let source = |source| DiskError::Open { path: disk.path.clone(), source };
                    file = Some(File::open(&disk.path).map_err(source)?);
                }
                let block = Block::new(opened, disk.read_only, &disk.name);
                Box::new(block.limited(disk.limits).map_err(WiringError::Rate)?)
            }
            Self::Net(card) => {
                let tap = match (&card.tap, &card.bridge) {
                    (Some(tap), None) => Tap::open(tap)?,
                    (None, Some(bridge)) => Tap::on_bridge(bridge)?,
                    _ => return Err(WiringError::Cable),
                };
                let net = Net::new(Wire::Tap(tap), *card.mac.get_or_insert_with(Mac::random));
                Box::new(net.limited(card.limits, card.limits).map_err(WiringError::Rate)?)
            }
            Self::Vsock(sockets) => Box::new(Vsock::new(sockets.cid, &sockets.path)?),
            Self::Rng => Box::new(Rng::new()),
            Self::Console => {
                let own = |file: std::os::fd::BorrowedFd<'_>| file.try_clone_to_owned().map_err(WiringError::Terminal);
                let (input, output) = (io::stdin(), io::stdout());
                Box::new(Console::new(
                    Some(own(std::os::fd::AsFd::as_fd(&input))?),
                    own(std::os::fd::AsFd::as_fd(&output))?,
                ))
            }
            Self::Balloon(mib) => {
                let (balloon, hand) = Balloon::new();
                hand.set(Mib(*mib)).map_err(WiringError::Balloon)?;
                Box::new(balloon)
            }
        };
        Ok((device, Wired { wiring: self, file }))
    }
}

/// What the guest's first process is told of the cards.
pub(super) fn cards(wired: &[Wired]) -> Vec<init::Card> {
    let card = |wired: &Wired| match &wired.wiring {
        Wiring::Net(card) => Some(init::Card {
            mac: card.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            address: card.address.clone(),
            gateway: card.gateway,
        }),
        _ => None,
    };
    wired.iter().filter_map(card).collect()
}

/// What is new in a machine that goes on from a snapshot. What is not said is as it was, but for what no two may share:
/// hardware addresses and UUIDs are random, and what is written to the disks is gone with the machine.
#[derive(Debug, Clone, Default)]
pub struct Renewal {
    /// Its UUID.
    pub uuid: Option<super::Uuid>,
    /// Its network cards, in their order.
    pub cards: Vec<Card>,
    /// Its sockets.
    pub sockets: Option<Sockets>,
    /// The folder where what it writes to its disks goes: 0.qcow2, 1.qcow2 and so on, which are not there yet.
    pub disks: Option<PathBuf>,
}

/// A list of devices for a machine that goes on from the snapshot in `folder`: each as it was, or as `renewal` wants it. Its
/// disks' overlays are made, in `place`.
pub(super) fn renewed(
    saved: &[Wiring],
    folder: &Path,
    renewal: &Renewal,
    place: &Path,
) -> Result<Vec<Wiring>, WiringError> {
    let mut cards = renewal.cards.iter();
    let mut renewed = Vec::with_capacity(saved.len());
    for (number, wiring) in saved.iter().enumerate() {
        renewed.push(match wiring {
            Wiring::Disk(disk) => Wiring::Disk(on_top(disk, folder, place, number)?),
            Wiring::Net(card) => Wiring::Net(match cards.next() {
                Some(card) => card.clone(),
                None => Card { mac: None, ..card.clone() },
            }),
            Wiring::Vsock(sockets) => Wiring::Vsock(renewal.sockets.clone().unwrap_or_else(|| sockets.clone())),
            other => other.clone(),
        });
    }
    Ok(renewed)
}

/// A disk that goes on from a snapshot's: an overlay, if the guest may write.
fn on_top(disk: &Disk, folder: &Path, place: &Path, number: usize) -> Result<Disk, WiringError> {
    let path = if disk.is_kept() { folder.join(&disk.path) } else { disk.path.clone() };
    if disk.read_only {
        return Ok(Disk { path, ..disk.clone() });
    }
    let overlay = place.join(format!("{number}.qcow2"));
    image::overlay(&overlay, &path, disk.format())?;
    Ok(Disk { path: overlay, format: Some(Format::Qcow2), ..disk.clone() })
}

/// Whether a machine can be wired so, as far as that can be seen without opening anything.
pub(crate) fn check(wirings: &[Wiring]) -> Result<(), Impossible> {
    let impossible = |why: &str| Err(Impossible::new("guest.linux.devices", why));
    if wirings.len() > super::MOST_DEVICES {
        return impossible("there are more than there are interrupt lines");
    }
    for wiring in wirings {
        match wiring {
            // The state of a snapshot has no business with a file that the machine writes to.
            Wiring::Disk(disk) if !disk.read_only && !disk.is_kept() => {
                return impossible("a disk that is written to is not beside the state");
            }
            Wiring::Disk(disk) if !disk.is_kept() && !disk.path.is_absolute() => {
                return impossible("a disk is neither beside the state nor at an absolute path");
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(path: &str, read_only: bool) -> Wiring {
        Wiring::Disk(Disk::new(path.into(), read_only, None))
    }

    #[test]
    fn a_disk_that_is_written_to_lies_in_its_snapshot_and_nowhere_else() {
        assert!(check(&[disk("disk-0", false), disk("/images/root", true), disk("disk-2", true)]).is_ok());
        for (path, read_only) in
            [("/etc/passwd", false), ("../disk-0", false), ("a/b", true), ("..", false), ("", true)]
        {
            assert!(check(&[disk(path, read_only)]).is_err(), "{path:?}");
        }
        assert!(check(&vec![Wiring::Rng; 20]).is_err());
    }

    #[test]
    fn a_machine_that_goes_on_has_cards_and_sockets_of_its_own() {
        let card = Card { bridge: Some("b".into()), mac: Some(Mac::random()), ..Card::default() };
        let sockets = |cid| Sockets { cid, path: "s".into() };
        let saved = [Wiring::Net(card.clone()), Wiring::Rng, Wiring::Net(card.clone()), Wiring::Vsock(sockets(3))];
        let other = Card { tap: Some("t".into()), ..Card::default() };
        let renewal = Renewal { cards: vec![other.clone()], sockets: Some(sockets(4)), ..Renewal::default() };
        let new = renewed(&saved, Path::new("/s"), &renewal, Path::new("/p")).unwrap();
        let same_cable = Card { mac: None, ..card };
        assert_eq!(new, [Wiring::Net(other), Wiring::Rng, Wiring::Net(same_cable), Wiring::Vsock(sockets(4))]);
    }

    #[test]
    fn a_list_comes_back_as_it_was_kept() {
        let card = Card { tap: Some("t".into()), mac: Some(Mac::random()), ..Card::default() };
        let list = vec![disk("disk-0", false), Wiring::Net(card), Wiring::Rng, Wiring::Balloon(64), Wiring::Console];
        let text = serde_json::to_string(&list).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Wiring>>(&text).unwrap(), list);
        assert!(serde_json::from_str::<Wiring>(r#"{"net": {"mac": "01:00:00:00:00:00"}}"#).is_err());
    }
}
