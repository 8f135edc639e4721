//! The image's layers, mounted for peers that can't stack them themselves.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::super::bundle::joined;
use super::super::lab::Lab;

/// An overlay on this host's mount table, for as long as this value lives.
#[derive(Debug)]
pub(super) struct MountedRoot {
    point: PathBuf,
}

impl MountedRoot {
    /// Mounts it in the scratch folder, where a cleaner finds it if this process is killed.
    pub(super) fn mount(lab: &Lab) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("the image's layers can't be mounted as an ordinary user".to_owned());
        }
        let layers = lab.image()?.lower_dirs();
        let folder = lab.scratch().path().join("peers");
        let [point, upper, work] = ["rootfs", "upper", "work"].map(|name| folder.join(name));
        for path in [&point, &upper, &work] {
            fs::create_dir_all(path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        }
        let options = format!("lowerdir={},upperdir={},workdir={}", joined(&layers), upper.display(), work.display());
        mount(Some("isolab-peers"), &point, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .map_err(|error| format!("the image's layers can't be mounted: {error}"))?;
        Ok(Self { point })
    }

    pub(super) fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for MountedRoot {
    fn drop(&mut self) {
        // Lazily: a container that ended this instant may still be letting go of it.
        let _ = umount2(&self.point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    }
}
