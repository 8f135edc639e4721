//! Manifests: what is written about an image.
//!
//! A manifest lists the image's layers as they are sent, and its configuration, which lists them as they are unpacked and
//! says what to run. OCI's and docker's (schema 2) differ in the names of their media types only. An index lists the
//! manifests of one image for several platforms.

use std::collections::HashSet;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde_json::Value;

use super::platform::{choose, offered};
use super::store::understand;
use super::{Digest, ImageError, Platform, Store};

/// An index may list indexes; nobody's list is this deep.
const DEEPEST: usize = 4;
/// No manifest, index or configuration is larger than this, in bytes.
const DOCUMENT: u64 = 16 << 20;

/// A manifest of the store with the configuration that it names.
#[derive(Debug, Clone)]
pub struct Manifest {
    descriptor: Descriptor,
    digest: Digest,
    id: Digest,
    document: ImageManifest,
    configuration: ImageConfiguration,
}

/// A layer as a manifest lists it.
#[derive(Debug, Clone)]
pub struct LayerDescriptor {
    /// The digest of its archive as it is sent, packed or not.
    pub blob: Digest,
    /// The digest of its archive, unpacked.
    pub diff_id: Digest,
    /// What the manifest says of it.
    pub descriptor: Descriptor,
}

impl Manifest {
    /// Reads a manifest, or that of an index for this machine.
    pub fn read(store: &Store, descriptor: &Descriptor) -> Result<Self, ImageError> {
        Self::read_for(store, descriptor, &Platform::of_host())
    }

    /// Reads a manifest, or that of an index for a platform.
    pub fn read_for(store: &Store, descriptor: &Descriptor, platform: &Platform) -> Result<Self, ImageError> {
        let mut descriptor = descriptor.clone();
        for _ in 0..DEEPEST {
            let digest = Digest::try_from(descriptor.digest())?;
            let text = store.blob(&digest)?;
            if !is_index(&text, &digest)? {
                return Self::of(store, descriptor, digest, &text);
            }
            let index: ImageIndex = parse(&text, "index", &digest)?;
            let chosen = choose(&index, platform).cloned();
            descriptor = chosen.ok_or_else(|| ImageError::NoPlatform {
                index: digest.into(),
                platform: platform.clone().into(),
                offered: offered(&index),
            })?;
        }
        Err(ImageError::TooDeep(Digest::try_from(descriptor.digest())?))
    }

    fn of(store: &Store, descriptor: Descriptor, digest: Digest, text: &[u8]) -> Result<Self, ImageError> {
        let document: ImageManifest = parse(text, "manifest", &digest)?;
        let id = Digest::try_from(document.config().digest())?;
        let configuration: ImageConfiguration = parse(&store.blob(&id)?, "configuration", &id)?;
        let (layers, told) = (document.layers().len(), configuration.rootfs().diff_ids().len());
        if layers != told {
            return Err(ImageError::Layers { id, layers, told });
        }
        Ok(Self { descriptor, digest, id, document, configuration })
    }

    /// Adds every digest that a descriptor leads to. What is not there leads nowhere: an index need not have all of its
    /// platforms, and who keeps what he can reach of a damaged image loses nothing more.
    pub(super) fn reach(
        store: &Store,
        descriptor: &Descriptor,
        reached: &mut HashSet<Digest>,
    ) -> Result<(), ImageError> {
        let mut waiting = vec![Digest::try_from(descriptor.digest())?];
        while let Some(digest) = waiting.pop() {
            if !reached.insert(digest) {
                continue;
            }
            match Self::next(store, &digest) {
                Ok(next) => waiting.extend(next),
                Err(ImageError::Missing(_) | ImageError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
            reached.extend(Self::diff_ids(store, &digest));
        }
        Ok(())
    }

    /// What a blob leads to, if it is a manifest or an index; nothing otherwise. Large ones are not read: those
    /// are layers, and lead nowhere.
    pub(super) fn next(store: &Store, digest: &Digest) -> Result<Vec<Digest>, ImageError> {
        if store.size(digest)? > DOCUMENT {
            return Ok(Vec::new());
        }
        let text = store.blob(digest)?;
        if let Ok(index) = serde_json::from_slice::<ImageIndex>(&text) {
            return Ok(digests(index.manifests()).collect());
        }
        let Ok(manifest) = serde_json::from_slice::<ImageManifest>(&text) else { return Ok(Vec::new()) };
        Ok(digests(manifest.layers()).chain([Digest::try_from(manifest.config().digest())?]).collect())
    }

    /// The unpacked layers that a blob leads to, if it is a configuration.
    fn diff_ids(store: &Store, digest: &Digest) -> Vec<Digest> {
        let small = store.size(digest).is_ok_and(|size| size <= DOCUMENT);
        let text = small.then(|| store.blob(digest).ok()).flatten();
        let document = text.and_then(|text| serde_json::from_slice::<ImageConfiguration>(&text).ok());
        let diff_ids = document.map(|document| document.rootfs().diff_ids().clone()).unwrap_or_default();
        diff_ids.iter().filter_map(|diff_id| diff_id.parse().ok()).collect()
    }

    /// What the image is, whatever it is called: the digest of its configuration.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// The digest of the manifest: what a registry knows the image by.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How the store's index, or an index of platforms, leads to it.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The manifest itself.
    pub fn document(&self) -> &ImageManifest {
        &self.document
    }

    /// What the image says about itself: what to run, and how.
    pub fn configuration(&self) -> &ImageConfiguration {
        &self.configuration
    }

    /// Its layers, the lowest first.
    pub fn layers(&self) -> Result<Vec<LayerDescriptor>, ImageError> {
        let pairs = self.document.layers().iter().zip(self.configuration.rootfs().diff_ids());
        pairs
            .map(|(descriptor, diff_id)| {
                let blob = Digest::try_from(descriptor.digest())?;
                if !is_layer(descriptor.media_type()) {
                    return Err(ImageError::Packing { blob, found: descriptor.media_type().to_string() });
                }
                Ok(LayerDescriptor { blob, diff_id: diff_id.parse()?, descriptor: descriptor.clone() })
            })
            .collect()
    }
}

/// OCI's and docker's names of a layer's archive, plain or packed in a way that is known here.
fn is_layer(kind: &MediaType) -> bool {
    let name = kind.to_string();
    ["application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar"]
        .iter()
        .any(|family| matches!(name.strip_prefix(family), Some("" | "+gzip" | "+zstd")))
        || ["application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.foreign.diff.tar"]
            .iter()
            .any(|family| matches!(name.strip_prefix(family), Some("" | ".gzip" | ".zstd")))
}

/// Told by what is in it: media types of descriptors are not always right.
fn is_index(text: &[u8], digest: &Digest) -> Result<bool, ImageError> {
    let value: Value = parse(text, "manifest", digest)?;
    Ok(value.get("manifests").is_some_and(Value::is_array))
}

fn parse<T: serde::de::DeserializeOwned>(text: &[u8], what: &str, digest: &Digest) -> Result<T, ImageError> {
    serde_json::from_slice(text).map_err(understand(&format!("{what} {digest}")))
}

fn digests(descriptors: &[Descriptor]) -> impl Iterator<Item = Digest> {
    descriptors.iter().filter_map(|descriptor| Digest::try_from(descriptor.digest()).ok())
}
