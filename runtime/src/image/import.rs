//! An image of a file system: an archive of one becomes the only layer.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use oci_spec::image::{Config, History, ImageConfiguration, ImageManifestBuilder, MediaType, Os, RootFs};

use super::compression::decompress;
use super::digest::Hashing;
use super::store::io_error;
use super::{Digest, ImageError, LayerDescriptor, LayerError, Manifest, Platform, Store, add_document, descriptor};

/// Makes an image of an archive, packed or not, and of what a container of it should run. It has no name yet; the store
/// must be held [shared](Store::shared) until it has.
pub fn import(
    store: &Store,
    archive: impl Read + Send,
    run: Config,
    comment: Option<&str>,
) -> Result<Manifest, ImageError> {
    let mut archive = decompress(archive).map_err(LayerError::Read)?;
    let layer = store.add_layer(|out| io::copy(&mut archive, out).map(drop).map_err(|e| LayerError::Read(e).into()))?;
    // A file that is no archive is found out here, and not by the first container.
    store.unpack_layer(&layer.blob, &layer.diff_id)?;
    let mut rootfs = RootFs::default();
    rootfs.set_diff_ids(vec![layer.diff_id.to_string()]);
    let mut step = History::default();
    step.set_created_by(Some("import".to_owned())).set_comment(comment.map(str::to_owned));
    let mut configuration = ImageConfiguration::default();
    configuration.set_architecture(Platform::of_host().architecture.as_str().into()).set_os(Os::Linux);
    configuration.set_config(Some(run)).set_rootfs(rootfs).set_history(Some(vec![step]));
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(add_document(store, MediaType::ImageConfig, &configuration)?)
        .layers(vec![layer.descriptor])
        .build()?;
    Manifest::read(store, &add_document(store, MediaType::ImageManifest, &manifest)?)
}

impl Store {
    /// Keeps the archive that `write` writes as a layer, packed by gzip, as every engine and registry takes it. The same
    /// archive gives the same bytes.
    pub fn add_layer(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
    ) -> Result<LayerDescriptor, ImageError> {
        // The quickest level: a layer is packed once, and waited for.
        let packer = GzEncoder::new(self.writer()?, Compression::fast());
        let mut out = Hashing::new(packer);
        write(&mut out)?;
        let (packer, diff_id, _): (_, Digest, _) = out.finish();
        let writer = packer.finish().map_err(io_error("write", self.root()))?;
        let (blob, size) = writer.finish(None)?;
        Ok(LayerDescriptor { blob, diff_id, descriptor: descriptor(MediaType::ImageLayerGzip, &blob, size)? })
    }
}
