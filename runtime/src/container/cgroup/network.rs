//! `net_cls` and `net_prio`: marks on packets, by which traffic control and firewalls know a container (v1 only).

use oci_spec::runtime::LinuxResources;

use super::CgroupError;
use super::controller::{Controller, Names};
use super::folder::{Folder, Setting};
use super::layout::Version;

/// The controller that gives packets a class.
pub(super) struct Class;

/// The controller that gives packets a priority on each interface.
pub(super) struct Priority;

impl Controller for Class {
    fn names(&self) -> Names {
        Names { v1: Some("net_cls"), v2: None }
    }

    fn settings(
        &self,
        version: Version,
        asked: &LinuxResources,
        _: Option<&Folder>,
    ) -> Result<Vec<Setting>, CgroupError> {
        let class = asked.network().as_ref().and_then(oci_spec::runtime::LinuxNetwork::class_id);
        match (class, version) {
            (None, _) => Ok(Vec::new()),
            (Some(class), Version::V1) => Ok(vec![Setting::new("net_cls.classid", &class)]),
            (Some(_), Version::V2) => unsupported("classID"),
        }
    }
}

impl Controller for Priority {
    fn names(&self) -> Names {
        Names { v1: Some("net_prio"), v2: None }
    }

    fn settings(
        &self,
        version: Version,
        asked: &LinuxResources,
        _: Option<&Folder>,
    ) -> Result<Vec<Setting>, CgroupError> {
        let priorities =
            asked.network().as_ref().and_then(|network| network.priorities().as_ref()).into_iter().flatten();
        let lines =
            priorities.map(|one| Setting::new("net_prio.ifpriomap", &format!("{} {}", one.name(), one.priority())));
        let lines: Vec<Setting> = lines.collect();
        if version == Version::V2 && !lines.is_empty() { unsupported("priorities") } else { Ok(lines) }
    }
}

fn unsupported(field: &str) -> Result<Vec<Setting>, CgroupError> {
    Err(CgroupError::Unsupported { field: format!("linux.resources.network.{field}"), version: "v2" })
}
