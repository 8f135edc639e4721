//! Garbage: what no manifest needs any more.
//!
//! Nothing is counted while a registry is served: a count that is wrong once loses an image. Instead everything that is
//! named is marked, from the manifests down, and the rest is swept, while nobody pushes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::ServeError;
use super::storage::{Storage, entries, is_unfinished, remove};
use crate::image::{Algorithm, Digest};

/// How old an upload is that nobody will go on with.
const ABANDONED: Duration = Duration::from_hours(24);

/// What was removed, or would be.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Collected {
    /// Blobs whose bytes are gone.
    pub blobs: usize,
    /// Uploads that were begun more than a day ago.
    pub uploads: usize,
    /// Bytes of both.
    pub bytes: u64,
}

/// Removes uploads that nobody will go on with, while others go on: what is said to last for a day does (distribution-spec,
/// "Cancel a blob upload": unfinished uploads end by themselves).
pub(super) fn expire_uploads(storage: &Storage) -> io::Result<()> {
    let mut collected = Collected::default();
    sweep_uploads(storage, false, &mut collected)
}

/// Removes what no manifest of the registry in a folder needs. With `dry`, only says what that is.
pub fn collect_garbage(folder: &Path, dry: bool) -> Result<Collected, ServeError> {
    if !folder.join("repositories").is_dir() {
        return Err(ServeError::NoRegistry { path: folder.to_owned() });
    }
    let failed = |source| ServeError::Io { attempt: "collect garbage in", path: folder.to_owned(), source };
    let Some(_alone) = Storage::claim(folder, true).map_err(failed)? else {
        return Err(ServeError::InUse { path: folder.to_owned() });
    };
    let storage = Storage::existing(folder);
    let mut collected = Collected::default();
    sweep_uploads(&storage, dry, &mut collected).map_err(failed)?;
    let needed = sweep_repositories(&storage, dry).map_err(failed)?;
    sweep_blobs(&storage, &needed, dry, &mut collected).map_err(failed)?;
    Ok(collected)
}

/// Takes from each repository the blobs that its manifests do not name. Answers what all of them need.
fn sweep_repositories(storage: &Storage, dry: bool) -> io::Result<BTreeSet<Digest>> {
    let mut all = BTreeSet::new();
    for name in storage.repositories()? {
        let mut needed = BTreeSet::new();
        for digest in storage.links(&name, "_manifests")? {
            if let Some(manifest) = storage.manifest(&name, &digest)? {
                let document = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
                mark(&document, &mut needed);
            }
            needed.insert(digest);
        }
        for digest in storage.links(&name, "_blobs")? {
            if !dry && !needed.contains(&digest) {
                storage.remove_blob(&name, &digest)?;
            }
        }
        all.append(&mut needed);
    }
    Ok(all)
}

/// Notes every digest in a document, wherever it stands: media types come and go, and a blob too many costs only room.
fn mark(document: &Value, needed: &mut BTreeSet<Digest>) {
    match document {
        Value::Array(items) => items.iter().for_each(|item| mark(item, needed)),
        Value::Object(fields) => {
            let digest = fields.get("digest").and_then(Value::as_str);
            needed.extend(digest.and_then(|digest| digest.parse::<Digest>().ok()));
            fields.values().for_each(|value| mark(value, needed));
        }
        _ => {}
    }
}

fn sweep_uploads(storage: &Storage, dry: bool, collected: &mut Collected) -> io::Result<()> {
    let now = SystemTime::now();
    let folders = storage.uploaded_to()?.into_iter().map(|name| storage.folder(&name).join("_uploads"));
    let paths: Vec<_> = folders
        .map(|folder| Ok(entries(&folder)?.into_iter().map(move |entry| folder.join(entry))))
        .collect::<io::Result<_>>()?;
    for path in paths.into_iter().flatten() {
        // One that has ended meanwhile is gone.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let age = metadata.modified().ok().and_then(|changed| now.duration_since(changed).ok());
        if age.is_some_and(|age| age > ABANDONED) {
            collected.uploads += 1;
            collected.bytes += metadata.len();
            if !dry {
                remove(&path)?;
            }
        }
    }
    Ok(())
}

fn sweep_blobs(storage: &Storage, needed: &BTreeSet<Digest>, dry: bool, collected: &mut Collected) -> io::Result<()> {
    for algorithm in Algorithm::ALL {
        let folder = storage.root().join("blobs").join(algorithm.name());
        for entry in entries(&folder)? {
            let digest = format!("{algorithm}:{entry}").parse::<Digest>().ok();
            // A file that is not called like a blob is none of ours, unless a write was killed there.
            let garbage = digest.map_or(is_unfinished(&entry), |digest| !needed.contains(&digest));
            if !garbage {
                continue;
            }
            let path = folder.join(entry);
            collected.blobs += 1;
            collected.bytes += fs::metadata(&path)?.len();
            if !dry {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}
