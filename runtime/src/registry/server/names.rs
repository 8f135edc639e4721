//! What repositories and tags may be called (distribution-spec, "Pulling manifests").

use std::fmt;
use std::path::{Path, PathBuf};

/// Clients stop at 255 for a registry's host and a name together, and a file's name cannot be longer.
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// The name of a repository: components of lower-case letters and digits with single separators, and slashes between.
///
/// Whoever has one can use it as a relative path: no component begins with a dot, or with the underscore that the
/// registry's own folders begin with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(String);

impl Name {
    /// `None` where the grammar forbids it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        (text.len() <= LONGEST_NAME && text.split('/').all(is_component)).then(|| Self(text.to_owned()))
    }

    /// Its folder below that of all repositories.
    pub(super) fn folder(&self, repositories: &Path) -> PathBuf {
        repositories.join(&self.0)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Words of letters and digits with `.`, `_`, `__` or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let separators = bytes.split(is_word).filter(|run| !run.is_empty());
    let mut good = separators.map(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|byte| *byte == b'-'));
    is_word(first) && is_word(last) && good.all(|good| good)
}

/// Whether a text may be a tag.
pub(super) fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    first && text.len() <= LONGEST_TAG && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::{Name, is_tag};

    #[test]
    fn names_are_those_of_the_grammar() {
        for name in ["a", "a/b", "0", "a.b/c_d/e__f/g---h", "library/nginx", &"a".repeat(255)] {
            assert!(Name::parse(name).is_some(), "{name} was refused");
        }
        let refused =
            ["", "/", "a/", "/a", "a//b", "A", "a..b", ".a", "a.", "a___b", "_a", "a-", "a/../b", "a b", "ä", "a._b"];
        for name in refused.into_iter().chain([&*"a".repeat(256)]) {
            assert!(Name::parse(name).is_none(), "{name} was taken");
        }
    }

    #[test]
    fn tags_are_those_of_the_grammar() {
        for tag in ["a", "latest", "_x", "1.0-rc_1", "V2", &"a".repeat(128)] {
            assert!(is_tag(tag), "{tag} was refused");
        }
        for tag in ["", ".", "..", "-a", "a b", "a/b", "a:b", "ä", &"a".repeat(129)] {
            assert!(!is_tag(tag), "{tag} was taken");
        }
    }
}
