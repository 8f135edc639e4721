//! Networks that have a name: which addresses they have, and which bridge. A file each, so they outlive a reboot; the
//! bridge and the rules do not, and are made when the first container comes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::NetworkError;
use super::file;
use super::subnet::Subnet;

/// The network of containers that name none.
pub const DEFAULT: &str = "bridge";
/// Names that mean something else than a bridge.
const RESERVED: [&str; 4] = ["none", "host", "default", "container"];

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// What people call it.
    pub name: String,
    /// 64 hexadecimal digits that no other network has.
    pub id: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// Its addresses.
    pub subnet: Subnet,
    /// The bridge's own address: whom containers ask for everything that is elsewhere.
    pub gateway: Ipv4Addr,
    /// The bridge's name.
    pub bridge: String,
    /// Notes.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A wish for a network.
#[derive(Debug, Clone, Default)]
pub struct NetworkWish {
    /// Its name.
    pub name: String,
    /// Its addresses; those of a range that nobody has, where nothing is said.
    pub subnet: Option<Subnet>,
    /// The bridge's address; the first of the range, where nothing is said.
    pub gateway: Option<Ipv4Addr>,
    /// Notes.
    pub labels: BTreeMap<String, String>,
}

impl Network {
    /// Whether containers find each other by name in it.
    pub fn resolves_names(&self) -> bool {
        self.name != DEFAULT
    }
}

/// The folder with the files.
#[derive(Debug)]
pub(super) struct Definitions {
    folder: PathBuf,
    /// What bridges' names begin with.
    prefix: String,
}

impl Definitions {
    pub(super) fn new(folder: PathBuf, prefix: String) -> Self {
        Self { folder, prefix }
    }

    /// All of them, by name.
    pub(super) fn list(&self) -> Result<Vec<Network>, NetworkError> {
        let mut all = Vec::new();
        for name in file::names(&self.folder)? {
            if let Some(name) = name.strip_suffix(".json") {
                all.extend(self.read(name)?);
            }
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// The one of this name; or whose id begins so, if that is only one.
    pub(super) fn find(&self, name: &str) -> Result<Option<Network>, NetworkError> {
        if is_name(name)
            && let Some(found) = self.read(name)?
        {
            return Ok(Some(found));
        }
        let mut all = self.list()?;
        all.retain(|network| !name.is_empty() && network.id.starts_with(name));
        Ok(all.pop().filter(|_| all.is_empty()))
    }

    /// Makes one. `routes` are the ranges that the host has already.
    pub(super) fn create(&self, wish: &NetworkWish, routes: &[Subnet]) -> Result<Network, NetworkError> {
        check_name(&wish.name)?;
        let others = self.list()?;
        if others.iter().any(|other| other.name == wish.name) {
            return Err(NetworkError::Exists { name: wish.name.clone() });
        }
        let taken = Taken { routes, others: &others };
        let subnet = match wish.subnet {
            Some(subnet) => taken.check(subnet)?,
            None => candidates(&wish.name).find(|it| taken.by(*it).is_none()).ok_or(NetworkError::NoSubnet)?,
        };
        let gateway = wish.gateway.unwrap_or(subnet.gateway());
        if !subnet.has_place_for(gateway) {
            return Err(NetworkError::AddressOutside { address: gateway, network: wish.name.clone(), subnet });
        }
        let network = Network {
            name: wish.name.clone(),
            id: super::random_id().map_err(NetworkError::io("read", "/dev/urandom"))?,
            created: crate::container::rfc3339(crate::container::since_epoch()),
            subnet,
            gateway,
            bridge: self.bridge_name(&wish.name, &others),
            labels: wish.labels.clone(),
        };
        file::write(&self.path(&network.name), &network)?;
        Ok(network)
    }

    /// Forgets one.
    pub(super) fn remove(&self, name: &str) -> Result<(), NetworkError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(NetworkError::io("remove", path)),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Network>, NetworkError> {
        file::read(&self.path(name))
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.folder).join(format!("{name}.json"))
    }

    /// The default network's bridge is number 0; each other has the lowest number that is free.
    fn bridge_name(&self, name: &str, others: &[Network]) -> String {
        let named = |number: usize| format!("{}{number}", self.prefix);
        let free = |number: &usize| others.iter().all(|other| other.bridge != named(*number));
        if name == DEFAULT { named(0) } else { named((1..=others.len()).find(free).unwrap_or(others.len() + 1)) }
    }
}

/// Who has which ranges.
struct Taken<'a> {
    routes: &'a [Subnet],
    others: &'a [Network],
}

impl Taken<'_> {
    fn by(&self, subnet: Subnet) -> Option<(Subnet, String)> {
        let network = self.others.iter().find(|other| other.subnet.overlaps(subnet));
        let route = || self.routes.iter().find(|route| route.overlaps(subnet));
        network
            .map(|other| (other.subnet, format!("network {}'s", other.name)))
            .or_else(|| route().map(|route| (*route, "among the host's routes".to_owned())))
    }

    fn check(&self, subnet: Subnet) -> Result<Subnet, NetworkError> {
        match self.by(subnet) {
            None => Ok(subnet),
            Some((other, whose)) => Err(NetworkError::Overlap { subnet, other, whose }),
        }
    }
}

/// The ranges that are tried: one of 65,534 addresses for the network in which most containers are, of 254 for each
/// other one. Even second bytes from 144 on are for the first kind, odd ones for the second.
fn candidates(name: &str) -> Box<dyn Iterator<Item = Subnet>> {
    let bytes = |offset: u8| (0..50).map(move |step| 144 + offset + 2 * step);
    if name == DEFAULT {
        Box::new(bytes(0).map(|second| Subnet::around(Ipv4Addr::new(10, second, 0, 0), 16)))
    } else {
        Box::new(
            bytes(1)
                .flat_map(|second| (0..=255).map(move |third| Subnet::around(Ipv4Addr::new(10, second, third, 0), 24))),
        )
    }
}

fn check_name(name: &str) -> Result<(), NetworkError> {
    if RESERVED.contains(&name) {
        return Err(NetworkError::Predefined { name: name.to_owned() });
    }
    if is_name(name) { Ok(()) } else { Err(NetworkError::Name { name: name.to_owned() }) }
}

/// Whether it can be a network's name, and so part of a path.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.len() <= 128
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT, Definitions, Network, NetworkWish};
    use crate::network::NetworkError;

    fn definitions() -> (tempfile::TempDir, Definitions) {
        let folder = tempfile::tempdir().expect("a folder");
        let definitions = Definitions::new(folder.path().join("networks"), "isolab".to_owned());
        (folder, definitions)
    }

    fn wish(name: &str, subnet: Option<&str>) -> NetworkWish {
        let subnet = subnet.map(|text| text.parse().expect("a range"));
        NetworkWish { name: name.to_owned(), subnet, ..NetworkWish::default() }
    }

    fn told(network: &Network) -> (String, String, String) {
        (network.bridge.clone(), network.subnet.to_string(), network.gateway.to_string())
    }

    #[test]
    fn each_network_has_a_bridge_and_addresses_of_its_own() {
        let (_folder, definitions) = definitions();
        let routes = ["10.144.0.0/16", "10.145.0.0/23"].map(|text| text.parse().expect("a range"));
        let make = |name, subnet| told(&definitions.create(&wish(name, subnet), &routes).expect("a network"));
        let expected =
            |bridge: &str, subnet: &str, gateway: &str| (bridge.to_owned(), subnet.to_owned(), gateway.to_owned());
        assert_eq!(make(DEFAULT, None), expected("isolab0", "10.146.0.0/16", "10.146.0.1"));
        assert_eq!(make("a", None), expected("isolab1", "10.145.2.0/24", "10.145.2.1"));
        assert_eq!(make("b", Some("192.168.7.0/24")), expected("isolab2", "192.168.7.0/24", "192.168.7.1"));
        definitions.remove("a").expect("removed");
        assert_eq!(make("c", None).0, "isolab1");
        assert_eq!(definitions.list().expect("a list").len(), 3);
    }

    #[test]
    fn what_is_somebodys_is_refused() {
        let (_folder, definitions) = definitions();
        definitions.create(&wish("a", Some("10.1.0.0/16")), &[]).expect("a network");
        let refused = |name, subnet| definitions.create(&wish(name, subnet), &[]).expect_err("refused");
        assert!(matches!(refused("a", None), NetworkError::Exists { .. }));
        assert!(matches!(refused("b", Some("10.1.2.0/24")), NetworkError::Overlap { .. }));
        assert!(matches!(refused("host", None), NetworkError::Predefined { .. }));
        assert!(matches!(refused("../x", None), NetworkError::Name { .. }));
    }

    #[test]
    fn a_network_is_found_by_name_and_by_the_beginning_of_its_id() {
        let (_folder, definitions) = definitions();
        let made = definitions.create(&wish("a", None), &[]).expect("a network");
        assert_eq!(definitions.find("a").expect("read"), Some(made.clone()));
        assert_eq!(definitions.find(&made.id[..12]).expect("read"), Some(made));
        assert_eq!(definitions.find("../a").expect("read"), None);
    }
}
