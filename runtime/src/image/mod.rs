//! Images: what a container's root file system is made of.
//!
//! An image is a stack of layers and a configuration, each named by the sha256 of its bytes. A layer is what one step
//! adds to those below; unpacked it is a directory, shared by every image that has it, which overlayfs stacks again when
//! a container starts. The image's own name, its *id*, is the digest of its configuration, which lists the layers: who
//! knows those 64 digits (or the first 12 of them) knows every byte.
//!
//! ```text
//! digest       names of content
//! reference    names that people give
//! layer        a list of files -> an archive
//! unpack       an archive -> a directory; tree places files so that nothing lands anywhere else
//! diff         a directory that overlayfs has written to -> an archive
//! flat         a stack of layers -> one tree -> an archive or a disk
//! manifest     what is written about an image; platform chooses among several
//! store        blobs, unpacked layers, names
//! archive      images in one file; import makes one of a file system in a file
//! default      the image that comes with the lab
//! ```

mod archive;
mod compression;
mod default;
mod described;
mod diff;
mod digest;
mod error;
mod flat;
mod import;
mod layer;
mod manifest;
mod pipe;
mod platform;
mod reference;
mod store;
mod telling;
mod temporary;
mod tree;
mod unpack;
mod xattr;

use std::collections::HashSet;
use std::path::PathBuf;

use oci_spec::image::{
    Arch, Config, Descriptor, History, ImageConfiguration, ImageManifestBuilder, MediaType, Os, RootFs,
};
use serde::Serialize;

pub use archive::{load, save};
pub use compression::Packing;
pub(crate) use compression::decompress;
pub use default::default_image;
pub(crate) use diff::diff_without;
pub use diff::{Changed, diff};
pub use digest::{Algorithm, Digest, DigestError, Digester, Hashing};
pub use error::{ImageError, LayerError};
pub use flat::{DiskError, DiskFormat, DiskPacking, WrittenDisk, write_disk};
pub(crate) use flat::{
    Found, Step, archive as flat_archive, archive_at, copy as copy_tree, find as find_in, step as step_in,
};
pub use import::import;
pub use layer::{Content, Entry, LayerContent};
pub use manifest::{LayerDescriptor, Manifest};
pub use platform::{Platform, PlatformError, choose};
pub use reference::{Reference, ReferenceError};
pub use store::{BlobWriter, Collected, Exclusive, Held, Named, Packed, Problem, Received, Shared, Store, Verified};
pub(crate) use telling::Telling;
pub(crate) use temporary::{Temporary, remove, sweep};
pub(crate) use tree::{Metadata, Node, Tree};
pub use unpack::{Limits, Unpacked, unpack, unpack_packed};
pub(crate) use unpack::{Placing, place_archive};
pub(crate) use xattr::all as xattrs;
pub use xattr::is_opaque;

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
        let _shared = store.shared()?;
        let (mut blobs, mut diff_ids, mut history) = (Vec::new(), Vec::new(), Vec::new());
        for layer in layers {
            let (blob, size) = store.add_blob(|out| Ok(layer.write(out)?))?;
            blobs.push(descriptor(MediaType::ImageLayer, &blob, size)?);
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

    /// The image of a manifest, or of an index of platforms. Unpacks those of its layers that are not. Its name is its
    /// id.
    pub fn from_manifest(store: &Store, descriptor: &Descriptor) -> Result<Self, ImageError> {
        Self::of(store, &Manifest::read(store, descriptor)?)
    }

    /// The same of a manifest that was read.
    pub fn of(store: &Store, manifest: &Manifest) -> Result<Self, ImageError> {
        Self::unpacked(store, manifest.id().to_string(), manifest)
    }

    fn of_manifest(store: &Store, name: &str, descriptor: &Descriptor) -> Result<Self, ImageError> {
        Self::unpacked(store, name.to_owned(), &Manifest::read(store, descriptor)?)
    }

    fn unpacked(store: &Store, name: String, manifest: &Manifest) -> Result<Self, ImageError> {
        let mut layers = Vec::new();
        let stack = manifest.layers()?;
        store.unpack_layers(&stack)?;
        for layer in stack {
            let path = store.layer_path(&layer.diff_id);
            let size = layer.descriptor.size();
            layers.push(Layer { diff_id: layer.diff_id, blob: layer.blob, size, path });
        }
        let configuration = manifest.configuration().clone();
        Ok(Self { name, id: manifest.id(), manifest: manifest.digest(), layers, configuration })
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
        each_once(self.layers.iter().rev().map(|layer| layer.path.clone()))
    }
}

/// A stack of layers, the uppermost first, without those that come again further down: overlayfs takes no directory
/// twice, and what a layer shows, hides and starts anew, its first place in the stack decides.
pub(crate) fn each_once(folders: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    folders.into_iter().filter(|folder| seen.insert(folder.clone())).collect()
}

/// Keeps a document of an image, and answers what leads to it.
pub fn add_document(store: &Store, kind: MediaType, document: &impl Serialize) -> Result<Descriptor, ImageError> {
    let text = canonical(document, "a document to be written")?;
    let (digest, size) = store.add_bytes(&text)?;
    descriptor(kind, &digest, size)
}

/// A document as text, the keys of each object in their order: labels and annotations have none of their own, and equal
/// documents must have equal digests.
fn canonical(document: &impl Serialize, what: &str) -> Result<Vec<u8>, ImageError> {
    let value = serde_json::to_value(document).map_err(understand(what))?;
    serde_json::to_vec(&value).map_err(understand(what))
}

/// What leads to a blob.
pub fn descriptor(kind: MediaType, digest: &Digest, size: u64) -> Result<Descriptor, ImageError> {
    Ok(Descriptor::new(kind, size, oci_spec::image::Digest::try_from(*digest)?))
}

#[cfg(test)]
mod tests;
