//! Fetching an image: its manifest, its configuration, and its layers, several at once.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde_json::Value;

use super::transport::{Asking, Load, header};
use super::{Client, ClientError, Progress};
use crate::image::{Digest, Image, ImageError, Platform, Reference, Store, choose, descriptor};

/// Layers at once: enough to hide the registry's pauses, few enough not to be taken for an attack.
const AT_ONCE: usize = 4;
/// How often a blob that breaks off is gone on with.
const RESUMES: u32 = 5;
/// An index may list indexes; nobody's list is this deep.
const DEEPEST: usize = 4;
const PIECE: usize = 128 << 10;
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
struct Fetched {
    digest: Digest,
    bytes: Vec<u8>,
    kind: MediaType,
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
    client.fetch_all(store, &reference.repository, &manifest, progress)?;
    let mut writer = store.writer_with(fetched.digest.algorithm())?;
    writer.write_all(&fetched.bytes).map_err(unwritten(&fetched.digest))?;
    writer.finish(Some(&fetched.digest))?;
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

    fn manifest(&self, reference: &Reference, wanted: &str, expected: Option<Digest>) -> Result<Fetched, ClientError> {
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

    /// Fetches the configuration and the layers that are not here yet.
    fn fetch_all(
        &self,
        store: &Store,
        repository: &str,
        manifest: &ImageManifest,
        progress: &dyn Progress,
    ) -> Result<(), ClientError> {
        let mut seen = HashSet::new();
        let mut waiting = Vec::new();
        for one in [manifest.config()].into_iter().chain(manifest.layers()) {
            let digest = self.digest_of(one)?;
            // An image may have the same layer twice.
            if seen.insert(digest) {
                waiting.push((digest, one.size()));
            }
        }
        waiting.reverse();
        let threads = AT_ONCE.min(waiting.len());
        let (waiting, failure) = (Mutex::new(waiting), Mutex::new(None));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((digest, size)) = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop() {
                        if let Err(error) = self.fetch(store, repository, &digest, size, progress) {
                            // One failure is enough: the others need not begin.
                            waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
                            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        }
                    }
                });
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Fetches a blob, and goes on where it broke off.
    fn fetch(
        &self,
        store: &Store,
        repository: &str,
        digest: &Digest,
        size: u64,
        progress: &dyn Progress,
    ) -> Result<(), ClientError> {
        progress.begins(digest, size);
        if store.has(digest) {
            progress.ends(digest, "Already exists");
            return Ok(());
        }
        let mut writer = store.writer_with(digest.algorithm())?;
        let (to, scope) = (format!("/v2/{repository}/blobs/{digest}"), pulling(repository));
        let (mut at, mut resumes) = (0, RESUMES);
        while at < size || size == 0 {
            let range = format!("bytes={at}-");
            let headers: &[(&str, &str)] = if at == 0 { &[] } else { &[("range", &range)] };
            let response = self.send(Asking { method: "GET", to: &to, scope: &scope, headers, load: Load::Nothing })?;
            self.check_part(&response, digest, at, size)?;
            // A registry that knows no ranges begins anew: what we have of it is read past.
            let skip = if response.status().as_u16() == 206 { 0 } else { at };
            let broken =
                self.copy(response.into_body().into_reader(), &mut writer, skip, (&mut at, size), digest, progress)?;
            if size == 0 || (at >= size && broken.is_none()) {
                break;
            }
            let Some(left) = resumes.checked_sub(1) else {
                let ended = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return Err(self.unreachable(broken.unwrap_or_else(ended).into()));
            };
            resumes = left;
        }
        match writer.finish(Some(digest)) {
            Err(ImageError::Corrupt { .. }) => Err(self.lies(digest, "the bytes have another digest")),
            other => {
                other?;
                progress.ends(digest, "Pull complete");
                Ok(())
            }
        }
    }

    fn check_part(
        &self,
        response: &ureq::http::Response<ureq::Body>,
        digest: &Digest,
        at: u64,
        size: u64,
    ) -> Result<(), ClientError> {
        match response.status().as_u16() {
            200 => match header(response, "content-length").and_then(|length| length.parse::<u64>().ok()) {
                Some(length) if length != size => Err(self.lies(digest, "it has another size than the manifest says")),
                _ => Ok(()),
            },
            206 if header(response, "content-range")
                .is_some_and(|range| range.starts_with(&format!("bytes {at}-"))) =>
            {
                Ok(())
            }
            206 => Err(self.nonsense("another part of a blob than was asked for")),
            404 => {
                let (host, request) = (self.registry.clone(), format!("the request for the layer {digest}"));
                Err(ClientError::Refused { host, status: 404, request, said: String::new() })
            }
            status => Err(self.nonsense(format!("{status} for a blob"))),
        }
    }

    /// Moves bytes until they end. Answers what broke off, if something did; who sends too much is refused.
    fn copy(
        &self,
        mut from: impl Read,
        to: &mut impl Write,
        mut skip: u64,
        (at, size): (&mut u64, u64),
        digest: &Digest,
        progress: &dyn Progress,
    ) -> Result<Option<std::io::Error>, ClientError> {
        let mut buffer = vec![0; PIECE];
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Some(error)),
            };
            let skipped = skip.min(read as u64);
            skip -= skipped;
            let fresh = buffer.get(skipped as usize..read).unwrap_or_default();
            if *at + fresh.len() as u64 > size {
                return Err(self.lies(digest, "it has more bytes than the manifest says"));
            }
            to.write_all(fresh).map_err(unwritten(digest))?;
            *at += fresh.len() as u64;
            progress.at(digest, *at);
        }
    }

    fn digest_of(&self, descriptor: &Descriptor) -> Result<Digest, ClientError> {
        Digest::try_from(descriptor.digest()).map_err(|error| self.nonsense(error.to_string()))
    }

    fn lies(&self, digest: &Digest, reason: &str) -> ClientError {
        ClientError::Lies { host: self.registry.clone(), digest: Box::new(*digest), reason: reason.to_owned() }
    }
}

fn unwritten(digest: &Digest) -> impl FnOnce(std::io::Error) -> ImageError {
    let path = PathBuf::from(digest.to_string());
    move |source| ImageError::Io { attempt: "write blob", path, source }
}

/// What a token must be good for.
fn pulling(repository: &str) -> String {
    format!("repository:{repository}:pull")
}
