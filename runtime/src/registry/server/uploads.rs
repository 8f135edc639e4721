//! Uploads: blobs that arrive in one request or in many, from clients that may vanish at any byte.
//!
//! What has arrived lies in a file; only the running hash is kept in memory, so that no byte is read again. A registry
//! that was restarted reads what it has once more, and the client goes on where it was.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{LOCATION, RANGE};
use serde_json::json;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};
use tokio::time::timeout;

use super::names::Name;
use super::reply::{Problem, Reply};
use super::storage::Storage;
use crate::image::{Algorithm, Digest, Digester};

/// How long a client may send nothing.
const SILENCE: Duration = Duration::from_mins(1);
/// How long a request waits for another one that is writing the same upload.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many running hashes are kept; beyond, those of uploads at rest are forgotten, and made anew if need be.
const REMEMBERED: usize = 1024;

/// How long an id is: a UUID in the form of RFC 9562.
const ID: usize = 36;

/// The uploads that have been heard of since the registry began.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<HashMap<String, Arc<Turn<Upload>>>>);

/// One upload.
#[derive(Debug)]
pub(super) struct Upload {
    name: Name,
    id: String,
    path: PathBuf,
    length: u64,
    algorithm: Algorithm,
    hash: Digester,
}

/// Whose turn it is to write to an upload.
pub(super) type Writing = OwnedMutexGuard<Upload>;

impl Uploads {
    /// Begins an upload, hashed by an algorithm: that of the digest that the client will name, if it said so.
    pub(super) fn begin(&self, storage: &Storage, name: &Name, algorithm: Algorithm) -> io::Result<Arc<Turn<Upload>>> {
        let id = new_id()?;
        let path = storage.upload_path(name, &id);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        File::create_new(&path)?;
        let upload =
            Upload { name: name.clone(), id: id.clone(), path, length: 0, algorithm, hash: Digester::new(algorithm) };
        Ok(self.remember(id, upload))
    }

    /// An upload that has begun, once no other request writes to it.
    pub(super) async fn find(&self, storage: &Storage, name: &Name, id: &str) -> Result<Writing, Problem> {
        let upload = self.known(storage, name, id)?;
        let Ok(upload) = timeout(PATIENCE, upload.lock_owned()).await else {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "BLOB_UPLOAD_INVALID",
                "another request is writing to this upload",
            ));
        };
        // It may have ended, or been in another repository, while this one waited.
        if upload.name != *name || !upload.path.exists() { Err(unknown()) } else { Ok(upload) }
    }

    fn known(&self, storage: &Storage, name: &Name, id: &str) -> Result<Arc<Turn<Upload>>, Problem> {
        if id.len() != ID || !id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
            return Err(unknown());
        }
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(upload) = known {
            return Ok(upload);
        }
        let path = storage.upload_path(name, id);
        if !path.is_file() {
            return Err(unknown());
        }
        let algorithm = Algorithm::Sha256;
        let (hash, length) = hash_file(&path, algorithm)?;
        let upload = Upload { name: name.clone(), id: id.to_owned(), path, length, algorithm, hash };
        Ok(self.remember(id.to_owned(), upload))
    }

    fn remember(&self, id: String, upload: Upload) -> Arc<Turn<Upload>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.retain(|_, upload| Arc::strong_count(upload) > 1);
        }
        // Another request may have been quicker: there is one turn for all of them.
        Arc::clone(all.entry(id).or_insert_with(|| Arc::new(Turn::new(upload))))
    }

    /// Ends an upload, whatever has become of it.
    pub(super) fn forget(&self, upload: &Upload) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&upload.id);
        // Where it became a blob, nothing is there any more.
        drop(fs::remove_file(&upload.path));
    }
}

impl Upload {
    /// Appends a body as it arrives. Where it breaks off, what came stays: the client may go on from there.
    ///
    /// `expected` is the length that the request's range promised.
    pub(super) async fn append(&mut self, body: Option<Incoming>, expected: Option<u64>) -> Result<(), Problem> {
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        if file.metadata()?.len() != self.length {
            // A write of the last request was cut short: what the hash has not seen has not arrived.
            file.set_len(self.length)?;
        }
        let begun = self.length;
        let Some(mut body) = body else { return Ok(()) };
        loop {
            let Ok(frame) = timeout(SILENCE, body.frame()).await else {
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID", "no more bytes came"));
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|_| Problem::bad("SIZE_INVALID", "the body ended early"))?;
            let Some(data) = frame.data_ref() else { continue };
            if expected.is_some_and(|expected| self.length - begun + data.len() as u64 > expected) {
                return Err(Problem::bad("SIZE_INVALID", "the body is longer than its range"));
            }
            file.write_all(data)?;
            self.hash.update(data);
            self.length += data.len() as u64;
        }
        match expected {
            Some(expected) if self.length - begun != expected => {
                Err(Problem::bad("SIZE_INVALID", "the body is shorter than its range"))
            }
            _ => Ok(()),
        }
    }

    /// Makes a blob of it, if its content is what the client calls it.
    pub(super) fn complete(&mut self, storage: &Storage, digest: &Digest) -> Result<(), Problem> {
        if self.algorithm != digest.algorithm() {
            self.algorithm = digest.algorithm();
            (self.hash, self.length) = hash_file(&self.path, self.algorithm)?;
        }
        let found = self.hash.clone().finish();
        if found != *digest {
            let detail = json!({ "expected": digest.to_string(), "found": found.to_string() });
            let problem = Problem::bad("DIGEST_INVALID", "provided digest did not match uploaded content");
            return Err(problem.about(detail));
        }
        Ok(storage.adopt(&self.name, digest, &self.path)?)
    }

    /// How many bytes have arrived.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// A reply that says where it is, and how far.
    pub(super) fn status(&self, status: StatusCode) -> Reply {
        let reply = Reply::empty(status).with(LOCATION, self.location()).with(RANGE, self.range());
        reply.header("docker-upload-uuid", &self.id).header("blob-upload-session-id", &self.id)
    }

    /// The chunk does not begin where the last one ended: 416, with how far it is.
    pub(super) fn out_of_order(&self, message: &str) -> Problem {
        Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
            .with(LOCATION, self.location())
            .with(RANGE, self.range())
    }

    fn location(&self) -> String {
        format!("/v2/{}/blobs/uploads/{}", self.name, self.id)
    }

    /// The first and last byte. The form has no way to say that there is none; like everyone's, ours says `0-0` then.
    fn range(&self) -> String {
        format!("0-{}", self.length.saturating_sub(1))
    }
}

fn hash_file(path: &Path, algorithm: Algorithm) -> io::Result<(Digester, u64)> {
    let (mut file, mut hash, mut length) = (File::open(path)?, Digester::new(algorithm), 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hash, length));
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        length += read as u64;
    }
}

fn unknown() -> Problem {
    Problem::missing("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
}

/// An id that nobody can guess: whoever knows it can write to the upload. A random UUID (RFC 9562, 5.4).
fn new_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let random = u128::from_ne_bytes(bytes) & !(0xf << 76) & !(0b11 << 62);
    let hex = format!("{:032x}", random | 4 << 76 | 0b10 << 62);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    Ok([part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-"))
}

#[cfg(test)]
mod tests {
    use super::{ID, new_id};

    #[test]
    fn an_id_is_a_random_uuid() {
        let id = new_id().unwrap();
        let dashes: Vec<usize> = id.match_indices('-').map(|(at, _)| at).collect();
        assert_eq!((id.len(), dashes), (ID, vec![8, 13, 18, 23]), "{id}");
        assert!(id[14..].starts_with('4') && id[19..].starts_with(['8', '9', 'a', 'b']), "{id}");
        assert_ne!(new_id().unwrap(), id);
    }
}
