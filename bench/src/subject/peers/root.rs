//! The image's layers, mounted for peers that can't stack them themselves.
//!
//! Starts that follow each other share one mount. Instances that stay side by side have one each, as an engine gives its containers: a mounted
//! file system is memory of the kernel's, which a container of ours pays for too.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::super::bundle::joined;
use super::super::lab::Lab;

/// An overlay on this host's mount table, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct MountedRoot {
    point: PathBuf,
}

impl MountedRoot {
    /// Mounts it in a folder of the scratch folder, where a cleaner finds it if this process is killed.
    pub(super) fn mount(lab: &Lab, folder: &Path) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("the image's layers can't be mounted as an ordinary user".to_owned());
        }
        let layers = lab.image()?.lower_dirs();
        let [point, upper, work] = [POINT, "upper", "work"].map(|name| folder.join(name));
        for path in [&point, &upper, &work] {
            fs::create_dir_all(path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        }
        let options = format!("lowerdir={},upperdir={},workdir={}", joined(&layers), upper.display(), work.display());
        mount(Some("isolab-peers"), &point, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .map_err(|error| format!("the image's layers can't be mounted: {error}"))?;
        Ok(Self { point })
    }

    /// The root file system that one instance alone has while it stays; `name` is the instance's.
    pub(super) fn own(lab: &Lab, name: &str) -> Result<Self, String> {
        Self::mount(lab, &own_folder(lab).join(name))
    }

    pub(super) fn path(&self) -> &Path {
        &self.point
    }
}

/// Where the root file systems of single instances lie, a folder each.
pub(super) fn own_folder(lab: &Lab) -> PathBuf {
    lab.scratch().path().join("roots")
}

/// The mount point in such a folder.
pub(super) const POINT: &str = "rootfs";

impl Drop for MountedRoot {
    fn drop(&mut self) {
        // Lazily: a container that ended this instant may still be letting go of it.
        let unmounted = umount2(&self.point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        // Only then: what is still mounted must not be emptied.
        if let (Ok(()), Some(folder)) = (unmounted, self.point.parent()) {
            let _ = fs::remove_dir_all(folder);
        }
    }
}
