//! The other side: fetches images from registries, and brings them there.
//!
//! [`Client::connect`] finds out how a registry wants to be spoken to: with TLS or, on this machine, without; with a
//! password, or with a token that another server gives for one. `transport` sends requests, follows redirects and tries
//! again; `pull` and `push` say what to send, and `whole` does it for all platforms at once.

mod auth;
mod blob;
mod credentials;
mod error;
mod manifest;
mod pull;
mod push;
mod several;
mod transport;
mod whole;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::image::Digest;

pub use credentials::{Config, Credentials};
pub use error::ClientError;
pub use manifest::{Manifest, manifest};
pub use pull::{Pulled, pull};
pub use push::{Pushed, push};
pub use whole::{pull_whole, push_whole};

use auth::Authority;

/// The host that speaks for docker's own registry.
const DOCKERS: &str = "index.docker.io";
/// What a manifest may weigh: a registry could send without end.
const LARGEST_MANIFEST: u64 = 4 << 20;

/// Files lie behind more redirects than registries' blobs do; browsers stop at 20.
const FILE_REDIRECTS: u32 = 20;

/// How to speak to registries.
#[derive(Debug, Clone)]
pub struct Options {
    /// A folder of certificates (`*.crt`, PEM) to trust besides the system's.
    pub certificates: Option<PathBuf>,
    /// Takes any certificate, and does without TLS where there is none.
    pub insecure: bool,
    /// How long a registry may say nothing.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { certificates: None, insecure: false, patience: Duration::from_secs(30) }
    }
}

/// Who is told how far a transfer is. Called from several threads.
pub trait Progress: Sync {
    /// A blob is about to be moved.
    fn begins(&self, digest: &Digest, size: u64);
    /// So much of it has been moved so far.
    fn at(&self, digest: &Digest, bytes: u64);
    /// What was begun needs no more telling of: something else takes its place.
    fn leaves(&self, _digest: &Digest) {}
    /// It is there; `how` says what was done, in a word or two.
    fn ends(&self, digest: &Digest, how: &str);
}

/// A registry that can be spoken to.
pub struct Client {
    agent: Agent,
    /// As it is named in references.
    registry: String,
    /// `https://HOST:PORT` or `http://HOST:PORT`.
    base: String,
    credentials: Option<Credentials>,
    authority: Mutex<Authority>,
}

impl Client {
    /// Finds out how a registry is spoken to. No password is sent.
    pub fn connect(registry: &str, options: &Options, credentials: Option<Credentials>) -> Result<Self, ClientError> {
        let host = if registry == "docker.io" { DOCKERS } else { registry };
        let mut client = Self {
            agent: agent(options)?,
            registry: registry.to_owned(),
            base: format!("https://{host}"),
            credentials,
            authority: Mutex::default(),
        };
        let plain = format!("http://{host}");
        if is_loopback(host) {
            // Whoever could listen in on this machine could as well read the registry's memory.
            let answer = client.probe(&plain);
            if answer.as_ref().is_ok_and(|status| matches!(status, 200 | 401 | 403)) {
                client.base = plain;
                return Ok(client);
            }
        }
        let status = match client.probe(&client.base.clone()) {
            Err(ClientError::Reach { .. }) if options.insecure => {
                client.base = plain;
                client.probe(&client.base.clone())?
            }
            other => other?,
        };
        match status {
            200 | 401 | 403 => Ok(client),
            status => Err(client.nonsense(format!("{status} at /v2/"))),
        }
    }

    /// Makes sure that the password is right. Answers what to keep in its place, where the registry's authority has given
    /// an identity token for it.
    pub fn log_in(&self) -> Result<Option<Credentials>, ClientError> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner).wants_identity = true;
        self.get("/v2/", "", None)?;
        let authority = self.authority.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(authority.identity.as_deref().map(Credentials::identity))
    }

    fn nonsense(&self, reason: impl Into<String>) -> ClientError {
        ClientError::Nonsense { host: self.registry.clone(), reason: reason.into() }
    }
}

/// Whether a host, maybe with a port, is this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, _)) => name,
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A connection pool that trusts whom it should. Redirects and statuses are the transport's to judge.
fn agent(options: &Options) -> Result<Agent, ClientError> {
    let mut roots: Vec<Certificate<'static>> = Vec::new();
    if !options.insecure {
        let system = rustls_native_certs::load_native_certs().certs;
        roots.extend(system.iter().map(|one| Certificate::from_der(one).to_owned()));
        if let Some(folder) = &options.certificates {
            roots.extend(certificates(folder)?);
        }
    }
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .disable_verification(options.insecure)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let patience = Some(options.patience);
    let config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("isolab-ctr/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(patience)
        .timeout_connect(patience)
        .timeout_recv_response(patience)
        .timeout_per_read(patience)
        .timeout_per_write(patience)
        .build();
    Ok(config.into())
}

/// Fetches a file by its address, from whoever has it: when it was changed last, as its server says, and its bytes.
pub(crate) fn get_file(address: &str) -> Result<(Option<String>, impl Read), ClientError> {
    let host = address.split('/').nth(2).unwrap_or(address).to_owned();
    let reach = |source| ClientError::Reach { host: host.clone(), source: Box::new(source) };
    let request = agent(&Options::default())?.get(address).config().max_redirects(FILE_REDIRECTS).build();
    let response = request.call().map_err(reach)?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(ClientError::Refused { host, status, request: format!("GET {address}"), said: String::new() });
    }
    let modified = response.headers().get("last-modified").and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok((modified, response.into_body().into_with_config().limit(u64::MAX).reader()))
}

/// The certificates in a folder, laid out as docker's certs.d.
fn certificates(folder: &Path) -> Result<Vec<Certificate<'static>>, ClientError> {
    let failed = |source: io::Error| ClientError::Config { attempt: "read", path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "crt") {
            continue;
        }
        let wrong = |_| ClientError::Certificate { path: path.clone() };
        for one in CertificateDer::pem_file_iter(&path).map_err(wrong)? {
            found.push(Certificate::from_der(&one.map_err(wrong)?).to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:80", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.org", "128.0.0.1", "[::2]:5000", "127.0.0.1.example.org:5000", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
