//! From folders to layers, and from layers to an image.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageManifestBuilder, MediaType};

use super::cache::{Key, Layer};
use super::error::BuildError;
use super::merged::Merged;
use crate::engine::{Document, Place, read_document};
use crate::image::{
    Digest, Image, ImageError, Manifest, Reference, Store, add_document, descriptor, diff_without, each_once,
    flat_archive,
};

/// An image that is made, or is being made: what it says, and its layers, the lowest first.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    pub(super) document: Document,
    layers: Vec<(Layer, PathBuf)>,
    pub(super) key: Key,
}

impl Stack {
    /// Nothing.
    pub(super) fn scratch() -> Self {
        Self { document: Document::scratch(), layers: Vec::new(), key: Key::base("scratch") }
    }

    /// An image of the store.
    pub(super) fn of_image(store: &Store, name: &str) -> Result<Self, BuildError> {
        Self::of_manifest(store, name, &store.resolve(name)?.descriptor)
    }

    /// The image of a manifest; `name` is what it is called in an error.
    pub(super) fn of_manifest(store: &Store, name: &str, descriptor: &Descriptor) -> Result<Self, BuildError> {
        let manifest = Manifest::read(store, descriptor)?;
        let image = Image::of(store, &manifest)?;
        let document = read_document(name, &store.blob(&manifest.id())?)?;
        let listed = manifest.layers()?;
        let layers = image.layers().iter().zip(listed).map(|(layer, listed)| {
            let (diff_id, blob) = (layer.diff_id.to_string(), layer.blob.to_string());
            let media_type = listed.descriptor.media_type().to_string();
            (Layer { diff_id, blob, size: layer.size, media_type }, layer.path.clone())
        });
        let key = Key::base(&manifest.id().to_string());
        Ok(Self { layers: layers.collect(), document, key })
    }

    /// The layers' folders, the uppermost first.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        each_once(self.layers.iter().rev().map(|(_, path)| path.clone()))
    }

    /// Puts a layer of the store on top. Fails where the store has it no more.
    pub(super) fn push(&mut self, store: &Store, layer: Layer) -> Result<(), ImageError> {
        let (blob, diff_id) = (layer.blob.parse()?, layer.diff_id.parse::<Digest>()?);
        if !store.has(&blob) {
            return Err(ImageError::Missing(blob));
        }
        let path = store.unpack_layer(&blob, &diff_id)?;
        self.document.rootfs.diff_ids.push(layer.diff_id.clone());
        self.layers.push((layer, path));
        Ok(())
    }

    /// Makes a layer of what a folder changes; nothing where it changes nothing.
    pub(super) fn add(&self, store: &Store, upper: &Path, epoch: Option<u64>) -> Result<Option<Layer>, BuildError> {
        self.add_without(store, upper, epoch, &BTreeSet::new())
    }

    /// The same, but for some paths of the folder.
    pub(super) fn add_without(
        &self,
        store: &Store,
        upper: &Path,
        epoch: Option<u64>,
        skip: &BTreeSet<PathBuf>,
    ) -> Result<Option<Layer>, BuildError> {
        let mut blob = store.writer()?;
        let latest = epoch.and_then(|epoch| i64::try_from(epoch).ok());
        let changed = diff_without(&self.folders(), upper, latest, skip, &mut blob).map_err(ImageError::from)?;
        if changed.entries == 0 {
            return Ok(None);
        }
        // The archive is stored as it is, so it is its own uncompressed form.
        let (digest, size) = blob.finish(None)?;
        let media_type = MediaType::ImageLayer.to_string();
        Ok(Some(Layer { diff_id: digest.to_string(), blob: digest.to_string(), size, media_type }))
    }

    /// Makes a layer of all that folders, the uppermost first, have together.
    pub(super) fn add_whole(store: &Store, folders: &[PathBuf]) -> Result<Layer, BuildError> {
        let mut blob = store.writer()?;
        flat_archive(folders, &mut blob).map_err(ImageError::from)?;
        let (digest, size) = blob.finish(None)?;
        let media_type = MediaType::ImageLayer.to_string();
        Ok(Layer { diff_id: digest.to_string(), blob: digest.to_string(), size, media_type })
    }

    /// Mounts the layers to be copied to; what is written is in the place's upper folder.
    pub(super) fn open(&self, place: &Place) -> Result<Merged, BuildError> {
        let (upper, work) = (place.upper.as_path(), place.work.as_path());
        let folders = self.folders();
        let lower = if folders.is_empty() { vec![place.empty.clone()] } else { folders };
        Merged::writable(&lower, upper, work, &place.folder().join("root"))
    }

    /// Mounts the layers to be copied from.
    pub(super) fn view(&self, place: &Place) -> Result<Merged, BuildError> {
        Merged::readable(&self.folders(), &place.empty, &place.folder().join("from"))
    }

    /// Writes the image down and names it. Answers its id.
    pub(super) fn finish(&self, store: &Store, names: &[Reference]) -> Result<Digest, BuildError> {
        let config = add_document(store, MediaType::ImageConfig, &self.document)?;
        let id = Digest::try_from(config.digest()).map_err(ImageError::from)?;
        let layers = self.layers.iter().map(|(layer, _)| {
            let blob: Digest = layer.blob.parse()?;
            descriptor(oci_name(&layer.media_type), &blob, layer.size)
        });
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(layers.collect::<Result<Vec<_>, ImageError>>()?)
            .build()
            .map_err(ImageError::from)?;
        let manifest = add_document(store, MediaType::ImageManifest, &manifest)?;
        // Names last: before them, nobody looks.
        for name in names {
            store.set_name(&name.to_string(), manifest.clone(), &[])?;
        }
        if names.is_empty() {
            store.keep_unnamed(manifest)?;
        }
        Ok(id)
    }
}

/// docker's names of layers are no names in an OCI manifest.
fn oci_name(media_type: &str) -> MediaType {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => MediaType::ImageLayerGzip,
        "application/vnd.docker.image.rootfs.diff.tar" => MediaType::ImageLayer,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => MediaType::ImageLayerZstd,
        other => MediaType::from(other),
    }
}
