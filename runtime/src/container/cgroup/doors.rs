//! How a process moves itself into the hierarchies of v1, and waits for nobody.
//!
//! To move a process is to change what each of its threads belongs to. So that none is made or ends meanwhile, the kernel
//! stops every fork and exit of the system; and if it has not done that for 20 ms, it first waits until all CPUs have
//! heard of it (an RCU grace period): 7 to 15 ms, longer than everything else in a container's start together.
//!
//! A single thread that moves *itself* can neither fork nor end while it does, so since Linux 5.4 the kernel skips all that:
//! for `0` in the file `tasks`, and for nothing else. The container's first process has one thread. So the runtime makes the
//! cgroups and opens their doors, and the process walks through them by itself, before it does anything else.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::write;

use crate::container::sys::process::{close_done, done_with};

/// The open `tasks` files of a container's cgroup, one for each hierarchy of v1.
#[derive(Debug, Default)]
pub(crate) struct Doors(Vec<(PathBuf, OwnedFd)>);

impl Doors {
    /// One more, which leads into the cgroup at `path`.
    pub(super) fn add(&mut self, path: PathBuf, tasks: OwnedFd) {
        self.0.push((path, tasks));
    }

    /// Takes the calling thread through each. Allocates nothing; an error comes with the cgroup that could not be entered.
    ///
    /// The permission was given when the file was opened, by the runtime: the process may be nobody by now.
    pub(crate) fn enter(&self) -> Result<(), (&Path, Errno)> {
        self.0
            .iter()
            .try_for_each(|(path, tasks)| write(tasks, b"0").map(drop).map_err(|errno| (path.as_path(), errno)))
    }
}

impl Drop for Doors {
    /// Shuts them in a call or two: there are as many as hierarchies, and their numbers follow each other.
    fn drop(&mut self) {
        self.0.drain(..).for_each(|(_, tasks)| done_with(tasks));
        // Nothing can be done about one that stays open; a later process of the runtime's closes it at execve.
        let _ = close_done();
    }
}
