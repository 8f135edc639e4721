//! The store: everything by the digest of its bytes.
//!
//! ```text
//! ROOT/oci-layout, index.json      an OCI image layout (image-spec, image-layout.md): other tools can open it
//! ROOT/blobs/sha256/HEX            manifests, configurations, layers' archives
//! ROOT/layers/HEX/                 layers unpacked, by diff id; shared by all images that have them
//! ROOT/.../.tmp-PID-START-N        not finished; the rest of a process that died, once that process is gone
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{geteuid, syncfs};
use oci_spec::image::{Descriptor, ImageIndex};

use super::ImageError;
use super::digest::{Digest, Hashing};
use super::temporary::{Temporary, sweep};
use super::unpack::{Limits, unpack};

/// Where an image's name stands in the index (image-spec, annotations.md).
const NAME: &str = "org.opencontainers.image.ref.name";
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
        let store = Self { root: root.into() };
        for folder in [store.root.clone(), store.blobs(), store.layers()] {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io_error("make", &folder))?;
        }
        for (file, content) in [("oci-layout", LAYOUT), ("index.json", NO_IMAGES)] {
            let path = store.root.join(file);
            if !path.exists() {
                // Made without looking again: whoever made it at the same time wrote the same, or has the lock below.
                let _lock = store.lock()?;
                if !path.exists() {
                    store.replace(&path, content.as_bytes())?;
                }
            }
        }
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
        self.blobs().join(digest.hex())
    }

    /// Where a layer lies unpacked, or would.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(diff_id.hex())
    }

    /// Keeps what `write` writes. Answers its digest and its size in bytes.
    pub fn add_blob(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
    ) -> Result<(Digest, u64), ImageError> {
        let temporary = Temporary::name_in(&self.blobs());
        let file = File::create_new(temporary.path()).map_err(io_error("make", temporary.path()))?;
        // Large writes: what comes in are a tar's 512-byte blocks.
        let mut out = Hashing::new(io::BufWriter::with_capacity(256 << 10, file));
        write(&mut out)?;
        let (out, digest, bytes) = out.finish();
        let synced = out.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
        synced.map_err(io_error("write", temporary.path()))?;
        let path = self.blob_path(&digest);
        temporary.publish(&path).map_err(io_error("make", &path))?;
        sync_folder(&self.blobs())?;
        Ok((digest, bytes))
    }

    /// Reads a small blob, such as a manifest, and makes sure that it is what it is called.
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.blob_path(digest);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ImageError::Missing(*digest)),
            other => other.map_err(io_error("read", &path))?,
        };
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(ImageError::Corrupt { expected: *digest, found }),
        }
    }

    /// Unpacks a layer from its archive, unless that has been done. Two processes at once may both do it; one of them
    /// throws its work away.
    pub fn unpack_layer(&self, blob: &Digest, diff_id: &Digest) -> Result<PathBuf, ImageError> {
        let path = self.layer_path(diff_id);
        if path.is_dir() {
            return Ok(path);
        }
        let archive = match File::open(self.blob_path(blob)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ImageError::Missing(*blob)),
            other => other.map_err(io_error("read", &self.blob_path(blob)))?,
        };
        let temporary = Temporary::name_in(&self.layers());
        fs::create_dir(temporary.path()).map_err(io_error("make", temporary.path()))?;
        let unpacked = unpack(io::BufReader::with_capacity(256 << 10, archive), temporary.path(), Limits::default())?;
        if unpacked.diff_id != *diff_id {
            return Err(ImageError::Corrupt { expected: *diff_id, found: unpacked.diff_id });
        }
        // One sync for all files of the layer, where one a file would take the time of as many disk revolutions.
        let folder = File::open(temporary.path()).map_err(io_error("open", temporary.path()))?;
        syncfs(&folder).map_err(|errno| io_error("sync", temporary.path())(errno.into()))?;
        temporary.publish(&path).map_err(io_error("make", &path))?;
        sync_folder(&self.layers())?;
        Ok(path)
    }

    /// What a name stands for.
    pub fn named(&self, name: &str) -> Result<Option<Descriptor>, ImageError> {
        Ok(self.index()?.manifests().iter().find(|manifest| name_of(manifest) == Some(name)).cloned())
    }

    /// Lets a name stand for a manifest, and no longer for another. `notes` are kept beside the name.
    pub fn set_name(&self, name: &str, mut manifest: Descriptor, notes: &[(&str, &str)]) -> Result<(), ImageError> {
        let notes = notes.iter().copied().chain([(NAME, name)]).map(|(key, value)| (key.to_owned(), value.to_owned()));
        manifest.set_annotations(Some(notes.collect()));
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let mut manifests = index.manifests().clone();
        manifests.retain(|other| name_of(other) != Some(name));
        manifests.push(manifest);
        index.set_manifests(manifests);
        let path = self.root.join("index.json");
        let text = serde_json::to_vec(&index).map_err(understand("the index to be written"))?;
        self.replace(&path, &text)
    }

    /// Removes what processes that died have left half made, and names it.
    pub fn prune(&self) -> Result<Vec<PathBuf>, ImageError> {
        let mut removed = Vec::new();
        for folder in [self.root.clone(), self.blobs(), self.layers()] {
            removed.extend(sweep(&folder).map_err(io_error("clear", &folder))?);
        }
        Ok(removed)
    }

    fn index(&self) -> Result<ImageIndex, ImageError> {
        let path = self.root.join("index.json");
        let text = fs::read(&path).map_err(io_error("read", &path))?;
        serde_json::from_slice(&text).map_err(understand(&path.display().to_string()))
    }

    /// Writes a file whole: whoever reads it sees the old one or the new one.
    fn replace(&self, path: &Path, content: &[u8]) -> Result<(), ImageError> {
        let temporary = Temporary::name_in(&self.root);
        let mut file = File::create_new(temporary.path()).map_err(io_error("make", temporary.path()))?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        written.map_err(io_error("write", temporary.path()))?;
        temporary.publish(path).map_err(io_error("replace", path))?;
        sync_folder(&self.root)
    }

    /// Keeps others from changing the index until it is dropped; the kernel drops it for a process that dies.
    fn lock(&self) -> Result<Flock<File>, ImageError> {
        let path = self.root.join("lock");
        let file = File::create(&path).map_err(io_error("make", &path))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io_error("lock", &path)(errno.into()))
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }
}

fn name_of(manifest: &Descriptor) -> Option<&str> {
    manifest.annotations().as_ref().and_then(|annotations| annotations.get(NAME)).map(String::as_str)
}

/// Makes a rename last: it is a change of the folder, not of the file.
fn sync_folder(folder: &Path) -> Result<(), ImageError> {
    let synced = File::open(folder).and_then(|folder| nix::unistd::fsync(folder.as_fd()).map_err(io::Error::from));
    synced.map_err(io_error("sync", folder))
}

pub(super) fn io_error(attempt: &'static str, path: &Path) -> impl Fn(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Io { attempt, path: path.clone(), source }
}

pub(super) fn understand(what: &str) -> impl Fn(serde_json::Error) -> ImageError {
    let what = what.to_owned();
    move |source| ImageError::Understand { what: what.clone(), source }
}
