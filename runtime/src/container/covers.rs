//! What of the container's tree is covered: paths that must not be read, and paths that must not be written (OCI runtime
//! specification, config-linux.md, "Masked Paths", "Readonly Paths").

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use oci_spec::runtime::Linux;
use tracing::info_span;

use super::devices;
use super::inside;
use super::report::{At, Failure, Step};
use super::sys::mount::{Change, Context, attach, attribute, clone_tree, set_attributes};
use super::sys::process::done_with;

/// The paths, inside the root.
#[derive(Debug)]
pub(crate) struct Covers {
    pub(crate) masked: Vec<PathBuf>,
    pub(crate) readonly: Vec<PathBuf>,
}

impl Covers {
    /// Reads the wishes.
    pub(crate) fn plan(linux: &Linux) -> Self {
        Self {
            masked: inside::paths(linux.masked_paths().as_ref()),
            readonly: inside::paths(linux.readonly_paths().as_ref()),
        }
    }

    /// Covers what must not be read: a file with /dev/null, a folder with an empty tmpfs, one for all of them.
    pub(crate) fn mask(&self, root: &OwnedFd) -> Result<(), Failure> {
        if self.masked.is_empty() {
            return Ok(());
        }
        let _span = info_span!(
            "rootfs.mask",
            call = "open_tree(2), move_mount(2)",
            why = "some files of /proc and /sys tell of the whole host; they are covered with nothing"
        )
        .entered();
        let null = devices::null().at(Step::MaskSource)?;
        let mut empty: Option<OwnedFd> = None;
        for (index, path) in self.masked.iter().enumerate() {
            let Some(place) = find(root, path).at_index(Step::Mask, index)? else { continue };
            let kind = kind_of(&place).at_index(Step::Mask, index)?;
            let cover = match (&empty, kind == SFlag::S_IFDIR) {
                (_, false) => clone_tree(null.as_fd(), c"", false).at_index(Step::Mask, index)?,
                (Some(first), true) => clone_tree(first.as_fd(), c"", false).at_index(Step::Mask, index)?,
                (None, true) => Context::open(c"tmpfs")
                    .and_then(|tmpfs| {
                        tmpfs.mount(attribute::RDONLY | attribute::NODEV | attribute::NOEXEC | attribute::NOSUID)
                    })
                    .at_index(Step::Mask, index)?,
            };
            attach(&cover, place.as_fd()).at_index(Step::Mask, index)?;
            if kind == SFlag::S_IFDIR && empty.is_none() {
                empty = Some(cover);
            } else {
                done_with(cover);
            }
            done_with(place);
        }
        [Some(null), empty].into_iter().flatten().for_each(done_with);
        Ok(())
    }

    /// Makes paths read-only, each with all below it.
    pub(crate) fn make_readonly(&self, root: &OwnedFd) -> Result<(), Failure> {
        if self.readonly.is_empty() {
            return Ok(());
        }
        let _span = info_span!(
            "rootfs.readonly",
            call = "open_tree(2), mount_setattr(2)",
            why = "kernel parameters below /proc/sys and the like can be read, but not written"
        )
        .entered();
        let readonly = Change { set: attribute::RDONLY, ..Change::default() };
        for (index, path) in self.readonly.iter().enumerate() {
            let step = Step::ReadonlyPath;
            let Some(place) = find(root, path).at_index(step, index)? else { continue };
            let copy = clone_tree(place.as_fd(), c"", true).at_index(step, index)?;
            set_attributes(&copy, &readonly, true).at_index(step, index)?;
            attach(&copy, place.as_fd()).at_index(step, index)?;
            done_with(copy);
            done_with(place);
        }
        Ok(())
    }
}

/// A path that not every kernel has: one that is missing needs no cover.
fn find(root: &OwnedFd, path: &Path) -> nix::Result<Option<OwnedFd>> {
    match inside::open(root, path, OFlag::empty()) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether a descriptor is a folder's, a file's or something else's.
pub(crate) fn kind_of(open: &OwnedFd) -> nix::Result<SFlag> {
    Ok(SFlag::from_bits_truncate(fstat(open)?.st_mode) & SFlag::S_IFMT)
}
