//! What happens to a container, as it happens: counts at set times, and the kernel's word that its memory ran out.

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::cgroup::Stats;
use super::error::ContainerError;
use super::id::ContainerId;
use super::lifecycle::Runtime;

/// One thing that happened.
#[derive(Debug)]
pub enum ContainerEvent {
    /// The time for counts has come.
    Stats(Box<Stats>),
    /// The container reached its memory limit, and the kernel had to kill.
    OutOfMemory,
}

impl Runtime {
    /// Tells what happens to a container until it ends, or until `tell` breaks off: its counts at once and then every
    /// `interval`, and each time its memory runs out.
    pub fn watch(
        &self,
        id: &ContainerId,
        interval: Duration,
        mut tell: impl FnMut(ContainerEvent) -> ControlFlow<()>,
    ) -> Result<(), ContainerError> {
        let cgroup = self.living_cgroup("watch", id)?;
        let failed = || ContainerError::system("wait for", format!("container {id}"));
        let Some(process) = self.find(id)?.1.init.and_then(|init| init.open()) else { return Ok(()) };
        let mut memory = cgroup.watch_memory()?;
        let mut next = Instant::now();
        loop {
            let ended = {
                // A little more than is left: waking a moment too early would only mean to wait again.
                let rest = next.saturating_duration_since(Instant::now()).as_millis().saturating_add(1);
                let rest = PollTimeout::try_from(rest.min(60_000)).unwrap_or(PollTimeout::MAX);
                let mut waited = vec![PollFd::new(process.as_fd(), PollFlags::POLLIN)];
                waited.extend(memory.as_ref().map(|memory| PollFd::new(memory.descriptor(), memory.readiness())));
                match poll(&mut waited, if next <= Instant::now() { PollTimeout::ZERO } else { rest }) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(failed()(errno)),
                }
                waited.first().and_then(PollFd::any).unwrap_or(false)
            };
            // Before the end is looked at: often the one is the reason for the other.
            if memory.as_mut().is_some_and(super::cgroup::MemoryWatch::ran_out)
                && tell(ContainerEvent::OutOfMemory).is_break()
            {
                return Ok(());
            }
            if ended {
                return Ok(());
            }
            if Instant::now() >= next {
                next = Instant::now() + interval;
                if tell(ContainerEvent::Stats(Box::new(cgroup.stats()?))).is_break() {
                    return Ok(());
                }
            }
        }
    }
}
