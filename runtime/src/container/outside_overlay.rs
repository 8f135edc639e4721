//! An overlay whose files have other owners in the container than on the disk (Documentation/filesystems/overlayfs.rst,
//! idmappings.rst).
//!
//! The layers of an image are one set of files for all containers, and each container may have numbers of its own for its
//! users. So each layer, and the folder that takes the changes, is shown through a mount that maps ids, and the overlay is
//! made of those: on the disk a file of the container's root belongs to number 0, whatever number of the host that root is.
//!
//! It takes the host's root to map ids, and a place in a tree of mounts for each layer. A helper lends its own tree: it is
//! born with a copy of the host's, which is gone with it, but shares the runtime's descriptors; so the overlay that it
//! opens is the runtime's as well, attached nowhere, and the container's process moves it to its place.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, fchdir, pipe2, read, setfsgid, setfsuid, write};
use oci_spec::runtime::LinuxIdMapping;
use tracing::info_span;

use super::bundle::{Bundle, Overlay};
use super::error::ContainerError;
use super::namespaces::Namespaces;
use super::outside_binds::{show_ids, user_namespace};
use super::overlay::OverlayPlan;
use super::rootfs::RootfsPlan;
use super::sys::clone::{Side, clone3, exit_now};
use super::sys::mount::{Context, attach, attach_at, clone_tree};
use super::sys::process::{close_done, prctl, reap};

/// The folder, in the helper's tree, that changes go to.
const OWN: &str = "own";
/// linux/securebits.h.
const SECBIT_NO_SETUID_FIXUP: u64 = 1 << 2;
/// A folder to mount upon, for kernels that know only the old call.
const MERGED: &CStr = c"merged";

/// Makes the overlay of `rootfs`, where the bundle wants its ids mapped.
pub(crate) fn prepare(rootfs: &mut RootfsPlan, bundle: &Bundle, namespaces: &Namespaces) -> Result<(), ContainerError> {
    let Some(overlay) = bundle.root.overlay.as_ref().filter(|overlay| overlay.maps_ids) else { return Ok(()) };
    let Some((upper, work)) = &overlay.upper else { return Ok(()) };
    let _span = info_span!(
        "rootfs.outside_overlay",
        call = "mount_setattr(MOUNT_ATTR_IDMAP), fsopen+fsconfig+fsmount",
        why =
            "the layers belong to all containers; through a mount that maps ids their files belong to this one's users"
    )
    .entered();
    ContainerError::fault("rootfs.outside_overlay")?;
    let users = user_namespace(None, bundle, namespaces, "the overlay".to_owned())?;
    let root = [bundle.linux.uid_mappings(), bundle.linux.gid_mappings()].map(|maps| root_of(maps.as_deref()));
    let [Some(user), Some(group)] = root else {
        let none = ContainerError::system("find the container's root in the maps of", "the overlay");
        return Err(none(Errno::EINVAL));
    };
    let folder = upper.parent().unwrap_or(upper);
    let layers = overlay.lower.iter().map(PathBuf::as_path).chain([folder]);
    let layers = layers.map(|path| mapped(path, &users)).collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<String> = (0..overlay.lower.len()).map(|number| number.to_string()).collect();
    let inner = |path: &Path| Path::new(OWN).join(path.file_name().unwrap_or_default());
    let relative = Overlay {
        lower: names.iter().map(PathBuf::from).collect(),
        upper: Some((inner(upper), inner(work))),
        volatile: overlay.volatile,
        maps_ids: false,
    };
    let plan = OverlayPlan::new(&relative, Path::new("/"), false)?;
    names.push(OWN.to_owned());
    let names = names.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
    let place = CString::new(bundle.root.path.as_os_str().as_bytes())?;
    let made = through_helper(|| {
        let place = lay_out(&layers, &names, &place)?;
        become_root_of(user, group)?;
        fchdir(&place)?; // so the names are short, however many layers there are
        plan.detached(MERGED).map_err(|failure| failure.errno)
    });
    rootfs.take_overlay(made.map_err(ContainerError::system("mount", "the overlay with the container's own ids"))?);
    Ok(())
}

/// A folder as a mount that maps its ids.
fn mapped(path: &Path, users: &OwnedFd) -> Result<OwnedFd, ContainerError> {
    let on = || path.display().to_string();
    let copy = clone_tree(AT_FDCWD, &CString::new(path.as_os_str().as_bytes())?, false);
    let copy = copy.map_err(ContainerError::system("look at", on()))?;
    show_ids(&copy, users, false).map_err(ContainerError::system("map the ids of", on()))?;
    Ok(copy)
}

/// Has a process with mounts of its own, and the descriptors of this one, open something.
fn through_helper(open: impl FnOnce() -> nix::Result<OwnedFd>) -> nix::Result<OwnedFd> {
    // Its writer stays open here as well: without an answer there must be no waiting for one.
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let flags = (CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FILES).bits() as u64;
    // SAFETY: this process has one thread; the child opens what it is for, and ends without coming back.
    match unsafe { clone3(flags, None) }? {
        Side::Child => {
            let opened = open().map_or_else(|errno| -(errno as i32), IntoRawFd::into_raw_fd);
            // Descriptors are the runtime's, too: none may be left behind.
            let _ = close_done();
            let _ = write(&writer, &opened.to_ne_bytes());
            exit_now(0)
        }
        Side::Parent { pidfd, .. } => {
            reap(&pidfd)?;
            let mut answer = [0; 4];
            match (read(&reader, &mut answer)?, i32::from_ne_bytes(answer)) {
                // SAFETY: the helper has opened it in the table of descriptors that both have, and left it to this process.
                (4, descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
                (4, errno) => Err(Errno::from_raw(-errno)),
                _ => Err(Errno::ECHILD),
            }
        }
    }
}

/// The number of the host that is 0 in the maps.
fn root_of(maps: Option<&[LinuxIdMapping]>) -> Option<u32> {
    maps?.iter().find(|map| map.container_id() == 0 && map.size() > 0).map(LinuxIdMapping::host_id)
}

/// In the helper: gives each layer a name in a folder, which is answered.
fn lay_out(layers: &[OwnedFd], names: &[CString], place: &CStr) -> nix::Result<OwnedFd> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let tmpfs = Context::open(c"tmpfs")?.mount(0)?;
    let target = nix::fcntl::open(place, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    attach(&tmpfs, target.as_fd())?;
    for (layer, name) in layers.iter().zip(names) {
        mkdirat(&tmpfs, name.as_c_str(), Mode::S_IRWXU)?;
        attach_at(layer, &tmpfs, name)?;
    }
    mkdirat(&tmpfs, MERGED, Mode::S_IRWXU)?;
    Ok(tmpfs)
}

/// In the helper: overlayfs makes files of its own as whoever mounts it, and through a mount that maps ids only those can
/// that have a number there. So it is mounted by the container's root, which has the powers of the host's for that. The same
/// holds for any file that somebody makes through such a mount.
pub(crate) fn become_root_of(user: u32, group: u32) -> nix::Result<()> {
    // Without this the capabilities that concern files go with the change (capabilities(7), SECBIT_NO_SETUID_FIXUP).
    prctl(libc::PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0)?;
    // What they answer is the number before, whether it was changed or not (setfsuid(2)); the mount tells.
    setfsgid(Gid::from_raw(group));
    setfsuid(Uid::from_raw(user));
    Ok(())
}
