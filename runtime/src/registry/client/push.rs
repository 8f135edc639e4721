//! Bringing an image to a registry: what it lacks of the blobs, then the manifest.

use oci_spec::image::MediaType;

use super::transport::{Asking, Load, header};
use super::{Client, ClientError, Progress};
use crate::image::{Digest, Manifest, Reference, Store};

/// What was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// What the registry knows the image by now.
    pub digest: Digest,
    /// The size of its manifest, in bytes.
    pub size: u64,
}

/// Brings what the store calls `source` to a registry under a name.
pub fn push(
    client: &Client,
    store: &Store,
    source: &str,
    target: &Reference,
    progress: &dyn Progress,
) -> Result<Pushed, ClientError> {
    let _shared = store.shared()?;
    let manifest = Manifest::read(store, &store.resolve(source)?.descriptor)?;
    let document = manifest.document();
    let mut blobs: Vec<Digest> = Vec::new();
    for one in document.layers().iter().chain([document.config()]) {
        let digest = Digest::try_from(one.digest()).map_err(crate::image::ImageError::from)?;
        if !blobs.contains(&digest) {
            blobs.push(digest);
        }
    }
    let near = neighbours(store, target, &blobs);
    for digest in &blobs {
        let from = near.iter().find(|(other, _)| other == digest).map(|(_, repository)| repository.as_str());
        client.bring(store, &target.repository, digest, from, progress)?;
    }
    let bytes = store.blob(&manifest.digest())?;
    let kind = document.media_type().clone().unwrap_or(MediaType::ImageManifest).to_string();
    client.put_manifest(target, &manifest.digest(), &kind, &bytes)?;
    Ok(Pushed { digest: manifest.digest(), size: bytes.len() as u64 })
}

/// Repositories of the same registry that probably have a blob, since an image here came from or went to there.
fn neighbours(store: &Store, target: &Reference, blobs: &[Digest]) -> Vec<(Digest, String)> {
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
        let shared = layers.filter(|digest| blobs.contains(digest));
        found.extend(shared.map(|digest| (digest, reference.repository.clone())));
    }
    found
}

impl Client {
    /// Makes sure that a repository has a blob.
    fn bring(
        &self,
        store: &Store,
        repository: &str,
        digest: &Digest,
        from: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<(), ClientError> {
        let size = store.size(digest)?;
        progress.begins(digest, size);
        let mut scope = format!("repository:{repository}:pull,push");
        let to = format!("/v2/{repository}/blobs/{digest}");
        let asking = Asking { method: "HEAD", to: &to, scope: &scope, headers: &[], load: Load::Nothing };
        if self.send(asking)?.status().as_u16() == 200 {
            progress.ends(digest, "Layer already exists");
            return Ok(());
        }
        let mut to = format!("/v2/{repository}/blobs/uploads/");
        if let Some(from) = from {
            to = format!("{to}?mount={digest}&from={from}");
            // The registry wants to know that we may read there.
            scope = format!("{scope} repository:{from}:pull");
        } else if digest.algorithm() != crate::image::Algorithm::Sha256 {
            to = format!("{to}?digest-algorithm={}", digest.algorithm());
        }
        let begun = self.send(Asking { method: "POST", to: &to, scope: &scope, headers: &[], load: Load::Nothing })?;
        match begun.status().as_u16() {
            201 => {
                progress.ends(digest, "Mounted");
                return Ok(());
            }
            202 => {}
            status => return Err(self.nonsense(format!("{status} to the beginning of an upload"))),
        }
        let location = header(&begun, "location").ok_or_else(|| self.nonsense("an upload without a location"))?;
        let separator = if location.contains('?') { '&' } else { '?' };
        let to = format!("{location}{separator}digest={digest}");
        let file = store.open_blob(digest)?;
        let headers = [("content-type", "application/octet-stream")];
        let load = Load::File(&file, size);
        let ended = self.send(Asking { method: "PUT", to: &to, scope: &scope, headers: &headers, load })?;
        if ended.status().as_u16() != 201 {
            return Err(self.nonsense(format!("{} to the end of an upload", ended.status().as_u16())));
        }
        progress.at(digest, size);
        progress.ends(digest, "Pushed");
        Ok(())
    }

    fn put_manifest(&self, target: &Reference, digest: &Digest, kind: &str, bytes: &[u8]) -> Result<(), ClientError> {
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
