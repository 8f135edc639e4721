//! Requests about manifests (end-3, end-7, end-9).

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH, LOCATION};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::Registry;
use super::blobs::{lists, valid};
use super::http::{SILENCE, Sent};
use super::names::{Name, is_tag};
use super::reply::{Problem, Reply};
use super::route::Query;
use super::storage::Manifest;
use crate::image::{Algorithm, Digest};

/// The size that a manifest may have: what the specification asks of everyone to take, and clients to send at most.
pub(super) const LARGEST: usize = 4 << 20;
/// More tags at once than this are too long an address (414).
const MOST_TAGS: usize = 100;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Registry {
    /// Sends a manifest, by tag or digest, unless the client has it already.
    pub(super) fn get_manifest(&self, name: &Name, reference: &str, headers: &HeaderMap) -> Result<Reply, Problem> {
        let manifest = self.find_manifest(name, reference)?;
        let tag = entity_tag(&manifest.digest);
        let reply = if lists(headers, IF_NONE_MATCH, &tag) {
            Reply::empty(StatusCode::NOT_MODIFIED)
        } else {
            Reply::text(StatusCode::OK, &manifest.media_type, manifest.bytes)
        };
        Ok(reply.with(ETAG, tag).header("docker-content-digest", manifest.digest.to_string()))
    }

    /// Keeps a manifest under its digest, and as many tags as the client likes.
    pub(super) async fn put_manifest(
        &self,
        name: &Name,
        reference: &str,
        query: &Query,
        sent: &mut Sent,
    ) -> Result<Reply, Problem> {
        let named = if reference.contains(':') { Some(valid(reference)?) } else { None };
        let mut tags: Vec<&str> = query.all("tag").collect();
        if named.is_none() {
            tags.insert(0, reference);
        }
        if tags.len() > MOST_TAGS {
            return Err(Problem::new(StatusCode::URI_TOO_LONG, "UNSUPPORTED", "so many tags cannot be set at once"));
        }
        if let Some(tag) = tags.iter().find(|tag| !is_tag(tag)) {
            return Err(Problem::bad("MANIFEST_INVALID", "no tag can be called so").about(json!({ "tag": tag })));
        }
        let bytes = whole(sent).await?;
        let algorithm = named.map_or(Algorithm::Sha256, |named| named.algorithm());
        let digest = Digest::with(algorithm, &bytes);
        if named.is_some_and(|named| named != digest) {
            let problem = Problem::bad("DIGEST_INVALID", "provided digest did not match uploaded content");
            return Err(problem.about(json!({ "found": digest.to_string() })));
        }
        let document = understand(&bytes)?;
        let said = sent.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type(said, &document)?;
        self.check_references(name, &document)?;
        let subject = subject(&document)?;
        let manifest = Manifest { digest, media_type, bytes };
        let descriptor = descriptor(&manifest, &document).to_string();
        let refers = subject.as_ref().map(|subject| (subject, descriptor.as_bytes()));
        let wanted = |now: Option<Digest>| condition(&sent.headers, now);
        let tag = if named.is_none() { Some(reference) } else { None };
        if !self.storage.put_manifest(name, &manifest, refers, &tags, tag, &wanted)? {
            let message = "what is there is not what the request's condition says";
            return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "DENIED", message));
        }
        Ok(stored(name, reference, &manifest.digest, subject.as_ref(), &tags))
    }

    /// Removes a tag, or a manifest with all its tags.
    pub(super) fn delete_manifest(&self, name: &Name, reference: &str) -> Result<Reply, Problem> {
        let removed = if reference.contains(':') {
            let manifest = self.find_manifest(name, reference)?;
            let document = serde_json::from_slice::<Value>(&manifest.bytes).unwrap_or_default();
            let subject = document.as_object().and_then(|document| subject(document).ok().flatten());
            self.storage.remove_manifest(name, &manifest.digest, subject.as_ref())?
        } else {
            self.storage.remove_tag(name, reference)?
        };
        if removed { Ok(Reply::empty(StatusCode::ACCEPTED)) } else { Err(unknown(reference)) }
    }

    /// A manifest by tag or digest.
    pub(super) fn find_manifest(&self, name: &Name, reference: &str) -> Result<Manifest, Problem> {
        let digest =
            if reference.contains(':') { reference.parse().ok() } else { self.storage.tag(name, reference)? };
        let manifest = digest.map(|digest| self.storage.manifest(name, &digest)).transpose()?.flatten();
        manifest.ok_or_else(|| unknown(reference))
    }

    /// Makes sure that an image's configuration and layers are here before it can be pulled. What an index lists may
    /// come later or never: an index of many platforms is useful where only some of them are kept.
    fn check_references(&self, name: &Name, document: &Map<String, Value>) -> Result<(), Problem> {
        let layers = document.get("layers").and_then(Value::as_array).into_iter().flatten();
        let mut problem: Option<Problem> = None;
        for descriptor in document.get("config").into_iter().chain(layers).filter(|it| !is_elsewhere(it)) {
            let digest = descriptor.get("digest").and_then(Value::as_str).unwrap_or_default();
            let parsed =
                digest.parse::<Digest>().map_err(|_| invalid("a descriptor has no digest that is known here"))?;
            if self.storage.blob(name, &parsed)?.is_none() {
                let one = Problem::bad("MANIFEST_BLOB_UNKNOWN", "the manifest names a blob unknown to the registry")
                    .about(json!({ "digest": digest }));
                problem = Some(match problem {
                    Some(others) => others.and(one),
                    None => one,
                });
            }
        }
        problem.map_or(Ok(()), Err)
    }
}

/// Whether a manifest may be put where `now` is: `If-Match` says what a client has seen there last, `If-None-Match: *` that
/// it has seen nothing. So two who change one list of referrers do not undo each other's change.
fn condition(headers: &HeaderMap, now: Option<Digest>) -> bool {
    let listed = |name| now.as_ref().is_some_and(|now| lists(headers, name, &entity_tag(now)));
    (!headers.contains_key(IF_MATCH) || listed(IF_MATCH)) && !listed(IF_NONE_MATCH)
}

fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Content that clients fetch from another place, or have in the descriptor itself.
fn is_elsewhere(descriptor: &Value) -> bool {
    let kind = descriptor.get("mediaType").and_then(Value::as_str).unwrap_or_default();
    let foreign = kind.contains(".nondistributable.") || kind.contains(".foreign.");
    foreign || ["urls", "data"].iter().any(|field| descriptor.get(field).is_some_and(|value| !value.is_null()))
}

/// The whole body, if it is no larger than a manifest may be. What is beyond is left to be read past, so that who sends it
/// gets to read why it is refused.
async fn whole(sent: &mut Sent) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let Some(body) = sent.body() else { return Ok(bytes) };
    loop {
        let frame = timeout(SILENCE, body.frame())
            .await
            .map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "MANIFEST_INVALID", "no more bytes came"))?;
        let Some(frame) = frame else { return Ok(bytes) };
        let frame = frame.map_err(|_| Problem::bad("SIZE_INVALID", "the body ended early"))?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > LARGEST {
            let message = "a manifest has at most 4 MiB";
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", message));
        }
        bytes.extend_from_slice(data);
    }
}

fn understand(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    serde_json::from_slice(bytes)
        .map_err(|error| invalid("the manifest is no JSON object").about(error.to_string().into()))
}

/// The type that a client gave it, which has to be the one that it gives itself, if it does.
fn media_type(said: Option<&str>, document: &Map<String, Value>) -> Result<String, Problem> {
    let said = said.map(|kind| kind.split(';').next().unwrap_or_default().trim()).filter(|kind| !kind.is_empty());
    let own = match document.get("mediaType") {
        None | Some(Value::Null) => None,
        Some(Value::String(own)) => Some(own.as_str()),
        Some(_) => return Err(invalid("the media type of the manifest is no text")),
    };
    match (said, own) {
        (Some(said), Some(own)) if said != own => Err(invalid("the manifest is not of the type of its Content-Type")
            .about(json!({ "contentType": said, "mediaType": own }))),
        (Some(kind), _) | (None, Some(kind)) => Ok(kind.to_owned()),
        (None, None) => Ok(if document.contains_key("manifests") { OCI_INDEX } else { OCI_MANIFEST }.to_owned()),
    }
}

/// The digest of the manifest that this one says something about.
fn subject(document: &Map<String, Value>) -> Result<Option<Digest>, Problem> {
    let Some(subject) = document.get("subject").filter(|subject| !subject.is_null()) else { return Ok(None) };
    let digest = subject.get("digest").and_then(Value::as_str).unwrap_or_default();
    digest.parse().map(Some).map_err(|_| invalid("the subject has no digest that is known here"))
}

/// How a manifest stands in the list of referrers (distribution-spec, "Listing Referrers").
fn descriptor(manifest: &Manifest, document: &Map<String, Value>) -> Value {
    let mut descriptor = json!({
        "mediaType": manifest.media_type, "size": manifest.bytes.len(), "digest": manifest.digest.to_string(),
    });
    let text = |value: Option<&Value>| value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let config = document.get("config").and_then(|config| config.get("mediaType"));
    if let Some(kind) = text(document.get("artifactType")).or_else(|| text(config)) {
        descriptor["artifactType"] = kind.into();
    }
    if let Some(annotations) = document.get("annotations").filter(|annotations| annotations.is_object()) {
        descriptor["annotations"] = annotations.clone();
    }
    descriptor
}

fn stored(name: &Name, reference: &str, digest: &Digest, subject: Option<&Digest>, tags: &[&str]) -> Reply {
    let reply = Reply::empty(StatusCode::CREATED).with(LOCATION, format!("/v2/{name}/manifests/{digest}"));
    let mut reply = reply.header("docker-content-digest", digest.to_string());
    if let Some(subject) = subject {
        reply = reply.header("oci-subject", subject.to_string());
    }
    // A tag in the address needs no word; those behind the question mark an older registry would not have set.
    let asked = tags.iter().filter(|tag| **tag != reference);
    asked.fold(reply, |reply, tag| reply.header("oci-tag", tag))
}

fn invalid(message: &str) -> Problem {
    Problem::bad("MANIFEST_INVALID", message)
}

fn unknown(reference: &str) -> Problem {
    Problem::missing("MANIFEST_UNKNOWN", "manifest unknown to registry").about(json!({ "reference": reference }))
}
