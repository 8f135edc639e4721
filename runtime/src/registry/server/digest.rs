//! Temporary.
use std::fmt;
use std::str::FromStr;
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest { algorithm: &'static str, hex: String }
impl Digest {
    pub(crate) fn algorithm(&self) -> &'static str { self.algorithm }
    pub(crate) fn hex(&self) -> String { self.hex.clone() }
    pub(crate) fn short(&self) -> String { self.hex.chars().take(12).collect() }
}
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}:{}", self.algorithm, self.hex) }
}
impl FromStr for Digest {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (algorithm, hex) = text.split_once(':').ok_or(())?;
        let (algorithm, length) = match algorithm { "sha256" => ("sha256", 64), "sha512" => ("sha512", 128), _ => return Err(()) };
        if hex.len() != length || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) { return Err(()); }
        Ok(Self { algorithm, hex: hex.to_owned() })
    }
}
