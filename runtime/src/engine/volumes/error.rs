//! What can go wrong with volumes and mounts.

use std::io;
use std::path::{Path, PathBuf};

use crate::image::LayerError;

/// Why a volume, or a mount of one, could not be had.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A file or folder of the store of volumes.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// What is known of a volume cannot be understood.
    #[error("{} cannot be understood", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// No name of a volume.
    #[error("{name:?} is no name of a volume")]
    Name {
        /// What was given.
        name: String,
    },
    /// No such volume.
    #[error("there is no volume {name}")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// Containers have it.
    #[error("volume {name} is in use by {}", users.join(", "))]
    InUse {
        /// The volume.
        name: String,
        /// Names of the containers.
        users: Vec<String>,
    },
    /// What the image has at a volume's place could not be copied.
    #[error("cannot fill volume {name} with what the image has at {}", place.display())]
    Fill {
        /// The volume.
        name: String,
        /// Its place in the container.
        place: PathBuf,
        /// What went wrong.
        source: LayerError,
    },
    /// Two mounts at one place.
    #[error("two things are to be mounted at {}", place.display())]
    Twice {
        /// The place in the container.
        place: PathBuf,
    },
    /// The host has nothing there.
    #[error("cannot mount {}, which is not there", from.display())]
    NoSource {
        /// The path on the host.
        from: PathBuf,
    },
    /// A folder on a file, or the other way round.
    #[error("cannot mount {source_kind} {what} on {}, which is {place_kind} in the image", place.display())]
    Kinds {
        /// What comes from the host.
        source_kind: &'static str,
        /// Its path or name.
        what: String,
        /// The place in the container.
        place: PathBuf,
        /// What the image has there.
        place_kind: &'static str,
    },
}

impl VolumeError {
    /// What to try next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Name { .. } => {
                "it begins with a letter or digit, and goes on with these and _ . -; a path begins with /"
            }
            Self::Unknown { .. } => "see what there is with: isolab-ctr volume ls",
            Self::InUse { .. } => "remove the containers first: isolab-ctr rm",
            Self::NoSource { .. } => "make it first; -v makes a folder where none is",
            Self::Kinds { .. } => "a file can be mounted on a file, a folder on a folder or where nothing is",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

pub(super) fn io_error(attempt: &'static str, path: &Path) -> impl Fn(io::Error) -> VolumeError + use<> {
    let path = path.to_owned();
    move |source| VolumeError::Io { attempt, path: path.clone(), source }
}
