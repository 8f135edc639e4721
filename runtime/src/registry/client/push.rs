//! Bringing an image to a registry: what it lacks of the blobs, then the manifest.

use std::collections::HashSet;
use std::fs::File;

use oci_spec::image::{Descriptor, ImageManifest, MediaType};

use super::several::several;
use super::transport::{Asking, Load, header};
use super::{Client, ClientError, Progress};
use crate::image::{Algorithm, Digest, ImageError, Manifest, Packing, Reference, Store, descriptor};

/// What was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// What the registry knows the image by now.
    pub digest: Digest,
    /// The size of its manifest, in bytes.
    pub size: u64,
}

/// Brings what the store calls `source` to a registry under a name.
///
/// Layers that lie here as they were built are packed on their way, unless the registry has them as they are: then the
/// manifest that it gets is another than the one here, of the same image.
pub fn push(
    client: &Client,
    store: &Store,
    source: &str,
    target: &Reference,
    packing: Packing,
    progress: &dyn Progress,
) -> Result<Pushed, ClientError> {
    let _shared = store.shared()?;
    let manifest = Manifest::read(store, &store.resolve(source)?.descriptor)?;
    let document = manifest.document();
    // A manifest that is asked for by its digest has to stay what it is.
    let packing = if target.digest.is_some() { Packing::Plain } else { packing };
    let near = neighbours(store, target, document)?;
    let bringing = Bringing { client, store, repository: &target.repository, near: &near, progress };
    let mut each: Vec<(Digest, &Descriptor)> = Vec::new();
    let mut places = Vec::new();
    for layer in document.layers() {
        let digest = Digest::try_from(layer.digest()).map_err(ImageError::from)?;
        // An image may have the same layer twice.
        let known = each.iter().position(|(other, _)| *other == digest);
        places.push(known.unwrap_or(each.len()));
        if known.is_none() {
            each.push((digest, layer));
        }
    }
    let described = several(&each, |(digest, layer)| bringing.layer(layer, digest, packing))?;
    let layers: Vec<Descriptor> = places.into_iter().filter_map(|place| described.get(place).cloned()).collect();
    bringing.blob(&manifest.id())?;
    let kind = document.media_type().clone().unwrap_or(MediaType::ImageManifest).to_string();
    let (digest, bytes) = if layers == *document.layers() {
        (manifest.digest(), store.blob(&manifest.digest())?)
    } else {
        let mut packed = document.clone();
        packed.set_layers(layers);
        let text = serde_json::to_vec(&packed).map_err(|error| client.nonsense(error.to_string()))?;
        (Digest::with(manifest.digest().algorithm(), &text), text)
    };
    client.put_manifest(target, &digest, &kind, &bytes)?;
    Ok(Pushed { digest, size: bytes.len() as u64 })
}

/// What it takes to bring blobs to one repository.
pub(super) struct Bringing<'a> {
    pub(super) client: &'a Client,
    pub(super) store: &'a Store,
    pub(super) repository: &'a str,
    pub(super) near: &'a [(Digest, String)],
    pub(super) progress: &'a dyn Progress,
}

impl Bringing<'_> {
    /// Brings a layer, packed if it is not yet. Answers what the manifest has to say of it.
    fn layer(&self, layer: &Descriptor, digest: &Digest, packing: Packing) -> Result<Descriptor, ClientError> {
        if packing == Packing::Plain || self.store.packing(digest)? != Packing::Plain || self.has(digest)? {
            self.blob(digest)?;
            return Ok(layer.clone());
        }
        let packed = match self.store.packed_before(digest, packing) {
            Some(packed) if self.has(&packed.digest)? => {
                self.progress.begins(&packed.digest, packed.size);
                self.progress.ends(&packed.digest, "Layer already exists");
                packed
            }
            _ => {
                self.progress.begins(digest, self.store.size(digest)?);
                let packed = self.store.pack(digest, packing, |bytes| self.progress.at(digest, bytes));
                self.progress.leaves(digest);
                let (packed, file) = packed?;
                self.bring(&packed.digest, &file, packed.size)?;
                packed
            }
        };
        let mut described = descriptor(packed_kind(layer.media_type(), packing), &packed.digest, packed.size)?;
        described.set_annotations(layer.annotations().clone());
        Ok(described)
    }

    /// Brings a blob as it lies in the store.
    pub(super) fn blob(&self, digest: &Digest) -> Result<(), ClientError> {
        self.bring(digest, &self.store.open_blob(digest)?, self.store.size(digest)?)
    }
}

/// What a layer is called once it is packed, in the words of the manifest's family.
fn packed_kind(plain: &MediaType, packing: Packing) -> MediaType {
    let name = plain.to_string();
    match packing {
        Packing::Gzip if name.starts_with("application/vnd.docker.") => {
            MediaType::from(format!("{name}.gzip").as_str())
        }
        Packing::Zstd if name.starts_with("application/vnd.docker.") => {
            MediaType::from(format!("{name}.zstd").as_str())
        }
        _ => packing.media_type(),
    }
}

/// Repositories of the same registry that probably have a blob, since an image here came from or went to there.
fn neighbours(
    store: &Store,
    target: &Reference,
    document: &ImageManifest,
) -> Result<Vec<(Digest, String)>, ClientError> {
    let wanted = document.layers().iter().chain([document.config()]);
    let wanted = wanted.map(|one| Digest::try_from(one.digest())).collect::<Result<HashSet<_>, _>>();
    let wanted = wanted.map_err(ImageError::from)?;
    let mut found = Vec::new();
    for named in store.names().unwrap_or_default() {
        let reference = named.name.as_deref().and_then(|name| name.parse::<Reference>().ok());
        let Some(reference) = reference.filter(|one| one.registry == target.registry) else { continue };
        if reference.repository == target.repository {
            continue;
        }
        // What cannot be read is no help, and no harm.
        let Ok(manifest) = Manifest::read(store, &named.descriptor) else { continue };
        let layers = manifest.document().layers().iter().filter_map(|one| Digest::try_from(one.digest()).ok());
        for digest in layers.filter(|digest| wanted.contains(digest)) {
            // It may have gone there as it is, or packed.
            let packed = [Packing::Gzip, Packing::Zstd].map(|packing| store.packed_before(&digest, packing));
            let all = packed.into_iter().flatten().map(|packed| packed.digest).chain([digest]);
            found.extend(all.map(|digest| (digest, reference.repository.clone())));
        }
    }
    Ok(found)
}

impl Bringing<'_> {
    /// Whether the repository has a blob already.
    fn has(&self, digest: &Digest) -> Result<bool, ClientError> {
        let scope = format!("repository:{}:pull,push", self.repository);
        let to = format!("/v2/{}/blobs/{digest}", self.repository);
        let asking = Asking { method: "HEAD", to: &to, scope: &scope, headers: &[], load: Load::Nothing };
        Ok(self.client.send(asking)?.status().as_u16() == 200)
    }

    /// Makes sure that the repository has a blob.
    fn bring(&self, digest: &Digest, file: &File, size: u64) -> Result<(), ClientError> {
        self.progress.begins(digest, size);
        if self.has(digest)? {
            self.progress.ends(digest, "Layer already exists");
            return Ok(());
        }
        let repository = self.repository;
        let from = self.near.iter().find(|(other, _)| other == digest).map(|(_, repository)| repository.as_str());
        let mut scope = format!("repository:{repository}:pull,push");
        let mut to = format!("/v2/{repository}/blobs/uploads/");
        if let Some(from) = from {
            to = format!("{to}?mount={digest}&from={from}");
            // The registry wants to know that we may read there.
            scope = format!("{scope} repository:{from}:pull");
        } else if digest.algorithm() != Algorithm::Sha256 {
            to = format!("{to}?digest-algorithm={}", digest.algorithm());
        }
        let client = self.client;
        let begun =
            client.send(Asking { method: "POST", to: &to, scope: &scope, headers: &[], load: Load::Nothing })?;
        match begun.status().as_u16() {
            201 => {
                self.progress.ends(digest, "Mounted");
                return Ok(());
            }
            202 => {}
            status => return Err(client.nonsense(format!("{status} to the beginning of an upload"))),
        }
        let location = header(&begun, "location").ok_or_else(|| client.nonsense("an upload without a location"))?;
        let separator = if location.contains('?') { '&' } else { '?' };
        let to = format!("{location}{separator}digest={digest}");
        let headers = [("content-type", "application/octet-stream")];
        let tell = |bytes| self.progress.at(digest, bytes);
        let load = Load::File(file, size, &tell);
        let ended = client.send(Asking { method: "PUT", to: &to, scope: &scope, headers: &headers, load })?;
        if ended.status().as_u16() != 201 {
            return Err(client.nonsense(format!("{} to the end of an upload", ended.status().as_u16())));
        }
        self.progress.ends(digest, "Pushed");
        Ok(())
    }
}

impl Client {
    pub(super) fn put_manifest(
        &self,
        target: &Reference,
        digest: &Digest,
        kind: &str,
        bytes: &[u8],
    ) -> Result<(), ClientError> {
        let wanted = target.digest.map_or_else(|| target.tag_or_latest().to_owned(), |digest| digest.to_string());
        let to = format!("/v2/{}/manifests/{wanted}", target.repository);
        let scope = format!("repository:{}:pull,push", target.repository);
        let headers = [("content-type", kind)];
        let asking = Asking { method: "PUT", to: &to, scope: &scope, headers: &headers, load: Load::Bytes(bytes) };
        let answer = self.send(asking)?;
        if answer.status().as_u16() != 201 {
            return Err(self.nonsense(format!("{} to a manifest", answer.status().as_u16())));
        }
        let said = header(&answer, "docker-content-digest").and_then(|said| said.parse::<Digest>().ok());
        match said.filter(|said| said.algorithm() == digest.algorithm() && said != digest) {
            Some(said) => Err(self.nonsense(format!("it keeps the manifest as {said} instead of {digest}"))),
            None => Ok(()),
        }
    }
}
