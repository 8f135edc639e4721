//! What can go wrong between here and a registry, and what to try then.

use std::io;
use std::path::PathBuf;

use crate::image::{Digest, ImageError};

/// Why an image could not be pulled or pushed, or a password not be kept.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The registry cannot be reached, or breaks off, or says nothing.
    #[error("cannot reach {host}")]
    Reach {
        /// Whose.
        host: String,
        /// What the transport says.
        source: Box<ureq::Error>,
    },
    /// The registry refuses.
    #[error("{host} answers {status} to {request}{said}")]
    Refused {
        /// Who.
        host: String,
        /// The status of its reply.
        status: u16,
        /// What was asked.
        request: String,
        /// Its own words, with a colon before them; empty if it has none.
        said: String,
    },
    /// The registry's answer is not one that the specification allows.
    #[error("{host} does not behave as a registry: {reason}")]
    Nonsense {
        /// Who.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// What came is not what was asked for.
    #[error("{host} sends something else than {digest}: {reason}")]
    Lies {
        /// Who.
        host: String,
        /// What was asked for.
        digest: Box<Digest>,
        /// How that shows.
        reason: String,
    },
    /// The registry sends from one address to the next without end, or to one that must not be asked.
    #[error("{host} redirects {reason}")]
    Redirect {
        /// Who.
        host: String,
        /// How.
        reason: &'static str,
    },
    /// No password, or a wrong one.
    #[error("{host} wants to know who asks")]
    Unauthorized {
        /// Who.
        host: String,
        /// Whether there was a password.
        known: bool,
    },
    /// docker's config.json.
    #[error("cannot {attempt} {}", path.display())]
    Config {
        /// What was tried.
        attempt: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A credential helper of docker's.
    #[error("the credential helper {helper} fails: {reason}")]
    Helper {
        /// Its program.
        helper: String,
        /// What it said.
        reason: String,
    },
    /// A certificate.
    #[error("{} holds no certificate that can be read", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
    },
    /// The index has no image for this platform.
    #[error("there is no image for {platform} in {name}")]
    Platform {
        /// The image.
        name: String,
        /// What was asked for.
        platform: String,
    },
    /// The store.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl ClientError {
    /// What to try next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Image(error) => return error.hint(),
            Self::Reach { source, .. } => return reach(source),
            Self::Refused { status: 404, .. } => "look at the name and the tag; a private image needs `login`",
            Self::Refused { status: 403, .. } => "this user may not do that there: log in as another",
            Self::Refused { status: 405, .. } => "this registry can only be read",
            Self::Refused { status: 429 | 500..=599, .. } => "that may pass: try again later",
            Self::Lies { .. } => {
                "do not use what it sends: the registry, or somebody on the way to it, changes content"
            }
            Self::Unauthorized { host, known: false } => return Some(format!("log in: isolab-ctr login {host}")),
            Self::Unauthorized { host, known: true } => {
                return Some(format!("the password is wrong or too old: isolab-ctr login {host}"));
            }
            Self::Platform { .. } => "choose one of its platforms with --platform OS/ARCHITECTURE",
            Self::Nonsense { .. } => "is the address that of a registry?",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

fn reach(error: &ureq::Error) -> Option<String> {
    let text = match error {
        ureq::Error::HostNotFound => "look at the registry's name",
        ureq::Error::Timeout(_) | ureq::Error::BodyStalled => {
            "it says nothing: try again, or wait longer with --timeout"
        }
        ureq::Error::ConnectionFailed => "does the registry run, and is the port right?",
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "does the registry run, and is the port right?"
        }
        // The standard library has no kind for what getaddrinfo(3) says.
        ureq::Error::Io(error) if error.to_string().starts_with("failed to lookup address") => {
            "look at the registry's name, and at the name servers in /etc/resolv.conf"
        }
        ureq::Error::Io(_) | ureq::Error::Rustls(_) | ureq::Error::Tls(_) => {
            "for a certificate that the system does not know use --cert-dir DIR; for none at all, --insecure"
        }
        _ => return None,
    };
    Some(text.to_owned())
}
