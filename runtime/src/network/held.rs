//! The lock on all networks of a root, and what can be done only while it is held.
//!
//! Commands race: two starts must not be given one address. Whoever changes anything holds one lock (flock(2)), for the
//! millisecond that a cable and a rule take; the kernel would let only one in at a time anyway. Who dies with it in hand
//! drops it, and what he had begun is a lease without a cable, which the next one frees.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::net::if_::if_nametoindex;
use tracing::info_span;

use super::Networks;
use super::definition::{DEFAULT, Network, NetworkWish};
use super::error::NetworkError;
use super::firewall::{Firewall, Target};
use super::hosts;
use super::lease::{Lease, LeaseName};
use super::link;
use super::namespace::own_number;
use super::netlink::Socket;
use super::pool::is_nobodys;
use super::subnet::Subnet;
use super::switch;

/// While this lives, nobody else changes anything.
#[derive(Debug)]
pub(super) struct Held<'a> {
    pub(super) networks: &'a Networks,
    /// To the host's interfaces.
    pub(super) socket: Socket,
    /// The namespace that counts as the host.
    pub(super) home: u64,
    freed: Vec<String>,
    _lock: Flock<File>,
}

impl<'a> Held<'a> {
    pub(super) fn take(networks: &'a Networks) -> Result<Self, NetworkError> {
        let locked = {
            let _span = info_span!(
                "network.lock",
                call = "flock(2)",
                why = "commands race: whoever gives an address away must be alone"
            )
            .entered();
            lock(&networks.leases.lock_path(), FlockArg::LockExclusive)?
        };
        Self::new(networks, locked)
    }

    /// The same; nothing where another has it.
    pub(super) fn try_take(networks: &'a Networks) -> Result<Option<Self>, NetworkError> {
        match lock(&networks.leases.lock_path(), FlockArg::LockExclusiveNonblock) {
            Err(NetworkError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => Self::new(networks, other?).map(Some),
        }
    }

    fn new(networks: &'a Networks, lock: Flock<File>) -> Result<Self, NetworkError> {
        let mut held = Self { networks, socket: Socket::route()?, home: own_number()?, freed: Vec::new(), _lock: lock };
        held.freed = held.sweep()?;
        Ok(held)
    }

    /// The containers that had died and left something.
    pub(super) fn freed(&self) -> &[String] {
        &self.freed
    }

    /// Frees what belongs to containers that are gone.
    fn sweep(&self) -> Result<Vec<String>, NetworkError> {
        let _span = info_span!(
            "network.sweep",
            call = "ioctl(SIOCGIFINDEX)",
            why = "who was killed gave nothing back: a lease whose cable is gone is nobody's"
        )
        .entered();
        let mut freed = Vec::new();
        let mut known = Vec::new();
        for network in self.networks.leases.networks()? {
            for name in self.networks.leases.names(&network)? {
                if let Some(dead) = self.dead(&network, &name)? {
                    self.free(&dead)?;
                    freed.extend(Some(name.container).filter(|container| !is_nobodys(container)));
                } else {
                    known.push(name.container);
                }
            }
        }
        // A claim is written behind its lease and removed before it, so one alone is what somebody else removed by hand.
        for claim in self.networks.leases.claims()?.iter().filter(|claim| !known.contains(&claim.container)) {
            let ports = std::slice::from_ref(&claim.port);
            self.firewall()?.withdraw(Target { container: std::net::Ipv4Addr::UNSPECIFIED, ports })?;
            self.networks.leases.remove_claim(claim)?;
        }
        self.sweep_pool()?;
        Ok(freed)
    }

    /// The lease, if nobody has it any more. One that was given in another namespace cannot be judged from here.
    fn dead(&self, network: &str, name: &LeaseName) -> Result<Option<Lease>, NetworkError> {
        match if_nametoindex(super::lease::cable_name(name.address).as_str()) {
            Ok(_) => Ok(None),
            Err(_) => Ok(self.networks.leases.read(network, name)?.filter(|lease| lease.home == self.home)),
        }
    }

    /// Gives back what a lease stands for. The lease goes last: until then the next one would do all of this again.
    pub(super) fn free(&self, lease: &Lease) -> Result<(), NetworkError> {
        if !lease.ports.is_empty() {
            self.firewall()?.withdraw(Target { container: lease.address, ports: &lease.ports })?;
        }
        if is_nobodys(&lease.container) {
            self.unpin(lease.address)?;
        }
        self.networks.leases.remove(lease)?;
        if let Some(network) = self.networks.definitions.find(&lease.network)? {
            self.tell_names(&network, None)?;
        }
        Ok(())
    }

    /// Writes the names of all who are in a network into the files of all who are in it. `new` is one with its host name.
    pub(super) fn tell_names(&self, network: &Network, new: Option<(&Lease, &str)>) -> Result<(), NetworkError> {
        if !network.resolves_names() {
            return new.map_or(Ok(()), |(lease, hostname)| {
                hosts::update(lease, &network.name, std::slice::from_ref(lease), Some(hostname))
            });
        }
        let all = self.networks.leases.all(&network.name)?;
        all.iter().try_for_each(|one| {
            let hostname = new.filter(|(lease, _)| lease.container == one.container).map(|(_, hostname)| hostname);
            hosts::update(one, &network.name, &all, hostname)
        })
    }

    /// The network of this name; the default one is made at its first use.
    pub(super) fn network(&self, name: &str) -> Result<Network, NetworkError> {
        match self.networks.definitions.find(name)? {
            Some(network) => Ok(network),
            None if name == DEFAULT => {
                let wish = NetworkWish { name: name.to_owned(), ..NetworkWish::default() };
                self.networks.definitions.create(&wish, &self.routes()?)
            }
            None => Err(NetworkError::Missing { name: name.to_owned() }),
        }
    }

    /// The ranges that the host has routes to.
    pub(super) fn routes(&self) -> Result<Vec<Subnet>, NetworkError> {
        Ok(link::routes(&self.socket)?)
    }

    /// The table of packet rules.
    pub(super) fn firewall(&self) -> Result<Firewall<'a>, NetworkError> {
        Ok(Firewall::of(&self.networks.table)?)
    }

    /// Removes the folder of state, in which nothing is any more.
    pub(super) fn vanish(self) {
        // It is in nobody's way, and whoever comes next makes what is missing.
        let _ = self.networks.leases.vanish();
    }

    /// Takes the bridge of a network away, if nobody is in it.
    pub(super) fn take_down(&self, network: &Network) -> Result<(), NetworkError> {
        let inside = self.networks.leases.all(&network.name)?;
        if !inside.is_empty() {
            let containers = inside.into_iter().map(|lease| lease.name).collect();
            return Err(NetworkError::InUse { name: network.name.clone(), containers });
        }
        switch::take_down(self, network)?;
        self.networks.leases.remove_network(&network.name)
    }
}

/// Locks the file of this name. One that was removed while it was waited for is nobody's lock any more.
fn lock(path: &Path, how: FlockArg) -> Result<Flock<File>, NetworkError> {
    let failed = NetworkError::io("lock", path);
    let mut file = super::file::open_lock(path)?;
    loop {
        let held = match Flock::lock(file, how) {
            Err((_, errno)) => return Err(failed(errno.into())),
            Ok(held) => held,
        };
        let still = held.metadata().is_ok_and(|own| std::fs::metadata(path).is_ok_and(|it| it.ino() == own.ino()));
        if still {
            return Ok(held);
        }
        file = super::file::open_lock(path)?;
    }
}
