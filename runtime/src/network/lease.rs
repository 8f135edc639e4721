//! Who has which address: a file for each, below the folder of state that a reboot empties.
//!
//! The file's name says what everybody looks for, the address and the container; so a look into the folder tells what is
//! free, without opening a file. Whether a lease is still somebody's is not written anywhere: the kernel is asked, for the
//! cable. That goes with the namespace, and the namespace with the last process in it, however that ended.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::definition::Network;
use super::error::NetworkError;
use super::mac::Mac;
use super::port::{Protocol, Published};
use super::{file, pool};

/// What a container has in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The container's id.
    pub container: String,
    /// What people call it.
    pub name: String,
    /// The network.
    pub network: String,
    /// What the card is called inside.
    pub interface: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// How many bits of it are the network's.
    pub bits: u8,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// The card's own address.
    pub mac: Mac,
    /// The cable's other end, on the host.
    pub cable: String,
    /// What of the host's leads here.
    pub ports: Vec<Published>,
    /// What it is called in this network besides its name.
    pub aliases: Vec<String>,
    /// Its /etc/hosts, as the host finds it.
    pub hosts: PathBuf,
    /// The network namespace in which the bridge is.
    pub home: u64,
}

/// A lease as its file's name tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeaseName {
    pub(super) address: Ipv4Addr,
    pub(super) container: String,
}

/// A port of the host that leads to a container, as its file's name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) port: Published,
    pub(super) container: String,
}

/// The folder of all leases and claims.
#[derive(Debug)]
pub(super) struct Leases {
    folder: PathBuf,
}

impl Lease {
    fn file_name(&self) -> String {
        LeaseName { address: self.address, container: self.container.clone() }.file_name()
    }
}

/// The cable of whoever has this address: no two networks of a host share addresses, so no two cables share a name.
pub(super) fn cable_name(address: Ipv4Addr) -> String {
    format!("veth{:08x}", address.to_bits())
}

impl LeaseName {
    fn file_name(&self) -> String {
        format!("{}-{}", self.address, self.container)
    }

    fn read(text: &str) -> Option<Self> {
        let (address, container) = text.split_once('-')?;
        Some(Self { address: address.parse().ok()?, container: container.to_owned() })
    }
}

impl Claim {
    fn file_name(&self) -> String {
        let Published { protocol, host_port, host_address, container_port } = self.port;
        format!("{protocol}-{host_port}-{host_address}-{container_port}-{}", self.container)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let protocol: Protocol = parts.next()?.parse().ok()?;
        let host_port = parts.next()?.parse().ok()?;
        let host_address = parts.next()?.parse().ok()?;
        let container_port = parts.next()?.parse().ok()?;
        let port = Published { container_port, protocol, host_address, host_port };
        Some(Self { port, container: parts.next()?.to_owned() })
    }
}

impl Leases {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Who is in a network.
    pub(super) fn names(&self, network: &str) -> Result<Vec<LeaseName>, NetworkError> {
        let names = file::names(&self.network_folder(network))?;
        Ok(names.iter().filter_map(|name| LeaseName::read(name)).collect())
    }

    /// One of them in full; nothing where it has just gone.
    pub(super) fn read(&self, network: &str, name: &LeaseName) -> Result<Option<Lease>, NetworkError> {
        file::read(&self.network_folder(network).join(name.file_name()))
    }

    /// All of a network.
    pub(super) fn all(&self, network: &str) -> Result<Vec<Lease>, NetworkError> {
        let read = |name: LeaseName| self.read(network, &name).transpose();
        self.names(network)?.into_iter().filter_map(read).collect()
    }

    /// The networks in which anybody is, or was.
    pub(super) fn networks(&self) -> Result<Vec<String>, NetworkError> {
        file::names(&self.folder.join("leases"))
    }

    /// What a container has, in the order of its cards.
    pub(super) fn of(&self, container: &str) -> Result<Vec<Lease>, NetworkError> {
        let mut all = Vec::new();
        for network in self.networks()? {
            for name in self.names(&network)?.iter().filter(|name| name.container == container) {
                all.extend(self.read(&network, name)?);
            }
        }
        all.sort_by(|one, other| one.interface.cmp(&other.interface));
        Ok(all)
    }

    /// An address that nobody has: the one behind that which was given last, so that none is soon somebody else's.
    pub(super) fn free_address(&self, network: &Network) -> Result<Ipv4Addr, NetworkError> {
        let taken: Vec<Ipv4Addr> = self.names(&network.name)?.into_iter().map(|name| name.address).collect();
        // It is only a hint, which anything may have become of.
        let last = file::read(&self.last_path(&network.name)).ok().flatten().unwrap_or(network.gateway);
        network
            .subnet
            .places_behind(last)
            .find(|address| *address != network.gateway && !taken.contains(address))
            .ok_or_else(|| NetworkError::Full { network: network.name.clone(), subnet: network.subnet })
    }

    /// Writes a lease and its claims.
    pub(super) fn write(&self, lease: &Lease) -> Result<(), NetworkError> {
        let folder = self.network_folder(&lease.network);
        file::write(&folder.join(lease.file_name()), lease)?;
        file::note(&self.last_path(&lease.network), &format!("{:18}", format!("\"{}\"", lease.address)))?;
        for port in &lease.ports {
            let claim = Claim { port: *port, container: lease.container.clone() };
            file::write(&self.claims_folder().join(claim.file_name()), &lease.network)?;
        }
        Ok(())
    }

    /// Removes a lease, its claims first.
    pub(super) fn remove(&self, lease: &Lease) -> Result<(), NetworkError> {
        for port in &lease.ports {
            self.remove_claim(&Claim { port: *port, container: lease.container.clone() })?;
        }
        file::remove(&self.network_folder(&lease.network).join(lease.file_name()))
    }

    /// Whose which port is.
    pub(super) fn claims(&self) -> Result<Vec<Claim>, NetworkError> {
        Ok(file::names(&self.claims_folder())?.iter().filter_map(|name| Claim::read(name)).collect())
    }

    pub(super) fn remove_claim(&self, claim: &Claim) -> Result<(), NetworkError> {
        file::remove(&self.claims_folder().join(claim.file_name()))
    }

    /// Removes the folder of a network in which nobody is.
    pub(super) fn remove_network(&self, network: &str) -> Result<(), NetworkError> {
        file::remove(&self.last_path(network))?;
        match fs::remove_dir(self.network_folder(network)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(NetworkError::io("remove", self.network_folder(network))),
        }
    }

    /// Removes the folders, which must be empty, and the lock with them.
    pub(super) fn vanish(&self) -> io::Result<()> {
        pool::vanish(&self.pool())?;
        for folder in [self.claims_folder(), self.folder.join("leases")] {
            match fs::remove_file(folder.join(".new")).and_then(|()| fs::remove_dir(&folder)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => drop(fs::remove_dir(&folder)),
                other => other?,
            }
        }
        fs::remove_file(self.lock_path())?;
        fs::remove_dir(&self.folder)
    }

    fn network_folder(&self, network: &str) -> PathBuf {
        self.folder.join("leases").join(network)
    }

    fn claims_folder(&self) -> PathBuf {
        self.folder.join("ports")
    }

    /// The folder of the networks that are ready.
    pub(super) fn pool(&self) -> PathBuf {
        self.folder.join("pool")
    }

    /// How many shall be ready; not there where none shall.
    pub(super) fn pool_size(&self) -> PathBuf {
        self.pool().join(".size")
    }

    fn last_path(&self, network: &str) -> PathBuf {
        self.network_folder(network).join(".last")
    }

    /// What is locked by whoever changes anything here.
    pub(super) fn lock_path(&self) -> PathBuf {
        Path::new(&self.folder).join("lock")
    }
}

#[cfg(test)]
mod tests {
    use super::{Claim, Lease, LeaseName, Leases};
    use crate::network::definition::Network;
    use crate::network::port::{Protocol, Published};
    use std::net::Ipv4Addr;
    use std::path::PathBuf;

    const PORT: Published =
        Published { container_port: 80, protocol: Protocol::Udp, host_address: Ipv4Addr::UNSPECIFIED, host_port: 8080 };

    fn network() -> Network {
        Network {
            name: "n".to_owned(),
            id: "0".to_owned(),
            created: String::new(),
            subnet: "10.9.8.0/29".parse().expect("a range"),
            gateway: Ipv4Addr::new(10, 9, 8, 1),
            bridge: "b".to_owned(),
            labels: std::collections::BTreeMap::new(),
        }
    }

    fn lease(container: &str, address: Ipv4Addr) -> Lease {
        Lease {
            container: container.to_owned(),
            name: container.to_owned(),
            network: "n".to_owned(),
            interface: "eth0".to_owned(),
            address,
            bits: 29,
            gateway: Ipv4Addr::new(10, 9, 8, 1),
            mac: "02:00:00:00:00:01".parse().expect("an address"),
            cable: super::cable_name(address),
            ports: vec![PORT],
            aliases: Vec::new(),
            hosts: PathBuf::from("/h"),
            home: 1,
        }
    }

    #[test]
    fn names_of_files_tell_what_they_hold() {
        let name = LeaseName { address: Ipv4Addr::new(10, 0, 0, 5), container: "a-b".to_owned() };
        assert_eq!(LeaseName::read(&name.file_name()), Some(name));
        let claim = Claim { port: PORT, container: "a-b".to_owned() };
        assert_eq!(Claim::read(&claim.file_name()), Some(claim));
        assert_eq!(LeaseName::read("x"), None);
        assert_eq!(Claim::read("tcp-1-x"), None);
    }

    #[test]
    fn an_address_is_given_again_only_when_all_others_were() {
        let folder = tempfile::tempdir().expect("a folder");
        let (leases, network) = (Leases::new(folder.path().to_owned()), network());
        let give = |container: &str| {
            let address = leases.free_address(&network)?;
            leases.write(&lease(container, address)).map(|()| address.octets()[3])
        };
        let last = |byte| Ipv4Addr::new(10, 9, 8, byte);
        assert_eq!(["a", "b", "c"].map(|name| give(name).expect("free")), [2, 3, 4]);
        leases.remove(&lease("a", last(2))).expect("removed");
        assert_eq!(["d", "e", "f"].map(|name| give(name).expect("free")), [5, 6, 2]);
        assert!(give("g").is_err());
        let of_f = leases.of("f").expect("read");
        assert_eq!(of_f, [lease("f", last(2))]);
        for lease in leases.all("n").expect("read") {
            leases.remove(&lease).expect("removed");
        }
        assert_eq!(leases.claims().expect("read"), []);
        leases.remove_network("n").expect("removed");
    }
}
