//! An OCI image layout: blobs by digest, and an index that gives manifests their tags.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{TravelError, failed};
use crate::snapshot::raw::{hex, unhex};

/// The largest index or manifest that is read, in bytes: what registries accept.
pub(super) const LARGEST: u64 = 4 << 20;
/// The annotation that is a tag.
const TAG: &str = "org.opencontainers.image.ref.name";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What points to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(super) fn new(media_type: &str, digest: String, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, annotations: BTreeMap::new() }
    }
}

/// Where blobs are kept by their digests, and manifests by tags: a folder, or a registry.
pub(super) trait Blobs {
    /// Keeps a blob, once however often it is put.
    fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, TravelError>;
    /// The bytes of a blob, which are those that its digest names, and no more than `most`.
    fn get(&self, blob: &Descriptor, most: u64) -> Result<Vec<u8>, TravelError>;
    /// Gives a manifest a tag, which may have been another's.
    fn tag(&self, tag: &str, manifest: &Manifest) -> Result<(), TravelError>;
    /// The manifest with a tag.
    fn tagged(&self, tag: &str) -> Result<Manifest, TravelError>;
}

/// A blob as `read` finds it, by the digits of its digest, if it is the one that the digest names.
pub(super) fn verified(
    blob: &Descriptor,
    most: u64,
    read: impl FnOnce(&str) -> Result<Vec<u8>, TravelError>,
) -> Result<Vec<u8>, TravelError> {
    let fail = |why: String| TravelError::Blob { digest: blob.digest.clone(), why };
    let sum = blob.digest.strip_prefix("sha256:").filter(|sum| unhex(sum).is_some_and(|sum| sum.len() == 32));
    // A digest that is checked is no path that leads elsewhere.
    let sum = sum.ok_or_else(|| fail("it is no SHA-256".to_owned()))?;
    if blob.size > most {
        return Err(fail(format!("{} bytes are more than the {most} that one of its kind can have", blob.size)));
    }
    let bytes = read(sum)?;
    if bytes.len() as u64 != blob.size {
        return Err(fail(format!("it should have {} bytes, and has {} or more", blob.size, bytes.len())));
    }
    let found = hex(&Sha256::digest(&bytes));
    if found != sum {
        return Err(fail(format!("its bytes have the digest sha256:{found}")));
    }
    Ok(bytes)
}

/// What lists the blobs of one thing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) schema_version: u32,
    pub(super) media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

impl Manifest {
    /// The manifest of an artifact.
    pub(super) fn new(artifact_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        let artifact_type = Some(artifact_type.to_owned());
        Self { schema_version: 2, media_type: MANIFEST.to_owned(), artifact_type, config, layers }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    manifests: Vec<Descriptor>,
}

/// A layout in a folder.
#[derive(Debug)]
pub(super) struct Layout {
    path: PathBuf,
}

impl Layout {
    /// The layout at `path`, made if nothing is there.
    pub(super) fn make(path: &Path) -> Result<Self, TravelError> {
        let blobs = path.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(failed("make the folder", &blobs))?;
        let layout = Self { path: path.to_owned() };
        layout.write_whole(&path.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(layout)
    }

    /// The layout at `path`, which is there.
    pub(super) fn open(path: &Path) -> Result<Self, TravelError> {
        let marker = path.join("oci-layout");
        File::open(&marker).map_err(failed("open", &marker))?;
        Ok(Self { path: path.to_owned() })
    }

    fn index(&self) -> Result<Index, TravelError> {
        let path = self.path.join("index.json");
        let bytes = read(&path, LARGEST)?;
        serde_json::from_slice(&bytes).map_err(|source| TravelError::Json { what: path.display().to_string(), source })
    }

    fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<(), TravelError> {
        let unfinished = self.path.join(format!(".unfinished-{}", std::process::id()));
        let write = || {
            let mut file = File::create(&unfinished)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            fs::rename(&unfinished, path)
        };
        write().map_err(failed("write", path))
    }
}

impl Blobs for Layout {
    fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, TravelError> {
        let sum = hex(&Sha256::digest(bytes));
        let path = self.path.join("blobs/sha256").join(&sum);
        if !path.exists() {
            self.write_whole(&path, bytes)?;
        }
        Ok(Descriptor::new(media_type, format!("sha256:{sum}"), bytes.len() as u64))
    }

    fn get(&self, blob: &Descriptor, most: u64) -> Result<Vec<u8>, TravelError> {
        verified(blob, most, |sum| read(&self.path.join("blobs/sha256").join(sum), blob.size + 1))
    }

    fn tag(&self, tag: &str, manifest: &Manifest) -> Result<(), TravelError> {
        let json = |error| TravelError::Json { what: "the manifest".to_owned(), source: error };
        let bytes = serde_json::to_vec(manifest).map_err(json)?;
        let mut descriptor = self.put(MANIFEST, &bytes)?;
        descriptor.annotations.insert(TAG.to_owned(), tag.to_owned());
        let path = self.path.join("index.json");
        let mut index = if path.exists() {
            self.index()?
        } else {
            Index { schema_version: 2, media_type: Some(INDEX.to_owned()), manifests: Vec::new() }
        };
        index.manifests.retain(|other| other.annotations.get(TAG).is_none_or(|name| name != tag));
        index.manifests.push(descriptor);
        self.write_whole(&path, &serde_json::to_vec_pretty(&index).map_err(json)?)
    }

    fn tagged(&self, tag: &str) -> Result<Manifest, TravelError> {
        let index = self.index()?;
        let found = index.manifests.iter().find(|other| other.annotations.get(TAG).is_some_and(|name| name == tag));
        let found = found.ok_or_else(|| TravelError::NoTag { path: self.path.clone(), tag: tag.to_owned() })?;
        let bytes = self.get(found, LARGEST)?;
        let what = format!("the manifest {}", found.digest);
        serde_json::from_slice(&bytes).map_err(|source| TravelError::Json { what, source })
    }
}

/// At most so many bytes of a file.
fn read(path: &Path, most: u64) -> Result<Vec<u8>, TravelError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed("open", path))?;
    file.take(most).read_to_end(&mut bytes).map_err(failed("read", path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_kept_once_and_comes_back_by_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::make(folder.path()).unwrap();
        let one = layout.put("text/plain", b"hello").unwrap();
        assert_eq!(layout.put("text/plain", b"hello").unwrap(), one);
        assert_eq!(fs::read_dir(folder.path().join("blobs/sha256")).unwrap().count(), 1);
        assert_eq!(layout.get(&one, 5).unwrap(), b"hello");
    }

    #[test]
    fn a_blob_that_is_another_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::make(folder.path()).unwrap();
        let blob = layout.put("text/plain", b"hello").unwrap();
        let refusal = |blob: &Descriptor, most| layout.get(blob, most).unwrap_err().to_string();
        assert!(refusal(&blob, 4).contains("more than the 4"));
        let path = |digest: &str| Descriptor { digest: digest.to_owned(), ..blob.clone() };
        for digest in ["sha256:../../../etc/passwd", "sha512:00", "", "sha256:00"] {
            assert!(refusal(&path(digest), 9).contains("it is no SHA-256"), "{digest}");
        }
        let file = folder.path().join("blobs/sha256").join(&blob.digest[7..]);
        fs::write(&file, b"hellO").unwrap();
        assert!(refusal(&blob, 9).contains("its bytes have the digest"));
        fs::write(&file, b"hell").unwrap();
        assert!(refusal(&blob, 9).contains("should have 5 bytes, and has 4"));
        fs::write(&file, b"hello, world").unwrap();
        assert!(refusal(&blob, 99).contains("should have 5 bytes, and has 6 or more"));
    }

    #[test]
    fn a_tag_is_the_last_that_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::make(folder.path()).unwrap();
        for text in [b"one", b"two"] {
            let blob = layout.put("text/plain", text).unwrap();
            layout.tag("v1", &Manifest::new("a/b", blob, Vec::new())).unwrap();
        }
        let manifest = layout.tagged("v1").unwrap();
        assert_eq!(layout.get(&manifest.config, 9).unwrap(), b"two");
        assert!(matches!(layout.tagged("v2"), Err(TravelError::NoTag { .. })));
    }
}
