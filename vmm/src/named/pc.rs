//! What a machine with an operating system has in its folder besides: its disks.
//!
//! ```text
//! web/
//!   disks/boot/0.qcow2    an overlay of the image that the machine was made with: what a machine that boots has written stays
//!   disks/now/0.qcow2     an overlay of a snapshot's disk: what a machine that goes on has written goes with its next start
//! ```
//!
//! The image itself is never written to.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::record::{Identity, Inside, Name};
use super::store::{Machine, Store};
use super::tree::About;
use super::{NamedError, failed};
use crate::devices::virtio::block::{Format, image};
use crate::guest::linux::init::Network;
use crate::machine::pc::{Card, Disk, Renewal, Sockets, Wiring};
use crate::snapshot::Snapshot;

impl Inside {
    /// The same for a clone: with cards and sockets of its own, the first card with this address.
    pub(super) fn for_clone(&self, identity: &Identity, address: Option<&str>) -> Self {
        let mut inside = self.clone();
        let Self::Linux { devices, .. } = &mut inside else { return inside };
        let mut address = address;
        for wiring in devices {
            match wiring {
                Wiring::Net(card) => {
                    card.mac = None;
                    card.address = address.take().map(str::to_owned).or(card.address.take());
                }
                Wiring::Vsock(sockets) => *sockets = Sockets { cid: identity.cid.into(), path: "vsock".into() },
                _ => {}
            }
        }
        inside
    }
}

/// The `count` addresses from `first` on, all of them in its network.
pub(super) fn addresses(first: &str, count: usize) -> Result<Vec<String>, NamedError> {
    let refused = || NamedError::Addresses { first: first.to_owned(), count };
    let network = Network { interface: String::new(), address: first.to_owned(), gateway: None };
    let (start, mask) = network.parsed().ok_or_else(refused)?;
    let (start, mask) = (u32::from(start), u32::from(mask));
    let length = mask.leading_ones();
    let next = |number: usize| {
        let address = u32::try_from(number).ok().and_then(|number| start.checked_add(number))?;
        // Neither the network's own nor that of everybody in it.
        let inside =
            address & mask == start & mask && (length > 30 || address & !mask != 0 && address | mask != u32::MAX);
        inside.then(|| format!("{}/{length}", Ipv4Addr::from(address)))
    };
    (0..count).map(|number| next(number).ok_or_else(refused)).collect()
}

impl Machine {
    fn devices(&self) -> &[Wiring] {
        match &self.record.inside {
            Inside::Linux { devices, .. } => devices,
            Inside::App { .. } | Inside::Bare { .. } => &[],
        }
    }

    /// Its devices for a boot. Where a disk has no overlay yet, that is made.
    pub fn wirings(&self) -> Result<Vec<Wiring>, NamedError> {
        let folder = self.disks("boot")?;
        fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
        let mut cards = self.cards().into_iter();
        let wire = |(number, wiring): (usize, &Wiring)| {
            Ok(match wiring {
                Wiring::Disk(disk) if !disk.read_only => {
                    let path = folder.join(format!("{number}.qcow2"));
                    if !path.exists() {
                        image::overlay(&path, &disk.path, disk.format())?;
                    }
                    Wiring::Disk(Disk { path, format: Some(Format::Qcow2), ..disk.clone() })
                }
                Wiring::Net(card) => Wiring::Net(cards.next().unwrap_or_else(|| card.clone())),
                Wiring::Vsock(sockets) => Wiring::Vsock(self.sockets(sockets)),
                other => other.clone(),
            })
        };
        self.devices().iter().enumerate().map(wire).collect()
    }

    /// What is new in it when it goes on from a snapshot. What it wrote to its disks when it went on the last time is gone.
    pub fn renewal(&self) -> Result<Renewal, NamedError> {
        let folder = self.disks("now")?;
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &folder)(error)),
            _ => fs::create_dir_all(&folder).map_err(failed("make", &folder))?,
        }
        let sockets = self.devices().iter().find_map(|wiring| match wiring {
            Wiring::Vsock(sockets) => Some(self.sockets(sockets)),
            _ => None,
        });
        Ok(Renewal { uuid: self.record.identity.uuid.parse().ok(), cards: self.cards(), sockets, disks: Some(folder) })
    }

    /// Its cards; the first has the address of the machine's identity, if no other was wanted.
    fn cards(&self) -> Vec<Card> {
        let mut own = self.record.identity.mac.parse().ok();
        let card = |wiring: &Wiring| match wiring {
            Wiring::Net(card) => {
                let own = own.take();
                Some(Card { mac: card.mac.or(own), ..card.clone() })
            }
            _ => None,
        };
        self.devices().iter().filter_map(card).collect()
    }

    /// Sockets whose place may be said from its folder on.
    fn sockets(&self, sockets: &Sockets) -> Sockets {
        Sockets { cid: sockets.cid, path: self.path.join(&sockets.path) }
    }

    fn disks(&self, which: &str) -> Result<PathBuf, NamedError> {
        let path = self.path.join("disks").join(which);
        std::path::absolute(&path).map_err(failed("find", &path))
    }
}

/// The ids of the snapshots on which the memory and the disks in `folder` stand; and whether the memory stands on any.
pub(super) fn stands_on(folder: &Path) -> Result<(Vec<String>, bool), NamedError> {
    let mut below = Vec::new();
    let memory = Snapshot::open(folder)?.state.below;
    let changes = memory.is_some();
    below.extend(memory.map(|memory| folder.join(memory.folder)));
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let path = entry.map_err(failed("list", folder))?.path();
        let is_disk = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"disk-"));
        // What is no image stands on nothing.
        let base = is_disk.then(|| image::base_of(&path).ok().flatten()).flatten();
        below.extend(base.map(|base| base.parent().unwrap_or(Path::new("")).to_owned()));
    }
    let mut ids = Vec::new();
    for about in below.iter().map(|folder| folder.join("about.json")) {
        match fs::read(&about) {
            Ok(bytes) => {
                let about: About =
                    serde_json::from_slice(&bytes).map_err(|error| NamedError::Garbled(about.clone(), error))?;
                ids.push(about.id);
                ids.extend(about.needs);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // an image of the user's
            Err(error) => return Err(failed("read", &about)(error)),
        }
    }
    ids.sort();
    ids.dedup();
    Ok((ids, changes))
}

impl Store {
    /// Which snapshots stand on those with these ids, in words; those of `but` don't count.
    pub(super) fn standing_on(&self, ids: &[String], but: Option<&Name>) -> Result<Vec<String>, NamedError> {
        let mut standing = Vec::new();
        for machine in self.all()?.iter().filter(|machine| Some(&machine.name) != but) {
            for branch in machine.tree()? {
                if branch.about.needs.iter().any(|need| ids.contains(need)) {
                    standing.push(format!("the snapshot {}@{} stands on it", machine.name, branch.name));
                }
            }
        }
        Ok(standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_on_and_stay_in_their_network() {
        assert_eq!(addresses("10.0.0.254/23", 3).unwrap(), ["10.0.0.254/23", "10.0.0.255/23", "10.0.1.0/23"]);
        assert!(addresses("10.0.0.254/24", 1).is_ok());
        for (first, count) in [("10.0.0.254/24", 2), ("10.0.0.0/24", 1), ("10.0.0.1", 1), ("255.255.255.255/0", 1)] {
            assert!(addresses(first, count).is_err(), "{first}");
        }
    }
}
