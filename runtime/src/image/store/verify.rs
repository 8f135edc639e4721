//! Looking at all that is stored: whether every blob is what it is called, and whether everything is there that images
//! lead to.

use std::collections::HashSet;

use super::garbage::children;
use super::{Hashing, Store, io_error};
use crate::image::digest::{Algorithm, Digest};
use crate::image::{ImageError, Manifest};

/// What is wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A blob's bytes are others than its name says.
    #[error("blob {expected} is {found}")]
    Blob {
        /// Its name.
        expected: Digest,
        /// The digest of its bytes.
        found: Digest,
    },
    /// An image cannot be used.
    #[error("image {name}: {error}")]
    Image {
        /// What it is called, or its digest.
        name: String,
        /// Why not.
        error: Box<ImageError>,
    },
}

/// What a look at the whole store found.
#[derive(Debug, Default)]
pub struct Verified {
    /// How many images there are.
    pub images: usize,
    /// How many blobs.
    pub blobs: usize,
    /// Their size, in bytes.
    pub bytes: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl Store {
    /// Reads every blob, and follows every image to its layers. Nothing is changed.
    pub fn verify(&self) -> Result<Verified, ImageError> {
        let _shared = self.shared()?;
        let mut verified = Verified::default();
        for algorithm in Algorithm::ALL {
            for (name, _) in children(&self.blobs(algorithm))? {
                let Ok(expected) = format!("{algorithm}:{name}").parse::<Digest>() else { continue };
                self.verify_blob(expected, &mut verified)?;
            }
        }
        let names = self.names()?;
        let mut seen = HashSet::new();
        for one in names {
            let digest = Digest::try_from(one.descriptor.digest())?;
            verified.images += usize::from(seen.insert(digest));
            let whole = Manifest::read(self, &one.descriptor)
                .and_then(|manifest| manifest.layers()?.iter().try_for_each(|layer| self.size(&layer.blob).map(drop)));
            if let Err(error) = whole {
                let name = one.name.unwrap_or_else(|| digest.to_string());
                verified.problems.push(Problem::Image { name, error: error.into() });
            }
        }
        Ok(verified)
    }

    fn verify_blob(&self, expected: Digest, verified: &mut Verified) -> Result<(), ImageError> {
        let path = self.blob_path(&expected);
        let mut hashing = Hashing::with(expected.algorithm(), self.open_blob(&expected)?);
        std::io::copy(&mut hashing, &mut std::io::sink()).map_err(io_error("read", &path))?;
        let (_, found, bytes) = hashing.finish();
        verified.blobs += 1;
        verified.bytes += bytes;
        if found != expected {
            verified.problems.push(Problem::Blob { expected, found });
        }
        Ok(())
    }
}
