//! Blobs: bytes under their digest.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::{Received, Store, io_error, sync_folder};
use crate::image::ImageError;
use crate::image::digest::{Algorithm, Digest, Hashing};
use crate::image::temporary::Temporary;

/// Large writes: what comes in may be a tar's 512-byte blocks.
const BUFFER: usize = 256 << 10;

/// A blob that is being written. It has a temporary name until [`BlobWriter::finish`], and is gone if dropped before.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    temporary: Temporary,
    out: BufWriter<Hashing<File>>,
}

impl BlobWriter {
    /// How many bytes were written to the file so far; what is still in memory is not counted.
    pub fn written(&self) -> u64 {
        self.out.get_ref().bytes() + self.out.buffer().len() as u64
    }

    /// Where it lies for now.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Gives it its name. Answers its digest and its size in bytes. Where a digest is expected and another comes out,
    /// nothing is kept.
    pub fn finish(self, expected: Option<&Digest>) -> Result<(Digest, u64), ImageError> {
        let (store, folder) = (self.store.clone(), self.temporary.path().to_owned());
        let (temporary, digest, bytes) = self.verify(expected)?;
        let synced = File::open(temporary.path()).and_then(|file| file.sync_all());
        synced.map_err(io_error("write", &folder))?;
        let path = store.blob_path(&digest);
        temporary.publish(&path).map_err(io_error("make", &path))?;
        sync_folder(&store.blobs(digest.algorithm()))?;
        Ok((digest, bytes))
    }

    /// Everything but the name, for [`Store::publish_unsettled`].
    pub fn receive(self, expected: &Digest) -> Result<Received, ImageError> {
        let store = self.store.clone();
        let (temporary, digest, bytes) = self.verify(Some(expected))?;
        Ok(Received::blob(temporary, digest, store.blob_path(&digest), bytes))
    }

    /// Everything but the name, and waiting for the disk.
    pub(super) fn verify(self, expected: Option<&Digest>) -> Result<(Temporary, Digest, u64), ImageError> {
        let failed = io_error("write", self.temporary.path());
        let out = self.out.into_inner().map_err(|error| failed(error.into_error()))?;
        let (_, digest, bytes) = out.finish();
        match expected.filter(|expected| **expected != digest) {
            Some(expected) => Err(ImageError::Corrupt { expected: *expected, found: digest.into() }),
            None => Ok((self.temporary, digest, bytes)),
        }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.out.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Store {
    /// Begins a blob that will be known by its sha256.
    pub fn writer(&self) -> Result<BlobWriter, ImageError> {
        self.writer_with(Algorithm::Sha256)
    }

    /// Begins a blob that will be known by a hash of this kind.
    pub fn writer_with(&self, algorithm: Algorithm) -> Result<BlobWriter, ImageError> {
        let folder = self.blobs(algorithm);
        if algorithm != Algorithm::Sha256 {
            // That one was made with the store.
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io_error("make", &folder))?;
        }
        let temporary = Temporary::name_in(&folder);
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(temporary.path());
        let file = file.map_err(io_error("make", temporary.path()))?;
        let out = BufWriter::with_capacity(BUFFER, Hashing::with(algorithm, file));
        Ok(BlobWriter { store: self.clone(), temporary, out })
    }

    /// Keeps what `write` writes. Answers its digest and its size in bytes.
    pub fn add_blob(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
    ) -> Result<(Digest, u64), ImageError> {
        let mut writer = self.writer()?;
        write(&mut writer)?;
        writer.finish(None)
    }

    /// Keeps these bytes.
    pub fn add_bytes(&self, bytes: &[u8]) -> Result<(Digest, u64), ImageError> {
        let digest = Digest::of(bytes);
        if self.has(&digest) {
            return Ok((digest, bytes.len() as u64));
        }
        self.add_blob(|out| out.write_all(bytes).map_err(io_error("write", self.root())))
    }

    /// Whether there is such a blob.
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// How many bytes it has.
    pub fn size(&self, digest: &Digest) -> Result<u64, ImageError> {
        let path = self.blob_path(digest);
        fs::metadata(&path).map(|data| data.len()).map_err(|error| missing(error, digest, &path))
    }

    /// Opens a blob to be read. Its bytes are not looked at: what must be sure of them hashes them.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, ImageError> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|error| missing(error, digest, &path))
    }

    /// Reads a small blob, such as a manifest, and makes sure that it is what it is called.
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.blob_path(digest);
        let bytes = fs::read(&path).map_err(|error| missing(error, digest, &path))?;
        match Digest::with(digest.algorithm(), &bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(ImageError::Corrupt { expected: *digest, found: found.into() }),
        }
    }
}

fn missing(error: io::Error, digest: &Digest, path: &Path) -> ImageError {
    match error.kind() {
        io::ErrorKind::NotFound => ImageError::Missing(*digest),
        _ => io_error("read", path)(error),
    }
}
