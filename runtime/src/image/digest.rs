//! Digests: the names of content.
//!
//! What is stored under the sha256 of its bytes can be shared by everyone who asks for those bytes, cannot be changed
//! without a new name, and can be checked by whoever receives it.

use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::str::FromStr;

use oci_spec::image::Sha256Digest;
use sha2::{Digest as _, Sha256};

/// How many hexadecimal digits people use to tell digests apart.
const SHORT: usize = 12;
const BYTES: usize = 32;

/// A sha256 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; BYTES]);

/// A text that is no sha256 digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no digest: that is `sha256:` and 64 hexadecimal digits in lower case")]
pub struct DigestError(String);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().fold(String::with_capacity(2 * BYTES), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// The first 12 of them: what an image is called in a list.
    pub fn short(&self) -> String {
        self.hex().chars().take(SHORT).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.hex())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let wrong = || DigestError(text.to_owned());
        let hex = text.strip_prefix("sha256:").ok_or_else(wrong)?.as_bytes();
        if hex.len() != 2 * BYTES {
            return Err(wrong());
        }
        let mut bytes = [0; BYTES];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks(2)) {
            for digit in pair {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(wrong()),
                };
                *byte = *byte << 4 | value;
            }
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<&oci_spec::image::Digest> for Digest {
    type Error = DigestError;

    fn try_from(digest: &oci_spec::image::Digest) -> Result<Self, DigestError> {
        digest.to_string().parse()
    }
}

impl TryFrom<Digest> for Sha256Digest {
    type Error = DigestError;

    fn try_from(digest: Digest) -> Result<Self, DigestError> {
        digest.hex().parse().map_err(|_| DigestError(digest.to_string()))
    }
}

/// Hashes what passes through, in either direction.
pub(super) struct Hashing<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Hashing<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    /// What it was passing bytes to or from, their digest, and how many they were.
    pub(super) fn finish(self) -> (T, Digest, u64) {
        (self.inner, Digest(self.hash.finalize().into()), self.bytes)
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.passed(buffer.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.passed(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Hashing};
    use std::io::{Read, Write};

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_digest_of_a_known_text_is_known() {
        assert_eq!(Digest::of(b"abc").to_string(), ABC);
        assert_eq!(Digest::of(b"abc").short(), "ba7816bf8f01");
        assert_eq!(ABC.parse(), Ok(Digest::of(b"abc")));
    }

    #[test]
    fn only_a_digest_is_a_digest() {
        let upper = ABC.replace("ba78", "BA78");
        for text in ["", "sha256:", &ABC[7..], &ABC[..70], &upper, &ABC.replace('b', "g"), &ABC.replace("256", "512")] {
            assert!(text.parse::<Digest>().is_err(), "{text} was taken");
        }
    }

    #[test]
    fn what_passes_through_is_hashed_both_ways() {
        let mut writer = Hashing::new(Vec::new());
        writer.write_all(b"ab").unwrap();
        writer.write_all(b"c").unwrap();
        let (written, digest, bytes) = writer.finish();
        assert_eq!((written.as_slice(), digest, bytes), (&b"abc"[..], Digest::of(b"abc"), 3));
        let mut reader = Hashing::new(&b"abc"[..]);
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!((read.as_str(), reader.finish().1), ("abc", Digest::of(b"abc")));
    }
}
