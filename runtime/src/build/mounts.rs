//! What a RUN has mounted: files of other stages, caches, secrets. All of it is away when the step's layer is made.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::dockerfile::{MountKind, RunMount};
use super::error::{BuildError, io_error};
use super::files;
use super::merged::Merged;
use crate::engine::{Mount, Place};
use crate::image::Digest;

/// Where caches lie, below the store's root.
const CACHES: &str = "build-cache";

/// Mounts for a container; what they stand on goes with this.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) mounts: Vec<Mount>,
    /// Where, and with which options.
    pub(super) tmpfs: BTreeMap<String, String>,
    /// The places below the root that the runtime makes where they are missing, and what is above them; the deepest first.
    pub(super) points: Vec<PathBuf>,
    views: Vec<Merged>,
    places: Vec<Place>,
    locks: Vec<Flock<File>>,
}

impl Held {
    /// Holds a mount that needs neither a stage nor the build's folder. `at` is its place below the root.
    pub(super) fn add(
        &mut self,
        root: &Path,
        mount: &RunMount,
        at: &Path,
        secrets: &BTreeMap<String, Vec<u8>>,
        place: impl FnOnce() -> Result<Place, BuildError>,
    ) -> Result<(), BuildError> {
        let to = Path::new("/").join(at);
        match &mount.kind {
            MountKind::Bind { .. } => return Ok(()),
            MountKind::Tmpfs { size } => {
                let size = size.as_ref().map(|size| format!(",size={size}")).unwrap_or_default();
                self.tmpfs.insert(to.to_string_lossy().into_owned(), format!("exec{size}"));
            }
            MountKind::Cache { id, locked, read_only, mode, owner } => {
                let from = cache(root, id, *mode, *owner)?;
                if *locked {
                    self.locks.push(lock(&from)?);
                }
                self.mounts.push(Mount { from, to, read_only: *read_only, volume: None });
            }
            MountKind::Secret { id, required, mode, owner } => {
                let Some(content) = secrets.get(id) else {
                    return if *required { Err(BuildError::Secret { id: id.clone() }) } else { Ok(()) };
                };
                let place = place()?;
                let from = place.folder().join("secret");
                fs::write(&from, content).map_err(io_error("write", &from))?;
                chown(&from, Some(owner.0), Some(owner.1)).map_err(io_error("give away", &from))?;
                fs::set_permissions(&from, Permissions::from_mode(*mode)).map_err(io_error("change", &from))?;
                self.places.push(place);
                self.mounts.push(Mount { from, to, read_only: true, volume: None });
            }
        }
        self.point(at);
        Ok(())
    }

    /// Holds files of a tree that is mounted, or of the build's folder.
    pub(super) fn bind(&mut self, tree: &Path, source: &str, at: &Path, writable: bool) -> Result<(), BuildError> {
        let inside: PathBuf = Path::new(source).components().filter(files::is_normal).collect();
        let from = files::resolve(tree, &inside)?.ok_or_else(|| BuildError::NoSource {
            source_path: source.to_owned(),
            place: "what is mounted from".to_owned(),
        })?;
        self.mounts.push(Mount { from, to: Path::new("/").join(at), read_only: !writable, volume: None });
        self.point(at);
        Ok(())
    }

    /// Keeps a view, and the place that it is mounted at, for as long as this.
    pub(super) fn keep(&mut self, view: Option<Merged>, place: Place) {
        self.views.extend(view);
        self.places.push(place);
    }

    fn point(&mut self, at: &Path) {
        let all = at.ancestors().filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned);
        self.points.extend(all);
        self.points.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        self.points.dedup();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Before the folders that they are mounted at.
        self.views.clear();
    }
}

/// The folder of a cache, made where it is not there.
fn cache(root: &Path, id: &str, mode: u32, owner: (u32, u32)) -> Result<PathBuf, BuildError> {
    let all = root.join(CACHES);
    DirBuilder::new().recursive(true).mode(0o700).create(&all).map_err(io_error("make", &all))?;
    let folder = all.join(Digest::of(id.as_bytes()).hex());
    if !folder.is_dir() {
        DirBuilder::new().recursive(true).mode(mode).create(&folder).map_err(io_error("make", &folder))?;
        fs::set_permissions(&folder, Permissions::from_mode(mode)).map_err(io_error("change", &folder))?;
        chown(&folder, Some(owner.0), Some(owner.1)).map_err(io_error("give away", &folder))?;
    }
    Ok(folder)
}

fn lock(folder: &Path) -> Result<Flock<File>, BuildError> {
    let file = File::open(folder).map_err(io_error("open", folder))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io_error("lock", folder)(errno.into()))
}

/// Removes all caches. Answers how many there were.
pub(super) fn remove_caches(root: &Path) -> Result<usize, BuildError> {
    let all = root.join(CACHES);
    let count = fs::read_dir(&all).map_or(0, Iterator::count);
    match fs::remove_dir_all(&all) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", all)(error)),
        _ => Ok(count),
    }
}
