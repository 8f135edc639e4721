//! Layers packed for their way to a registry.
//!
//! A build keeps its layers as they are, since most of them never leave. What leaves is packed then; a note says what it
//! came to, so that a registry that has it already is not brought it, and nothing is packed, a second time.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Seek};
use std::path::PathBuf;

use super::{Store, io_error};
use crate::image::ImageError;
use crate::image::compression::{Packing, compress};
use crate::image::digest::{Digest, Hashing};
use crate::image::telling::Telling;
use crate::image::temporary::Temporary;

/// Large reads and writes.
const BUFFER: usize = 256 << 10;

/// What a layer's archive is when it is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// The digest of the packed bytes.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
}

impl Store {
    /// How an archive of the store is packed.
    pub fn packing(&self, blob: &Digest) -> Result<Packing, ImageError> {
        Packing::of(&mut self.open_blob(blob)?).map_err(io_error("read", &self.blob_path(blob)))
    }

    /// What a plain archive came to when it was packed so before; nothing if it was not.
    pub fn packed_before(&self, plain: &Digest, packing: Packing) -> Option<Packed> {
        let text = fs::read_to_string(self.note(plain, packing)).ok()?;
        let (digest, size) = text.split_once(' ')?;
        Some(Packed { digest: digest.parse().ok()?, size: size.parse().ok()? })
    }

    /// Packs a plain archive, and notes what it came to. The file has no name: it is gone when it is closed. `tell` hears
    /// how many bytes of the plain archive have been read so far.
    pub fn pack(&self, plain: &Digest, packing: Packing, tell: impl Fn(u64)) -> Result<(Packed, File), ImageError> {
        let source = Telling::new(BufReader::with_capacity(BUFFER, self.open_blob(plain)?), tell);
        let temporary = Temporary::name_in(&self.blobs(plain.algorithm()));
        let failed = || io_error("pack a layer into", temporary.path());
        let file = File::options().read(true).write(true).create_new(true).open(temporary.path()).map_err(failed())?;
        let mut out = Hashing::with(plain.algorithm(), BufWriter::with_capacity(BUFFER, file));
        compress(source, packing, &mut out).map_err(failed())?;
        let (out, digest, size) = out.finish();
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error).map_err(failed())?;
        file.rewind().map_err(failed())?;
        let packed = Packed { digest, size };
        let folder = self.root().join("packed");
        fs::create_dir_all(&folder).map_err(io_error("make", &folder))?;
        self.replace(&self.note(plain, packing), format!("{digest} {size}").as_bytes())?;
        Ok((packed, file))
    }

    fn note(&self, plain: &Digest, packing: Packing) -> PathBuf {
        let kind = match packing {
            Packing::Plain => "plain",
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
        };
        self.root().join("packed").join(format!("{}.{kind}", plain.hex()))
    }
}
