//! References: what people call an image.
//!
//! `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`, in docker's grammar and with docker's defaults, so that a name means here what
//! it means everywhere: `debian` is `docker.io/library/debian:latest`. The first part is a registry only where it cannot
//! be a part of a repository: with a dot, a port, a capital letter, or as `localhost`.

use std::fmt;
use std::str::FromStr;

use super::Digest;

/// Who is asked for a name that says no registry.
const DEFAULT_REGISTRY: &str = "docker.io";
/// An old name of the same one.
const OLD_REGISTRY: &str = "index.docker.io";
/// Where its repositories of one part lie.
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// A name of an image, whole: nothing is left to be guessed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The host, and the port where one is said.
    pub registry: String,
    /// The path there.
    pub repository: String,
    /// Which of its images; there is none where only a digest was said.
    pub tag: Option<String>,
    /// Which bytes exactly.
    pub digest: Option<Digest>,
}

/// A text that names no image.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{text:?} names no image: {reason}")]
pub struct ReferenceError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ReferenceError {
    /// What to try next.
    pub fn hint(&self) -> String {
        let lower = self.text.to_lowercase();
        if lower != self.text && lower.parse::<Reference>().is_ok() {
            return format!("did you mean {lower}?");
        }
        "a name is [REGISTRY/]REPOSITORY[:TAG][@DIGEST], such as debian:12 or localhost:5000/team/app:1.0".to_owned()
    }
}

impl Reference {
    /// The same image's repository with another tag.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// The tag, or what is assumed where none was said.
    pub fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or(DEFAULT_TAG)
    }

    /// What a registry is asked for: the digest where there is one, the tag otherwise.
    pub fn wanted(&self) -> String {
        self.digest.map_or_else(|| self.tag_or_latest().to_owned(), |digest| digest.to_string())
    }

    /// `REGISTRY/REPOSITORY`, whole.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// As short as it may be said, which is how docker prints it.
    pub fn familiar(&self) -> String {
        let official = self.repository.strip_prefix(OFFICIAL).filter(|rest| !rest.contains('/'));
        let short = official.unwrap_or(&self.repository);
        // What `docker.io/x.y/z` would be without its registry is another image, of the registry x.y.
        let known = self.registry == DEFAULT_REGISTRY && split_registry(short).1 == short;
        let name = if known { short.to_owned() } else { self.name() };
        format!("{name}{}", self.suffix())
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let wrong = |reason| ReferenceError { text: text.to_owned(), reason };
        if text.len() == 64 && text.bytes().all(is_hex) {
            // docker keeps such names for ids, so that nobody takes one for the other.
            return Err(wrong("64 hexadecimal digits are an id"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| wrong("what follows @ is no digest"))?)),
            None => (text, None),
        };
        let (registry, rest) = split_registry(rest);
        // A colon behind the last slash begins a tag; one before it was a port.
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (rest, None),
        };
        let registry = if registry == OLD_REGISTRY { DEFAULT_REGISTRY } else { registry };
        if !is_registry(registry) {
            return Err(wrong("its registry is no host"));
        }
        if repository.is_empty() {
            return Err(wrong("it has no repository"));
        }
        if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(wrong("a repository is written in lower case"));
        }
        if !repository.split('/').all(is_component) {
            return Err(wrong("a repository has parts of letters and digits with single separators between them"));
        }
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("a tag has up to 128 letters, digits, dots, hyphens and underscores"));
        }
        let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
        let repository = if official { format!("{OFFICIAL}{repository}") } else { repository.to_owned() };
        if registry.len() + 1 + repository.len() > LONGEST_NAME {
            return Err(wrong("it is longer than 255 characters"));
        }
        let tag = if digest.is_none() { tag.or_else(|| Some(DEFAULT_TAG.to_owned())) } else { tag };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

fn split_registry(text: &str) -> (&str, &str) {
    let capital = |first: &str| first.bytes().any(|byte| byte.is_ascii_uppercase());
    match text.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" || capital(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, text),
    }
}

/// A host name or an address, and perhaps a port.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("", rest.strip_prefix(':').or((!rest.is_empty()).then_some("")))
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        edge(label.bytes().next())
            && edge(label.bytes().last())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let port = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    port && (text.starts_with('[') || host.split('.').all(label))
}

/// `[a-z0-9]+` with `.`, `_`, `__` or hyphens between.
fn is_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().copied().is_some_and(word) || !bytes.last().copied().is_some_and(word) {
        return false;
    }
    let separators = bytes.split(|byte| word(*byte)).filter(|separator| !separator.is_empty());
    separators.into_iter().all(|one| matches!(one, b"." | b"_" | b"__") || one.iter().all(|byte| *byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().next().is_some_and(word)
        && text.len() <= LONGEST_TAG
        && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::Reference;
    use proptest::prelude::*;

    #[test]
    fn a_short_name_means_what_docker_means() {
        let digest = super::Digest::of(b"");
        for (text, whole, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("team/app", "docker.io/team/app:latest", "team/app:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("docker.io/a/b/c:x", "docker.io/a/b/c:x", "a/b/c:x"),
            ("docker.io/x.y/z", "docker.io/x.y/z:latest", "docker.io/x.y/z:latest"),
            ("docker.io/localhost/z", "docker.io/localhost/z:latest", "docker.io/localhost/z:latest"),
            ("docker.io/docker.io/z", "docker.io/docker.io/z:latest", "docker.io/docker.io/z:latest"),
            ("docker.io/localhost", "docker.io/library/localhost:latest", "localhost:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
            ("HOST/app", "HOST/app:latest", "HOST/app:latest"),
            ("[::1]:5000/a/b:c", "[::1]:5000/a/b:c", "[::1]:5000/a/b:c"),
            ("a__b/c-.d", "", ""),
            ("a__b/c---d", "docker.io/a__b/c---d:latest", "a__b/c---d:latest"),
            ("app:5000", "docker.io/library/app:5000", "app:5000"),
            (&format!("app@{digest}"), &format!("docker.io/library/app@{digest}"), &format!("app@{digest}")),
            (&format!("app:1@{digest}"), &format!("docker.io/library/app:1@{digest}"), &format!("app:1@{digest}")),
        ] {
            let parsed = text.parse::<Reference>();
            if whole.is_empty() {
                assert!(parsed.is_err(), "{text}");
                continue;
            }
            let parsed = parsed.unwrap();
            assert_eq!((parsed.to_string().as_str(), parsed.familiar().as_str()), (whole, familiar), "{text}");
            assert_eq!(parsed.familiar().parse(), Ok(parsed));
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_reason() {
        let long = format!("a/{}", "b".repeat(250));
        for text in [
            "",
            ":",
            "@",
            "/",
            "a/",
            "/a",
            "a//b",
            "App",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a:",
            "a:-x",
            "a@sha256:00",
            "a b",
            "a:b:c",
            "../a",
            "host.x:y/a",
            ".x/a",
            "[::g]/a",
            "[::1]x/a",
            "é",
            &long,
            &"a".repeat(64),
        ] {
            let refused = text.parse::<Reference>().unwrap_err();
            assert!(!refused.hint().is_empty(), "{text}");
        }
        assert_eq!("App".parse::<Reference>().unwrap_err().hint(), "did you mean app?");
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_taken_again_as_it_is_printed(text in "[a-zA-Z0-9:/@._\\[\\] -]{0,40}") {
            if let Ok(parsed) = text.parse::<Reference>() {
                prop_assert_eq!(parsed.to_string().parse::<Reference>(), Ok(parsed.clone()));
                prop_assert_eq!(parsed.familiar().parse::<Reference>(), Ok(parsed));
            }
        }
    }
}
