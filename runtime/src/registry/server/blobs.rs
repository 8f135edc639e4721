//! Requests about blobs and their uploads (end-2, end-4 to end-6, end-10, end-11, end-13, end-14).

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE,
};
use serde_json::json;

use super::Registry;
use super::http::Sent;
use super::names::Name;
use super::reply::{Content, Problem, Reply};
use super::route::Query;
use super::uploads::Writing;
use crate::image::{Algorithm, Digest};

/// Whose bytes never change may be kept for a year, which is the longest that RFC 9111's caches look ahead.
const FOREVER: &str = "private, max-age=31536000, immutable";
const BINARY: &str = "application/octet-stream";

impl Registry {
    /// Sends a blob, or a part of it (RFC 9110, 14: one range of bytes; several at once are answered with everything).
    pub(super) fn get_blob(&self, name: &Name, digest: &str, headers: &HeaderMap) -> Result<Reply, Problem> {
        let (digest, file) = self.find_blob(name, digest)?;
        let size = file.metadata()?.size();
        let tag = format!("\"{digest}\"");
        let with_names = |reply: Reply| {
            let reply = reply.with(ETAG, &tag).with(CACHE_CONTROL, FOREVER).with(ACCEPT_RANGES, "bytes");
            reply.header("docker-content-digest", digest.to_string())
        };
        if lists(headers, IF_NONE_MATCH, &tag) {
            return Ok(with_names(Reply::empty(StatusCode::NOT_MODIFIED)));
        }
        let same = text(headers, IF_RANGE).is_none_or(|known| known == tag);
        let asked = text(headers, RANGE).filter(|_| same).map_or(Asked::Everything, |range| part(range, size));
        let (status, at, end) = match asked {
            Asked::Everything => (StatusCode::OK, 0, size),
            Asked::Part(at, end) => (StatusCode::PARTIAL_CONTENT, at, end),
            Asked::Nothing => {
                let message = "the blob has no such bytes";
                let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message);
                return Err(problem.with(CONTENT_RANGE, format!("bytes */{size}")));
            }
        };
        let reply = with_names(Reply::of(status, Content::Part { file, at, end })).with(CONTENT_TYPE, BINARY);
        let partial = status == StatusCode::PARTIAL_CONTENT;
        Ok(if partial { reply.with(CONTENT_RANGE, format!("bytes {at}-{}/{size}", end - 1)) } else { reply })
    }

    /// Takes a blob from a repository.
    pub(super) fn delete_blob(&self, name: &Name, digest: &str) -> Result<Reply, Problem> {
        let digest = digest.parse().map_err(|_| unknown(digest))?;
        let removed = self.storage.remove_blob(name, &digest)?;
        if removed { Ok(Reply::empty(StatusCode::ACCEPTED)) } else { Err(unknown(&digest.to_string())) }
    }

    /// Begins an upload; or ends it in the same request, if the digest is named; or saves it, if the blob is here.
    pub(super) async fn begin_upload(&self, name: &Name, query: &Query, request: &mut Sent) -> Result<Reply, Problem> {
        if let Some(digest) = query.get("mount")
            && let Some(digest) = self.mountable(digest, query.get("from"))?
        {
            self.storage.mount(name, &digest)?;
            return Ok(created(name, &digest));
        }
        let digest = query.get("digest").map(valid).transpose()?;
        let said = query.get("digest-algorithm").unwrap_or(Algorithm::Sha256.name());
        let algorithm = digest.map(|digest| digest.algorithm());
        let algorithm = algorithm.or_else(|| Algorithm::ALL.into_iter().find(|one| one.name() == said));
        let unknown = || Problem::bad("DIGEST_INVALID", "only sha256 and sha512 are known here");
        let upload = self.uploads.begin(&self.storage, name, algorithm.ok_or_else(unknown)?)?;
        let mut upload = upload.lock_owned().await;
        let Some(digest) = digest else { return Ok(upload.status(StatusCode::ACCEPTED)) };
        let outcome = upload.append(request.take_body(), None).await;
        // Nobody knows of this upload, so nobody could go on with it.
        let outcome = outcome.and_then(|()| upload.complete(&self.storage, &digest));
        self.uploads.forget(&upload);
        outcome.map(|()| created(name, &digest))
    }

    /// How far an upload is.
    pub(super) async fn upload_status(&self, name: &Name, id: &str) -> Result<Reply, Problem> {
        Ok(self.uploads.find(&self.storage, name, id).await?.status(StatusCode::NO_CONTENT))
    }

    /// Takes a chunk, or all there is.
    pub(super) async fn append(&self, name: &Name, id: &str, request: &mut Sent) -> Result<Reply, Problem> {
        let mut upload = self.uploads.find(&self.storage, name, id).await?;
        let expected = promised(&upload, &request.headers)?;
        upload.append(request.take_body(), expected).await?;
        Ok(upload.status(StatusCode::ACCEPTED))
    }

    /// Takes the last chunk, if there is one more, and makes a blob of the upload.
    pub(super) async fn complete(
        self: &Arc<Self>,
        name: &Name,
        id: &str,
        query: &Query,
        request: &mut Sent,
    ) -> Result<Reply, Problem> {
        let mut upload = self.uploads.find(&self.storage, name, id).await?;
        let digest = query.get("digest").ok_or_else(|| Problem::bad("DIGEST_INVALID", "the digest is not said"))?;
        let digest = valid(digest)?;
        let expected = promised(&upload, &request.headers)?;
        upload.append(request.take_body(), expected).await?;
        let (registry, named) = (Arc::clone(self), digest);
        // To hash again and to sync takes as long as the disk takes: not on a thread that others' bytes pass through.
        let completed = tokio::task::spawn_blocking(move || {
            let outcome = upload.complete(&registry.storage, &named);
            // What is not what it was called cannot become so by more bytes.
            registry.uploads.forget(&upload);
            outcome
        });
        completed.await.map_err(io::Error::other)??;
        Ok(created(name, &digest))
    }

    /// Gives an upload up.
    pub(super) async fn cancel(&self, name: &Name, id: &str) -> Result<Reply, Problem> {
        let upload = self.uploads.find(&self.storage, name, id).await?;
        self.uploads.forget(&upload);
        Ok(Reply::empty(StatusCode::NO_CONTENT))
    }

    fn find_blob(&self, name: &Name, digest: &str) -> Result<(Digest, File), Problem> {
        let parsed: Digest = digest.parse().map_err(|_| unknown(digest))?;
        let file = self.storage.blob(name, &parsed)?.ok_or_else(|| unknown(digest))?;
        Ok((parsed, file))
    }

    /// The blob to mount, if it is where it is said to be. Whoever may push here may read everything here, so without
    /// a source any repository's will do.
    fn mountable(&self, digest: &str, from: Option<&str>) -> io::Result<Option<Digest>> {
        let Ok(digest) = digest.parse::<Digest>() else { return Ok(None) };
        let here = match from {
            None => self.storage.has(&digest)?,
            Some(from) => match Name::parse(from) {
                Some(from) => self.storage.blob(&from, &digest)?.is_some(),
                None => false,
            },
        };
        Ok(here.then_some(digest))
    }
}

/// What a client asks for by `Range`.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Everything,
    /// From here to before there.
    Part(u64, u64),
    Nothing,
}

/// Understands `Range`. What is none, or more than one, is as good as not there (RFC 9110, 14.2).
fn part(range: &str, size: u64) -> Asked {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Asked::Everything;
    };
    let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.is_empty() => (first, size),
        (Err(_), Ok(0)) if first.is_empty() => (size, size),
        (Err(_), Ok(suffix)) if first.is_empty() => (size.saturating_sub(suffix), size),
        _ => return Asked::Everything,
    };
    if first < last { Asked::Part(first, last) } else { Asked::Nothing }
}

/// The length that `Content-Range` promises, if it begins where the upload has got to. Without it a request brings
/// whatever it brings, after what is there.
fn promised(upload: &Writing, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(range) = text(headers, CONTENT_RANGE) else { return Ok(None) };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse::<u64>().ok() } else { None }
    };
    let said = text(headers, CONTENT_LENGTH).and_then(number);
    // A chunk of nothing has no last byte: clients write `0--1` for its range, or `0-0`.
    let first = range.split_once('-').and_then(|(first, _)| number(first));
    if said == Some(0) && first == Some(upload.length()) {
        return Ok(Some(0));
    }
    let ends = range.split_once('-').and_then(|(first, last)| Some((number(first)?, number(last)?)));
    let Some((first, last)) = ends.filter(|(first, last)| first <= last) else {
        return Err(upload.out_of_order("Content-Range must be FIRST-LAST"));
    };
    if first != upload.length() {
        return Err(upload.out_of_order("the chunk does not begin where the last one ended"));
    }
    let length = (last - first).saturating_add(1);
    match said {
        Some(said) if said != length => Err(Problem::bad("SIZE_INVALID", "Content-Range and Content-Length disagree")),
        _ => Ok(Some(length)),
    }
}

/// Whether a condition's header (RFC 9110, 13.1) names something that is here by its tag, or anything.
pub(super) fn lists(headers: &HeaderMap, name: HeaderName, tag: &str) -> bool {
    text(headers, name).is_some_and(|listed| listed.trim() == "*" || listed.contains(tag))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A digest in a request that makes something.
pub(super) fn valid(digest: &str) -> Result<Digest, Problem> {
    digest.parse().map_err(|_| {
        Problem::bad("DIGEST_INVALID", "a digest is sha256 or sha512, a colon, and so many hexadecimal digits")
            .about(json!({ "digest": digest }))
    })
}

fn unknown(digest: &str) -> Problem {
    Problem::missing("BLOB_UNKNOWN", "blob unknown to registry").about(json!({ "digest": digest }))
}

fn created(name: &Name, digest: &Digest) -> Reply {
    let reply = Reply::empty(StatusCode::CREATED).with(LOCATION, format!("/v2/{name}/blobs/{digest}"));
    reply.header("docker-content-digest", digest.to_string())
}

#[cfg(test)]
mod tests {
    use super::{Asked, part};

    #[test]
    fn a_range_is_a_part_everything_or_nothing() {
        let known = [
            ("bytes=0-0", Asked::Part(0, 1)),
            ("bytes=2-", Asked::Part(2, 10)),
            ("bytes=-3", Asked::Part(7, 10)),
            ("bytes=-30", Asked::Part(0, 10)),
            ("bytes=5-99", Asked::Part(5, 10)),
            ("bytes=10-", Asked::Nothing),
            ("bytes=10-12", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=3-1", Asked::Everything),
            ("bytes=0-1,3-4", Asked::Everything),
            ("items=0-1", Asked::Everything),
            ("bytes=-", Asked::Everything),
            ("bytes=0-18446744073709551615", Asked::Part(0, 10)),
        ];
        for (range, asked) in known {
            assert_eq!(part(range, 10), asked, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Asked::Nothing);
    }
}
