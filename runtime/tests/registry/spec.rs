//! The OCI distribution specification 1.1, a statement at a time.
//!
//! Each function is a section of the specification, in its order. A statement stands in its words, shortened, before the
//! answers that have to bear it out; all of a section are tried, and those that do not hold are told together.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use isolab_runtime::image::{Algorithm, Digest};
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::checks::text;
use super::lab::Lab;
use super::needs::trial;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const BYTES: &str = "application/octet-stream";
const REPOSITORY: &str = "team/app";
/// All codes that an error may have.
const CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];

type Section = fn(&mut Spec) -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let sections: [(&str, Section); 12] = [
        ("support", support),
        ("pulling_blobs", pulling_blobs),
        ("pulling_manifests", pulling_manifests),
        ("pushing_at_once", pushing_at_once),
        ("pushing_in_chunks", pushing_in_chunks),
        ("mounting", mounting),
        ("pushing_manifests", pushing_manifests),
        ("manifests_of_every_kind", manifests_of_every_kind),
        ("subjects_and_referrers", subjects_and_referrers),
        ("listing_tags", listing_tags),
        ("deleting", deleting),
        ("errors", errors),
    ];
    let each = sections.into_iter().map(|(name, section)| {
        trial(&format!("spec::{name}"), &[], move || {
            let mut lab = Lab::new()?;
            let mut spec = Spec { host: lab.serve(&[])?, statement: "", broken: Vec::new() };
            section(&mut spec)?;
            if spec.broken.is_empty() { Ok(()) } else { Err(spec.broken.join("\n").into()) }
        })
    });
    each.collect()
}

/// A registry, the statement that is being tried, and those that were found not to hold.
struct Spec {
    host: String,
    statement: &'static str,
    broken: Vec<String>,
}

/// An answer of the registry.
struct Answer {
    asked: String,
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The code of the first error.
    fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Spec {
    /// What is tried from here on.
    fn says(&mut self, statement: &'static str) {
        self.statement = statement;
    }

    fn holds(&mut self, what: &str, holds: bool) {
        if !holds {
            self.broken.push(format!("{}\n    {what}", self.statement));
        }
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: T, wanted: T) {
        let both = [found, wanted];
        let [found, wanted] = &both;
        self.holds(&format!("{what}: {found:?} instead of {wanted:?}"), found == wanted);
    }

    /// Sends a request that has to be answered with a status.
    fn ask(&mut self, status: u16, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, Failed> {
        let answer = exchange(&self.host, request, headers, body)?;
        self.equal(request, answer.status, status);
        Ok(answer)
    }

    fn get(&mut self, status: u16, path: &str) -> Result<Answer, Failed> {
        self.ask(status, &format!("GET {path}"), &[], b"")
    }

    /// A GET and a HEAD, which have to say the same.
    fn look(&mut self, status: u16, path: &str) -> Result<Answer, Failed> {
        let whole = self.get(status, path)?;
        let head = self.ask(status, &format!("HEAD {path}"), &[], b"")?;
        for name in ["content-length", "content-type", "docker-content-digest", "link"] {
            self.equal(&format!("{name} of HEAD {path}"), head.header(name), whole.header(name));
        }
        self.equal("the body of HEAD", head.body.len(), 0);
        Ok(whole)
    }

    /// Begins an upload. Answers where it is.
    fn begin(&mut self, more: &str) -> Result<String, Failed> {
        let answer = self.ask(202, &format!("POST /v2/{REPOSITORY}/blobs/uploads/{more}"), &[], b"")?;
        Ok(answer.header("location").to_owned())
    }

    /// A blob that is there.
    fn blob(&mut self, content: &[u8]) -> Result<Digest, Failed> {
        self.blob_in(REPOSITORY, Digest::of(content), content)
    }

    fn blob_in(&mut self, repository: &str, digest: Digest, content: &[u8]) -> Result<Digest, Failed> {
        self.ask(201, &format!("POST /v2/{repository}/blobs/uploads/?digest={digest}"), &[], content)?;
        Ok(digest)
    }

    fn put(&mut self, status: u16, reference: &str, kind: &str, content: &[u8]) -> Result<Answer, Failed> {
        let request = format!("PUT /v2/{REPOSITORY}/manifests/{reference}");
        self.ask(status, &request, &[("content-type", kind)], content)
    }

    /// A manifest whose configuration and layer are there.
    fn manifest(&mut self, more: Value) -> Result<Vec<u8>, Failed> {
        let (config, layer) = (self.blob(b"{}")?, self.blob(b"a layer")?);
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": EMPTY, "digest": config.to_string(), "size": 2 },
            "layers": [{ "mediaType": BYTES, "digest": layer.to_string(), "size": 7 }],
        });
        if let (Some(fields), Value::Object(more)) = (manifest.as_object_mut(), more) {
            fields.extend(more);
        }
        Ok(manifest.to_string().into())
    }
}

/// One request on a connection of its own.
fn exchange(host: &str, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, Failed> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut head = format!("{request} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    stream.write_all(format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes())?;
    stream.write_all(body)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    let end = reply.windows(4).position(|window| window == b"\r\n\r\n").ok_or("a reply without an end of its head")?;
    let head = text(&reply[..end]);
    let mut lines = head.lines();
    let status =
        lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or("a reply without a status")?;
    let mut headers: HashMap<String, String> = HashMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let known = headers.entry(name.to_ascii_lowercase()).or_default();
        *known = if known.is_empty() { value.to_owned() } else { format!("{known}, {value}") };
    }
    Ok(Answer { asked: request.to_owned(), status, headers, body: reply[end + 4..].to_vec() })
}

fn blob_path(digest: &Digest) -> String {
    format!("/v2/{REPOSITORY}/blobs/{digest}")
}

fn manifest_path(reference: impl std::fmt::Display) -> String {
    format!("/v2/{REPOSITORY}/manifests/{reference}")
}

fn support(spec: &mut Spec) -> Result<(), Failed> {
    spec.says("end-1: GET /v2/ is answered 200 OK by a registry that implements this specification");
    let answer = spec.look(200, "/v2/")?;
    spec.equal("the header", answer.header("docker-distribution-api-version"), "registry/2.0");
    spec.get(200, "/v2")?;
    spec.says("what is no address of a registry is answered 404");
    spec.get(404, "/v1/")?;
    spec.get(404, "/v2/a/things/b")?;
    spec.says("a method that an address does not have is answered 405, with those that it has");
    for (request, allowed) in [
        ("DELETE /v2/", "GET, HEAD"),
        ("PUT /v2/a/tags/list", "GET, HEAD"),
        ("POST /v2/a/manifests/x", "GET, HEAD, PUT, DELETE"),
        ("GET /v2/a/blobs/uploads/", "POST"),
    ] {
        let answer = spec.ask(405, request, &[], b"")?;
        spec.equal("Allow", answer.header("allow"), allowed);
    }
    Ok(())
}

fn pulling_blobs(spec: &mut Spec) -> Result<(), Failed> {
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

fn pulling_manifests(spec: &mut Spec) -> Result<(), Failed> {
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

fn pushing_at_once(spec: &mut Spec) -> Result<(), Failed> {
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

fn pushing_in_chunks(spec: &mut Spec) -> Result<(), Failed> {
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

fn mounting(spec: &mut Spec) -> Result<(), Failed> {
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

fn pushing_manifests(spec: &mut Spec) -> Result<(), Failed> {
    let content = spec.manifest(json!({ "annotations": { "a": "b" } }))?;
    let digest = Digest::of(&content);
    spec.says("a manifest that was pushed MUST be answered 201 Created, with its Location and its digest");
    for reference in ["v1", &digest.to_string()] {
        let answer = spec.put(201, reference, MANIFEST, &content)?;
        spec.equal("digest", answer.header("docker-content-digest"), &digest.to_string());
        let pulled = spec.get(200, answer.header("location"))?;
        spec.equal("the registry MUST store the manifest exactly", &pulled.body, &content);
    }
    spec.says("a digest of another algorithm stays the manifest's digest");
    let other = Digest::with(Algorithm::Sha512, &content);
    let answer = spec.put(201, &format!("{other}?tag=five&tag=twelve"), MANIFEST, &content)?;
    spec.equal("digest", answer.header("docker-content-digest"), &other.to_string());
    spec.says("end-7b: tags behind the question mark are set, and told");
    spec.equal("OCI-Tag", answer.header("oci-tag"), "five, twelve");
    for reference in ["five", "twelve", &other.to_string()] {
        let answer = spec.look(200, &manifest_path(reference))?;
        spec.equal(reference, answer.header("docker-content-digest"), &other.to_string());
    }
    spec.says("a manifest whose digest is another than it was pushed by is answered 400");
    let answer = spec.put(400, &Digest::of(b"another").to_string(), MANIFEST, &content)?;
    spec.equal("code", answer.code().as_str(), "DIGEST_INVALID");
    spec.put(400, "sha256:ab", MANIFEST, &content)?;
    spec.says("registries SHOULD ignore parameters of Content-Type");
    spec.put(201, "v2", &format!("{MANIFEST}; charset=utf-8"), &content)?;
    let pulled = spec.get(200, &manifest_path("v2"))?;
    spec.equal("type", pulled.header("content-type"), MANIFEST);
    spec.says("the client MAY use conditional requests, so that it undoes nobody's change (RFC 9110, 13.1)");
    let tag = format!("\"{digest}\"");
    for (status, reference, condition) in [
        (412, "v2", ("if-none-match", "*")),
        (201, "v2", ("if-match", tag.as_str())),
        (412, "v2", ("if-match", "\"sha256:ab\"")),
        (412, "v9", ("if-match", "*")),
        (201, "v9", ("if-none-match", "*")),
    ] {
        let request = format!("PUT {}", manifest_path(reference));
        spec.ask(status, &request, &[("content-type", MANIFEST), condition], &content)?;
    }
    spec.says("Content-Type MUST be the mediaType that the manifest says");
    spec.put(400, "v3", INDEX, &content)?;
    spec.says("a reference is a tag or a digest, and nothing else");
    for reference in [".hidden", "-x", "a%20b", &"x".repeat(129)] {
        spec.put(400, reference, MANIFEST, &content)?;
    }
    spec.says("a manifest is JSON");
    for wrong in [&b"no JSON"[..], b"", b"[]", b"{"] {
        let answer = spec.put(400, "v4", MANIFEST, wrong)?;
        spec.equal("code", answer.code().as_str(), "MANIFEST_INVALID");
    }
    spec.says("manifests of 4 MiB are taken; more SHOULD be answered 413 Payload Too Large");
    let bare = spec.manifest(json!({ "annotations": { "a": "" } }))?.len();
    let largest = spec.manifest(json!({ "annotations": { "a": "x".repeat((4 << 20) - bare) } }))?;
    spec.equal("bytes", largest.len(), 4 << 20);
    spec.put(201, "large", MANIFEST, &largest)?;
    let pulled = spec.get(200, &manifest_path("large"))?;
    spec.equal("bytes", pulled.body.len(), 4 << 20);
    let larger = spec.manifest(json!({ "annotations": { "a": "x".repeat(5 << 20) } }))?;
    spec.put(413, "larger", MANIFEST, &larger)?;
    spec.says("MANIFEST_BLOB_UNKNOWN for each blob that the manifest names and nobody has pushed");
    let missing = [Digest::of(b"nowhere"), Digest::of(b"nor there")];
    let layers = missing.map(|one| json!({ "mediaType": BYTES, "digest": one.to_string(), "size": 7 }));
    let holed = spec.manifest(json!({ "layers": layers }))?;
    let answer = spec.put(400, "v5", MANIFEST, &holed)?.json();
    let codes: Vec<&str> =
        answer["errors"].as_array().into_iter().flatten().filter_map(|e| e["code"].as_str()).collect();
    spec.equal("codes", codes, vec!["MANIFEST_BLOB_UNKNOWN"; 2]);
    spec.get(404, &manifest_path("v5")).map(drop)
}

fn manifests_of_every_kind(spec: &mut Spec) -> Result<(), Failed> {
    let content = spec.manifest(json!({}))?;
    let digest = Digest::of(&content);
    spec.put(201, &digest.to_string(), MANIFEST, &content)?;
    let listed = json!({ "mediaType": MANIFEST, "digest": digest.to_string(), "size": content.len() });
    let missing = json!({ "mediaType": MANIFEST, "digest": Digest::of(b"nowhere").to_string(), "size": 7 });
    let (docker, list) = (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    );
    let index = |kind: &str, all: &[&Value]| json!({ "schemaVersion": 2, "mediaType": kind, "manifests": all });
    let config = json!({ "mediaType": EMPTY, "digest": Digest::of(b"{}").to_string(), "size": 2 });
    // No blob of this one was pushed, since all of it is in the descriptor.
    let mut inline = json!({ "mediaType": "text/plain", "digest": Digest::of(b"inline").to_string(), "size": 6 });
    inline["data"] = "aW5saW5l".into();
    let foreign = json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "size": 7,
        "digest": Digest::of(b"elsewhere").to_string(), "urls": ["https://example.org/layer"],
    });
    spec.says("an index, also a sparse, empty or nested one, an artifact, and what nobody knows yet, are manifests");
    let all = [
        ("index", INDEX, index(INDEX, &[&listed])),
        ("sparse", INDEX, index(INDEX, &[&listed, &missing])),
        ("empty-index", INDEX, index(INDEX, &[])),
        ("docker-list", list, index(list, &[&listed])),
        ("docker", docker, json!({ "schemaVersion": 2, "mediaType": docker, "config": config, "layers": [] })),
        ("no-media-type", MANIFEST, json!({ "schemaVersion": 2, "config": config, "layers": [] })),
        ("no-layers", MANIFEST, json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [] })),
        (
            "artifact",
            MANIFEST,
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example",
                "config": config, "layers": [inline, foreign] }),
        ),
        ("unknown", "application/vnd.example+json", json!({ "mediaType": "application/vnd.example+json", "new": [1] })),
    ];
    for (tag, kind, document) in all {
        // With blanks and an order of its own: the bytes are what counts.
        let content = serde_json::to_vec_pretty(&document)?;
        let answer = spec.put(201, tag, kind, &content)?;
        spec.equal(tag, answer.header("docker-content-digest"), &Digest::of(&content).to_string());
        let pulled = spec.look(200, &manifest_path(tag))?;
        spec.equal(tag, &pulled.body, &content);
        spec.equal(tag, pulled.header("content-type"), kind);
    }
    Ok(())
}

fn subjects_and_referrers(spec: &mut Spec) -> Result<(), Failed> {
    let content = spec.manifest(json!({}))?;
    for algorithm in Algorithm::ALL {
        let subject = Digest::with(algorithm, &content);
        let path = format!("/v2/{REPOSITORY}/referrers/{subject}");
        spec.says("if there is no referrer, the registry MUST answer 200 with an index of an empty list");
        let answer = spec.look(200, &path)?;
        let empty = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
        spec.equal("index", answer.json(), empty);
        spec.equal("type", answer.header("content-type"), INDEX);
        spec.says("a manifest whose subject is not there yet MUST be taken, and answered with OCI-Subject");
        let about = json!({ "mediaType": MANIFEST, "digest": subject.to_string(), "size": content.len() });
        let (sbom, signature) = ("application/vnd.example.sbom", "application/vnd.example.signature+json");
        let notes = json!({ "org.example": "a note" });
        let all = [
            (MANIFEST, spec.manifest(json!({ "subject": about, "artifactType": sbom, "annotations": notes }))?, sbom),
            (MANIFEST, spec.manifest(json!({ "subject": about, "artifactType": signature }))?, signature),
            (MANIFEST, spec.manifest(json!({ "subject": about, "annotations": { "no": "type" } }))?, EMPTY),
            (MANIFEST, spec.manifest(json!({ "subject": about, "artifactType": "" }))?, EMPTY),
            (
                INDEX,
                json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": about }).to_string().into(),
                "",
            ),
        ];
        for (kind, content, _) in &all {
            let answer = spec.put(201, &Digest::of(content).to_string(), kind, content)?;
            spec.equal("OCI-Subject", answer.header("oci-subject"), &subject.to_string());
        }
        spec.says(
            "each descriptor MUST have size, digest, artifactType (or the configuration's, or none) and annotations",
        );
        let listed = spec.look(200, &path)?.json();
        let listed: Vec<&Value> = listed["manifests"].as_array().into_iter().flatten().collect();
        spec.equal("referrers", listed.len(), all.len());
        for (kind, content, artifact) in &all {
            let digest = Digest::of(content).to_string();
            let one = listed.iter().find(|one| one["digest"] == digest.as_str());
            let one = one.copied().cloned().unwrap_or_default();
            spec.equal("mediaType", one["mediaType"].as_str(), Some(*kind));
            spec.equal("size", one["size"].as_u64(), Some(content.len() as u64));
            spec.equal("artifactType", one["artifactType"].as_str().unwrap_or_default(), artifact);
            let own: Value = serde_json::from_slice(content)?;
            spec.equal("annotations", &one["annotations"], &own["annotations"]);
        }
        spec.says("a filter MUST be told by OCI-Filters-Applied: artifactType");
        for (kind, count) in [(sbom, 1), (signature, 1), (EMPTY, 2), ("application/none", 0)] {
            let answer = spec.get(200, &format!("{path}?artifactType={}", kind.replace('+', "%2B")))?;
            spec.equal("OCI-Filters-Applied", answer.header("oci-filters-applied"), "artifactType");
            spec.equal(kind, answer.json()["manifests"].as_array().map(Vec::len), Some(count));
        }
        spec.says("what is not all in one answer MUST be linked to (RFC 8288, rel=next)");
        let (mut next, mut found) = (format!("{path}?n=2"), 0);
        while !next.is_empty() {
            let answer = spec.get(200, &next)?;
            found += answer.json()["manifests"].as_array().map_or(0, Vec::len);
            next = linked(&answer);
        }
        spec.equal("referrers on all pages", found, all.len());
        spec.says("a referrer that was deleted is listed no more; its subject need not be there for that");
        spec.ask(202, &format!("DELETE {}", manifest_path(Digest::of(&all[0].1))), &[], b"")?;
        let left = spec.get(200, &path)?.json();
        spec.equal("referrers", left["manifests"].as_array().map(Vec::len), Some(all.len() - 1));
        spec.says("a subject that is deleted keeps those that refer to it");
        spec.put(201, &subject.to_string(), MANIFEST, &content)?;
        spec.ask(202, &format!("DELETE {}", manifest_path(subject)), &[], b"")?;
        let left = spec.get(200, &path)?.json();
        spec.equal("referrers", left["manifests"].as_array().map(Vec::len), Some(all.len() - 1));
    }
    spec.says("a manifest without a subject is answered without OCI-Subject");
    let answer = spec.put(201, "plain", MANIFEST, &content)?;
    spec.equal("OCI-Subject", answer.header("oci-subject"), "");
    spec.says("the registry MUST NOT answer 404 to a request for referrers; an invalid digest MUST be answered 400");
    spec.get(200, &format!("/v2/nowhere/referrers/{}", Digest::of(b"nothing")))?;
    spec.get(400, &format!("/v2/{REPOSITORY}/referrers/sha256:ab"))?;
    spec.get(400, &format!("/v2/{REPOSITORY}/referrers/latest"))?;
    let wrong = spec.manifest(json!({ "subject": { "mediaType": MANIFEST, "digest": "sha256:ab", "size": 1 } }))?;
    spec.put(400, "wrong", MANIFEST, &wrong).map(drop)
}

/// Where a list goes on.
fn linked(answer: &Answer) -> String {
    let link = answer.header("link");
    let target = link.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    target.filter(|(_, rest)| rest.contains("rel=\"next\"")).map(|(to, _)| to.to_owned()).unwrap_or_default()
}

fn listing_tags(spec: &mut Spec) -> Result<(), Failed> {
    let content = spec.manifest(json!({}))?;
    let path = format!("/v2/{REPOSITORY}/tags/list");
    let tags = |answer: &Answer| -> Vec<String> {
        let tags = answer.json()["tags"].as_array().cloned().unwrap_or_default();
        tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect()
    };
    spec.says("if the repository exists, the answer MUST be 200 OK; the list MAY be empty");
    let answer = spec.look(200, &path)?;
    spec.equal("list", answer.json(), json!({ "name": REPOSITORY, "tags": [] }));
    // Pushed in no order, with capitals and what sorts around them.
    for tag in ["latest", "Zeta", "1.10", "_a", "1.2", "alpha"] {
        spec.put(201, tag, MANIFEST, &content)?;
    }
    let all = ["1.10", "1.2", "Zeta", "_a", "alpha", "latest"];
    spec.says("the tags MUST be in lexical order");
    let answer = spec.look(200, &path)?;
    spec.equal("tags", tags(&answer), all.map(str::to_owned).to_vec());
    spec.equal("Link", answer.header("link"), "");
    spec.says("n limits the tags, last is the tag that they come after, and is not among them");
    for (query, wanted) in [
        ("?n=2", &all[..2]),
        ("?n=4&last=1.2", &all[2..]),
        ("?n=100", &all[..]),
        ("?last=alpha", &all[5..]),
        ("?last=b&n=9", &all[5..]),
        ("?n=2&last=latest", &[]),
    ] {
        let answer = spec.look(200, &format!("{path}{query}"))?;
        spec.equal(query, tags(&answer), wanted.iter().map(|&tag| tag.to_owned()).collect());
    }
    spec.says("n=0: an empty list, without Link");
    let answer = spec.get(200, &format!("{path}?n=0"))?;
    spec.equal("tags", (tags(&answer).len(), answer.header("link")), (0, ""));
    spec.says("Link leads through all of them, and ends");
    let (mut next, mut found, mut pages) = (format!("{path}?n=4"), Vec::new(), 0);
    while !next.is_empty() {
        let answer = spec.get(200, &next)?;
        found.extend(tags(&answer));
        pages += 1;
        next = linked(&answer);
    }
    spec.equal("all", (found, pages), (all.map(str::to_owned).to_vec(), 2));
    spec.says("what is no number is answered 400, and a repository that is not there 404");
    spec.get(400, &format!("{path}?n=many"))?;
    spec.get(400, &format!("{path}?n=-1"))?;
    let answer = spec.get(404, "/v2/nowhere/tags/list")?;
    spec.equal("code", answer.code().as_str(), "NAME_UNKNOWN");
    Ok(())
}

fn deleting(spec: &mut Spec) -> Result<(), Failed> {
    let content = spec.manifest(json!({}))?;
    let digest = Digest::of(&content);
    for tag in ["one", "two", "three"] {
        spec.put(201, tag, MANIFEST, &content)?;
    }
    spec.says("deleting a tag MUST be answered 202; a GET of it 404; other tags and the manifest stay");
    spec.ask(202, &format!("DELETE {}", manifest_path("one")), &[], b"")?;
    spec.look(404, &manifest_path("one"))?;
    spec.get(200, &manifest_path("two"))?;
    spec.get(200, &manifest_path(digest))?;
    spec.says("deleting a manifest MUST be answered 202; a GET of it, or of any tag of it, 404");
    spec.ask(202, &format!("DELETE {}", manifest_path(digest)), &[], b"")?;
    for reference in ["two", "three", &digest.to_string()] {
        spec.look(404, &manifest_path(reference))?;
        let answer = spec.ask(404, &format!("DELETE {}", manifest_path(reference)), &[], b"")?;
        spec.equal("code", answer.code().as_str(), "MANIFEST_UNKNOWN");
    }
    let answer = spec.get(200, &format!("/v2/{REPOSITORY}/tags/list"))?.json();
    spec.equal("tags", &answer["tags"], &json!([]));
    spec.says("what was deleted may be pushed again");
    spec.put(201, "one", MANIFEST, &content)?;
    spec.says("deleting a blob MUST be answered 202; a GET of it 404; other repositories keep it");
    let layer = Digest::of(b"a layer");
    spec.ask(201, &format!("POST /v2/other/blobs/uploads/?mount={layer}&from={REPOSITORY}"), &[], b"")?;
    spec.ask(202, &format!("DELETE {}", blob_path(&layer)), &[], b"")?;
    spec.look(404, &blob_path(&layer))?;
    spec.get(200, &format!("/v2/other/blobs/{layer}"))?;
    spec.says("a blob, manifest or repository that is not there MUST be answered 404");
    spec.ask(404, &format!("DELETE {}", blob_path(&layer)), &[], b"")?;
    spec.ask(404, &format!("DELETE /v2/{REPOSITORY}/blobs/sha256:ab"), &[], b"")?;
    spec.ask(404, &format!("DELETE /v2/nowhere/manifests/{digest}"), &[], b"")?;
    spec.ask(404, "DELETE /v2/nowhere/manifests/one", &[], b"")?;
    spec.ask(404, &format!("DELETE /v2/nowhere/blobs/{layer}"), &[], b"").map(drop)
}

fn errors(spec: &mut Spec) -> Result<(), Failed> {
    spec.says("the code of an error MUST be one of the specification's, and the body of its form");
    let nothing = Digest::of(b"nothing");
    let long = format!("/v2/{}/tags/list", "a".repeat(256));
    let requests = [
        (404, format!("GET /v2/a/blobs/{nothing}"), "BLOB_UNKNOWN"),
        (404, "GET /v2/a/blobs/uploads/none".to_owned(), "BLOB_UPLOAD_UNKNOWN"),
        (404, "GET /v2/a/manifests/none".to_owned(), "MANIFEST_UNKNOWN"),
        (404, "GET /v2/a/tags/list".to_owned(), "NAME_UNKNOWN"),
        (400, "GET /v2/A/tags/list".to_owned(), "NAME_INVALID"),
        (400, "GET /v2/a../tags/list".to_owned(), "NAME_INVALID"),
        (400, format!("GET {long}"), "NAME_INVALID"),
        (400, "GET /v2/a/referrers/x".to_owned(), "DIGEST_INVALID"),
        (400, "PUT /v2/a/manifests/-x".to_owned(), "MANIFEST_INVALID"),
        (400, "PUT /v2/a/manifests/x".to_owned(), "MANIFEST_INVALID"),
        (400, "POST /v2/a/blobs/uploads/?digest=x".to_owned(), "DIGEST_INVALID"),
        (405, "DELETE /v2/".to_owned(), "UNSUPPORTED"),
        (404, "GET /nowhere".to_owned(), "UNSUPPORTED"),
    ];
    for (status, request, code) in requests {
        let answer = spec.ask(status, &request, &[], b"")?;
        spec.equal(&request, answer.code().as_str(), code);
        spec.equal(&request, answer.header("content-type"), "application/json");
        let body = answer.json();
        for error in body["errors"].as_array().into_iter().flatten() {
            spec.holds(&request, error["code"].as_str().is_some_and(|code| CODES.contains(&code)));
            spec.holds(&request, error["message"].is_string());
        }
    }
    Ok(())
}
