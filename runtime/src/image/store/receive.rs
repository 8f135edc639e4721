//! Layers that come in: kept, checked, inflated and placed in one pass.
//!
//! ```text
//! network -> blob, hashed -> | inflate -> | hash, place      each | is a pipe between two threads
//! ```
//!
//! What came in has no name yet when it is whole. [`Store::publish`] waits for the disk once for all layers together and
//! names them then; [`Store::publish_unsettled`] names at once what can be had again. A process that is killed at any
//! moment leaves temporary names and nothing else.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{BlobWriter, Store, io_error, sync_folder};
use crate::image::compression::decompress;
use crate::image::digest::{Algorithm, Digest};
use crate::image::pipe::{FeedError, PipeReader, PipeWriter, feed, pipe};
use crate::image::temporary::Temporary;
use crate::image::unpack::{Limits, Unpacked, unpack_as};
use crate::image::{ImageError, LayerDescriptor, LayerError};

/// How many layers are unpacked at once: more only wait for the same disk.
const AT_ONCE: usize = 4;

/// A blob or a layer that came in and has no name yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Received {
    blob: Option<Nameless>,
    /// With the blob that it was unpacked from.
    layer: Option<(Nameless, Digest)>,
    /// Bytes that came in.
    pub bytes: u64,
}

/// What is whole and waits for its name.
#[derive(Debug)]
struct Nameless {
    temporary: Temporary,
    digest: Digest,
    path: PathBuf,
}

impl Received {
    pub(super) fn blob(temporary: Temporary, digest: Digest, path: PathBuf, bytes: u64) -> Self {
        Self { blob: Some(Nameless { temporary, digest, path }), layer: None, bytes }
    }

    /// What it will be called, a line each.
    pub(super) fn names(&self) -> Vec<String> {
        let blob = self.blob.iter().map(|blob| format!("blob {}", blob.digest));
        blob.chain(self.layer.iter().map(|(layer, blob)| format!("layer {} {blob}", layer.digest))).collect()
    }

    /// Gives it its names.
    pub(super) fn name(self) -> Result<(), ImageError> {
        [self.blob, self.layer.map(|(layer, _)| layer)]
            .into_iter()
            .flatten()
            .try_for_each(|one| one.temporary.publish(&one.path).map(drop).map_err(io_error("make", &one.path)))
    }
}

impl Store {
    /// Takes a layer's archive as it comes, plain or packed, and unpacks it on the way. `blob` is the digest of what
    /// comes, `diff_id` that of the archive in it; both are checked. Call it for several layers at once, and
    /// [`Store::publish`] when all are there; whoever does holds the store [shared](Store::shared).
    ///
    /// Wrong bytes are told as such, whatever else they led to: for that all that comes is read, even after a failure.
    pub fn receive_layer(
        &self,
        blob: &Digest,
        diff_id: &Digest,
        archive: impl Read + Send,
    ) -> Result<Received, ImageError> {
        let mut writer = self.writer_with(blob.algorithm())?;
        let path = self.layer_path(diff_id);
        let mut archive = archive;
        if path.is_dir() {
            io::copy(&mut archive, &mut writer).map_err(|source| ImageError::Receive { blob: *blob, source })?;
            let (temporary, _, bytes) = writer.verify(Some(blob))?;
            return Ok(Received::blob(temporary, *blob, self.blob_path(blob), bytes));
        }
        let folder = self.layer_folder()?;
        let unpacked = stream(&mut archive, Some(&mut writer), folder.path(), *blob, diff_id.algorithm());
        if let Err(error @ (ImageError::Receive { .. } | ImageError::Io { .. })) = unpacked {
            return Err(error);
        }
        let (temporary, _, bytes) = writer.verify(Some(blob))?;
        checked(&unpacked?, diff_id)?;
        let layer = Nameless { temporary: folder, digest: *diff_id, path };
        Ok(Received { layer: Some((layer, *blob)), ..Received::blob(temporary, *blob, self.blob_path(blob), bytes) })
    }

    /// Names what came in, once it is on the disk.
    pub fn publish(&self, received: impl IntoIterator<Item = Received>) -> Result<(), ImageError> {
        let received: Vec<Received> = received.into_iter().collect();
        if received.is_empty() {
            return Ok(());
        }
        self.settle()?;
        received.into_iter().try_for_each(Received::name)?;
        let blobs = Algorithm::ALL.map(|algorithm| self.blobs(algorithm)).into_iter().filter(|folder| folder.is_dir());
        blobs.chain([self.layers()]).try_for_each(|folder| sync_folder(&folder))
    }

    /// Unpacks a layer from its archive in the store, unless that has been done. Two processes at once may both do it;
    /// one of them throws its work away.
    pub fn unpack_layer(&self, blob: &Digest, diff_id: &Digest) -> Result<PathBuf, ImageError> {
        self.publish_unsettled(self.unpack_stored(blob, diff_id)?)?;
        Ok(self.layer_path(diff_id))
    }

    /// Unpacks those layers of an image that are not, several at once.
    pub fn unpack_layers(&self, layers: &[LayerDescriptor]) -> Result<(), ImageError> {
        let next = AtomicUsize::new(0);
        let unpacked = Mutex::new(Ok(Vec::new()));
        let work = || {
            while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                let one = self.unpack_stored(&layer.blob, &layer.diff_id);
                let Ok(mut all) = unpacked.lock() else { return };
                match (&mut *all, one) {
                    (Ok(all), Ok(one)) => all.extend(one),
                    (Ok(_), Err(error)) => *all = Err(error),
                    (Err(_), _) => {}
                }
                if all.is_err() {
                    return;
                }
            }
        };
        thread::scope(|scope| {
            // The caller is one of them.
            for _ in 1..layers.len().min(AT_ONCE) {
                scope.spawn(work);
            }
            work();
        });
        let all = unpacked.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)?;
        self.publish_unsettled(all)
    }

    pub(super) fn unpack_stored(&self, blob: &Digest, diff_id: &Digest) -> Result<Option<Received>, ImageError> {
        let path = self.layer_path(diff_id);
        if path.is_dir() {
            return Ok(None);
        }
        let mut archive = self.open_blob(blob)?;
        let folder = self.layer_folder()?;
        let unpacked = stream(&mut archive, None, folder.path(), *blob, diff_id.algorithm())?;
        checked(&unpacked, diff_id)?;
        let layer = Nameless { temporary: folder, digest: *diff_id, path };
        Ok(Some(Received { blob: None, layer: Some((layer, *blob)), bytes: 0 }))
    }

    fn layer_folder(&self) -> Result<Temporary, ImageError> {
        let temporary = Temporary::name_in(&self.layers());
        fs::create_dir(temporary.path()).map_err(io_error("make", temporary.path()))?;
        Ok(temporary)
    }
}

fn checked(unpacked: &Unpacked, diff_id: &Digest) -> Result<(), ImageError> {
    if unpacked.diff_id == *diff_id {
        return Ok(());
    }
    Err(ImageError::Corrupt { expected: *diff_id, found: unpacked.diff_id.into() })
}

/// The three stages, each on a thread; the caller's receives.
fn stream(
    archive: &mut (dyn Read + Send),
    keep: Option<&mut BlobWriter>,
    into: &Path,
    blob: Digest,
    algorithm: Algorithm,
) -> Result<Unpacked, ImageError> {
    let (packed, packed_end) = pipe();
    let (plain, plain_end) = pipe();
    thread::scope(|scope| {
        let inflating = scope.spawn(move || inflate(packed_end, plain));
        let placing = scope.spawn(move || unpack_as(plain_end, into, Limits::default(), algorithm));
        let fed = match keep {
            Some(writer) => feed(archive, writer, packed, true),
            None => feed(archive, &mut io::sink(), packed, false),
        };
        let inflated = inflating.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let placed = placing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // The first stage that failed says why the later ones did.
        match fed {
            Err(FeedError::Read(source)) => return Err(ImageError::Receive { blob, source }),
            Err(FeedError::Write(source)) => return Err(io_error("write", into)(source)),
            Ok(()) => {}
        }
        inflated.map_err(LayerError::Read)?;
        Ok(placed?)
    })
}

/// Answers no error where nobody reads any more: the reader knows why.
fn inflate(packed: PipeReader, plain: PipeWriter) -> io::Result<()> {
    let mut archive = decompress(packed)?;
    match feed(&mut archive, &mut io::sink(), plain, false) {
        Err(FeedError::Read(error) | FeedError::Write(error)) => Err(error),
        Ok(()) => Ok(()),
    }
}
