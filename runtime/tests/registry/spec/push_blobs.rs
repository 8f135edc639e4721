//! "Push", blobs: in one piece, in chunks, and from another repository.

use isolab_runtime::image::{Algorithm, Digest};
use libtest_mimic::Failed;

use super::super::checks::text;
use super::asking::{Spec, blob_path};
use super::{BYTES, REPOSITORY};

pub(super) fn pushing_at_once(spec: &mut Spec) -> Result<(), Failed> {
    for (algorithm, more) in
        [(Algorithm::Sha256, ""), (Algorithm::Sha512, ""), (Algorithm::Sha512, "?digest-algorithm=sha512")]
    {
        let content = format!("{algorithm}{more}");
        let digest = Digest::with(algorithm, content.as_bytes());
        spec.says("POST then PUT: 202 Accepted with a Location, then 201 Created with the blob's Location");
        let to = spec.begin(more)?;
        let (_, id) = to.rsplit_once('/').unwrap_or_default();
        spec.holds("the Location contains a UUID", id.len() == 36 && id.matches('-').count() == 4);
        let put = format!("PUT {to}?digest={digest}");
        let answer = spec.ask(201, &put, &[("content-type", BYTES)], content.as_bytes())?;
        spec.equal("Location", answer.header("location"), &blob_path(&digest));
        spec.equal("digest", answer.header("docker-content-digest"), &digest.to_string());
        let pulled = spec.get(200, &blob_path(&digest))?;
        spec.equal("bytes", text(&pulled.body), content);
        spec.says("an upload that was closed is no upload any more");
        spec.get(404, &to)?;
    }
    spec.says("single POST: 201 Created with the blob's Location");
    let digest = Digest::of(b"at once");
    let request = format!("POST /v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
    let answer = spec.ask(201, &request, &[("content-type", BYTES)], b"at once")?;
    spec.equal("Location", answer.header("location"), &blob_path(&digest));
    spec.says("a blob may be empty");
    let nothing = Digest::of(b"");
    let to = spec.begin("")?;
    spec.ask(201, &format!("PUT {to}?digest={nothing}"), &[], b"")?;
    let pulled = spec.look(200, &blob_path(&nothing))?;
    spec.equal("bytes", pulled.body.len(), 0);
    spec.says("the digest MUST match the blob's digest (end-4b, end-6: 400), and what does not is not kept");
    let wrong = Digest::of(b"something else");
    let answer = spec.ask(400, &format!("POST /v2/{REPOSITORY}/blobs/uploads/?digest={wrong}"), &[], b"this")?;
    spec.equal("code", answer.code().as_str(), "DIGEST_INVALID");
    let to = spec.begin("")?;
    let answer = spec.ask(400, &format!("PUT {to}?digest={wrong}"), &[], b"this")?;
    spec.equal("code", answer.code().as_str(), "DIGEST_INVALID");
    spec.get(404, &blob_path(&wrong))?;
    spec.says("the closing PUT MUST include the digest; an algorithm has to be one that is known");
    for more in ["", "?digest=", "?digest=sha256:ab", "?digest=md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let to = spec.begin("")?;
        spec.ask(400, &format!("PUT {to}{more}"), &[], b"this")?;
    }
    spec.ask(400, &format!("POST /v2/{REPOSITORY}/blobs/uploads/?digest-algorithm=md5"), &[], b"")?;
    spec.ask(400, &format!("POST /v2/{REPOSITORY}/blobs/uploads/?digest=md5:ab"), &[], b"").map(drop)
}

pub(super) fn pushing_in_chunks(spec: &mut Spec) -> Result<(), Failed> {
    spec.says("each chunk MUST be answered 202 Accepted, with Location and Range: 0-<end-of-range>");
    let to = spec.begin("")?;
    let chunk = |range| [("content-type", BYTES), ("content-range", range)];
    let answer = spec.ask(202, &format!("PATCH {to}"), &chunk("0-4"), b"hello")?;
    spec.equal("Range", answer.header("range"), "0-4");
    let to = answer.header("location").to_owned();
    spec.says("end-13: the status of an upload is 204 No Content, with Location and Range");
    let answer = spec.get(204, &to)?;
    spec.equal("Range", answer.header("range"), "0-4");
    spec.equal("Location", answer.header("location"), &to);
    spec.says("a chunk out of order MUST be answered 416, and takes nothing from the upload");
    for range in ["0-4", "6-10", "4-8", "100-104", "x-y", "-", "5", "9-5"] {
        let answer = spec.ask(416, &format!("PATCH {to}"), &chunk(range), b"wrong")?;
        spec.equal("Range", answer.header("range"), "0-4");
        spec.equal("Location", answer.header("location"), &to);
    }
    let digest = Digest::of(b"hello, world");
    spec.ask(416, &format!("PUT {to}?digest={digest}"), &chunk("6-12"), b", world")?;
    let answer = spec.ask(202, &format!("PATCH {to}"), &chunk("5-6"), b", ")?;
    spec.equal("Range", answer.header("range"), "0-6");
    spec.says("the length has to be that of the range");
    spec.ask(400, &format!("PATCH {to}"), &chunk("7-11"), b"wor")?;
    spec.says("the final chunk MAY be uploaded in the closing PUT");
    let answer = spec.ask(201, &format!("PUT {to}?digest={digest}"), &chunk("7-11"), b"world")?;
    spec.equal("Location", answer.header("location"), &blob_path(&digest));
    let pulled = spec.get(200, &blob_path(&digest))?;
    spec.equal("bytes", text(&pulled.body).as_str(), "hello, world");
    spec.says("the final chunk MAY be uploaded by PATCH; one without a range goes where the last one ended");
    for algorithm in Algorithm::ALL {
        let to = spec.begin(&format!("?digest-algorithm={algorithm}"))?;
        spec.ask(202, &format!("PATCH {to}"), &[], b"strea")?;
        spec.ask(202, &format!("PATCH {to}"), &[], b"med")?;
        spec.ask(201, &format!("PUT {to}?digest={}", Digest::with(algorithm, b"streamed")), &[], b"")?;
    }
    spec.says("the first chunk's range MUST begin with 0");
    let to = spec.begin("")?;
    spec.ask(416, &format!("PATCH {to}"), &chunk("1-5"), b"hello")?;
    spec.says("a chunk may be empty, however its range is written");
    for range in ["0-0", "0--1"] {
        spec.ask(202, &format!("PATCH {to}"), &chunk(range), b"")?;
    }
    spec.ask(201, &format!("PUT {to}?digest={}", Digest::of(b"")), &[], b"")?;
    spec.says("end-14: a cancelled upload SHOULD be answered 204 No Content, and is no upload any more");
    let to = spec.begin("")?;
    spec.ask(202, &format!("PATCH {to}"), &chunk("0-4"), b"hello")?;
    spec.ask(204, &format!("DELETE {to}"), &[], b"")?;
    spec.says("an upload that is not there is answered 404");
    for to in [to, format!("/v2/{REPOSITORY}/blobs/uploads/none"), "/v2/a/blobs/uploads/..".to_owned()] {
        spec.get(404, &to)?;
        spec.ask(404, &format!("PATCH {to}"), &chunk("0-4"), b"hello")?;
        spec.ask(404, &format!("PUT {to}?digest={digest}"), &[], b"")?;
        let answer = spec.ask(404, &format!("DELETE {to}"), &[], b"")?;
        spec.equal(&answer.asked, answer.code().as_str(), "BLOB_UPLOAD_UNKNOWN");
    }
    Ok(())
}

pub(super) fn mounting(spec: &mut Spec) -> Result<(), Failed> {
    let digest = Digest::of(b"shared");
    spec.blob_in("base", digest, b"shared")?;
    spec.says("a successful mount MUST be answered 201 Created with the blob's Location; from is optional");
    for (repository, more) in [("a", "&from=base"), ("b", "")] {
        let answer = spec.ask(201, &format!("POST /v2/{repository}/blobs/uploads/?mount={digest}{more}"), &[], b"")?;
        spec.equal("Location", answer.header("location"), &format!("/v2/{repository}/blobs/{digest}"));
        let pulled = spec.get(200, &format!("/v2/{repository}/blobs/{digest}"))?;
        spec.equal("bytes", text(&pulled.body).as_str(), "shared");
    }
    spec.says("what cannot be mounted SHOULD be answered 202, with an upload that has begun");
    let missing = Digest::of(b"missing");
    for query in [
        format!("mount={missing}&from=base"),
        format!("mount={missing}"),
        format!("mount={digest}&from=nowhere"),
        format!("mount={digest}&from=NO NAME").replace(' ', "%20"),
        "mount=sha256:ab&from=base".to_owned(),
    ] {
        let answer = spec.ask(202, &format!("POST /v2/c/blobs/uploads/?{query}"), &[], b"")?;
        let to = answer.header("location").to_owned();
        spec.ask(201, &format!("PUT {to}?digest={missing}"), &[], b"missing")?;
        spec.ask(202, &format!("DELETE /v2/c/blobs/{missing}"), &[], b"")?;
        // Its bytes are there until garbage is collected, and yet nobody has it that it could be mounted from.
        spec.get(404, &format!("/v2/c/blobs/{missing}"))?;
    }
    Ok(())
}
