//! The store: everything by the digest of its bytes.
//!
//! ```text
//! ROOT/oci-layout, index.json      an OCI image layout (image-spec, image-layout.md): other tools can open it
//! ROOT/blobs/ALGORITHM/HEX         manifests, configurations, layers' archives
//! ROOT/layers/HEX/                 layers unpacked, by diff id; shared by all images that have them
//! ROOT/pins/NAME                   digests that are kept though no image has them, such as a build's steps
//! ROOT/packed/HEX.KIND            what a layer came to when it was packed for a registry
//! ROOT/unsettled/...               names of what may not be on the disk yet
//! ROOT/.../.tmp-PID-START-N        not finished; the rest of a process that died, once that process is gone
//! ROOT/lock, ROOT/use              who changes the index; who adds to the store, and who takes away
//! ```

mod blobs;
mod garbage;
mod lock;
mod names;
mod packed;
mod receive;
mod unsettled;
mod verify;

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::ImageError;
use super::digest::{Algorithm, Digest, Hashing};
use super::temporary::{Temporary, sweep};

pub use blobs::BlobWriter;
pub use garbage::Collected;
pub use lock::{Exclusive, Held, Shared};
pub use names::Named;
pub use packed::Packed;
pub use receive::Received;
pub use verify::{Problem, Verified};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const NO_IMAGES: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// The blobs, layers and names of one user.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store below a folder, and makes what is missing of it.
    ///
    /// Only its owner may look inside: a layer can hold a set-user-ID program, which is harmless in a container and
    /// would not be for a user who could call it by its path in the store.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let root = root.into();
        // Containers stand on layers by their paths, and another process than this one, with a folder of its own, looks there.
        let store = Self { root: std::path::absolute(&root).map_err(io_error("find", &root))? };
        for folder in [store.root.clone(), store.blobs(Algorithm::Sha256), store.layers()] {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io_error("make", &folder))?;
        }
        for (file, content) in [("oci-layout", LAYOUT), ("index.json", NO_IMAGES)] {
            let path = store.root.join(file);
            if !path.exists() {
                // Made without looking again: whoever made it at the same time wrote the same, or has the lock below.
                let _lock = store.lock_index()?;
                if !path.exists() {
                    store.replace(&path, content.as_bytes())?;
                }
            }
        }
        store.recover()?;
        Ok(store)
    }

    /// The store of the calling user: /var/lib/isolab as root, below `$XDG_DATA_HOME` otherwise.
    ///
    /// `None` for a user who has neither that nor a home.
    pub fn folder_of_user() -> Option<PathBuf> {
        if geteuid().is_root() {
            return Some("/var/lib/isolab".into());
        }
        let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = folder("XDG_DATA_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/share")));
        data.map(|data| data.join("isolab"))
    }

    /// The folder that everything lies in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob lies, or would.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs(digest.algorithm()).join(digest.hex())
    }

    /// Where a layer lies unpacked, or would.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(diff_id.hex())
    }

    /// Removes what processes that died have left half made, and names it.
    pub fn prune(&self) -> Result<Vec<PathBuf>, ImageError> {
        let mut removed = Vec::new();
        let blobs = Algorithm::ALL.map(|algorithm| self.blobs(algorithm)).into_iter().filter(|folder| folder.is_dir());
        for folder in [self.root.clone(), self.layers()].into_iter().chain(blobs) {
            removed.extend(sweep(&folder).map_err(io_error("clear", &folder))?);
        }
        Ok(removed)
    }

    /// Writes a file whole: whoever reads it sees the old one or the new one.
    fn replace(&self, path: &Path, content: &[u8]) -> Result<(), ImageError> {
        let temporary = Temporary::name_in(&self.root);
        let mut file = File::create_new(temporary.path()).map_err(io_error("make", temporary.path()))?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        written.map_err(io_error("write", temporary.path()))?;
        temporary.publish(path).map_err(io_error("replace", path))?;
        sync_folder(path.parent().unwrap_or(&self.root))
    }

    fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.name())
    }

    fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }
}

/// Makes a rename last: it is a change of the folder, not of the file.
fn sync_folder(folder: &Path) -> Result<(), ImageError> {
    let synced = File::open(folder).and_then(|folder| nix::unistd::fsync(folder.as_fd()).map_err(io::Error::from));
    synced.map_err(io_error("sync", folder))
}

pub(super) fn io_error(attempt: &'static str, path: &Path) -> impl Fn(io::Error) -> ImageError + use<> {
    let path = path.to_owned();
    move |source| ImageError::Io { attempt, path: path.clone(), source }
}

pub(super) fn understand(what: &str) -> impl Fn(serde_json::Error) -> ImageError + use<> {
    let what = what.to_owned();
    move |source| ImageError::Understand { what: what.clone(), source }
}

#[cfg(test)]
mod tests;
