//! What can be done to a container while it is there: sent a signal, held still, let go, limited anew, counted.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use oci_spec::runtime::{ContainerState, LinuxResources};
use tracing::info_span;

use super::cgroup::{Cgroup, Stats};
use super::error::ContainerError;
use super::id::ContainerId;
use super::lifecycle::{Runtime, open_cgroup, status};
use super::overview::{Status, full_status};
use super::state::Record;
use super::sys::process::{pidfd_open, pidfd_signal};

impl Runtime {
    /// Sends a signal to the container's first process, or to `all` of its processes; those may have outlived the first.
    pub fn kill(&self, id: &ContainerId, signal: i32, all: bool) -> Result<(), ContainerError> {
        let (folder, record) = self.find(id)?;
        let cgroup = if all || signal == Signal::SIGKILL as i32 { open_cgroup(&record)? } else { None };
        let sent =
            |source| ContainerError::System { attempt: "send a signal to", on: format!("container {id}"), source };
        if let (true, Some(cgroup)) = (all, &cgroup) {
            for pid in cgroup.pids()? {
                match nix::sys::signal::kill(pid, None)
                    .and_then(|()| pidfd_open(pid))
                    .and_then(|it| pidfd_signal(&it, signal))
                {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(source) => return Err(sent(source)),
                }
            }
        } else {
            let status = status(&folder, &record);
            let Some(init) = record.init.filter(|_| status != ContainerState::Stopped) else {
                return Err(ContainerError::Status { attempt: "kill", id: id.clone(), status });
            };
            init.signal(signal).map_err(sent)?;
        }
        // One that is held still would die only once let go (v1; v2 lets a killed process go by itself).
        if signal == Signal::SIGKILL as i32 { let_go(cgroup.as_ref()) } else { Ok(()) }
    }

    /// Holds every process of a container still, until [`Runtime::resume`].
    pub fn pause(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let (folder, record) = self.find(id)?;
        match full_status(&folder, &record)? {
            Status::Paused => return Err(ContainerError::Paused { attempt: "pause", id: id.clone() }),
            Status::Created | Status::Running => {}
            _ => return Err(unfit("pause", id, status(&folder, &record))),
        }
        let _span = info_span!(
            "container.pause",
            call = "write(freezer.state or cgroup.freeze)",
            why = "the kernel stops every process of the group at once; none of them can notice or refuse it"
        )
        .entered();
        ContainerError::fault("container.pause")?;
        Ok(needed_cgroup("pause", id, &record)?.freeze()?)
    }

    /// Lets the processes of a paused container go on.
    pub fn resume(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let (folder, record) = self.find(id)?;
        match full_status(&folder, &record)? {
            Status::Paused => {}
            Status::Created | Status::Running => return Err(ContainerError::NotPaused { id: id.clone() }),
            _ => return Err(unfit("resume", id, status(&folder, &record))),
        }
        let _span = info_span!(
            "container.resume",
            call = "write(freezer.state or cgroup.freeze)",
            why = "the processes go on where they were stopped, as if no time had passed"
        )
        .entered();
        ContainerError::fault("container.resume")?;
        Ok(needed_cgroup("resume", id, &record)?.thaw()?)
    }

    /// Changes limits of a container; what `resources` does not name stays as it is.
    pub fn update(&self, id: &ContainerId, resources: &LinuxResources) -> Result<(), ContainerError> {
        Ok(self.living_cgroup("update", id)?.apply(resources)?)
    }

    /// What a container has used.
    pub fn stats(&self, id: &ContainerId) -> Result<Stats, ContainerError> {
        Ok(self.living_cgroup("count the use of", id)?.stats()?)
    }

    /// The processes of a container, by their numbers on the host.
    pub fn processes(&self, id: &ContainerId) -> Result<Vec<i32>, ContainerError> {
        let (folder, record) = self.find(id)?;
        let (Some(init), true) = (record.init, status(&folder, &record) != ContainerState::Stopped) else {
            return Ok(Vec::new());
        };
        let mut pids: Vec<i32> = match open_cgroup(&record)? {
            Some(cgroup) => cgroup.pids()?.into_iter().map(Pid::as_raw).collect(),
            // Without a cgroup a PID namespace of its own still tells who belongs to it.
            None if record.own_pids => in_pid_namespace_of(init.pid),
            None => vec![init.pid],
        };
        pids.sort_unstable();
        Ok(pids)
    }

    /// The cgroup of a container that has not ended.
    pub(super) fn living_cgroup(&self, attempt: &'static str, id: &ContainerId) -> Result<Cgroup, ContainerError> {
        let (folder, record) = self.find(id)?;
        match status(&folder, &record) {
            ContainerState::Created | ContainerState::Running => needed_cgroup(attempt, id, &record),
            status => Err(unfit(attempt, id, status)),
        }
    }
}

/// Lets a paused container's processes go on.
pub(super) fn let_go(cgroup: Option<&Cgroup>) -> Result<(), ContainerError> {
    match cgroup {
        Some(cgroup) if cgroup.frozen().unwrap_or(false) => Ok(cgroup.thaw()?),
        _ => Ok(()),
    }
}

fn unfit(attempt: &'static str, id: &ContainerId, status: ContainerState) -> ContainerError {
    ContainerError::Status { attempt, id: id.clone(), status }
}

fn needed_cgroup(attempt: &'static str, id: &ContainerId, record: &Record) -> Result<Cgroup, ContainerError> {
    open_cgroup(record)?.ok_or_else(|| ContainerError::NoCgroup { attempt, id: id.clone() })
}

/// The processes that share a PID namespace with this one.
fn in_pid_namespace_of(pid: i32) -> Vec<i32> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(pid) else { return Vec::new() };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(|other| namespace(*other).as_ref() == Some(&own)).collect()
}
