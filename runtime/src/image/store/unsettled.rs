//! What has its name before it is on the disk.
//!
//! Waiting for the disk makes whoever fetches an image as slow as its busiest neighbour: syncfs(2) waits for everything
//! that anybody wrote to the same file system. What can be had again, from a registry or from a blob of the store, is
//! named at once instead, and a note says so beforehand. After a power cut such a name can lead to files that are cut
//! short. The note is from another boot then, and before anybody uses the store what it names is looked at: a blob that
//! is not what it is called goes, and every layer is unpacked anew from its blob.
//!
//! ```text
//! ROOT/unsettled/BOOT.PID-N        a line a name: `blob DIGEST`, or `layer DIGEST` and the digest of its blob
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::syncfs;
use tracing::info_span;

use super::garbage::children;
use super::{Hashing, Received, Store, io_error, sync_folder};
use crate::image::ImageError;
use crate::image::digest::Digest;

/// Tells the notes of one process apart.
static NEXT: AtomicU32 = AtomicU32::new(0);
/// Another number after each boot (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

impl Store {
    /// Names what came in, at once. For what can be had again; [`Store::publish`] is for all else.
    pub fn publish_unsettled(&self, received: impl IntoIterator<Item = Received>) -> Result<(), ImageError> {
        let received: Vec<Received> = received.into_iter().collect();
        let Some(boot) = boot() else { return self.publish(received) };
        let lines: Vec<String> = received.iter().flat_map(Received::names).collect();
        if lines.is_empty() {
            return Ok(());
        }
        {
            let _span = info_span!(
                "store.note",
                call = "fsync(2)",
                why = "what follows gets its names before it is on the disk; after a power cut this note tells of it"
            )
            .entered();
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let folder = self.unsettled();
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io_error("make", &folder))?;
            let note = folder.join(format!("{boot}.{}-{number}", std::process::id()));
            self.replace(&note, lines.join("\n").as_bytes())?;
        }
        received.into_iter().try_for_each(Received::name)
    }

    /// Waits until all that has a name is on the disk.
    pub(super) fn settle(&self) -> Result<(), ImageError> {
        // Those that are there now: what is noted meanwhile may come behind the sync.
        let notes = children(&self.unsettled())?;
        let _span = info_span!(
            "store.sync",
            call = "syncfs(2)",
            why = "one wait for all files together, where one a file would take the time of as many disk revolutions"
        )
        .entered();
        let folder = File::open(self.root()).map_err(io_error("open", self.root()))?;
        syncfs(&folder).map_err(|errno| io_error("sync", self.root())(errno.into()))?;
        notes.iter().try_for_each(|(_, note)| forget(note))
    }

    /// Looks at what had a name and was not on the disk when the machine went down.
    pub(super) fn recover(&self) -> Result<(), ImageError> {
        let stale = || -> Result<Vec<PathBuf>, ImageError> {
            let notes = children(&self.unsettled())?;
            let Some(boot) = boot().filter(|_| !notes.is_empty()) else { return Ok(Vec::new()) };
            Ok(notes.into_iter().filter(|(name, _)| !name.starts_with(&boot)).map(|(_, note)| note).collect())
        };
        if stale()?.is_empty() {
            return Ok(());
        }
        let _exclusive = self.exclusive()?;
        // Looked for again: another process may have been quicker.
        let notes = stale()?;
        let mut anew = Vec::new();
        for note in &notes {
            let text = fs::read_to_string(note).map_err(io_error("read", note))?;
            for line in text.lines() {
                anew.extend(self.look_at(line)?);
            }
        }
        sync_folder(&self.layers())?;
        self.publish(anew)?;
        // Only now: if this process dies on the way, the next one begins again.
        notes.iter().try_for_each(|note| forget(note))
    }

    /// Removes what may be cut short, blobs first, as they are noted. Answers a layer that was unpacked anew.
    fn look_at(&self, line: &str) -> Result<Option<Received>, ImageError> {
        let (kind, digests) = line.split_once(' ').unwrap_or((line, ""));
        let mut digests = digests.split(' ').map(str::parse::<Digest>);
        match (kind, digests.next(), digests.next()) {
            ("blob", Some(Ok(blob)), _) if self.has(&blob) && !self.is_sound(&blob)? => {
                let path = self.blob_path(&blob);
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
                Ok(None)
            }
            ("layer", Some(Ok(layer)), Some(Ok(blob))) => {
                let path = self.layer_path(&layer);
                if path.is_dir() {
                    self.remove_layer(&path)?;
                }
                if self.has(&blob) { self.unpack_stored(&blob, &layer) } else { Ok(None) }
            }
            _ => Ok(None),
        }
    }

    fn is_sound(&self, digest: &Digest) -> Result<bool, ImageError> {
        let mut hashing = Hashing::with(digest.algorithm(), self.open_blob(digest)?);
        io::copy(&mut hashing, &mut io::sink()).map_err(io_error("read", &self.blob_path(digest)))?;
        Ok(hashing.finish().1 == *digest)
    }

    fn unsettled(&self) -> PathBuf {
        self.root().join("unsettled")
    }
}

fn boot() -> Option<String> {
    fs::read_to_string(BOOT).ok().map(|text| text.trim_end().to_owned()).filter(|text| !text.is_empty())
}

fn forget(note: &Path) -> Result<(), ImageError> {
    match fs::remove_file(note) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", note)(error)),
        _ => Ok(()),
    }
}
