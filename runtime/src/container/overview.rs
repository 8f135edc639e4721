//! What other programs are told of a container: the specification's state (runtime.md, "State") with what runc's callers
//! expect beside it.
//!
//! The specification lets a runtime have states of its own beside its four. `paused` is the one that engines know.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::{Uid, User};
use oci_spec::runtime::{ContainerState, State};

use super::cgroup::Cgroup;
use super::clock::rfc3339;
use super::error::ContainerError;
use super::id::ContainerId;
use super::lifecycle::{Runtime, open_cgroup, status};
use super::state::{Record, StateError, StateFolder};

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// It waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are held still.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl From<ContainerState> for Status {
    fn from(state: ContainerState) -> Self {
        match state {
            ContainerState::Creating => Self::Creating,
            ContainerState::Created => Self::Created,
            ContainerState::Running => Self::Running,
            ContainerState::Stopped => Self::Stopped,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// One container, as `state` and `list` tell of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// The version of the specification that its bundle was written for.
    pub oci_version: String,
    /// Its name.
    pub id: String,
    /// Where it is in its life.
    pub status: Status,
    /// The number of its first process; nothing where that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// The folder that is, or is covered by, its root file system.
    pub rootfs: PathBuf,
    /// When it was made (RFC 3339, UTC).
    pub created: String,
    /// The name of the user who made it, or the number of one who has no name.
    pub owner: String,
    /// The annotations of the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<HashMap<String, String>>,
}

impl Runtime {
    /// Where a container is in its life, in the form of the specification (runtime.md, "State").
    pub fn state(&self, id: &ContainerId) -> Result<State, ContainerError> {
        let (folder, record) = self.find(id)?;
        Ok(record.state(status(&folder, &record)))
    }

    /// Whether the kernel killed one of the container's processes for want of memory; asked before it is deleted.
    pub fn ran_out_of_memory(&self, id: &ContainerId) -> Result<bool, ContainerError> {
        let (_, record) = self.find(id)?;
        Ok(open_cgroup(&record)?.as_ref().is_some_and(Cgroup::ran_out_of_memory))
    }

    /// The names of all containers, in order.
    pub fn ids(&self) -> Result<Vec<ContainerId>, ContainerError> {
        Ok(self.states().list()?)
    }

    /// The states of all containers, by name.
    pub fn list(&self) -> Result<Vec<State>, ContainerError> {
        let states = self.ids()?.into_iter().map(|id| self.state(&id));
        // One that was deleted since the names were read is no longer one of them.
        states.filter(|state| !matches!(state, Err(ContainerError::State(StateError::Missing(_))))).collect()
    }

    /// What is known of a container.
    pub fn overview(&self, id: &ContainerId) -> Result<Overview, ContainerError> {
        let (folder, record) = self.find(id)?;
        let status = full_status(&folder, &record)?;
        Ok(Overview {
            status,
            // A process that is gone has no number: it may be another's by now.
            pid: record.init.filter(|_| status != Status::Stopped).map(|init| init.pid),
            owner: owner(&folder),
            created: rfc3339(Duration::from_nanos(record.created)),
            oci_version: record.oci_version,
            id: record.id,
            bundle: record.bundle,
            rootfs: record.rootfs,
            annotations: record.annotations,
        })
    }

    /// What is known of each container, by name.
    pub fn overviews(&self) -> Result<Vec<Overview>, ContainerError> {
        let all = self.ids()?.into_iter().map(|id| self.overview(&id));
        // One that was deleted since the names were read is no longer one of them.
        all.filter(|one| !matches!(one, Err(ContainerError::State(StateError::Missing(_))))).collect()
    }
}

/// The status with what only the cgroup knows: whether the processes are held still.
pub(super) fn full_status(folder: &StateFolder, record: &Record) -> Result<Status, ContainerError> {
    let status = Status::from(status(folder, record));
    let frozen = match status {
        Status::Running | Status::Created => {
            open_cgroup(record)?.is_some_and(|cgroup| cgroup.frozen().unwrap_or(false))
        }
        _ => false,
    };
    Ok(if frozen { Status::Paused } else { status })
}

fn owner(folder: &StateFolder) -> String {
    let Ok(found) = fs::metadata(folder.path()) else { return String::new() };
    let uid = Uid::from_raw(found.uid());
    let user = User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}
