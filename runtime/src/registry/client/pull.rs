//! Fetching an image: its manifest, its configuration, and its layers, several at once.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde_json::Value;

use super::blob::Arriving;
use super::several::several;
use super::{Client, ClientError, LARGEST_MANIFEST, Progress};
use crate::image::{Digest, Image, ImageError, Platform, Received, Reference, Store, choose, descriptor};

/// An index may list indexes; nobody's list is this deep.
const DEEPEST: usize = 4;
/// The kinds of manifest that are known here.
const KINDS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// What was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulled {
    /// What the registry knows the reference by: the digest of a manifest or of an index.
    pub digest: Digest,
    /// What the image is.
    pub id: Digest,
}

/// A manifest as it came.
pub(super) struct Fetched {
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
    pub(super) kind: MediaType,
}

/// Fetches an image for a platform into the store, unpacks it, and gives it its name.
pub fn pull(
    client: &Client,
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    progress: &dyn Progress,
) -> Result<Pulled, ClientError> {
    // Nobody takes away what was fetched before a name leads to it.
    let _shared = store.shared()?;
    let (digest, fetched) = client.image_manifest(reference, platform)?;
    let manifest: ImageManifest =
        serde_json::from_slice(&fetched.bytes).map_err(|error| client.nonsense(format!("the manifest: {error}")))?;
    let id = client.digest_of(manifest.config())?;
    let size = manifest.config().size();
    let (configuration, mut received) =
        client.fetch_configuration(store, &reference.repository, (id, size), progress)?;
    let layers = client.layers(&manifest, &configuration)?;
    received.extend(client.fetch_layers(store, &reference.repository, layers, progress)?);
    let mut writer = store.writer_with(fetched.digest.algorithm())?;
    writer.write_all(&fetched.bytes).map_err(unwritten(&fetched.digest))?;
    received.push(writer.receive(&fetched.digest)?);
    // The registry has it all: nobody need wait for the disk.
    store.publish_unsettled(received)?;
    let leads = descriptor(fetched.kind, &fetched.digest, fetched.bytes.len() as u64)?;
    Image::from_manifest(store, &leads)?;
    store.set_name(&reference.to_string(), leads, &[])?;
    Ok(Pulled { digest, id })
}

impl Client {
    /// The manifest of an image, and the digest that its reference stands for.
    fn image_manifest(&self, reference: &Reference, platform: &Platform) -> Result<(Digest, Fetched), ClientError> {
        let mut fetched = self.manifest(reference, &reference.wanted(), reference.digest)?;
        let first = fetched.digest;
        for _ in 0..DEEPEST {
            let Ok(index) = serde_json::from_slice::<ImageIndex>(&fetched.bytes) else { return Ok((first, fetched)) };
            let one = choose(&index, platform)
                .ok_or_else(|| ClientError::Platform { name: reference.familiar(), platform: platform.to_string() })?;
            let digest = self.digest_of(one)?;
            fetched = self.manifest(reference, &digest.to_string(), Some(digest))?;
            if fetched.bytes.len() as u64 != one.size() {
                return Err(self.lies(&digest, "the manifest has another size than the index says"));
            }
        }
        Err(self.nonsense("its indexes list indexes without end"))
    }

    /// The layers of an image: their digests and sizes, and the digests of what is in them; each once.
    fn layers(
        &self,
        manifest: &ImageManifest,
        configuration: &ImageConfiguration,
    ) -> Result<Vec<(Digest, u64, Digest)>, ClientError> {
        let diff_ids = configuration.rootfs().diff_ids();
        if diff_ids.len() != manifest.layers().len() {
            return Err(self.nonsense("the image's configuration tells of another number of layers than its manifest"));
        }
        let (mut seen, mut layers) = (HashSet::new(), Vec::new());
        for (one, diff_id) in manifest.layers().iter().zip(diff_ids) {
            let digest = self.digest_of(one)?;
            let diff_id: Digest = diff_id.parse().map_err(ImageError::from)?;
            // An image may have the same layer twice.
            if seen.insert(digest) {
                layers.push((digest, one.size(), diff_id));
            }
        }
        Ok(layers)
    }

    pub(super) fn manifest(
        &self,
        reference: &Reference,
        wanted: &str,
        expected: Option<Digest>,
    ) -> Result<Fetched, ClientError> {
        let (to, scope) = (format!("/v2/{}/manifests/{wanted}", reference.repository), pulling(&reference.repository));
        let Some((head, bytes)) = self.get(&to, &scope, Some(KINDS))? else {
            let (host, request) = (self.registry.clone(), format!("GET {to}"));
            return Err(ClientError::Refused { host, status: 404, request, said: String::new() });
        };
        let text = |name: &str| head.headers().get(name).and_then(|value| value.to_str().ok());
        // Without a digest of our own, the registry's word says only by which algorithm it knows the manifest.
        let said = text("docker-content-digest").and_then(|digest| digest.parse::<Digest>().ok());
        let expected = expected.or(said).unwrap_or_else(|| Digest::of(&bytes));
        if !expected.verify(&bytes) {
            return Err(self.lies(&expected, "the manifest has another digest"));
        }
        let document: Value =
            serde_json::from_slice(&bytes).map_err(|error| self.nonsense(format!("the manifest: {error}")))?;
        let kind = document.get("mediaType").and_then(Value::as_str).or_else(|| text("content-type"));
        let kind = kind.map_or(MediaType::ImageManifest, MediaType::from);
        Ok(Fetched { digest: expected, bytes, kind })
    }

    /// Fetches an image's configuration, if it is not here yet.
    fn fetch_configuration(
        &self,
        store: &Store,
        repository: &str,
        (id, size): (Digest, u64),
        progress: &dyn Progress,
    ) -> Result<(ImageConfiguration, Vec<Received>), ClientError> {
        if size > LARGEST_MANIFEST {
            return Err(self.nonsense(format!("a configuration of more than {LARGEST_MANIFEST} bytes")));
        }
        progress.begins(&id, size);
        let (text, received) = if store.has(&id) {
            progress.ends(&id, "Already exists");
            (store.blob(&id)?, Vec::new())
        } else {
            let failure = Mutex::default();
            let mut text = Vec::new();
            let read = Arriving::new(self, progress, repository, (id, size), &failure).read_to_end(&mut text);
            let received = read.map_err(unwritten(&id)).and_then(|_| {
                let mut writer = store.writer_with(id.algorithm())?;
                writer.write_all(&text).map_err(unwritten(&id))?;
                writer.receive(&id)
            });
            let received = received.map_err(|error| self.told(&failure, &id, error.into()))?;
            progress.ends(&id, "Pull complete");
            (text, vec![received])
        };
        let configuration = serde_json::from_slice(&text);
        Ok((configuration.map_err(|error| self.nonsense(format!("the configuration: {error}")))?, received))
    }

    /// Fetches and unpacks the layers that are not here yet, several at once. They get their names together, later.
    fn fetch_layers(
        &self,
        store: &Store,
        repository: &str,
        mut waiting: Vec<(Digest, u64, Digest)>,
        progress: &dyn Progress,
    ) -> Result<Vec<Received>, ClientError> {
        // The largest first: what is begun last ought to be short.
        waiting.sort_by_key(|(_, size, _)| std::cmp::Reverse(*size));
        let received = several(&waiting, |(digest, size, diff_id)| {
            self.fetch_layer(store, repository, (*digest, *size), diff_id, progress)
        });
        Ok(received?.into_iter().flatten().collect())
    }

    fn fetch_layer(
        &self,
        store: &Store,
        repository: &str,
        (digest, size): (Digest, u64),
        diff_id: &Digest,
        progress: &dyn Progress,
    ) -> Result<Option<Received>, ClientError> {
        progress.begins(&digest, size);
        if store.has(&digest) {
            progress.ends(&digest, "Already exists");
            return Ok(None);
        }
        let failure = Mutex::default();
        let arriving = Arriving::new(self, progress, repository, (digest, size), &failure);
        let received = store.receive_layer(&digest, diff_id, arriving);
        let received = received.map_err(|error| self.told(&failure, &digest, error.into()))?;
        progress.ends(&digest, "Pull complete");
        Ok(Some(received))
    }

    /// The error that a transfer really ended with.
    pub(super) fn told(
        &self,
        failure: &Mutex<Option<ClientError>>,
        digest: &Digest,
        error: ClientError,
    ) -> ClientError {
        match (failure.lock().unwrap_or_else(PoisonError::into_inner).take(), error) {
            (Some(failure), _) => failure,
            (None, ClientError::Image(ImageError::Corrupt { expected, .. })) if expected == *digest => {
                self.lies(digest, "the bytes have another digest")
            }
            (None, error) => error,
        }
    }

    pub(super) fn digest_of(&self, descriptor: &Descriptor) -> Result<Digest, ClientError> {
        Digest::try_from(descriptor.digest()).map_err(|error| self.nonsense(error.to_string()))
    }

    pub(super) fn lies(&self, digest: &Digest, reason: &str) -> ClientError {
        ClientError::Lies { host: self.registry.clone(), digest: Box::new(*digest), reason: reason.to_owned() }
    }
}

pub(super) fn unwritten(digest: &Digest) -> impl FnOnce(std::io::Error) -> ImageError {
    let path = PathBuf::from(digest.to_string());
    move |source| ImageError::Io { attempt: "write blob", path, source }
}

/// What a token must be good for.
pub(super) fn pulling(repository: &str) -> String {
    format!("repository:{repository}:pull")
}
