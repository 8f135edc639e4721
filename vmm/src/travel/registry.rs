//! A registry, as a place for blobs: the few requests of the distribution specification (1.1) that a snapshot needs.
//!
//! A blob is asked for before it is sent, for another snapshot may have brought it; a manifest comes last, when all that it
//! lists is there. A registry on this machine is spoken to without TLS, all others with. Where one asks who we are, it is
//! told what `docker login` has kept: by itself (Basic), or to the server that it names, which gives a token (Bearer).

use std::cell::RefCell;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use ureq::http::{Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::TravelError;
use super::layout::{Blobs, Descriptor, LARGEST, MANIFEST, Manifest, verified};
use crate::snapshot::raw::hex;

/// How long a registry may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest answer that is no blob, in bytes.
const LARGEST_ANSWER: u64 = 1 << 20;

/// What a registry has something under: `REGISTRY/REPOSITORY:TAG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Its host, and maybe its port.
    pub registry: String,
    /// The name there.
    pub repository: String,
    /// Which of that name.
    pub tag: String,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (registry, rest) = text.split_once('/').ok_or("it is no REGISTRY/REPOSITORY:TAG")?;
        let (repository, tag) = rest.rsplit_once(':').unwrap_or((rest, "latest"));
        let host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        let part = |part: &str| {
            let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
            !part.is_empty() && part.bytes().all(inner) && !part.starts_with(['.', '-', '_'])
        };
        let good_tag = tag.len() <= 128
            && !tag.starts_with(['.', '-'])
            && !tag.is_empty()
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if registry.is_empty() || !registry.bytes().all(host) || !repository.split('/').all(part) || !good_tag {
            return Err("it is no REGISTRY/REPOSITORY:TAG".to_owned());
        }
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), tag: tag.to_owned() })
    }
}

/// A repository of a registry.
pub(super) struct Registry {
    agent: Agent,
    reference: Reference,
    /// What proves who asks, once the registry has wanted to know.
    known: RefCell<Option<String>>,
}

/// What is sent along.
type Load<'a> = Option<(&'a str, &'a [u8])>;

impl Registry {
    pub(super) fn new(reference: &Reference) -> Self {
        let system = rustls_native_certs::load_native_certs().certs;
        let roots: Vec<_> = system.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .user_agent(concat!("isolab-vm/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .timeout_per_write(Some(PATIENCE))
            .build();
        Self { agent: config.into(), reference: reference.clone(), known: RefCell::default() }
    }

    fn base(&self) -> String {
        let scheme = if is_loopback(&self.reference.registry) { "http" } else { "https" };
        format!("{scheme}://{}", self.reference.registry)
    }

    /// A path of the repository's.
    fn path(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base(), self.reference.repository)
    }

    /// Sends a request; a second time, with what proves who asks, where the registry wants to know.
    fn send(&self, method: &str, to: &str, accept: &str, load: Load<'_>) -> Result<Response<Body>, TravelError> {
        let response = self.send_once(method, to, accept, load)?;
        if response.status().as_u16() != 401 {
            return Ok(response);
        }
        let challenge = response.headers().get("www-authenticate").and_then(|header| header.to_str().ok());
        let known = self.prove(challenge.unwrap_or_default())?;
        *self.known.borrow_mut() = Some(known);
        self.send_once(method, to, accept, load)
    }

    fn send_once(&self, method: &str, to: &str, accept: &str, load: Load<'_>) -> Result<Response<Body>, TravelError> {
        let mut request = Request::builder().method(method).uri(to);
        if !accept.is_empty() {
            request = request.header("accept", accept);
        }
        // What proves who asks goes to the registry, and to nobody that it names.
        let own = to.strip_prefix(&self.base()).is_some_and(|rest| rest.starts_with('/'));
        if let Some(known) = self.known.borrow().as_ref().filter(|_| own) {
            request = request.header("authorization", known);
        }
        let wrong = |_| self.refused(method, to, "it is no address".to_owned());
        let outcome = match load {
            Some((kind, bytes)) => self.agent.run(request.header("content-type", kind).body(bytes).map_err(wrong)?),
            None if method == "POST" => self.agent.run(request.body(&[][..]).map_err(wrong)?),
            None => self.agent.run(request.body(()).map_err(wrong)?),
        };
        outcome.map_err(|error| self.unreachable(error))
    }

    /// Does what a registry asks for that does not know us.
    fn prove(&self, challenge: &str) -> Result<String, TravelError> {
        let kept = kept_password(&self.reference.registry);
        let refused = || TravelError::Unauthorized(self.reference.registry.clone());
        let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return kept.ok_or_else(refused);
        }
        let realm = parameter(rest, "realm").filter(|_| scheme.eq_ignore_ascii_case("bearer")).ok_or_else(refused)?;
        // The password goes nowhere without TLS, unless that is how the registry itself is spoken to.
        if !realm.starts_with("https://") && !is_loopback(&self.reference.registry) {
            return Err(refused());
        }
        let scope = format!("repository:{}:pull,push", self.reference.repository);
        let mut request = self.agent.get(&realm).query("scope", scope);
        if let Some(service) = parameter(rest, "service") {
            request = request.query("service", service);
        }
        if let Some(kept) = kept {
            request = request.header("authorization", kept);
        }
        let answer = request.call().map_err(|error| self.unreachable(error))?;
        let answer: Value = serde_json::from_slice(&self.body(answer, LARGEST_ANSWER)?).unwrap_or_default();
        let token = ["token", "access_token"].iter().find_map(|field| answer.get(field)?.as_str());
        token.map(|token| format!("Bearer {token}")).ok_or_else(refused)
    }

    /// What an answer brings, and no more than `most` bytes of it.
    fn body(&self, response: Response<Body>, most: u64) -> Result<Vec<u8>, TravelError> {
        let mut bytes = Vec::new();
        let read = response.into_body().into_reader().take(most).read_to_end(&mut bytes);
        read.map_err(|error| self.unreachable(error.into()))?;
        Ok(bytes)
    }

    /// An answer with one of these statuses, or an error.
    fn expect(&self, response: Response<Body>, good: &[u16], what: &str) -> Result<Response<Body>, TravelError> {
        let status = response.status().as_u16();
        if good.contains(&status) {
            return Ok(response);
        }
        if status == 401 {
            return Err(TravelError::Unauthorized(self.reference.registry.clone()));
        }
        let said = self.body(response, 500).unwrap_or_default();
        let said: String = String::from_utf8_lossy(&said).chars().filter(|letter| !letter.is_control()).collect();
        Err(self.refused(what, &self.reference.repository, format!("{status} {said}")))
    }

    fn refused(&self, what: &str, on: &str, why: String) -> TravelError {
        TravelError::Refused { registry: self.reference.registry.clone(), what: format!("{what} {on}"), why }
    }

    fn unreachable(&self, source: ureq::Error) -> TravelError {
        TravelError::Registry { registry: self.reference.registry.clone(), source: Box::new(source) }
    }
}

impl Blobs for Registry {
    fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, TravelError> {
        let digest = format!("sha256:{}", hex(&Sha256::digest(bytes)));
        let descriptor = Descriptor::new(media_type, digest.clone(), bytes.len() as u64);
        let there = self.send("HEAD", &self.path(&format!("blobs/{digest}")), "", None)?;
        if there.status().as_u16() == 200 {
            return Ok(descriptor);
        }
        let begun = self.send("POST", &self.path("blobs/uploads/"), "", None)?;
        let begun = self.expect(begun, &[202], "begin to send a blob to")?;
        let location = begun.headers().get("location").and_then(|header| header.to_str().ok()).unwrap_or_default();
        let to = if location.starts_with('/') { format!("{}{location}", self.base()) } else { location.to_owned() };
        let to = format!("{to}{}digest={digest}", if to.contains('?') { '&' } else { '?' });
        let sent = self.send("PUT", &to, "", Some(("application/octet-stream", bytes)))?;
        self.expect(sent, &[201], "send a blob to")?;
        Ok(descriptor)
    }

    fn get(&self, blob: &Descriptor, most: u64) -> Result<Vec<u8>, TravelError> {
        verified(blob, most, |_| {
            let response = self.send("GET", &self.path(&format!("blobs/{}", blob.digest)), "", None)?;
            self.body(self.expect(response, &[200], "fetch a blob of")?, blob.size + 1)
        })
    }

    fn tag(&self, tag: &str, manifest: &Manifest) -> Result<(), TravelError> {
        let json = |source| TravelError::Json { what: "the manifest".to_owned(), source };
        let bytes = serde_json::to_vec(manifest).map_err(json)?;
        let sent = self.send("PUT", &self.path(&format!("manifests/{tag}")), "", Some((MANIFEST, &bytes)))?;
        self.expect(sent, &[201], "send the manifest to").map(drop)
    }

    fn tagged(&self, tag: &str) -> Result<Manifest, TravelError> {
        let response = self.send("GET", &self.path(&format!("manifests/{tag}")), MANIFEST, None)?;
        if response.status().as_u16() == 404 {
            let name = format!("{}/{}", self.reference.registry, self.reference.repository);
            return Err(TravelError::NoTag { path: PathBuf::from(name), tag: tag.to_owned() });
        }
        let bytes = self.body(self.expect(response, &[200], "fetch the manifest of")?, LARGEST)?;
        serde_json::from_slice(&bytes)
            .map_err(|source| TravelError::Json { what: format!("the manifest {tag}"), source })
    }
}

/// Whether a host, maybe with a port, is this machine: whoever could listen in could as well read the registry's memory.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, _)) => name,
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A field of a `WWW-Authenticate` header (RFC 9110, 11.6.1), as registries write it.
fn parameter(text: &str, name: &str) -> Option<String> {
    let after = text.split_once(&format!("{name}=\""))?.1;
    Some(after.split_once('"')?.0.to_owned())
}

/// What `docker login` has kept for a registry in `config.json`, as the header that tells it.
fn kept_password(registry: &str) -> Option<String> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    let folder = folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    let kept: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).ok()?).ok()?;
    let auths = kept.get("auths")?;
    let entry = [registry.to_owned(), format!("https://{registry}")].iter().find_map(|key| auths.get(key).cloned())?;
    Some(format!("Basic {}", entry.get("auth")?.as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_registry_repository_and_tag() {
        let parse = |text: &str| {
            text.parse::<Reference>().map(|reference| (reference.registry, reference.repository, reference.tag))
        };
        let parts = |a: &str, b: &str, c: &str| Ok((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(parse("127.0.0.1:5000/a/b:v1"), parts("127.0.0.1:5000", "a/b", "v1"));
        assert_eq!(parse("registry.example/web"), parts("registry.example", "web", "latest"));
        for wrong in ["", "web", "a/", "a/B:c", "a/b:", "a/../b:c", "a b/c:d", "a/b:.c", "/b:c", "a/b?c:d"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_challenge_is_understood() {
        let text = r#"realm="https://auth.example/token",service="r, s""#;
        assert_eq!(parameter(text, "realm").as_deref(), Some("https://auth.example/token"));
        assert_eq!(parameter(text, "service").as_deref(), Some("r, s"));
        assert_eq!(parameter("realm=x", "realm"), None);
    }

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        for host in ["localhost:5000", "127.0.0.1", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "127.0.0.1.example", "[::2]:5000", "registry.example:80"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
