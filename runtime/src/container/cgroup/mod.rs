//! cgroups: what a container may use, and what it has used.
//!
//! A cgroup is a directory in a file system that the kernel provides. Making the directory makes the group, writing a
//! file sets a limit, writing a process id moves a process in, removing the directory ends it. v1 has a tree of such
//! directories for each controller, v2 one tree for all; a container here has one [`Cgroup`], whatever that is made of.
//!
//! The order matters: the limits are written before anything can enter, so that nothing ever runs without them.
//!
//! ```text
//! layout      where the hierarchies are, and which of them this process may use
//! folder      one directory: open, write, read, remove
//! doors       how a process moves itself in
//! limits      from linux.resources to files, and what v2 wants before
//! controller  what all controllers have in common; then a file for each of them
//! program     the eBPF program that stands for v2's missing device list
//! freezer     stop, continue, kill
//! update      new limits for one that is in use: all or none
//! stats       what has been counted
//! force       what is really limited
//! memory_watch  the kernel's word that memory ran out
//! ```

mod controller;
mod cpu;
mod cpuset;
mod devices;
mod doors;
mod error;
mod folder;
mod force;
mod freezer;
mod hugetlb;
mod io;
mod layout;
mod limits;
mod memory;
mod memory_watch;
mod network;
mod pids;
pub(crate) mod program;
mod rdma;
mod stats;
mod unified;
mod update;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;
use tracing::info_span;

pub(crate) use doors::Doors;
pub use error::CgroupError;
pub use force::InForce;
pub use layout::{Flavour, Hierarchy, Layout, Version};
pub use memory_watch::MemoryWatch;
pub use stats::{CpuStats, DeviceIo, MemoryStats, PidsStats, Stats};

use controller::{CONTROLLERS, Controller};
use folder::Folder;

/// The cgroup of one container: a directory in each hierarchy of the host.
///
/// Dropped, it takes its directories with it, and whatever still runs in them; [`Cgroup::keep`] leaves them.
#[derive(Debug)]
pub struct Cgroup {
    folders: Vec<Folder>,
    flavour: Flavour,
    /// Whether dropping it removes it.
    owned: bool,
}

impl Cgroup {
    /// Makes a cgroup in every hierarchy and writes its limits.
    ///
    /// An absolute path starts at the top of each hierarchy, a relative one at this process's own cgroup (in v2: beside
    /// it). A parent named `isolab` is removed with the last cgroup in it.
    pub fn create(layout: &Layout, path: &Path, resources: Option<&LinuxResources>) -> Result<Self, CgroupError> {
        let mut cgroup = Self { folders: Vec::new(), flavour: layout.flavour(), owned: true };
        {
            let _span = info_span!(
                "cgroup.create",
                call = "mkdir(2)",
                why = "a directory in the kernel's own file system is a group of processes: one in each hierarchy"
            )
            .entered();
            crate::spans::fault().map_err(|source| CgroupError::Make { path: path.to_owned(), source })?;
            for hierarchy in &layout.hierarchies {
                cgroup.folders.push(Folder::create(hierarchy, path, layout.posing)?);
            }
        }
        let nothing = LinuxResources::default();
        let asked = resources.unwrap_or(&nothing);
        cgroup.delegate(asked)?;
        cgroup.limit(asked)?;
        Ok(cgroup)
    }

    /// Finds the cgroup of a container that another process made; dropping it leaves it there.
    pub fn open(layout: &Layout, path: &Path) -> Result<Self, CgroupError> {
        Self::open_below(layout, |_| path.to_owned())
    }

    /// As [`Cgroup::open`], with a path for each hierarchy.
    pub fn open_below(layout: &Layout, path: impl Fn(&Hierarchy) -> PathBuf) -> Result<Self, CgroupError> {
        let mut folders: Vec<Folder> = Vec::new();
        let mut missing = None;
        for hierarchy in &layout.hierarchies {
            match Folder::open(hierarchy, &path(hierarchy), layout.posing) {
                Ok(folder) => folders.push(folder),
                // Its maker may have been killed between two hierarchies: what is there must be found all the same.
                Err(error @ CgroupError::Open { source: Errno::ENOENT, .. }) => missing = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let (true, Some(error)) = (folders.is_empty(), missing) {
            return Err(error);
        }
        for folder in folders.iter_mut().filter(|folder| folder.version == Version::V2) {
            folder.controllers = words(&folder.read_optional("cgroup.controllers")?.unwrap_or_default());
        }
        Ok(Self { folders, flavour: layout.flavour(), owned: false })
    }

    /// Where clone3(2) can put a new process at once (`CLONE_INTO_CGROUP`): its directory in v2, where the host has that.
    ///
    /// A process born in its cgroup need not be moved there, and so nobody waits.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.unified().and_then(Folder::directory)
    }

    /// The ways into the other hierarchies, those of v1, for a process to take by itself.
    pub(crate) fn doors(&self) -> Result<Doors, CgroupError> {
        let mut doors = Doors::default();
        for folder in self.folders.iter().filter(|folder| folder.version == Version::V1) {
            if folder.has(cpuset::NAME) {
                // Its parent may be somebody else's, who did not hand down CPUs: nobody could enter (`ENOSPC`).
                cpuset::fill(folder)?;
            }
            doors.add(folder.path.clone(), folder.open_tasks()?);
        }
        Ok(doors)
    }

    /// Moves a process into every hierarchy, wherever it was born: for processes that exist already.
    ///
    /// All in one burst: the first move after a pause waits for an RCU grace period (see `doors`), the next ones do not.
    pub fn adopt(&self, pid: Pid) -> Result<(), CgroupError> {
        let _span = info_span!(
            "cgroup.attach",
            call = "write(cgroup.procs)",
            why = "from here on the kernel counts and limits the process; the first move after a pause waits for RCU"
        )
        .entered();
        self.folders.iter().try_for_each(|folder| {
            let attached = match folder.attach(pid) {
                Err(Errno::ENOSPC) if folder.has(cpuset::NAME) && folder.version == Version::V1 => {
                    cpuset::fill(folder)?;
                    folder.attach(pid)
                }
                other => other,
            };
            attached.map_err(|source| CgroupError::Attach { pid: pid.as_raw(), path: folder.path.clone(), source })
        })
    }

    /// The processes in it, also in cgroups that the container has made below.
    pub fn pids(&self) -> Result<Vec<Pid>, CgroupError> {
        self.leading().map_or_else(|| Ok(Vec::new()), Folder::all_pids)
    }

    /// What the controllers have counted.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        let mut stats = Stats::default();
        for controller in CONTROLLERS {
            if let Some(folder) = self.home(controller) {
                controller.measure(folder, &mut stats)?;
            }
        }
        Ok(stats)
    }

    /// Stops every process in it, and comes back when the last has stopped.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        freezer::freeze(&self.folders)
    }

    /// Lets every process in it go on.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        freezer::thaw(&self.folders)
    }

    /// Whether it is stopped.
    pub fn frozen(&self) -> Result<bool, CgroupError> {
        freezer::frozen(&self.folders)
    }

    /// Kills every process in it, also those that are being made right now. Their parent still has to wait for them.
    pub fn kill(&self) -> Result<(), CgroupError> {
        let Some(leading) = self.leading() else { return Ok(()) };
        freezer::kill(leading, &self.folders)
    }

    /// Removes it, after waiting a moment for processes that are about to be gone. It kills nothing: [`Cgroup::kill`]
    /// does, where that is wanted.
    pub fn destroy(mut self) -> Result<(), CgroupError> {
        let _span = info_span!(
            "cgroup.destroy",
            call = "rmdir(2)",
            why = "an empty group is still a directory in each hierarchy: nothing else would ever remove it"
        )
        .entered();
        if let Some(folder) = self.folders.first() {
            crate::spans::fault().map_err(|source| CgroupError::Remove { path: folder.path.clone(), source })?;
        }
        // Each is tried, also after one has failed: the less stays behind the better.
        let removed: Vec<Result<(), CgroupError>> = self.folders.iter().map(Folder::remove).collect();
        let removed: Result<(), CgroupError> = removed.into_iter().collect();
        // What could not be removed is tried once more when it is dropped.
        self.owned &= removed.is_err();
        removed
    }

    /// Leaves it where it is: a detached container outlives the command that made it.
    pub fn keep(mut self) {
        self.owned = false;
    }

    /// The v2 directory.
    fn unified(&self) -> Option<&Folder> {
        self.folders.iter().find(|folder| folder.version == Version::V2)
    }

    /// The directory that knows best who is in: every process is in each, and v2 can kill them all at once.
    fn leading(&self) -> Option<&Folder> {
        self.unified().or(self.folders.first())
    }

    /// Where a controller is at work.
    fn home(&self, controller: &dyn Controller) -> Option<&Folder> {
        let here = |folder: &&Folder| controller.names().of(folder.version).is_some_and(|name| folder.has(name));
        self.folders.iter().find(here)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        // On the way out of a failure: that comes first, so what fails here is not told.
        let populated = self.leading().is_some_and(|leading| leading.all_pids().is_ok_and(|pids| !pids.is_empty()));
        if populated {
            drop(self.kill());
        }
        for folder in &self.folders {
            drop(folder.remove());
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
