//! "Pull": blobs and manifests, whole and in part.

use isolab_runtime::image::{Algorithm, Digest};
use libtest_mimic::Failed;
use serde_json::json;

use super::asking::{Spec, blob_path, manifest_path};
use super::{MANIFEST, REPOSITORY};

pub(super) fn pulling_blobs(spec: &mut Spec) -> Result<(), Failed> {
    let content: Vec<u8> = (0..100).collect();
    for digest in [Digest::of(&content), Digest::with(Algorithm::Sha512, &content)] {
        spec.blob_in(REPOSITORY, digest, &content)?;
        let path = blob_path(&digest);
        spec.says("a GET (HEAD) to an existing blob MUST answer 200 OK with its bytes, and its digest and length");
        let answer = spec.look(200, &path)?;
        spec.equal("bytes", &answer.body, &content);
        spec.equal("digest", answer.header("docker-content-digest"), &digest.to_string());
        spec.equal("length", answer.header("content-length"), "100");
        spec.says("a registry SHOULD support the Range header (RFC 9110)");
        spec.equal("Accept-Ranges", answer.header("accept-ranges"), "bytes");
        for (range, told, part) in [
            ("bytes=10-19", "bytes 10-19/100", &content[10..20]),
            ("bytes=90-", "bytes 90-99/100", &content[90..]),
            ("bytes=-5", "bytes 95-99/100", &content[95..]),
            ("bytes=95-1000", "bytes 95-99/100", &content[95..]),
        ] {
            let answer = spec.ask(206, &format!("GET {path}"), &[("range", range)], b"")?;
            spec.equal(range, answer.body.as_slice(), part);
            spec.equal(range, answer.header("content-range"), told);
        }
        let answer = spec.ask(416, &format!("GET {path}"), &[("range", "bytes=100-")], b"")?;
        spec.equal("Content-Range", answer.header("content-range"), "bytes */100");
        spec.says("a range is for GET alone (RFC 9110, 14.2)");
        spec.ask(200, &format!("HEAD {path}"), &[("range", "bytes=10-19")], b"")?;
        spec.says("what a client has already need not be sent again (RFC 9110, 13.1.2)");
        let tag = format!("\"{digest}\"");
        spec.ask(304, &format!("GET {path}"), &[("if-none-match", &tag)], b"")?;
    }
    spec.says("a blob that is not there MUST be answered 404");
    for digest in ["sha256:ab", "md5:ab", &Digest::of(b"nowhere").to_string()] {
        spec.look(404, &format!("/v2/{REPOSITORY}/blobs/{digest}"))?;
    }
    spec.look(404, &format!("/v2/other/blobs/{}", Digest::of(&content))).map(drop)
}

pub(super) fn pulling_manifests(spec: &mut Spec) -> Result<(), Failed> {
    let content = spec.manifest(json!({}))?;
    let digest = Digest::of(&content);
    spec.put(201, "1.0", MANIFEST, &content)?;
    spec.says("a GET (HEAD) to an existing manifest MUST answer 200 OK, with its bytes, type, digest and length");
    for reference in ["1.0", &digest.to_string()] {
        let answer = spec.look(200, &manifest_path(reference))?;
        spec.equal("bytes", &answer.body, &content);
        spec.equal("type", answer.header("content-type"), MANIFEST);
        spec.equal("digest", answer.header("docker-content-digest"), &digest.to_string());
        spec.equal("length", answer.header("content-length"), &content.len().to_string());
    }
    spec.says("the client SHOULD say with Accept what it takes; what is there has one form only");
    for accept in [MANIFEST, "*/*", "text/plain"] {
        spec.ask(200, &format!("GET {}", manifest_path("1.0")), &[("accept", accept)], b"")?;
    }
    spec.says("what a client has already need not be sent again (RFC 9110, 13.1.2)");
    let tag = format!("\"{digest}\"");
    spec.ask(304, &format!("GET {}", manifest_path("1.0")), &[("if-none-match", &tag)], b"")?;
    spec.says("a manifest or repository that is not there MUST be answered 404");
    for reference in ["2.0", "sha256:ab", "not%20a%20tag", &Digest::of(b"nowhere").to_string()] {
        spec.look(404, &manifest_path(reference))?;
    }
    spec.look(404, "/v2/nowhere/manifests/1.0").map(drop)
}
