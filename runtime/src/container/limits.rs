//! What the container may use: its cgroup, planned before anything is made.

use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use oci_spec::runtime::LinuxResources;
use tracing::info_span;

use super::bundle::Bundle;
use super::cgroup::{Cgroup, CgroupError, Layout};
use super::error::ContainerError;
use super::id::ContainerId;

/// Where the container's cgroup will be and what it limits.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Nothing where this user may make no cgroup.
    place: Option<(Layout, PathBuf)>,
    resources: Option<LinuxResources>,
}

impl Limits {
    /// Looks at the host and at the wishes of `bundle`.
    ///
    /// An ordinary user who was given no part of the cgroup tree gets a container without limits and hears of it.
    pub(crate) fn plan(id: &ContainerId, bundle: &Bundle, warnings: &mut Vec<String>) -> Result<Self, ContainerError> {
        let _span = info_span!(
            "cgroup.detect",
            call = "read(/proc/self/mountinfo)",
            why = "cgroups are a file system; a host has one tree of them (v2), several (v1), or both"
        )
        .entered();
        ContainerError::fault("cgroup.detect")?;
        let resources = bundle.linux.resources().clone();
        let layout = match Layout::detect() {
            Ok(layout) => layout,
            Err(CgroupError::NotMounted) => {
                warnings.push("no cgroup file system is mounted here: the container runs without limits".to_owned());
                return Ok(Self { place: None, resources });
            }
            Err(error) => return Err(error.into()),
        };
        if !geteuid().is_root() && !layout.writable() {
            warnings.push("cgroups are not delegated to this user: the container runs without limits".to_owned());
            return Ok(Self { place: None, resources });
        }
        let asked = bundle.linux.cgroups_path().clone().filter(|path| !path.as_os_str().is_empty());
        let path = asked.unwrap_or_else(|| PathBuf::from(format!("isolab-{id}")));
        Ok(Self { place: Some((layout, path)), resources })
    }

    /// The cgroup's path, as [`Cgroup::open`] wants it.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.place.as_ref().map(|(_, path)| path.as_path())
    }

    /// Where cgroups are on this host, and the container's path there; nothing if it gets none.
    pub(crate) fn place(&self) -> Option<(&Layout, &Path)> {
        self.place.as_ref().map(|(layout, path)| (layout, path.as_path()))
    }

    /// Makes the cgroup, with its limits. Before the process: so nothing of the container ever runs without them.
    pub(crate) fn make(&self) -> Result<Option<Cgroup>, ContainerError> {
        let Some((layout, path)) = &self.place else { return Ok(None) };
        Ok(Some(Cgroup::create(layout, path, self.resources.as_ref())?))
    }
}
