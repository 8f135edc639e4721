//! Networks of containers: bridges, cables, addresses, names, and ports of the host that lead inside.
//!
//! A container has a network namespace: interfaces, addresses, routes and ports of its own, and at first no way out. Here
//! one is made: a virtual cable (*veth*) with one end inside and the other plugged into a virtual switch (a *bridge*) on
//! the host, an address on that switch's network, a route to everywhere else through the host, and packet rules that
//! exchange addresses on the way (NAT). Nothing of this is a process. Once it is set up the kernel does it all, so there is
//! no daemon to keep, and a published port costs nothing while nobody uses it.
//!
//! Where to begin: [`Networks::attach`] is the list of steps, in the order of the file `attach`. Each other file is one
//! thing:
//!
//! | file | what |
//! |---|---|
//! | `netlink` | talking to the kernel: messages with attributes, out and back |
//! | `link` | interfaces, addresses, routes |
//! | `firewall` | the packet rules, and the sets that they look into |
//! | `namespace` | making a network namespace, and visiting one |
//! | `device` | giving an interface of the host to a container |
//! | `definition`, `subnet` | networks with a name; ranges of addresses |
//! | `pool` | networks that are ready before anybody wants them |
//! | `lease`, `held`, `mac` | who has which address; the lock; what the dead have left |
//! | `port`, `claim` | published ports, and taking them |
//! | `hosts` | /etc/hosts and /etc/resolv.conf |
//! | `user`, `pasta`, `slirp` | the network of an ordinary user's container, and the programs that carry it |

mod attach;
mod claim;
mod definition;
mod device;
mod error;
mod file;
mod firewall;
mod held;
mod hosts;
mod lease;
mod link;
mod mac;
mod namespace;
mod netlink;
mod pasta;
mod pool;
mod port;
mod slirp;
mod subnet;
mod switch;
mod sys;
mod user;

use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};
use tracing::info_span;

pub use attach::{Attachment, Endpoint, Guest};
pub use definition::{DEFAULT, Network, NetworkWish};
pub use device::give_away;
pub use error::NetworkError;
pub use hosts::{ExtraHost, ExtraHostError, Resolver, beginning, host_resolver, resolver_text};
pub use lease::Lease;
pub use mac::{Mac, MacError};
pub use namespace::Namespace;
pub use netlink::NetlinkError;
pub use pool::Pool;
pub use port::{PortError, PortWish, Protocol, Published};
pub use subnet::{Subnet, SubnetError};
pub use user::Carrier;

use definition::Definitions;
use held::Held;
use lease::Leases;

/// The networks of one root.
#[derive(Debug)]
pub struct Networks {
    definitions: Definitions,
    leases: Leases,
    /// The name of our table of packet rules.
    table: String,
}

/// A network and who is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupied {
    /// The network.
    pub network: Network,
    /// Who is in it.
    pub leases: Vec<Lease>,
}

/// What [`Networks::prune`] has removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Networks.
    pub networks: Vec<String>,
    /// Containers that had ended and still had addresses or ports.
    pub containers: Vec<String>,
}

impl Networks {
    /// The networks that are defined below `data` and have their state below `run`.
    ///
    /// Two roots on one host must not meet: the usual one has the names `isolab` and `isolab0`, `isolab1`, ...; each other
    /// one has names with a few digits that follow from its path.
    pub fn below(data: &Path, run: &Path, usual: bool) -> Self {
        let (table, prefix, folder) = if usual {
            ("isolab".to_owned(), "isolab".to_owned(), "network".to_owned())
        } else {
            let path = std::path::absolute(data).unwrap_or(data.to_owned());
            let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
            let digits = hexadecimal(hash.get(..3).unwrap_or_default());
            (format!("isolab-{digits}"), format!("il{digits}-"), format!("network-{digits}"))
        };
        Self {
            definitions: Definitions::new(data.join("networks"), prefix),
            leases: Leases::new(run.join(folder)),
            table,
        }
    }

    /// Waits until nobody else changes anything, and frees what the dead have left.
    fn hold(&self) -> Result<Held<'_>, NetworkError> {
        Held::take(self)
    }

    /// Frees what belongs to containers that are gone, and names them.
    pub fn free_the_dead(&self) -> Result<Vec<String>, NetworkError> {
        if self.leases.networks()?.is_empty() { Ok(Vec::new()) } else { Ok(self.hold()?.freed().to_vec()) }
    }

    /// Frees the ports of containers that are gone, unless somebody changes networks right now, who frees them too: until
    /// then the rules take what is sent there from whoever listens on the host now.
    pub fn free_ports(&self) -> Result<(), NetworkError> {
        if self.leases.claims()?.is_empty() { Ok(()) } else { Held::try_take(self).map(drop) }
    }

    /// The networks that a user or a first container has made, by name.
    pub fn list(&self) -> Result<Vec<Network>, NetworkError> {
        self.definitions.list()
    }

    /// The network of this name or id.
    pub fn find(&self, name: &str) -> Result<Network, NetworkError> {
        self.definitions.find(name)?.ok_or_else(|| NetworkError::Missing { name: name.to_owned() })
    }

    /// The network of this name or id; the default one is made where it is not there yet.
    pub fn find_or_default(&self, name: &str) -> Result<Network, NetworkError> {
        if name == DEFAULT { self.hold()?.network(DEFAULT) } else { self.find(name) }
    }

    /// A network and who is in it now.
    pub fn inspect(&self, name: &str) -> Result<Occupied, NetworkError> {
        let network = self.find_or_default(name)?;
        let _held = self.hold()?;
        let mut leases = self.leases.all(&network.name)?;
        leases.retain(|lease| !pool::is_nobodys(&lease.container));
        Ok(Occupied { network, leases })
    }

    /// Makes a network. Its bridge is made when the first container comes.
    pub fn create(&self, wish: &NetworkWish) -> Result<Network, NetworkError> {
        let _span = info_span!(
            "network.define",
            call = "rename(2)",
            why = "a network is a file: a name, and addresses that no route of the host leads to yet"
        )
        .entered();
        if wish.name == DEFAULT {
            return Err(NetworkError::Predefined { name: wish.name.clone() });
        }
        let held = self.hold()?;
        self.definitions.create(wish, &held.routes()?)
    }

    /// Removes a network in which nobody is.
    pub fn remove(&self, name: &str) -> Result<Network, NetworkError> {
        if [DEFAULT, "host", "none"].contains(&name) {
            return Err(NetworkError::Predefined { name: name.to_owned() });
        }
        let held = self.hold()?;
        let network = self.find(name)?;
        held.take_down(&network)?;
        self.definitions.remove(&network.name)?;
        Ok(network)
    }

    /// Removes each network of a user's in which nobody is and those that are ready, and takes down every bridge and, with the
    /// last one, the packet rules, where nobody needs them. What is needed again is made again.
    pub fn prune(&self) -> Result<Pruned, NetworkError> {
        let held = self.hold()?;
        held.want_ready(0)?;
        let mut pruned = Pruned { networks: Vec::new(), containers: held.freed().to_vec() };
        let mut used = false;
        for network in self.list()? {
            match held.take_down(&network) {
                Err(NetworkError::InUse { .. }) => used = true,
                Err(error) => return Err(error),
                Ok(()) if network.name == DEFAULT => {}
                Ok(()) => {
                    self.definitions.remove(&network.name)?;
                    pruned.networks.push(network.name);
                }
            }
        }
        if !used {
            held.firewall()?.remove()?;
            held.vanish();
        }
        Ok(pruned)
    }

    /// What a container has, in the order of its cards.
    pub fn leases_of(&self, container: &str) -> Result<Vec<Lease>, NetworkError> {
        self.leases.of(container)
    }

    /// Gives back all that a container had, which has ended or is about to be gone. Twice is as good as once.
    pub fn detach(&self, container: &str) -> Result<(), NetworkError> {
        if self.leases.of(container)?.is_empty() {
            return Ok(());
        }
        let _span = info_span!(
            "network.detach",
            call = "sendto(NETLINK_NETFILTER), unlink(2)",
            why = "its ports lead nowhere, its address is free; its cable goes with its namespace, and nobody waits for that"
        )
        .entered();
        let held = self.hold()?;
        for lease in self.leases.of(container)? {
            held.free(&lease)?;
        }
        Ok(())
    }
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// 64 hexadecimal digits.
fn random_id() -> io::Result<String> {
    Ok(hexadecimal(&random::<32>()?))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
