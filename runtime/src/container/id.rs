//! A container's name: it becomes a folder and a cgroup, so it must never be able to name anything else.

use std::fmt;
use std::str::FromStr;

/// The longest id, in bytes: with it a state folder's name stays below the 255 bytes that a file name may have.
const LENGTH_MAX: usize = 200;

/// The name of a container: `[A-Za-z0-9_+-][A-Za-z0-9_+.-]*`, at most 200 bytes.
///
/// No slash and no leading dot, hence no way out of the folder that it is joined to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

/// Why a text is no container id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    /// There is nothing in it.
    #[error("a container id must not be empty")]
    Empty,
    /// It is longer than a folder's name can be.
    #[error("container id is {0} bytes long; at most {LENGTH_MAX} are allowed")]
    TooLong(usize),
    /// It begins with, or holds, a character that is not allowed there.
    #[error("container id {id:?} must not have {character:?} at position {position}")]
    Character {
        /// The text.
        id: String,
        /// The first character that is not allowed.
        character: char,
        /// Where it stands, counted in characters from 1.
        position: usize,
    },
}

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = IdError;

    fn from_str(id: &str) -> Result<Self, IdError> {
        if id.is_empty() {
            return Err(IdError::Empty);
        }
        if id.len() > LENGTH_MAX {
            return Err(IdError::TooLong(id.len()));
        }
        let allowed = |(index, character): (usize, char)| {
            character.is_ascii_alphanumeric() || "_+-".contains(character) || (index > 0 && character == '.')
        };
        match id.chars().enumerate().find(|pair| !allowed(*pair)) {
            None => Ok(Self(id.to_owned())),
            Some((index, character)) => Err(IdError::Character { id: id.to_owned(), character, position: index + 1 }),
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{ContainerId, IdError};

    #[test]
    fn an_ordinary_name_is_an_id() {
        for id in ["a", "web-1", "A_b+c.d", "0123", "-x"] {
            assert_eq!(id.parse::<ContainerId>().map(|id| id.to_string()), Ok(id.to_owned()));
        }
    }

    #[test]
    fn an_id_cannot_leave_its_folder() {
        for id in ["../x", "a/b", "..", ".", ".hidden", "a b", "a\0b", "é"] {
            assert!(matches!(id.parse::<ContainerId>(), Err(IdError::Character { .. })), "{id:?} was taken");
        }
    }

    #[test]
    fn an_id_is_neither_empty_nor_endless() {
        assert_eq!("".parse::<ContainerId>(), Err(IdError::Empty));
        assert_eq!("x".repeat(300).parse::<ContainerId>(), Err(IdError::TooLong(300)));
    }
}
