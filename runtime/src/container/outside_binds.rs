//! Binds that the runtime makes before there is a container: those with other owners (id-mapped), and those whose later
//! mounts shall reach the host (OCI runtime specification, config.md, "Linux mount options").
//!
//! Both need the host's side. Only who has power over a file system may show its files under other ids
//! (`mount_setattr(2)`), and a copy of a shared mount stays the original's peer only if it is taken before the container
//! turns its own view into a follower of the host's. The copy is attached nowhere; the container's process moves it to
//! its place.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::unistd::{geteuid, pipe2, read};
use oci_spec::runtime::LinuxIdMapping;
use tracing::info_span;

use super::bundle::Bundle;
use super::error::ContainerError;
use super::mounts::{Kind, MountPlan};
use super::namespaces::{Namespaces, lines};
use super::spawn::ProcFiles;
use super::sys::clone::{Side, clone3, exit_now};
use super::sys::mount::{Change, attribute, clone_tree, set_attributes};
use super::sys::process::reap;

/// Makes those of `plans` that need it; `bundle` has the same mounts in the same order.
pub(crate) fn prepare(plans: &mut [MountPlan], bundle: &Bundle, namespaces: &Namespaces) -> Result<(), ContainerError> {
    for (plan, asked) in plans.iter_mut().zip(bundle.spec.mounts().iter().flatten()) {
        let Kind::Bind { source, recursive } = &plan.kind else { continue };
        let maps = asked.uid_mappings().as_ref().zip(asked.gid_mappings().as_ref()).filter(|(ids, _)| !ids.is_empty());
        let maps_ids = plan.maps_ids.or(maps.map(|_| false));
        let shared = plan.propagation.iter().any(|one| one.kind == MsFlags::MS_SHARED);
        // What is bound may lie where no user of the container could look.
        let hidden = bundle.root.overlay.as_ref().is_some_and(|overlay| overlay.maps_ids);
        if maps_ids.is_none() && !hidden && !(shared && geteuid().is_root()) {
            continue;
        }
        let _span = info_span!(
            "rootfs.outside_bind",
            call = "open_tree(2), mount_setattr(2)",
            on = super::inside::shown(&plan.destination),
            why =
                "who has power over a file system shows it under other ids, or shared with the host; a container can't"
        )
        .entered();
        ContainerError::fault("rootfs.outside_bind")?;
        let on = || format!("the mount {}", plan.destination.display());
        let copy = clone_tree(AT_FDCWD, source, *recursive).map_err(ContainerError::system("make", on()))?;
        if let Some(deep) = maps_ids {
            let users = user_namespace(maps, bundle, namespaces, on())?;
            show_ids(&copy, &users, deep).map_err(ContainerError::system("map the ids of", on()))?;
        }
        plan.ready = Some(copy);
    }
    Ok(())
}

/// Has a mount show its files under the ids of a user namespace; with `deep` the mounts below it, too.
pub(super) fn show_ids(mount: &OwnedFd, users: &OwnedFd, deep: bool) -> nix::Result<()> {
    let change = Change { set: attribute::IDMAP, userns_fd: users.as_raw_fd() as u64, ..Change::default() };
    set_attributes(mount, &change, deep)
}

/// A user namespace with the mount's own maps; without any, with those of the container.
pub(super) fn user_namespace(
    maps: Option<(&Vec<LinuxIdMapping>, &Vec<LinuxIdMapping>)>,
    bundle: &Bundle,
    namespaces: &Namespaces,
    on: String,
) -> Result<OwnedFd, ContainerError> {
    if let Some((users, groups)) = maps {
        return with_maps(&lines(users), &lines(groups));
    }
    if let Some(join) = namespaces.joined_user() {
        return join.file.try_clone().map_err(|error| {
            ContainerError::system("use the user namespace for", on)(Errno::from_raw(error.raw_os_error().unwrap_or(0)))
        });
    }
    match (bundle.linux.uid_mappings(), bundle.linux.gid_mappings()) {
        (Some(users), Some(groups)) => with_maps(&lines(users), &lines(groups)),
        _ => Err(ContainerError::system("find uidMappings for", on)(Errno::EINVAL)),
    }
}

/// A new user namespace. It takes a process to make one; that ends before this returns, and the descriptor stays.
fn with_maps(users: &str, groups: &str) -> Result<OwnedFd, ContainerError> {
    let failed = |source| ContainerError::System {
        attempt: "make a process in",
        on: "a user namespace for a mount".to_owned(),
        source,
    };
    let (waits, holds) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    // SAFETY: the child closes a descriptor, waits and ends; it neither allocates nor returns.
    match unsafe { clone3(CloneFlags::CLONE_NEWUSER.bits() as u64, None) }.map_err(failed)? {
        Side::Child => {
            drop(holds);
            // Until the runtime has what it wants, or is no more.
            let _ = read(&waits, &mut [0]);
            exit_now(0)
        }
        Side::Parent { child, pidfd } => {
            let made = ProcFiles::open(child).and_then(|files| {
                files.write("uid_map", users)?;
                files.write("gid_map", groups)?;
                files.open_file("ns/user")
            });
            drop(holds);
            reap(&pidfd).map_err(failed)?;
            made
        }
    }
}
