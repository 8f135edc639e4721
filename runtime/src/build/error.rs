//! What can go wrong with a build, and what to try then.

use std::io;
use std::path::PathBuf;

use super::dockerfile::{DockerfileError, Problem};
use crate::container::ContainerError;
use crate::engine::EngineError;
use crate::image::ImageError;
use crate::registry::client::ClientError;

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile.
    #[error("Dockerfile, {0}")]
    Dockerfile(#[from] DockerfileError),
    /// No such stage.
    #[error("the Dockerfile has no stage {name}")]
    NoStage {
        /// As asked for.
        name: String,
    },
    /// A copy from a stage that comes only later.
    #[error("Dockerfile, line {line}: stage {name} does not come before this one")]
    Later {
        /// The line of the copy.
        line: usize,
        /// The stage.
        name: String,
    },
    /// An image for another kind of machine.
    #[error("Dockerfile, line {line}: platform {asked} is asked for, and this machine is {own}")]
    Platform {
        /// The line of the FROM.
        line: usize,
        /// The platform.
        asked: String,
        /// This machine's.
        own: String,
    },
    /// A step.
    #[error("Dockerfile, line {line}: cannot do {text:?}")]
    Step {
        /// Its line.
        line: usize,
        /// The instruction.
        text: String,
        /// Why.
        source: Box<BuildError>,
    },
    /// A program of the build said that it failed.
    #[error("the program ended with status {0}")]
    Status(i32),
    /// A variable in a step.
    #[error("{0}")]
    Variable(Problem),
    /// A value that makes no sense there.
    #[error("{what} is {value:?}, and it must be {form}")]
    Value {
        /// Of what.
        what: &'static str,
        /// The value.
        value: String,
        /// What it has to be.
        form: &'static str,
    },
    /// A secret that a step cannot do without.
    #[error("secret {id} is needed, and none was given")]
    Secret {
        /// What it is called.
        id: String,
    },
    /// A file that lies elsewhere.
    #[error("cannot fetch {address}")]
    Fetch {
        /// Where.
        address: String,
        /// Why.
        source: ClientError,
    },
    /// A file that is another than the Dockerfile says.
    #[error("what lies at {address} has the digest {found}")]
    Checksum {
        /// Where.
        address: String,
        /// What it is.
        found: String,
    },
    /// Nothing to copy.
    #[error("{source_path:?} is not in {place}")]
    NoSource {
        /// The path or pattern.
        source_path: String,
        /// Where it was looked for.
        place: String,
    },
    /// A copy that cannot be understood.
    #[error("{path:?}: {problem}")]
    Copy {
        /// The source or the destination.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A file or folder.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A build needs mounts.
    #[error("cannot mount layers to build upon")]
    Mount(#[source] io::Error),
    /// A container for a step.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store, or an image.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl BuildError {
    /// The status to end with: 1, or the signal that ended a step.
    pub fn code(&self) -> u8 {
        match self {
            Self::Step { source, .. } => source.code(),
            // Somebody asked for the end; whoever started the command wants to know that it was that.
            Self::Status(status) if *status > 128 => u8::try_from(*status).unwrap_or(1),
            _ => 1,
        }
    }

    /// What to try next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Dockerfile(error) => return error.hint(),
            Self::Step { source, .. } => return source.hint(),
            Self::Variable(problem) => {
                return DockerfileError { line: 0, problem: problem.clone() }.hint();
            }
            Self::Engine(EngineError::Container(ContainerError::ProgramMissing { .. })) => {
                "a shell line needs /bin/sh in the image: build upon an image that has one, or write [\"/program\"]"
            }
            Self::Engine(error) => return error.hint(),
            Self::Image(error) => return error.hint(),
            Self::Secret { id } => return Some(format!("give it with --secret id={id},src=FILE")),
            Self::Fetch { source, .. } => return source.hint(),
            Self::Checksum { .. } => {
                "it was changed, or is not what it should be: look at it before --checksum is changed"
            }
            Self::NoSource { .. } => {
                "sources are looked for below the build's folder, and what .dockerignore names is not seen"
            }
            Self::Later { .. } => "move the stage up: a file can only be copied from what is built already",
            Self::Platform { .. } => "leave --platform away, or name this machine's",
            Self::Mount(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "building mounts overlays, which only root may: run it as root"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

pub(super) fn io_error(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.into();
    move |source| BuildError::Io { attempt, path, source }
}
