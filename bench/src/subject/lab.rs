//! What every subject stands on: the folders, the payload on disk, the engines' commands, the image.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use isolab_runtime::image::{Image, ImageError, Store, default_image};
use thiserror::Error;

use super::linux::Ground;
use super::template::Template;
use crate::host::mounts;
use crate::host::roots::Roots;
use crate::host::tools;
use crate::payload::PAYLOAD;
use crate::scratch::{Scratch, ScratchError};

/// The ground that subjects are started from. Everything it made is removed with it, but for the store.
#[derive(Debug)]
pub struct Lab {
    roots: Roots,
    scratch: Scratch,
    payload: PathBuf,
    image: OnceLock<Result<Image, String>>,
    template: OnceLock<Result<Template, String>>,
    ground: OnceLock<Result<Ground, String>>,
}

/// Why the lab can't be opened.
#[derive(Debug, Error)]
pub enum LabError {
    /// No scratch folder.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// The payload can't be written.
    #[error("cannot write the payload to {}", .path.display())]
    Payload {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The roots can't be made absolute: the current folder is gone.
    #[error("cannot tell where {} is", .path.display())]
    Root {
        /// As given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl LabError {
    /// What to try next.
    pub fn hint(&self) -> &'static str {
        "choose folders that this user can write to: --root DIR"
    }
}

impl Lab {
    /// Makes the scratch folder and puts the payload where it can be executed.
    pub fn open(roots: Roots) -> Result<Self, LabError> {
        let absolute = |path: PathBuf| std::path::absolute(&path).map_err(|source| LabError::Root { path, source });
        let roots = Roots { runtime: absolute(roots.runtime)?, data: absolute(roots.data)? };
        let scratch = Scratch::make(&roots)?;
        let payload = roots.data.join("payload").join("isolab-payload");
        place_payload(&payload).map_err(|source| LabError::Payload { path: payload.clone(), source })?;
        Ok(Self { roots, scratch, payload, image: OnceLock::new(), template: OnceLock::new(), ground: OnceLock::new() })
    }

    /// The folders of the lab.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The scratch folder.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Has all that others have left unwritten brought to the disk, before something that syncs is on the clock: ext4 and its like write
    /// it together with what is synced (`data=ordered`), and whoever syncs first would pay for all. An error of syncfs(2) is one of
    /// somebody else's file.
    pub(crate) fn settle_disk(&self) {
        let _ = File::open(self.scratch.path()).map(nix::unistd::syncfs);
    }

    /// The payload's file. Below the data root: /run, where scratch folders lie, forbids execution on many hosts.
    pub(crate) fn payload(&self) -> &Path {
        &self.payload
    }

    /// The image around the payload, unpacked at its first use.
    pub(super) fn image(&self) -> Result<&Image, String> {
        let make =
            || -> Result<Image, ImageError> { default_image(&Store::open(self.roots.data.clone())?, &self.payload) };
        let image = self.image.get_or_init(|| make().map_err(|error| crate::chain(&error)));
        image.as_ref().map_err(Clone::clone)
    }

    /// The payload's machine as a snapshot, taken at its first use.
    pub(super) fn template(&self, monitor: &Path) -> Result<&Template, String> {
        self.template.get_or_init(|| Template::take(self, monitor)).as_ref().map_err(Clone::clone)
    }

    /// What every monitor boots that takes an operating system, made at its first use.
    pub(super) fn ground(&self) -> Result<&Ground, String> {
        self.ground.get_or_init(|| Ground::make(self)).as_ref().map_err(Clone::clone)
    }
}

impl Drop for Lab {
    /// Removes what is shared with other runs where nobody uses it any more: only empty folders can be removed.
    fn drop(&mut self) {
        // Its server lives in the scratch folder, which goes next.
        drop(self.template.take());
        let groups = mounts::table().into_iter().filter(|mount| mount.kind.starts_with("cgroup"));
        for shared in groups.map(|mount| mount.point.join("isolab")).chain([self.roots.runtime.join("oci")]) {
            let _ = fs::remove_dir(shared);
        }
    }
}

/// A command of the lab's: the one built with this program, beside it; otherwise the one on `PATH`.
pub fn command(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(|folder| beside(folder, name)));
    beside.flatten().or_else(|| tools::find(name))
}

/// Beside a command, or one above it: cargo puts tests and benches into a folder `deps` below the commands.
fn beside(folder: &Path, name: &str) -> Option<PathBuf> {
    let folders = [Some(folder), folder.parent().filter(|_| folder.ends_with("deps"))];
    folders.into_iter().flatten().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Writes the payload, unless that very file is there: the image in the store is known by the file that it was made of.
fn place_payload(path: &Path) -> io::Result<()> {
    if fs::read(path).is_ok_and(|bytes| bytes == PAYLOAD) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let owner = crate::host::owner::Owner::me().ok_or(io::ErrorKind::NotFound)?;
    // The name by which a cleaner knows an unfinished file.
    let temporary = folder.join(format!(".tmp-{owner}-payload"));
    fs::write(&temporary, PAYLOAD)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755))?;
    fs::rename(&temporary, path)
}
