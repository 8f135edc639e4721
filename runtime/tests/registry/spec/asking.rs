//! A registry that is asked, and what it answers beside what the specification says.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use isolab_runtime::image::Digest;
use libtest_mimic::Failed;
use serde_json::{Value, json};

use super::super::checks::text;
use super::{BYTES, EMPTY, MANIFEST, REPOSITORY};

/// A registry, the statement that is being tried, and those that were found not to hold.
pub(super) struct Spec {
    host: String,
    statement: &'static str,
    broken: Vec<String>,
}

/// An answer of the registry.
pub(super) struct Answer {
    pub(super) asked: String,
    status: u16,
    headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The code of the first error.
    pub(super) fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Spec {
    pub(super) fn of(host: String) -> Self {
        Self { host, statement: "", broken: Vec::new() }
    }

    /// Whether all was borne out.
    pub(super) fn end(self) -> Result<(), Failed> {
        if self.broken.is_empty() { Ok(()) } else { Err(self.broken.join("\n").into()) }
    }

    /// What is tried from here on.
    pub(super) fn says(&mut self, statement: &'static str) {
        self.statement = statement;
    }

    pub(super) fn holds(&mut self, what: &str, holds: bool) {
        if !holds {
            self.broken.push(format!("{}\n    {what}", self.statement));
        }
    }

    pub(super) fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: T, wanted: T) {
        let both = [found, wanted];
        let [found, wanted] = &both;
        self.holds(&format!("{what}: {found:?} instead of {wanted:?}"), found == wanted);
    }

    /// Sends a request that has to be answered with a status.
    pub(super) fn ask(
        &mut self,
        status: u16,
        request: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Failed> {
        let answer = exchange(&self.host, request, headers, body)?;
        self.equal(request, answer.status, status);
        Ok(answer)
    }

    pub(super) fn get(&mut self, status: u16, path: &str) -> Result<Answer, Failed> {
        self.ask(status, &format!("GET {path}"), &[], b"")
    }

    /// A GET and a HEAD, which have to say the same.
    pub(super) fn look(&mut self, status: u16, path: &str) -> Result<Answer, Failed> {
        let whole = self.get(status, path)?;
        let head = self.ask(status, &format!("HEAD {path}"), &[], b"")?;
        for name in ["content-length", "content-type", "docker-content-digest", "link"] {
            self.equal(&format!("{name} of HEAD {path}"), head.header(name), whole.header(name));
        }
        self.equal("the body of HEAD", head.body.len(), 0);
        Ok(whole)
    }

    /// Begins an upload. Answers where it is.
    pub(super) fn begin(&mut self, more: &str) -> Result<String, Failed> {
        let answer = self.ask(202, &format!("POST /v2/{REPOSITORY}/blobs/uploads/{more}"), &[], b"")?;
        Ok(answer.header("location").to_owned())
    }

    /// A blob that is there.
    pub(super) fn blob(&mut self, content: &[u8]) -> Result<Digest, Failed> {
        self.blob_in(REPOSITORY, Digest::of(content), content)
    }

    pub(super) fn blob_in(&mut self, repository: &str, digest: Digest, content: &[u8]) -> Result<Digest, Failed> {
        self.ask(201, &format!("POST /v2/{repository}/blobs/uploads/?digest={digest}"), &[], content)?;
        Ok(digest)
    }

    pub(super) fn put(&mut self, status: u16, reference: &str, kind: &str, content: &[u8]) -> Result<Answer, Failed> {
        let request = format!("PUT /v2/{REPOSITORY}/manifests/{reference}");
        self.ask(status, &request, &[("content-type", kind)], content)
    }

    /// A manifest whose configuration and layer are there.
    pub(super) fn manifest(&mut self, more: Value) -> Result<Vec<u8>, Failed> {
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

pub(super) fn blob_path(digest: &Digest) -> String {
    format!("/v2/{REPOSITORY}/blobs/{digest}")
}

pub(super) fn manifest_path(reference: impl std::fmt::Display) -> String {
    format!("/v2/{REPOSITORY}/manifests/{reference}")
}

/// Where a list goes on.
pub(super) fn linked(answer: &Answer) -> String {
    let link = answer.header("link");
    let target = link.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    target.filter(|(_, rest)| rest.contains("rel=\"next\"")).map(|(to, _)| to.to_owned()).unwrap_or_default()
}
