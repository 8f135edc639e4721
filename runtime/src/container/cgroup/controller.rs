//! What every controller has in common: names, a way from `linux.resources` to files, and figures to read back.

use oci_spec::runtime::LinuxResources;

use super::folder::{Folder, Setting};
use super::layout::Version;
use super::{CgroupError, Stats};
use super::{cpu, cpuset, devices, hugetlb, io, memory, network, pids, rdma};

/// What a controller is called in each version; `None` where that version has none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub(super) v1: Option<&'static str>,
    pub(super) v2: Option<&'static str>,
}

impl Names {
    /// The name in one version.
    pub(super) fn of(self, version: Version) -> Option<&'static str> {
        match version {
            Version::V1 => self.v1,
            Version::V2 => self.v2,
        }
    }
}

/// One of the kernel's controllers, in both versions.
pub(super) trait Controller: Sync {
    /// What it is called.
    fn names(&self) -> Names;

    /// Which values to write into which files for what the container's configuration asks, in the order in which the
    /// kernel takes them. `standing` is the cgroup if it has limits already: then the order can depend on those.
    fn settings(
        &self,
        version: Version,
        asked: &LinuxResources,
        standing: Option<&Folder>,
    ) -> Result<Vec<Setting>, CgroupError>;

    /// Reads what it has counted.
    fn measure(&self, _folder: &Folder, _stats: &mut Stats) -> Result<(), CgroupError> {
        Ok(())
    }
}

/// All controllers, in the order in which their limits are written.
pub(super) const CONTROLLERS: [&dyn Controller; 11] = [
    &cpuset::Cpuset,
    &cpu::Cpu,
    &cpu::Account,
    &memory::Memory,
    &pids::Pids,
    &io::Io,
    &hugetlb::Hugetlb,
    &devices::Devices,
    &network::Class,
    &network::Priority,
    &rdma::Rdma,
];
