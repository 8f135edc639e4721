//! rdma: handles and objects of remote-DMA adapters.

use oci_spec::runtime::LinuxResources;

use super::CgroupError;
use super::controller::{Controller, Names};
use super::folder::{Folder, Setting};
use super::layout::Version;

/// The controller; the two versions agree on it.
pub(super) struct Rdma;

impl Controller for Rdma {
    fn names(&self) -> Names {
        Names { v1: Some("rdma"), v2: Some("rdma") }
    }

    fn settings(&self, _: Version, asked: &LinuxResources, _: Option<&Folder>) -> Result<Vec<Setting>, CgroupError> {
        let mut devices: Vec<_> = asked.rdma().iter().flatten().collect();
        devices.sort_by_key(|(name, _)| name.as_str());
        let line = |(name, limit): (&String, &oci_spec::runtime::LinuxRdma)| {
            let handles = limit.hca_handles().map_or_else(String::new, |count| format!(" hca_handle={count}"));
            let objects = limit.hca_objects().map_or_else(String::new, |count| format!(" hca_object={count}"));
            Setting::new("rdma.max", &format!("{name}{handles}{objects}"))
        };
        Ok(devices.into_iter().map(line).collect())
    }
}
