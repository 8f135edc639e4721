//! The kernel's word that a cgroup's memory ran out: v1 sends it to an eventfd, v2 changes a file that can be polled.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::folder::Folder;
use super::layout::Version;
use super::memory::Memory;
use super::stats::keyed;
use super::{Cgroup, CgroupError};

/// A descriptor that becomes ready when memory runs out, and how to read it.
#[derive(Debug)]
pub struct MemoryWatch {
    /// v1: where the kernel counts; v2: unused, the file itself is polled.
    event: Option<EventFd>,
    /// v1: `memory.oom_control`, which must stay open; v2: `memory.events`.
    file: OwnedFd,
    /// How many processes had been killed when that was last looked at.
    killed: u64,
}

impl Cgroup {
    /// Begins to listen. Nothing where the host has no memory controller.
    ///
    /// v1: cgroup-v1/memory.rst, "Memory thresholds" and "OOM Control"; v2: cgroup-v2.rst, "memory.events".
    pub fn watch_memory(&self) -> Result<Option<MemoryWatch>, CgroupError> {
        self.home(&Memory).map(MemoryWatch::begin).transpose()
    }
}

impl Cgroup {
    /// Whether the kernel ever killed one of its processes for want of memory.
    pub fn ran_out_of_memory(&self) -> bool {
        let Some(folder) = self.home(&Memory) else { return false };
        let name = if folder.version == Version::V1 { "memory.oom_control" } else { "memory.events" };
        folder.read(name).ok().and_then(|text| keyed(&text, "oom_kill")).is_some_and(|count| count > 0)
    }
}

impl MemoryWatch {
    fn begin(folder: &Folder) -> Result<Self, CgroupError> {
        let name = if folder.version == Version::V1 { "memory.oom_control" } else { "memory.events" };
        let failed = |source| CgroupError::Read { file: folder.path.join(name), source };
        let file = folder.open_file(name, OFlag::O_RDONLY).map_err(failed)?;
        let event = if folder.version == Version::V1 {
            let event =
                EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(failed)?;
            let order = format!("{} {}", event.as_fd().as_raw_fd(), file.as_raw_fd());
            folder.write("cgroup.event_control", &order)?;
            Some(event)
        } else {
            None
        };
        let killed = killed(&file).unwrap_or(0);
        Ok(Self { event, file, killed })
    }

    /// What to poll.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.as_ref().map_or_else(|| self.file.as_fd(), AsFd::as_fd)
    }

    /// What to poll it for.
    pub fn readiness(&self) -> PollFlags {
        if self.event.is_some() { PollFlags::POLLIN } else { PollFlags::POLLPRI }
    }

    /// Whether memory ran out since this was last asked.
    pub fn ran_out(&mut self) -> bool {
        let told = self.event.as_ref().is_some_and(|event| event.read().is_ok_and(|count| count > 0));
        // v1 also sends word when the cgroup is removed: its file cannot be read any more then.
        let Some(now) = killed(&self.file) else { return false };
        let more = now > self.killed;
        self.killed = now;
        // v1 sends word before it kills, so the count may lag behind: there the word counts.
        if self.event.is_some() { told } else { more }
    }
}

/// How many processes of the cgroup were killed for want of memory.
fn killed(file: &OwnedFd) -> Option<u64> {
    let mut bytes = [0; 1024];
    let length = nix::sys::uio::pread(file, &mut bytes, 0).ok()?;
    keyed(std::str::from_utf8(bytes.get(..length)?).ok()?, "oom_kill")
}
