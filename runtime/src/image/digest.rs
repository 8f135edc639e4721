//! Digests: the names of content.
//!
//! What is stored under the hash of its bytes can be shared by everyone who asks for those bytes, cannot be changed
//! without a new name, and can be checked by whoever receives it. The hash is sha256 nearly everywhere; who asks for
//! sha512 gets that (image-spec, descriptor.md, "Digests").

use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};

/// How many hexadecimal digits people use to tell digests apart.
const SHORT: usize = 12;
/// The longest digest, in bytes.
const LONGEST: usize = 64;

/// How bytes are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// 32 bytes; what everybody knows.
    Sha256,
    /// 64 bytes.
    Sha512,
}

/// The hash of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    /// Zeros behind the algorithm's length.
    bytes: [u8; LONGEST],
}

/// A text that is no digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no digest: that is `sha256:` and 64, or `sha512:` and 128 hexadecimal digits in lower case")]
pub struct DigestError(String);

impl Algorithm {
    /// All that are known here.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// Its name, as digests begin with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The length of its digests, in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let known = Self::ALL.into_iter().find(|algorithm| algorithm.name() == text);
        known.ok_or_else(|| DigestError(text.to_owned()))
    }
}

impl Digest {
    /// The sha256 of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::with(Algorithm::Sha256, bytes)
    }

    /// The hash of some bytes by an algorithm.
    pub fn with(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut digester = Digester::new(algorithm);
        digester.update(bytes);
        digester.finish()
    }

    /// How it was made.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> String {
        let length = self.algorithm.length();
        self.bytes.iter().take(length).fold(String::with_capacity(2 * length), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// The first 12 of them: what an image is called in a list.
    pub fn short(&self) -> String {
        self.hex().chars().take(SHORT).collect()
    }

    /// Whether these are the bytes that it names.
    pub fn verify(&self, bytes: &[u8]) -> bool {
        Self::with(self.algorithm, bytes) == *self
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.algorithm, self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let wrong = || DigestError(text.to_owned());
        let (algorithm, hex) = text.split_once(':').ok_or_else(wrong)?;
        let algorithm: Algorithm = algorithm.parse().map_err(|_| wrong())?;
        if hex.len() != 2 * algorithm.length() {
            return Err(wrong());
        }
        let mut bytes = [0; LONGEST];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            for digit in pair {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(wrong()),
                };
                *byte = *byte << 4 | value;
            }
        }
        Ok(Self { algorithm, bytes })
    }
}

impl TryFrom<&oci_spec::image::Digest> for Digest {
    type Error = DigestError;

    fn try_from(digest: &oci_spec::image::Digest) -> Result<Self, DigestError> {
        digest.to_string().parse()
    }
}

impl TryFrom<Digest> for oci_spec::image::Digest {
    type Error = DigestError;

    fn try_from(digest: Digest) -> Result<Self, DigestError> {
        digest.to_string().parse().map_err(|_| DigestError(digest.to_string()))
    }
}

/// Hashes bytes as they come.
#[derive(Debug, Clone)]
pub enum Digester {
    /// By sha256.
    Sha256(Sha256),
    /// By sha512.
    Sha512(Sha512),
}

impl Digester {
    /// Has seen nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of all that it was given.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; LONGEST];
        let (algorithm, hash) = match self {
            Self::Sha256(hash) => (Algorithm::Sha256, hash.finalize().to_vec()),
            Self::Sha512(hash) => (Algorithm::Sha512, hash.finalize().to_vec()),
        };
        bytes.iter_mut().zip(hash).for_each(|(byte, value)| *byte = value);
        Digest { algorithm, bytes }
    }
}

/// Hashes what passes through, in either direction.
#[derive(Debug)]
pub struct Hashing<T> {
    inner: T,
    hash: Digester,
    bytes: u64,
}

impl<T> Hashing<T> {
    /// By sha256.
    pub fn new(inner: T) -> Self {
        Self::with(Algorithm::Sha256, inner)
    }

    /// By an algorithm.
    pub fn with(algorithm: Algorithm, inner: T) -> Self {
        Self { inner, hash: Digester::new(algorithm), bytes: 0 }
    }

    /// How many bytes have passed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it was passing bytes to or from, their digest, and how many they were.
    pub fn finish(self) -> (T, Digest, u64) {
        (self.inner, self.hash.finish(), self.bytes)
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
    use super::{Algorithm, Digest, Hashing};
    use std::io::{Read, Write};

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    /// FIPS 180-2, appendix C.1.
    const ABC_512: &str = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                           2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn the_digest_of_a_known_text_is_known() {
        assert_eq!(Digest::of(b"abc").to_string(), ABC);
        assert_eq!(Digest::of(b"abc").short(), "ba7816bf8f01");
        assert_eq!(ABC.parse(), Ok(Digest::of(b"abc")));
        assert_eq!(Digest::with(Algorithm::Sha512, b"abc").to_string(), ABC_512);
        assert!(ABC_512.parse::<Digest>().unwrap().verify(b"abc"));
        assert!(!ABC_512.parse::<Digest>().unwrap().verify(b"abd"));
    }

    #[test]
    fn only_a_digest_is_a_digest() {
        let upper = ABC.replace("ba78", "BA78");
        let long = ABC.replace("256", "512");
        for text in ["", "sha256:", &ABC[7..], &ABC[..70], &upper, &ABC.replace('b', "g"), &long, "md5:00"] {
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
