//! /sys/fs/cgroup as the container sees it: its own part of each hierarchy, and nothing above.

use std::ffi::{CStr, CString, NulError, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::AT_FDCWD;
use nix::mount::MsFlags;
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
use super::sys::mount::{Change, attach, attach_at, attribute, clone_tree, set_attributes};
use super::sys::process::done_with;

/// What a mount of type `cgroup` shows.
#[derive(Debug, Default)]
pub(crate) struct CgroupMount {
    pub(crate) hierarchies: Vec<Hierarchy>,
    /// Other names for a hierarchy with several controllers: the name and what it points at.
    pub(crate) aliases: Vec<(CString, CString)>,
    /// One hierarchy with everything (v2), mounted at the destination itself and not in folders below.
    pub(crate) unified: bool,
    /// The attributes of the host's mounts that are taken away. None in a user namespace: there they are locked.
    inherited: u64,
}

/// One hierarchy, as the container sees it.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    /// The folder's name below the destination.
    pub(crate) name: CString,
    pub(crate) view: View,
}

/// How a hierarchy gets there.
#[derive(Debug)]
pub(crate) enum View {
    /// Mounted anew: the cgroup namespace makes the container's own cgroup the root of it.
    Mounted(Filesystem),
    /// The container's folder on the host, bound. To who is inside the cgroup namespace it looks the same, and is made with
    /// half of the calls; without such a namespace a new mount would show the whole tree.
    Bound(CString),
}

/// What a new mount would not have unless it is asked for.
const INHERITED: u64 = attribute::RDONLY
    | attribute::NOSUID
    | attribute::NODEV
    | attribute::NOEXEC
    | attribute::ATIME
    | attribute::NODIRATIME
    | attribute::NOSYMFOLLOW;

impl CgroupMount {
    /// What a container can be shown: nothing where it has no cgroup of its own, as the rest is the host's affair.
    pub(crate) fn plan(limits: &Limits, namespaces: &Namespaces) -> Result<Self, ContainerError> {
        let Some((layout, path)) = limits.place() else { return Ok(Self::default()) };
        // The root of a user namespace may not take from a mount of the host what that forbids: one of its own is its own.
        let anew = namespaces.has_new(CloneFlags::CLONE_NEWCGROUP) && namespaces.in_user_namespace();
        let inherited = if namespaces.in_user_namespace() { 0 } else { INHERITED };
        let mut plan = Self { unified: layout.flavour() == Flavour::V2, inherited, ..Self::default() };
        for hierarchy in layout.hierarchies() {
            let name = hierarchy.mount_point().file_name().unwrap_or(OsStr::new("cgroup"));
            let name = CString::new(name.as_bytes())?;
            for controller in
                hierarchy.controllers().iter().filter(|one| hierarchy.controllers().len() > 1 && !one.contains('='))
            {
                plan.aliases.push((CString::new(controller.as_str())?, name.clone()));
            }
            let view = if anew {
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
            let mounted = only.view.mount(&place, c"", index)?;
            return set_attributes(&mounted, &self.as_if_new(plan.change), false).at_index(Step::Mount, index);
        }
        let tmpfs = Filesystem {
            fstype: c"tmpfs".to_owned(),
            source: c"cgroup".to_owned(),
            options: vec![(c"mode".to_owned(), Some(c"755".to_owned()))],
        };
        let top = tmpfs.make(0, index)?;
        attach(&top, place.as_fd()).at_index(Step::Mount, index)?;
        for hierarchy in &self.hierarchies {
            let name = hierarchy.name.as_c_str();
            // By name: the file system is a moment old, and nobody else can have put a link there.
            mkdirat(&top, name, Mode::from_bits_truncate(0o755)).at_index(Step::MountPoint, index)?;
            done_with(hierarchy.view.mount(&top, name, index)?);
        }
        for (name, target) in &self.aliases {
            symlinkat(target.as_c_str(), &top, name.as_c_str()).at_index(Step::Link, index)?;
        }
        // Only now, and for all of them at once: a read-only tmpfs takes no folders.
        set_attributes(&top, &self.as_if_new(plan.change), true).at_index(Step::Mount, index)?;
        done_with(top);
        done_with(place);
        Ok(())
    }

    /// The change that leaves nothing of what the host's mount is: neither its attributes, nor that later mounts below it
    /// would appear.
    fn as_if_new(&self, change: Change) -> Change {
        let clear = change.clear | self.inherited & !change.set;
        Change { clear, propagation: MsFlags::MS_PRIVATE.bits(), ..change }
    }
}

impl View {
    /// Attaches it, and hands it back: what it may not do is still to be said.
    fn mount(&self, place: &OwnedFd, name: &CStr, index: usize) -> Result<OwnedFd, Failure> {
        let mounted = match self {
            Self::Mounted(filesystem) => filesystem.make(0, index)?,
            Self::Bound(path) => clone_tree(AT_FDCWD, path, false).at_index(Step::Mount, index)?,
        };
        attach_at(&mounted, place, name).at_index(Step::Mount, index)?;
        Ok(mounted)
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
