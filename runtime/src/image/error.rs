//! What can go wrong with images, and what to try then.

use std::io;
use std::path::PathBuf;

use super::digest::{Digest, DigestError};
use super::unpack::Limits;
use super::{Platform, ReferenceError};

/// Why a layer's archive could not be written or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The archive ends early, or is none.
    #[error("cannot read the layer's archive")]
    Read(#[source] io::Error),
    /// An entry that no honest archive has.
    #[error("the layer has an entry {}: {reason}", path.display())]
    Entry {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry could not be placed.
    #[error("cannot unpack {}", path.display())]
    Place {
        /// Its path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The archive unpacks to more than is allowed.
    #[error("at {} the layer exceeds {} bytes or {} files", path.display(), limits.bytes, limits.entries)]
    TooLarge {
        /// The entry that went too far.
        path: PathBuf,
        /// What is allowed.
        limits: Limits,
    },
    /// An entry could not be added to an archive.
    #[error("cannot add {} to a layer", path.display())]
    Write {
        /// Its path; empty for the end of the archive.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// Why something could not be done with an image or the store.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file or folder of the store, or a file that goes into an image.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A layer's archive.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A layer stopped coming in.
    #[error("cannot receive layer {}", blob.short())]
    Receive {
        /// The digest of what was to come.
        blob: Digest,
        /// What its source says.
        source: io::Error,
    },
    /// The store has no such blob.
    #[error("the store has no blob {0}")]
    Missing(Digest),
    /// Stored bytes are not those that their name promises.
    #[error("what is stored as {expected} is {found}")]
    Corrupt {
        /// The name.
        expected: Digest,
        /// The digest of what is there.
        found: Box<Digest>,
    },
    /// A manifest, a configuration or the index is not what it should be.
    #[error("{what} cannot be understood")]
    Understand {
        /// Which document.
        what: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A digest in a document of the image is none, or none of a kind that is known here.
    #[error("the image names its content in a way that is not known here")]
    Digest(#[from] DigestError),
    /// The image contradicts itself.
    #[error("image {} has {layers} layers, and its configuration tells of {told}", id.short())]
    Layers {
        /// The image's id.
        id: Digest,
        /// Layers in the manifest.
        layers: usize,
        /// Layers in the configuration.
        told: usize,
    },
    /// A layer's archive is packed in a way that is not known here.
    #[error("layer {blob} is a {found}, and only archives that are plain or packed by gzip or zstd are known here")]
    Packing {
        /// The layer's archive.
        blob: Digest,
        /// Its media type.
        found: String,
    },
    /// A text that names no image.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// No image of the store is called so.
    #[error("no image is called {name}, nor does an id begin so")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// Several images have ids that begin so.
    #[error("{prefix} is the beginning of {} ids: {}", candidates.len(), candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// What it may mean.
        candidates: Vec<String>,
    },
    /// An index without a build for this machine.
    #[error("image {} has no build for {platform}: {}", index.short(), offers(offered))]
    NoPlatform {
        /// The index.
        index: Box<Digest>,
        /// What was asked for.
        platform: Box<Platform>,
        /// What there is.
        offered: Vec<String>,
    },
    /// A file that holds no image.
    #[error("the file holds no image")]
    NoArchive,
    /// A file in the form that docker had before images were known by their digests.
    #[error("the file holds images in the form that docker wrote before 1.10")]
    OldArchive,
    /// An index of indexes of indexes.
    #[error("index {0} lies in too many others")]
    TooDeep(Digest),
    /// A document of the image lacks what the specification requires.
    #[error("a document of the image cannot be made")]
    Specification(#[from] oci_spec::OciSpecError),
}

impl ImageError {
    /// What to try next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Io { source, path, .. } | Self::Layer(LayerError::Place { source, path }) => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    format!("{} is not yours: choose another root with --root", path.display())
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "make room on that file system, or choose another root with --root".to_owned()
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    "choose a root on a file system that can be written, with --root".to_owned()
                }
                _ => return None,
            },
            Self::Missing(_) | Self::Corrupt { .. } | Self::Understand { .. } | Self::Layers { .. } => {
                "the store is damaged: remove the image, or the whole store, and get it again".to_owned()
            }
            Self::Layer(LayerError::Entry { .. }) => {
                "this image was made to break out of its store: do not use it".to_owned()
            }
            Self::Reference(error) => error.hint(),
            Self::Unknown { known, .. } if known.is_empty() => {
                "the store is empty: get an image with pull, load, import or build".to_owned()
            }
            Self::Unknown { name, known } => nearest(name, known),
            Self::NoArchive => "a file system in an archive is made an image by: isolab-ctr import".to_owned(),
            Self::OldArchive => {
                "load it with docker, and save it again: what it writes now can be read here".to_owned()
            }
            Self::Ambiguous { .. } => "write more of the id".to_owned(),
            Self::NoPlatform { .. } => "ask for a platform that it has, with --platform".to_owned(),
            _ => return None,
        };
        Some(text)
    }
}

fn offers(offered: &[String]) -> String {
    if offered.is_empty() { "it says none".to_owned() } else { format!("it has {}", offered.join(", ")) }
}

/// A name that is meant perhaps: one that has the same last part, whatever its tag and registry.
fn nearest(name: &str, known: &[String]) -> String {
    let last = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or(name);
        name.split([':', '@']).next().unwrap_or(name).to_owned()
    };
    match known.iter().find(|other| last(other) == last(name)) {
        Some(other) => format!("there is {other}"),
        None => "see what there is with: isolab-ctr images".to_owned(),
    }
}
