//! A whole index: every platform's image at once, fetched or brought as it is.
//!
//! Nothing is unpacked or packed here: an index is signed for by the digests of what it lists, so all of it stays what it is.

use std::collections::HashSet;
use std::io;
use std::sync::Mutex;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};

use super::blob::Arriving;
use super::pull::{Fetched, unwritten};
use super::push::Bringing;
use super::several::several;
use super::{Client, ClientError, Progress, Pushed};
use crate::image::{Digest, ImageError, Received, Reference, Store, descriptor};

/// Fetches an index with the images of all its platforms that the registry has, and gives it its name. An image without
/// an index is fetched just so. Answers the digest of what has the name now.
pub fn pull_whole(
    client: &Client,
    store: &Store,
    reference: &Reference,
    progress: &dyn Progress,
) -> Result<Digest, ClientError> {
    // Nobody takes away what was fetched before a name leads to it.
    let _shared = store.shared()?;
    let fetching = Fetching { client, store, reference, progress };
    let top = client.manifest(reference, &reference.wanted(), reference.digest)?;
    let leads = descriptor(top.kind.clone(), &top.digest, top.bytes.len() as u64)?;
    let (digest, mut seen, mut received) = (top.digest, HashSet::new(), Vec::new());
    let mut waiting = vec![top];
    while let Some(fetched) = waiting.pop() {
        if seen.insert(fetched.digest) {
            waiting.extend(fetching.below(&fetched, &mut seen, &mut received)?);
            received.push(fetching.keep(&fetched.digest, &mut fetched.bytes.as_slice())?);
        }
    }
    store.publish_unsettled(received)?;
    store.set_name(&reference.to_string(), leads, &[])?;
    Ok(digest)
}

struct Fetching<'a> {
    client: &'a Client,
    store: &'a Store,
    reference: &'a Reference,
    progress: &'a dyn Progress,
}

impl Fetching<'_> {
    /// What a manifest leads to: other manifests, which are answered, or blobs, which are fetched.
    fn below(
        &self,
        fetched: &Fetched,
        seen: &mut HashSet<Digest>,
        received: &mut Vec<Received>,
    ) -> Result<Vec<Fetched>, ClientError> {
        if let Ok(index) = serde_json::from_slice::<ImageIndex>(&fetched.bytes) {
            let mut all = Vec::new();
            for one in index.manifests() {
                let digest = self.client.digest_of(one)?;
                match self.client.manifest(self.reference, &digest.to_string(), Some(digest)) {
                    Ok(manifest) => all.push(manifest),
                    // An index need not have all of its platforms.
                    Err(ClientError::Refused { status: 404, .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(all);
        }
        let manifest: ImageManifest = serde_json::from_slice(&fetched.bytes)
            .map_err(|error| self.client.nonsense(format!("the manifest {}: {error}", fetched.digest)))?;
        let mut blobs = Vec::new();
        for one in manifest.layers().iter().chain([manifest.config()]) {
            let digest = self.client.digest_of(one)?;
            if seen.insert(digest) {
                blobs.push((digest, one));
            }
        }
        let arrived = several(&blobs, |(digest, one)| self.blob(*digest, one))?;
        received.extend(arrived.into_iter().flatten());
        Ok(Vec::new())
    }

    fn blob(&self, digest: Digest, described: &Descriptor) -> Result<Option<Received>, ClientError> {
        self.progress.begins(&digest, described.size());
        if self.store.has(&digest) {
            self.progress.ends(&digest, "Already exists");
            return Ok(None);
        }
        let failure = Mutex::default();
        let named = (digest, described.size());
        let mut arriving = Arriving::new(self.client, self.progress, &self.reference.repository, named, &failure);
        let received = self.keep(&digest, &mut arriving);
        let received = received.map_err(|error| self.client.told(&failure, &digest, error))?;
        self.progress.ends(&digest, "Pull complete");
        Ok(Some(received))
    }

    fn keep(&self, digest: &Digest, content: &mut dyn io::Read) -> Result<Received, ClientError> {
        let mut writer = self.store.writer_with(digest.algorithm())?;
        io::copy(content, &mut writer).map_err(unwritten(digest))?;
        Ok(writer.receive(digest)?)
    }
}

/// Brings an index with the images of all platforms that the store has, as they are.
pub fn push_whole(
    client: &Client,
    store: &Store,
    source: &str,
    target: &Reference,
    progress: &dyn Progress,
) -> Result<Pushed, ClientError> {
    let _shared = store.shared()?;
    let top = store.resolve(source)?.descriptor;
    let digest = Digest::try_from(top.digest()).map_err(ImageError::from)?;
    let bringing = Bringing { client, store, repository: &target.repository, near: &[], progress };
    // First what others name, so that the registry never has a name that leads nowhere.
    let mut order = Vec::new();
    let mut waiting = vec![digest];
    while let Some(next) = waiting.pop() {
        if order.contains(&next) || !store.has(&next) {
            continue;
        }
        order.push(next);
        if let Ok(index) = serde_json::from_slice::<ImageIndex>(&store.blob(&next)?) {
            waiting.extend(index.manifests().iter().filter_map(|one| Digest::try_from(one.digest()).ok()));
        }
    }
    let mut size = 0;
    for one in order.iter().rev() {
        let bytes = store.blob(one)?;
        size = bytes.len() as u64;
        let kind = bring(&bringing, &bytes)?;
        let wanted = if *one == digest { target.clone() } else { Reference { digest: Some(*one), ..target.clone() } };
        client.put_manifest(&wanted, one, kind.as_ref(), &bytes)?;
    }
    Ok(Pushed { digest, size })
}

/// Brings the blobs that a manifest names. Answers what the manifest is.
fn bring(bringing: &Bringing<'_>, bytes: &[u8]) -> Result<MediaType, ClientError> {
    if let Ok(index) = serde_json::from_slice::<ImageIndex>(bytes) {
        return Ok(index.media_type().clone().unwrap_or(MediaType::ImageIndex));
    }
    let manifest: ImageManifest =
        serde_json::from_slice(bytes).map_err(|error| bringing.client.nonsense(format!("the manifest: {error}")))?;
    let all = manifest.layers().iter().chain([manifest.config()]).map(|one| bringing.client.digest_of(one));
    // Each once: an image may have the same layer twice.
    let all: Vec<Digest> = all.collect::<Result<HashSet<_>, _>>()?.into_iter().collect();
    several(&all, |digest| bringing.blob(digest))?;
    Ok(manifest.media_type().clone().unwrap_or(MediaType::ImageManifest))
}
