//! Looking at a manifest where it is: nothing is fetched besides, and nothing kept.

use serde_json::Value;

use super::{Client, ClientError};
use crate::image::{Digest, Reference};

/// What a registry has under a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The digest of its bytes; they were held against it.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: usize,
    /// What it says: a manifest, or an index of several.
    pub document: Value,
}

/// Asks a registry what it has under a reference.
pub fn manifest(client: &Client, reference: &Reference) -> Result<Manifest, ClientError> {
    let fetched = client.manifest(reference, &reference.wanted(), reference.digest)?;
    let document = serde_json::from_slice(&fetched.bytes);
    let document = document.map_err(|error| client.nonsense(format!("the manifest: {error}")))?;
    Ok(Manifest { digest: fetched.digest, size: fetched.bytes.len(), document })
}
