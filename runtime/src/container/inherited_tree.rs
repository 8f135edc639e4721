//! A container without a mount namespace of its own (config-linux.md, "Namespaces": a kind that is not listed is
//! inherited).
//!
//! What is mounted for it is then mounted in the tree of whoever makes it, and stays when its last process has ended. All of
//! it hangs below one mount, the container's root: taking that away takes all away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use oci_spec::runtime::LinuxNamespaceType;
use serde::{Deserialize, Serialize};
use tracing::info_span;

use super::bundle::Bundle;
use super::error::ContainerError;
use super::mountinfo::mounts;

const MOUNTS: &str = "/proc/self/mountinfo";

/// The place of a root in the tree of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InheritedTree {
    /// Where the root is mounted.
    place: PathBuf,
    /// How many file systems others had mounted there before; they stay.
    beneath: usize,
}

/// What is mounted for a container that is being made. Taken away when this is dropped, unless it was kept.
pub(super) struct Mounted(Option<InheritedTree>);

impl InheritedTree {
    /// The place for the container of `bundle`; nothing where it has a tree of its own, or joins another's.
    pub(super) fn of(bundle: &Bundle) -> Result<Option<Self>, ContainerError> {
        let mut listed = bundle.linux.namespaces().iter().flatten();
        if listed.any(|one| one.typ() == LinuxNamespaceType::Mount) {
            return Ok(None);
        }
        let place = bundle.root.path.canonicalize().map_err(failed("find", &bundle.root.path))?;
        Ok(Some(Self { beneath: count(&place)?, place }))
    }

    /// Takes away what the container has mounted.
    pub(super) fn clear(&self) -> Result<(), ContainerError> {
        let _span = info_span!(
            "rootfs.unmount",
            call = "umount2(MNT_DETACH)",
            why = "without a mount namespace nothing ends by itself what was mounted for the container"
        )
        .entered();
        ContainerError::fault("rootfs.unmount")?;
        while count(&self.place)? > self.beneath {
            // MNT_DETACH takes along all that is mounted below, and waits for nobody who is still in there.
            let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
            umount2(&self.place, flags).map_err(|errno| failed("unmount", &self.place)(errno.into()))?;
        }
        Ok(())
    }
}

impl Mounted {
    pub(super) fn new(tree: Option<&InheritedTree>) -> Self {
        Self(tree.cloned())
    }

    /// Leaves it to the record to tell the next command.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(tree) = &self.0 {
            // Why the container failed is the error to tell of.
            let _ = tree.clear();
        }
    }
}

/// How many file systems are mounted at `place`, one upon the other.
fn count(place: &Path) -> Result<usize, ContainerError> {
    let text = fs::read_to_string(MOUNTS).map_err(failed("read", Path::new(MOUNTS)))?;
    Ok(mounts(&text).iter().filter(|mount| mount.point == place).count())
}

fn failed(attempt: &'static str, on: &Path) -> impl FnOnce(io::Error) -> ContainerError {
    let on = on.display().to_string();
    move |error| {
        let source = nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        ContainerError::System { attempt, on, source }
    }
}
