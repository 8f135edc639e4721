//! What can go wrong with a container of an image, which status says so, and what to try then.

use std::io;
use std::path::PathBuf;

use crate::container::{BundleError, ContainerError, IdError};
use crate::image::ImageError;

/// Why a container of an image could not run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No such image.
    #[error("there is no image {name}")]
    NoImage {
        /// What was asked for.
        name: String,
    },
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Its configuration cannot be read.
    #[error("the configuration of image {name} cannot be understood")]
    Configuration {
        /// The image.
        name: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A user that the image doesn't have.
    #[error("the image has no user {name}")]
    NoUser {
        /// The name.
        name: String,
    },
    /// A group that the image doesn't have.
    #[error("the image has no group {name}")]
    NoGroup {
        /// The name.
        name: String,
    },
    /// Nothing to run.
    #[error("the image says nothing to run, and no command is given")]
    NoCommand,
    /// A mount of the host's that cannot be understood.
    #[error("{text:?} is no mount: {problem}")]
    Volume {
        /// As given.
        text: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A file with variables.
    #[error("line {line} of {}: {problem}", path.display())]
    EnvironmentFile {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A name that no container can have.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A file or folder for the container.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The container itself.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Its configuration.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl EngineError {
    /// The status to end with, as docker's users know it: 127 for a program that is not there, 126 for one that cannot be
    /// executed, 125 for all else.
    pub fn code(&self) -> u8 {
        match self {
            Self::Container(ContainerError::ProgramMissing { .. }) => 127,
            Self::Container(ContainerError::ProgramDenied { .. }) => 126,
            _ => 125,
        }
    }

    /// What to try next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoImage { .. } => "`isolab-ctr images` shows those that are there; pull, build or import it first",
            Self::Image(error) => return error.hint(),
            Self::Container(error) => return error.hint(),
            Self::NoUser { .. } | Self::NoGroup { .. } => {
                "names are looked up in the image's /etc/passwd and /etc/group; a number needs no list"
            }
            Self::NoCommand => "name a program behind the image, such as /bin/sh",
            Self::Volume { .. } => "write -v /on/the/host:/in/the/container, with :ro behind it to forbid writing",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

pub(crate) fn io_error(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> EngineError {
    let path = path.into();
    move |source| EngineError::Io { attempt, path, source }
}
