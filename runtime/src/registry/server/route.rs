//! What a request is about: its path, taken apart from the right, since a repository's name may have any number of parts.

use std::fmt::Write as _;

use super::names::Name;
use super::reply::Problem;

/// A thing of the registry that has an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/`: the page for people.
    Page,
    /// `/v2/`: is this a registry?
    Base,
    /// `/v2/_catalog`: all repositories. Not of the specification, and asked for by many clients.
    Catalog,
    /// `/v2/NAME/tags/list`.
    Tags(Name),
    /// `/v2/NAME/manifests/REFERENCE`: a tag or a digest, or a text that is neither.
    Manifest(Name, String),
    /// `/v2/NAME/blobs/DIGEST`.
    Blob(Name, String),
    /// `/v2/NAME/blobs/uploads/`: where uploads begin.
    Uploads(Name),
    /// `/v2/NAME/blobs/uploads/ID`: one that has begun.
    Upload(Name, String),
    /// `/v2/NAME/referrers/DIGEST`.
    Referrers(Name, String),
}

impl Route {
    /// Understands a path.
    pub(super) fn parse(path: &str) -> Result<Self, Problem> {
        let path = decode(path).ok_or_else(|| Problem::bad("UNSUPPORTED", "the path is not UTF-8"))?;
        if path == "/" {
            return Ok(Self::Page);
        }
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Base),
            Some("/_catalog") => return Ok(Self::Catalog),
            Some(rest) => rest.strip_prefix('/').ok_or_else(Problem::no_such_page)?,
            None => return Err(Problem::no_such_page()),
        };
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags(named(name)?));
        }
        if let Some(name) = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads")) {
            return Ok(Self::Uploads(named(name)?));
        }
        let (before, last) = rest.rsplit_once('/').ok_or_else(Problem::no_such_page)?;
        let last = last.to_owned();
        if let Some(name) = before.strip_suffix("/blobs/uploads") {
            return Ok(Self::Upload(named(name)?, last));
        }
        let (name, kind) = before.rsplit_once('/').ok_or_else(Problem::no_such_page)?;
        match kind {
            "manifests" => Ok(Self::Manifest(named(name)?, last)),
            "blobs" => Ok(Self::Blob(named(name)?, last)),
            "referrers" => Ok(Self::Referrers(named(name)?, last)),
            _ => Err(Problem::no_such_page()),
        }
    }
}

fn named(text: &str) -> Result<Name, Problem> {
    Name::parse(text).ok_or_else(|| Problem::bad("NAME_INVALID", "invalid repository name"))
}

/// The parameters behind the question mark.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Understands a query; what is not UTF-8 in it is nobody's parameter.
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        // A plus is itself: no parameter can hold a space, and many a media type holds a plus.
        Self(pairs.filter_map(|(key, value)| Some((decode(key)?, decode(value)?))).collect())
    }

    /// The first value of a parameter.
    pub(super) fn get<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        self.all(key).next()
    }

    /// All values of a parameter.
    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// Undoes percent-encoding (RFC 3986, 2.1). `None` where it is broken.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(rest.next()?)? * 16 + digit(rest.next()?)?) as u8);
    }
    String::from_utf8(bytes).ok()
}

/// Makes a text fit for a query.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::{Name, Query, Route, decode, encode};

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn a_path_is_understood_whatever_the_repository_is_called() {
        let known = [
            ("/v2/", Route::Base),
            ("/v2/blobs/uploads/tags/list", Route::Tags(name("blobs/uploads"))),
            ("/v2/a/b/manifests/latest", Route::Manifest(name("a/b"), "latest".to_owned())),
            ("/v2/manifests/manifests/x", Route::Manifest(name("manifests"), "x".to_owned())),
            ("/v2/a/blobs/sha256%3Aab", Route::Blob(name("a"), "sha256:ab".to_owned())),
            ("/v2/a/blobs/uploads/", Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads/77", Route::Upload(name("a"), "77".to_owned())),
            ("/v2/a/referrers/sha256:ab", Route::Referrers(name("a"), "sha256:ab".to_owned())),
        ];
        for (path, route) in known {
            assert_eq!(Route::parse(path).unwrap(), route, "{path}");
        }
        for path in [
            "",
            "/v1/",
            "/v2a",
            "/v2/a",
            "/v2/a/b",
            "/v2/a/things/b",
            "/v2/../blobs/uploads/",
            "/v2/A/tags/list",
            "/%zz",
        ] {
            assert!(Route::parse(path).is_err(), "{path} was taken");
        }
    }

    #[test]
    fn a_query_is_decoded_and_a_plus_stays() {
        let query = Query::parse("tag=a&tag=b&artifactType=application/x+json&n=%31&broken=%f");
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(query.get("artifactType"), Some("application/x+json"));
        assert_eq!((query.get("n"), query.get("broken")), (Some("1"), None));
        assert_eq!(decode(&encode("a b+c/ä")).as_deref(), Some("a b+c/ä"));
    }
}
