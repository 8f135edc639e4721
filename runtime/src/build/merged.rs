//! Layers seen as one tree, to copy to and from: an overlay that only the building process sees.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tracing::info_span;

use super::error::{BuildError, io_error};

/// Leaves the mounts that everybody sees: whatever is mounted from here on is gone with this process.
pub(crate) fn own_mounts() -> Result<(), BuildError> {
    let failed = |errno: nix::Error| BuildError::Mount(errno.into());
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed)?;
    // mount_namespaces(7): a new namespace still sends its mounts to the old one where those are shared.
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(failed)
}

/// A mounted tree. Unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Merged {
    place: PathBuf,
}

impl Merged {
    /// Mounts layers, the uppermost first, at a folder, with a folder for changes and one that overlayfs works in.
    pub(crate) fn writable(layers: &[PathBuf], upper: &Path, work: &Path, place: &Path) -> Result<Self, BuildError> {
        Self::mount(layers, Some((upper, work)), place)
    }

    /// The same, only to be read. `empty` is a folder with nothing in it: an overlay wants two.
    pub(super) fn readable(layers: &[PathBuf], empty: &Path, place: &Path) -> Result<Self, BuildError> {
        let mut all = layers.to_vec();
        while all.len() < 2 {
            all.push(empty.to_owned());
        }
        Self::mount(&all, None, place)
    }

    fn mount(layers: &[PathBuf], upper: Option<(&Path, &Path)>, place: &Path) -> Result<Self, BuildError> {
        let _span = info_span!(
            "build.mount",
            call = "mount(overlay)",
            why = "what a step finds is all layers as one tree, and what it writes is kept apart: that is its layer"
        )
        .entered();
        fs::create_dir_all(place).map_err(io_error("make", place))?;
        // All options must fit in a page; by their descriptors' names even long paths and many layers do.
        let open = |path: &Path| File::open(path).map_err(io_error("open", path));
        let opened = layers.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
        let name = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
        let lower: Vec<String> = opened.iter().map(name).collect();
        let mut options = format!("lowerdir={}", lower.join(":"));
        let changes = upper.map(|(upper, work)| Ok::<_, BuildError>((open(upper)?, open(work)?))).transpose()?;
        if let Some((upper, work)) = &changes {
            options.extend([",upperdir=", &name(upper), ",workdir=", &name(work)]);
        }
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        let mounted = mount(Some("overlay"), place, Some("overlay"), flags, Some(options.as_str()));
        mounted.map_err(|errno| BuildError::Mount(io::Error::from(errno)))?;
        Ok(Self { place: place.to_owned() })
    }

    /// Its root.
    pub(crate) fn root(&self) -> &Path {
        &self.place
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        // Nobody else can see it; with the process it would be gone too.
        let _ = umount2(&self.place, MntFlags::MNT_DETACH);
    }
}
