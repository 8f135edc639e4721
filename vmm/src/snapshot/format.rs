//! The state file: a header that says what follows, and what follows.
//!
//! ```text
//!  0  8 bytes   "isolabVM"
//!  8  4 bytes   version, little-endian
//! 12  4 bytes   how many bytes follow the header
//! 16 32 bytes   SHA-256 of the first 16 bytes and of all that follows the header
//! 48            the state, in JSON
//! ```
//!
//! Whoever reads the file trusts none of it: nothing is made for a length before that length is compared with what is
//! there, nothing is parsed before the checksum is right, and a right checksum says only that nobody changed the file by
//! accident. `tail -c +49 state | jq` shows it to a reader.

use sha2::{Digest, Sha256};

use super::state::{Impossible, State};

/// How a state file begins.
pub const MAGIC: [u8; 8] = *b"isolabVM";
/// What this monitor writes, and all that it reads.
pub const VERSION: u32 = 1;
/// No state is larger, in bytes: that of a machine with 64 processors is a tenth of it.
pub const LARGEST: usize = 16 << 20;
const HEADER: usize = 48;

/// Why bytes are no state.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Another kind of file.
    #[error("magic: it does not begin with \"isolabVM\"")]
    Magic,
    /// Of another time.
    #[error("version: it is {0}, and this monitor reads {VERSION}")]
    Version(u32),
    /// It ends early, or goes on too long.
    #[error("length: it says {said} bytes, and there are {there}")]
    Length {
        /// What the header says, header included.
        said: u64,
        /// What there is.
        there: u64,
    },
    /// Not even a header.
    #[error("length: there are {0} bytes, and the header alone has {HEADER}")]
    Short(u64),
    /// More than any machine has.
    #[error("length: {0} bytes are more than any state has")]
    TooLong(u64),
    /// Changed since it was written.
    #[error("checksum: the bytes are not those that were written")]
    Checksum,
    /// Right bytes that mean nothing.
    #[error("{field}: {why}")]
    Field {
        /// Which field.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// Fields that mean something which can't be.
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

/// The file's bytes.
pub fn encode(state: &State) -> Result<Vec<u8>, FormatError> {
    let body = serde_json::to_vec(state)
        .map_err(|error| FormatError::Field { field: "state".to_owned(), why: error.to_string() })?;
    Ok(seal(&body))
}

/// Puts the header before `body`.
pub fn seal(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((body.len() as u32).to_le_bytes());
    let sum = checksum(&bytes, body);
    bytes.extend(sum);
    bytes.extend(body);
    bytes
}

/// The state in a file's bytes.
pub fn decode(bytes: &[u8]) -> Result<State, FormatError> {
    let state: State = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(open(bytes)?))
        .map_err(|error| FormatError::Field { field: error.path().to_string(), why: error.inner().to_string() })?;
    state.check()?;
    Ok(state)
}

/// What follows the header, once the header is right.
fn open(bytes: &[u8]) -> Result<&[u8], FormatError> {
    let there = bytes.len() as u64;
    if bytes.first_chunk().is_some_and(|magic| *magic != MAGIC) {
        return Err(FormatError::Magic);
    }
    let Some((header, body)) = bytes.split_at_checked(HEADER) else { return Err(FormatError::Short(there)) };
    let word =
        |at: usize| header.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word));
    if word(8) != VERSION {
        return Err(FormatError::Version(word(8)));
    }
    let said = word(12) as usize;
    if said > LARGEST {
        return Err(FormatError::TooLong(said as u64));
    }
    if said != body.len() {
        return Err(FormatError::Length { said: (HEADER + said) as u64, there });
    }
    let (described, sum) = header.split_at(16);
    if checksum(described, body) != *sum {
        return Err(FormatError::Checksum);
    }
    Ok(body)
}

fn checksum(described: &[u8], body: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(described).chain_update(body).finalize().into()
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
