//! Networks that are ready before anybody wants them.
//!
//! Most of what a container waits for is the same for all of them: a namespace, a cable, an address, routes. So some can be
//! made beforehand; a container then only joins one, under its own name, and its ports are led there. Who wants that says
//! how many shall be ready ([`Networks::keep_ready`]).
//!
//! A ready network is a lease like others, that of nobody; and a namespace in which no process is, kept by a mount of its
//! file (`network_namespaces(7)`). Who takes it opens the namespace and removes the mount at once: from then on it goes, as
//! every other, with the last who has it, and whoever is killed on the way leaves a lease without a cable. A mount without
//! such a lease is what somebody left who was killed while he made one.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tracing::info_span;

use super::attach::{Attachment, Endpoint, Guest};
use super::definition::DEFAULT;
use super::error::NetworkError;
use super::held::Held;
use super::lease::{Lease, LeaseName};
use super::namespace::Namespace;
use super::port::PortWish;
use super::{Networks, claim, file, switch};

/// Whose ready networks are.
const NOBODY: &str = "ready";
/// More make no sense: each has memory of the kernel's, and an address.
const MOST: usize = 256;

/// How many networks are ready, and shall be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pool {
    /// Those that are.
    pub ready: usize,
    /// Those that shall be.
    pub wanted: usize,
}

impl Networks {
    /// Has so many networks ready from now on, and makes or removes what it takes. `None` leaves the number as it is and makes
    /// up for those that were taken.
    pub fn keep_ready(&self, count: Option<usize>) -> Result<Pool, NetworkError> {
        if let Some(count) = count {
            if count > MOST {
                return Err(NetworkError::PoolTooLarge { count, most: MOST });
            }
            self.hold()?.want_ready(count)?;
        }
        loop {
            // Let go of between two of them: who starts a container does not wait for all.
            let held = self.hold()?;
            let pool = held.pool()?;
            if pool.ready >= pool.wanted {
                return Ok(pool);
            }
            held.make_ready()?;
        }
    }

    /// Whether half of those that shall be ready are gone. Asks no kernel and waits for nobody.
    pub fn wants_more(&self) -> bool {
        let Ok(Some(wanted)) = file::read::<usize>(&self.leases.pool_size()) else { return false };
        file::names(&self.leases.pool()).is_ok_and(|ready| ready.len() * 2 <= wanted)
    }

    /// Gives a container a network that is ready, and leads these ports to it; nothing where none is. What is returned gives
    /// it back, unless it is [kept](Attachment::keep).
    pub fn attach_ready(
        &self,
        guest: Guest<'_>,
        endpoint: &Endpoint,
        ports: &[PortWish],
    ) -> Result<Option<(Namespace, Attachment<'_>)>, NetworkError> {
        let plain = endpoint.network == DEFAULT && endpoint.address.is_none() && endpoint.mac.is_none();
        if !plain || !self.leases.pool_size().exists() {
            return Ok(None);
        }
        claim::check(ports)?;
        let held = self.hold()?;
        let Some(ready) = held.ready()?.into_iter().next() else { return Ok(None) };
        let (namespace, lease) = held.hand_over(&ready, guest, endpoint, ports)?;
        Ok(Some((namespace, Attachment::new(self, guest.container, vec![lease]))))
    }
}

impl Held<'_> {
    /// How many are ready, and shall be.
    fn pool(&self) -> Result<Pool, NetworkError> {
        let wanted = file::read(&self.networks.leases.pool_size())?.unwrap_or(0);
        Ok(Pool { ready: self.ready()?.len(), wanted })
    }

    /// Notes how many shall be ready, and removes those that are too many.
    pub(super) fn want_ready(&self, count: usize) -> Result<(), NetworkError> {
        match count {
            0 => file::remove(&self.networks.leases.pool_size())?,
            _ => file::write(&self.networks.leases.pool_size(), &count)?,
        }
        self.ready()?.iter().skip(count).try_for_each(|surplus| self.free(surplus))
    }

    /// Those that are ready on this host.
    fn ready(&self) -> Result<Vec<Lease>, NetworkError> {
        let all = self.networks.leases.of(NOBODY)?;
        Ok(all.into_iter().filter(|lease| lease.home == self.home).collect())
    }

    /// Makes one.
    fn make_ready(&self) -> Result<(), NetworkError> {
        let _span = info_span!(
            "network.ready",
            call = "unshare(CLONE_NEWNET), mount(MS_BIND), sendto(RTM_NEWLINK)",
            why =
                "a namespace with a cable and an address, before anybody wants it; a mount keeps what no process is in"
        )
        .entered();
        let nowhere = PathBuf::new();
        let guest = Guest { container: NOBODY, name: NOBODY, hostname: NOBODY, hosts: &nowhere, extra: &[] };
        let endpoint = Endpoint { network: DEFAULT.to_owned(), ..Endpoint::default() };
        let network = self.network(DEFAULT)?;
        let bridge = switch::raise(self, &network)?;
        let namespace = Namespace::create()?;
        let lease = self.give(guest, &endpoint, &network, &[], 0)?;
        let made = self.pin(&namespace, lease.address);
        made.and_then(|()| self.plug_in(&lease, bridge, &network, &namespace, 0)).map(drop).inspect_err(|_| {
            // The reason is the error to tell of; what cannot be given back now is freed by whoever comes next.
            let _ = self.free(&lease);
        })
    }

    /// Makes a ready network a container's.
    fn hand_over(
        &self,
        ready: &Lease,
        guest: Guest<'_>,
        endpoint: &Endpoint,
        ports: &[PortWish],
    ) -> Result<(Namespace, Lease), NetworkError> {
        let network = self.network(DEFAULT)?;
        switch::raise(self, &network)?; //                              1. somebody may have flushed the rules
        let bound = self.claim(ports)?; //                              2. ports that nobody has
        let (namespace, lease) = {
            let _span = info_span!(
                "network.take",
                call = "setns(2), umount2(2), rename(2)",
                why = "namespace, cable and address are there; from here on they are this container's, and go with it"
            )
            .entered();
            let namespace = Namespace::open(&self.pin_of(ready.address))?; // 3. the namespace, which goes with us now
            self.unpin(ready.address)?;
            let lease = Lease {
                container: guest.container.to_owned(),
                name: guest.name.to_owned(),
                ports: bound.iter().map(|bound| bound.port).collect(),
                aliases: endpoint.aliases.clone(),
                hosts: guest.hosts.to_owned(),
                ..ready.clone()
            };
            self.networks.leases.write(&lease)?; //                      4. the address is the container's
            self.networks.leases.remove(ready)?;
            (namespace, lease)
        };
        let done = self.publish(lease.clone()).and_then(|lease| self.name(lease, &network, guest)); // 5. ports and names
        done.map(|lease| (namespace, lease)).inspect_err(|_| {
            // As above.
            let _ = self.free(&lease);
        })
    }

    /// Removes the mounts of ready networks whose lease is gone.
    pub(super) fn sweep_pool(&self) -> Result<(), NetworkError> {
        for name in file::names(&self.networks.leases.pool())? {
            let Ok(address) = name.parse() else { continue };
            let lease = LeaseName { address, container: NOBODY.to_owned() };
            if self.networks.leases.read(DEFAULT, &lease)?.is_none() {
                self.unpin(address)?;
            }
        }
        Ok(())
    }

    /// Keeps a namespace without a process in it.
    fn pin(&self, namespace: &Namespace, address: Ipv4Addr) -> Result<(), NetworkError> {
        let (folder, place) = (self.networks.leases.pool(), self.pin_of(address));
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(NetworkError::io("make", &folder))?;
        File::create(&place).map_err(NetworkError::io("make", &place))?;
        let mounted = mount(Some(&namespace.path()), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>);
        mounted.map_err(|source| NetworkError::System { attempt: "keep", on: "a network namespace".to_owned(), source })
    }

    /// Lets go of it. One that is not kept is fine.
    pub(super) fn unpin(&self, address: Ipv4Addr) -> Result<(), NetworkError> {
        let place = self.pin_of(address);
        match umount2(&place, MntFlags::MNT_DETACH) {
            // EINVAL: a file on which nothing is mounted; of another boot, or of one who was killed in between.
            Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => file::remove(&place),
            Err(source) => Err(NetworkError::System { attempt: "unmount", on: place.display().to_string(), source }),
        }
    }

    fn pin_of(&self, address: Ipv4Addr) -> PathBuf {
        self.networks.leases.pool().join(address.to_string())
    }
}

/// Whether a lease is that of a ready network.
pub(super) fn is_nobodys(container: &str) -> bool {
    container == NOBODY
}

/// Removes the folder, in which nothing is any more.
pub(super) fn vanish(folder: &std::path::Path) -> io::Result<()> {
    for name in [".new", ".size"] {
        let _ = fs::remove_file(folder.join(name));
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
