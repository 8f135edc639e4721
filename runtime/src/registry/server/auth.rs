//! Who may come in: the users of an htpasswd file, by Basic authentication (RFC 7617).

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap, WWW_AUTHENTICATE};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::ServeError;
use super::reply::Problem;

/// So many passwords are checked at once: each takes a processor for a tenth of a second, which is bcrypt's purpose.
const AT_ONCE: usize = 2;
/// So many that were right are remembered.
const REMEMBERED: usize = 1024;

/// The users, by name, and what their passwords hash to.
pub(super) struct Users {
    hashes: HashMap<String, String>,
    /// What is checked in place of a user that is none, so that the time of the answer does not tell.
    nobody: String,
    /// The sha256 of headers that were right: an image of ten layers is thirty requests.
    right: Mutex<HashSet<[u8; 32]>>,
    turns: Semaphore,
}

impl Users {
    /// Reads a file of lines `USER:HASH`, as `htpasswd -B` writes it.
    pub(super) fn read(path: &Path) -> Result<Self, ServeError> {
        let wrong = |line: usize, reason| ServeError::Password { path: path.to_owned(), line, reason };
        let text = std::fs::read_to_string(path).map_err(|source| ServeError::Io {
            attempt: "read",
            path: path.to_owned(),
            source,
        })?;
        let mut hashes = HashMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let (user, hash) = line.split_once(':').ok_or_else(|| wrong(number + 1, "it has no colon"))?;
            if !["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix)) {
                return Err(wrong(number + 1, "the hash is not one of bcrypt"));
            }
            hashes.insert(user.to_owned(), hash.trim_end().to_owned());
        }
        let nobody = hashes.values().next().cloned().ok_or_else(|| wrong(1, "there is no user"))?;
        Ok(Self { hashes, nobody, right: Mutex::default(), turns: Semaphore::new(AT_ONCE) })
    }

    /// Lets a request pass, or says what is missing.
    pub(super) async fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let refused = || {
            Problem::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required")
                .with(WWW_AUTHENTICATE, "Basic realm=\"registry\", charset=\"UTF-8\"")
        };
        let header = headers.get(AUTHORIZATION).ok_or_else(refused)?.as_bytes();
        let key: [u8; 32] = Sha256::digest(header).into();
        if self.right.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Ok(());
        }
        let (user, password) = credentials(header).ok_or_else(refused)?;
        let hash = self.hashes.get(&user);
        let (known, hash) = (hash.is_some(), hash.unwrap_or(&self.nobody).clone());
        let _turn = self.turns.acquire().await.map_err(|_| refused())?;
        let checked = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash)).await;
        if !known || !matches!(checked, Ok(Ok(true))) {
            return Err(refused());
        }
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.len() >= REMEMBERED {
            right.clear();
        }
        right.insert(key);
        Ok(())
    }
}

/// The user and the password of a header.
fn credentials(header: &[u8]) -> Option<(String, Vec<u8>)> {
    let text = std::str::from_utf8(header).ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    let decoded = STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at_checked(colon)?;
    Some((String::from_utf8(user.to_vec()).ok()?, password.get(1..)?.to_vec()))
}
