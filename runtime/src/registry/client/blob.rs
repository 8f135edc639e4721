//! A blob as it comes, and comes again where it breaks off.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use ureq::http::Response;
use ureq::{Body, BodyReader};

use super::transport::{Asking, Load, header};
use super::{Client, ClientError, Progress};
use crate::image::Digest;

/// How often a blob that breaks off is gone on with.
const RESUMES: u32 = 5;

/// Reads a blob to its promised end, over as many connections as that takes. Its bytes are not looked at: who reads
/// them hashes them.
pub(super) struct Arriving<'a> {
    client: &'a Client,
    progress: &'a dyn Progress,
    /// The blob's address, and what a token must be good for.
    to: String,
    scope: String,
    digest: Digest,
    size: u64,
    at: u64,
    resumes: u32,
    body: Option<BodyReader<'static>>,
    /// What an error that [`Read`] can carry has no words for.
    failure: &'a Mutex<Option<ClientError>>,
}

impl<'a> Arriving<'a> {
    /// A blob of a repository. Where it cannot be had, why is left in `failure`.
    pub(super) fn new(
        client: &'a Client,
        progress: &'a dyn Progress,
        repository: &str,
        (digest, size): (Digest, u64),
        failure: &'a Mutex<Option<ClientError>>,
    ) -> Self {
        let (to, scope) = (format!("/v2/{repository}/blobs/{digest}"), super::pull::pulling(repository));
        Self { client, progress, to, scope, digest, size, at: 0, resumes: RESUMES, body: None, failure }
    }

    /// Asks for what has not come yet.
    fn open(&self) -> Result<BodyReader<'static>, ClientError> {
        let range = format!("bytes={}-", self.at);
        let headers: &[(&str, &str)] = if self.at == 0 { &[] } else { &[("range", &range)] };
        let asking = Asking { method: "GET", to: &self.to, scope: &self.scope, headers, load: Load::Nothing };
        let response = self.client.send(asking)?;
        self.check(&response)?;
        let anew = response.status().as_u16() == 200;
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        if anew && self.at > 0 {
            // A registry that knows no ranges begins anew: what we have of it is read past.
            let past = io::copy(&mut body.by_ref().take(self.at), &mut io::sink());
            past.map_err(|error| self.client.unreachable(error.into()))?;
        }
        Ok(body)
    }

    fn check(&self, response: &Response<Body>) -> Result<(), ClientError> {
        let begins = format!("bytes {}-", self.at);
        match response.status().as_u16() {
            200 => match header(response, "content-length").and_then(|length| length.parse::<u64>().ok()) {
                Some(length) if length != self.size => {
                    Err(self.client.lies(&self.digest, "it has another size than the manifest says"))
                }
                _ => Ok(()),
            },
            206 if header(response, "content-range").is_some_and(|range| range.starts_with(&begins)) => Ok(()),
            206 => Err(self.client.nonsense("another part of a blob than was asked for")),
            404 => {
                let request = format!("the request for the blob {}", self.digest);
                Err(ClientError::Refused {
                    host: self.client.registry.clone(),
                    status: 404,
                    request,
                    said: String::new(),
                })
            }
            status => Err(self.client.nonsense(format!("{status} for a blob"))),
        }
    }

    fn fail(&self, error: ClientError) -> io::Error {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        io::Error::other("the registry does not send it")
    }

    /// Notes that the connection ended before the blob did.
    fn broke_off(&mut self, why: io::Error) -> Result<(), io::Error> {
        self.body = None;
        match self.resumes.checked_sub(1) {
            Some(left) => self.resumes = left,
            None => return Err(self.fail(self.client.unreachable(why.into()))),
        }
        Ok(())
    }
}

impl Read for Arriving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut body = match self.body.take() {
                Some(body) => body,
                // Also a blob of no bytes is asked for: the registry has to have it.
                None if self.at == self.size && self.at > 0 => return Ok(0),
                None => self.open().map_err(|error| self.fail(error))?,
            };
            let outcome = body.read(buffer);
            self.body = Some(body);
            match outcome {
                Ok(0) if self.at < self.size => self.broke_off(io::ErrorKind::UnexpectedEof.into())?,
                Ok(read) if self.at + read as u64 > self.size => {
                    let error = self.client.lies(&self.digest, "it has more bytes than the manifest says");
                    return Err(self.fail(error));
                }
                Ok(read) => {
                    self.at += read as u64;
                    self.progress.at(&self.digest, self.at);
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.broke_off(error)?,
            }
        }
    }
}
