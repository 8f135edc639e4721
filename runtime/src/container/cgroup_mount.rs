//! /sys/fs/cgroup as the container sees it: its own part of each hierarchy, and nothing above.

use std::ffi::{CString, NulError, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::fcntl::AT_FDCWD;
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;

use super::cgroup::{Flavour, Hierarchy as HostHierarchy, Version};
use super::error::ContainerError;
use super::inside;
use super::limits::Limits;
use super::mounts::{Filesystem, MountPlan};
use super::namespaces::Namespaces;
use super::report::{At, Failure, Step};
use super::sys::mount::{Change, attach, clone_tree, set_attributes};

/// What a mount of type `cgroup` shows.
#[derive(Debug, Default)]
pub(crate) struct CgroupMount {
    pub(crate) hierarchies: Vec<Hierarchy>,
    /// Other names for a hierarchy with several controllers: the name and what it points at.
    pub(crate) aliases: Vec<(CString, CString)>,
    /// One hierarchy with everything (v2), mounted at the destination itself and not in folders below.
    pub(crate) unified: bool,
}

/// One hierarchy, as the container sees it.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    /// The folder's name below the destination.
    pub(crate) name: PathBuf,
    pub(crate) view: View,
}

/// How a hierarchy gets there.
#[derive(Debug)]
pub(crate) enum View {
    /// Mounted anew: the cgroup namespace makes the container's own cgroup the root of it.
    Mounted(Filesystem),
    /// The container's folder on the host, bound: without a cgroup namespace a new mount would show the whole tree.
    Bound(CString),
}

impl CgroupMount {
    /// What a container can be shown: nothing where it has no cgroup of its own, as the rest is the host's affair.
    pub(crate) fn plan(limits: &Limits, namespaces: &Namespaces) -> Result<Self, ContainerError> {
        let Some((layout, path)) = limits.place() else { return Ok(Self::default()) };
        let own_root = namespaces.has_new(CloneFlags::CLONE_NEWCGROUP);
        let mut plan = Self { unified: layout.flavour() == Flavour::V2, ..Self::default() };
        for hierarchy in layout.hierarchies() {
            let name = PathBuf::from(hierarchy.mount_point().file_name().unwrap_or(OsStr::new("cgroup")));
            for controller in
                hierarchy.controllers().iter().filter(|one| hierarchy.controllers().len() > 1 && !one.contains('='))
            {
                plan.aliases.push((CString::new(controller.as_str())?, CString::new(name.as_os_str().as_bytes())?));
            }
            let view = if own_root {
                View::Mounted(filesystem(hierarchy)?)
            } else {
                View::Bound(CString::new(hierarchy.directory(path)?.as_os_str().as_bytes())?)
            };
            plan.hierarchies.push(Hierarchy { name, view });
        }
        Ok(plan)
    }

    /// Mounts all hierarchies at the destination of `plan`.
    pub(crate) fn mount(&self, root: &OwnedFd, plan: &MountPlan, index: usize) -> Result<(), Failure> {
        let place = inside::folder(root, &plan.destination).at_index(Step::MountPoint, index)?;
        if let (true, Some(only)) = (self.unified, self.hierarchies.first()) {
            return only.view.mount(&place, plan.change, index);
        }
        let tmpfs = Filesystem {
            fstype: c"tmpfs".to_owned(),
            source: c"cgroup".to_owned(),
            options: vec![(c"mode".to_owned(), Some(c"755".to_owned()))],
        };
        let top = tmpfs.make(0, index)?;
        attach(&top, place.as_fd()).at_index(Step::Mount, index)?;
        for hierarchy in &self.hierarchies {
            mkdirat(&top, &hierarchy.name, Mode::from_bits_truncate(0o755)).at_index(Step::MountPoint, index)?;
            let place = inside::folder(&top, &hierarchy.name).at_index(Step::MountPoint, index)?;
            hierarchy.view.mount(&place, plan.change, index)?;
        }
        for (name, target) in &self.aliases {
            symlinkat(target.as_c_str(), &top, name.as_c_str()).at_index(Step::Link, index)?;
        }
        // Only now: a read-only tmpfs takes no folders.
        set_attributes(&top, &plan.change, false).at_index(Step::Mount, index)
    }
}

impl View {
    fn mount(&self, place: &OwnedFd, change: Change, index: usize) -> Result<(), Failure> {
        let mounted = match self {
            Self::Mounted(filesystem) => filesystem.make(change.set, index)?,
            Self::Bound(path) => {
                let bound = clone_tree(AT_FDCWD, path, false).at_index(Step::Mount, index)?;
                set_attributes(&bound, &change, false).at_index(Step::Mount, index)?;
                bound
            }
        };
        attach(&mounted, place.as_fd()).at_index(Step::Mount, index)
    }
}

/// A mount of this hierarchy anew: v1 finds it by its controllers or its name, of v2 there is only one.
fn filesystem(hierarchy: &HostHierarchy) -> Result<Filesystem, NulError> {
    let option = |word: &String| match word.split_once('=') {
        Some((key, value)) => Ok((CString::new(key)?, Some(CString::new(value)?))),
        None => Ok((CString::new(word.as_str())?, None)),
    };
    let fstype = if hierarchy.version() == Version::V2 { c"cgroup2" } else { c"cgroup" };
    let options = hierarchy.controllers().iter().map(option).collect::<Result<_, NulError>>()?;
    Ok(Filesystem { fstype: fstype.to_owned(), source: c"cgroup".to_owned(), options })
}
