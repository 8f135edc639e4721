//! What came of a step the last time: the same step on the same layers with the same files is not done again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{BuildError, io_error};
use crate::image::{Digest, ImageError, Store, Temporary, sweep};

/// What the pins of steps are called, before their keys.
const PIN: &str = "step-";

/// The results of steps, a small file each.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    fresh: bool,
}

/// A step's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// When it was first done: the same image shall be the same bytes.
    pub(super) created: String,
    /// Its layer, if it changed any file.
    pub(super) layer: Option<Layer>,
}

/// A layer of the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Layer {
    pub(super) diff_id: String,
    pub(super) blob: String,
    pub(super) size: u64,
    pub(super) media_type: String,
}

/// Removes what a build that was killed had begun to write down, and names it.
pub fn prune(root: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let folder = root.join("cache");
    match sweep(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(io_error("clean", folder)),
    }
}

/// Forgets what came of steps, and the folders of `RUN --mount=type=cache`. Answers how many there were of both. Layers
/// that only this had kept go with the next [`Store::collect`].
pub fn remove_cache(store: &Store) -> Result<(usize, usize), BuildError> {
    let folder = store.root().join("cache");
    let mut steps = 0;
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(hex) = name.strip_suffix(".json") else { continue };
        // The note first: without it nobody looks for the layer.
        fs::remove_file(entry.path()).map_err(io_error("remove", entry.path()))?;
        store.unpin(&format!("{PIN}{hex}"))?;
        steps += 1;
    }
    Ok((steps, super::mounts::remove_caches(store.root())?))
}

/// What a step stands on and does, as a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    /// The beginning of a stage: the image that it stands on.
    pub(super) fn base(text: &str) -> Self {
        Self(Digest::of(text.as_bytes()).to_string())
    }

    fn hex(&self) -> &str {
        self.0.split(':').next_back().unwrap_or_default()
    }

    /// A step upon this one.
    pub(super) fn then(&self, step: &str) -> Self {
        Self::base(&format!("{}\n{step}", self.0))
    }
}

impl Cache {
    pub(super) fn below(root: &Path, fresh: bool) -> Self {
        Self { folder: root.join("cache"), fresh }
    }

    /// What came of it; nothing where it has to be done.
    pub(super) fn find(&self, key: &Key) -> Option<Outcome> {
        if self.fresh {
            return None;
        }
        serde_json::from_slice(&fs::read(self.path(key)).ok()?).ok()
    }

    /// Notes a step's result, and keeps its layer though no image may have it in the end.
    pub(super) fn keep(&self, store: &Store, key: &Key, result: &Outcome) -> Result<(), BuildError> {
        if let Some(layer) = &result.layer {
            let digests = [&layer.blob, &layer.diff_id].map(|text| text.parse::<Digest>());
            let digests = digests.into_iter().collect::<Result<Vec<_>, _>>().map_err(ImageError::from)?;
            store.pin_unsynced(&format!("{PIN}{}", key.hex()), &digests)?;
        }
        fs::create_dir_all(&self.folder).map_err(io_error("make", &self.folder))?;
        let temporary = Temporary::name_in(&self.folder);
        let text = serde_json::to_vec(result).unwrap_or_default();
        fs::write(temporary.path(), text).map_err(io_error("write", temporary.path()))?;
        let path = self.path(key);
        temporary.publish(&path).map(drop).map_err(io_error("write", path))
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}.json", key.hex()))
    }
}
