//! Taking away what nothing leads to any more.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Store, io_error};
use crate::image::digest::{Algorithm, Digest};
use crate::image::temporary::{Temporary, is_temporary};
use crate::image::{ImageError, Manifest};

/// What was taken away.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that no image leads to.
    pub blobs: Vec<Digest>,
    /// The hexadecimal diff ids of unpacked layers that no image leads to.
    pub layers: Vec<String>,
    /// The size of the blobs, in bytes.
    pub bytes: u64,
}

impl Store {
    /// Keeps blobs and unpacked layers with these digests, though no image leads to them. Who pins again under a name
    /// says all that it wants kept.
    pub fn pin(&self, name: &str, digests: &[Digest]) -> Result<(), ImageError> {
        let folder = self.root().join("pins");
        fs::create_dir_all(&folder).map_err(io_error("make", &folder))?;
        let text = digests.iter().map(Digest::to_string).collect::<Vec<_>>().join("\n");
        self.replace(&folder.join(name), text.as_bytes())
    }

    /// As [`Store::pin`], for who is content that after a power cut the pin may be as lost as what it was made for.
    pub fn pin_unsynced(&self, name: &str, digests: &[Digest]) -> Result<(), ImageError> {
        let folder = self.root().join("pins");
        fs::create_dir_all(&folder).map_err(io_error("make", &folder))?;
        let (temporary, path) = (Temporary::name_in(&folder), folder.join(name));
        let text = digests.iter().map(Digest::to_string).collect::<Vec<_>>().join("\n");
        fs::write(temporary.path(), text).map_err(io_error("write", temporary.path()))?;
        temporary.publish(&path).map_err(io_error("replace", &path)).map(drop)
    }

    /// Forgets what was pinned under a name.
    pub fn unpin(&self, name: &str) -> Result<(), ImageError> {
        let path = self.root().join("pins").join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Takes away blobs and unpacked layers that neither an image nor a pin leads to, and that no container stands on.
    /// Waits for everybody who adds.
    pub fn collect(&self) -> Result<Collected, ImageError> {
        let _exclusive = self.exclusive()?;
        self.settle()?;
        let kept = self.reachable()?;
        let mut collected = Collected::default();
        for algorithm in Algorithm::ALL {
            self.collect_blobs(algorithm, &kept, &mut collected)?;
        }
        let layers: HashSet<String> = kept.iter().map(Digest::hex).collect();
        for (name, path) in children(&self.layers())? {
            if !layers.contains(&name) && self.remove_layer(&path)? {
                collected.layers.push(name);
            }
        }
        Ok(collected)
    }

    fn collect_blobs(
        &self,
        algorithm: Algorithm,
        kept: &HashSet<Digest>,
        collected: &mut Collected,
    ) -> Result<(), ImageError> {
        for (name, path) in children(&self.blobs(algorithm))? {
            // What has no digest's name is somebody else's.
            let Ok(digest) = format!("{algorithm}:{name}").parse::<Digest>() else { continue };
            if !kept.contains(&digest) {
                let size = fs::metadata(&path).map_err(io_error("read", &path))?.len();
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
                collected.bytes += size;
                collected.blobs.push(digest);
            }
        }
        Ok(())
    }

    /// Removes an unpacked layer, unless a container stands on it. First it loses its name, at once: half a layer must
    /// never be taken for a whole one.
    pub(super) fn remove_layer(&self, path: &Path) -> Result<bool, ImageError> {
        let Some(_unheld) = Self::unheld(path)? else { return Ok(false) };
        let temporary = Temporary::name_in(&self.layers());
        fs::rename(path, temporary.path()).map_err(io_error("remove", path))?;
        fs::remove_dir_all(temporary.path()).map_err(io_error("remove", temporary.path()))?;
        Ok(true)
    }

    /// Every digest that an image or a pin leads to: of manifests, configurations, archives, and unpacked layers.
    pub(super) fn reachable(&self) -> Result<HashSet<Digest>, ImageError> {
        let mut kept = HashSet::new();
        for named in self.names()? {
            Manifest::reach(self, &named.descriptor, &mut kept)?;
        }
        let pins = self.root().join("pins");
        for (_, path) in children(&pins)? {
            let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
            kept.extend(text.lines().filter_map(|line| line.parse::<Digest>().ok()));
        }
        Ok(kept)
    }
}

/// What lies in a folder and is finished; nothing if there is no folder.
pub(super) fn children(folder: &Path) -> Result<Vec<(String, PathBuf)>, ImageError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io_error("read", folder))?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("read", folder))?;
        // Names of ours are text; what is none is left alone.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !is_temporary(&name) {
            all.push((name, entry.path()));
        }
    }
    all.sort();
    Ok(all)
}
