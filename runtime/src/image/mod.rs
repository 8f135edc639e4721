//! Images: what a container's root file system is made of.
//!
//! An image is a stack of layers and a configuration, each named by the sha256 of its bytes. A layer is what one step
//! adds to those below; unpacked it is a directory, shared by every image that has it, which overlayfs stacks again when
//! a container starts. The image's own name, its *id*, is the digest of its configuration, which lists the layers: who
//! knows those 64 digits (or the first 12 of them) knows every byte.
//!
//! ```text
//! digest       names of content
//! layer        a list of files -> an archive
//! unpack       an archive -> a directory; tree places files so that nothing lands anywhere else
//! store        blobs, unpacked layers, names
//! default      the image that comes with the lab
//! ```

mod default;
mod digest;
mod error;
mod layer;
mod store;
mod temporary;
mod tree;
mod unpack;
mod xattr;

use std::path::PathBuf;

use oci_spec::image::{
    Arch, Config, Descriptor, History, ImageConfiguration, ImageManifest, ImageManifestBuilder, MediaType, Os, RootFs,
    Sha256Digest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use default::default_image;
pub use digest::{Digest, DigestError};
pub use error::{ImageError, LayerError};
pub use layer::{Content, Entry, LayerContent};
pub use store::Store;
pub use unpack::{Limits, Unpacked, unpack};

use store::understand;

/// An image of the store, its layers unpacked.
#[derive(Debug, Clone)]
pub struct Image {
    name: String,
    id: Digest,
    manifest: Digest,
    layers: Vec<Layer>,
    configuration: ImageConfiguration,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The digest of its archive, uncompressed.
    pub diff_id: Digest,
    /// The digest of what the store holds: the archive as it came, compressed or not.
    pub blob: Digest,
    /// The size of that, in bytes.
    pub size: u64,
    /// The directory that it is unpacked to.
    pub path: PathBuf,
}

/// What an image is made with besides its layers.
#[derive(Debug, Default)]
pub struct Details<'a> {
    /// What a container of it runs, and how, if nothing else is said.
    pub run: Config,
    /// Annotations of its name in this store; they are no part of the image.
    pub notes: &'a [(&'a str, &'a str)],
}

impl Image {
    /// Makes an image of layers, the lowest first, and gives it a name. Equal layers make an equal image, whoever makes
    /// it; what the store has already is not made again.
    pub fn assemble(
        store: &Store,
        name: &str,
        details: Details<'_>,
        layers: impl IntoIterator<Item = LayerContent>,
    ) -> Result<Self, ImageError> {
        let (mut blobs, mut diff_ids, mut history) = (Vec::new(), Vec::new(), Vec::new());
        for layer in layers {
            let (blob, size) = store.add_blob(|out| Ok(layer.write(out)?))?;
            blobs.push(Descriptor::new(MediaType::ImageLayer, size, Sha256Digest::try_from(blob)?));
            // The archive is stored as it is, so it is its own uncompressed form.
            diff_ids.push(blob.to_string());
            let mut step = History::default();
            step.set_created_by(Some(layer.created_by));
            history.push(step);
        }
        let mut rootfs = RootFs::default();
        rootfs.set_diff_ids(diff_ids);
        let mut configuration = ImageConfiguration::default();
        configuration.set_architecture(Arch::Amd64).set_os(Os::Linux).set_config(Some(details.run));
        configuration.set_rootfs(rootfs).set_history(Some(history));
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(add_document(store, MediaType::ImageConfig, &configuration)?)
            .layers(blobs)
            .build()?;
        let manifest = add_document(store, MediaType::ImageManifest, &manifest)?;
        let image = Self::of_manifest(store, name, &manifest)?;
        // The name last: before it, nobody looks.
        store.set_name(name, manifest, details.notes)?;
        Ok(image)
    }

    /// Finds an image by its name, and unpacks those of its layers that are not; `None` if there is none.
    pub fn load(store: &Store, name: &str) -> Result<Option<Self>, ImageError> {
        store.named(name)?.map(|manifest| Self::of_manifest(store, name, &manifest)).transpose()
    }

    fn of_manifest(store: &Store, name: &str, descriptor: &Descriptor) -> Result<Self, ImageError> {
        let digest = Digest::try_from(descriptor.digest())?;
        let manifest: ImageManifest = document(store, &digest, "manifest")?;
        let id = Digest::try_from(manifest.config().digest())?;
        let configuration: ImageConfiguration = document(store, &id, "configuration")?;
        let diff_ids = configuration.rootfs().diff_ids();
        if manifest.layers().len() != diff_ids.len() {
            let (layers, told) = (manifest.layers().len(), diff_ids.len());
            return Err(ImageError::Layers { name: name.to_owned(), layers, told });
        }
        let mut layers = Vec::new();
        for (archive, diff_id) in manifest.layers().iter().zip(diff_ids) {
            let (blob, diff_id) = (Digest::try_from(archive.digest())?, diff_id.parse()?);
            if *archive.media_type() != MediaType::ImageLayer {
                return Err(ImageError::Packing { blob, found: archive.media_type().to_string() });
            }
            let path = store.unpack_layer(&blob, &diff_id)?;
            layers.push(Layer { diff_id, blob, size: archive.size(), path });
        }
        Ok(Self { name: name.to_owned(), id, manifest: digest, layers, configuration })
    }

    /// The name that it was asked for by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is, whatever it is called: the digest of its configuration.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// The digest of its manifest: what a registry knows it by.
    pub fn manifest(&self) -> Digest {
        self.manifest
    }

    /// Its layers, the lowest first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// What it says about itself: what to run, and how.
    pub fn configuration(&self) -> &ImageConfiguration {
        &self.configuration
    }

    /// The directories to stack, the uppermost first, as overlayfs counts.
    pub fn lower_dirs(&self) -> Vec<PathBuf> {
        self.layers.iter().rev().map(|layer| layer.path.clone()).collect()
    }
}

fn add_document(store: &Store, kind: MediaType, document: &impl Serialize) -> Result<Descriptor, ImageError> {
    let text = serde_json::to_vec(document).map_err(understand("a document to be written"))?;
    let (digest, size) = store.add_blob(|out| out.write_all(&text).map_err(store::io_error("write", store.root())))?;
    Ok(Descriptor::new(kind, size, Sha256Digest::try_from(digest)?))
}

fn document<T: DeserializeOwned>(store: &Store, digest: &Digest, what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(&store.blob(digest)?).map_err(understand(&format!("{what} {digest}")))
}

#[cfg(test)]
mod tests;
