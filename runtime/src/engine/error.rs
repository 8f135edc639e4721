//! What can go wrong with a container of an image, which status says so, and what to try then.

use std::io;
use std::path::PathBuf;

use super::copy::CopyError;
use super::volumes::VolumeError;
use super::wishes::WishError;
use crate::container::{BundleError, ContainerError, IdError};
use crate::image::ImageError;
use crate::network::NetworkError;

/// Why a container of an image could not run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No such image.
    #[error("there is no image {name}")]
    NoImage {
        /// What was asked for.
        name: String,
    },
    /// Its network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A container that no network can be given to, or taken from.
    #[error("container {name} has its network from {from}, and cannot be in another one")]
    NetworkFixed {
        /// The container.
        name: String,
        /// Whose network it has.
        from: String,
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
    /// Containers have all ranges of numbers.
    #[error("there are no numbers left for users of its own")]
    NoUsers,
    /// Nothing to run.
    #[error("the image says nothing to run, and no command is given")]
    NoCommand,
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
    /// The same, in docker's terms.
    #[error("{name:?} is no container name")]
    Name {
        /// As given.
        name: String,
    },
    /// A name that another container has.
    #[error("the name {name:?} is taken by container {id}")]
    NameTaken {
        /// The name.
        name: String,
        /// The beginning of its owner's id.
        id: String,
    },
    /// No such container. In words that docker's users look for.
    #[error("No such container: {name}")]
    NoContainer {
        /// What was asked for.
        name: String,
    },
    /// Several containers whose ids begin like that.
    #[error("{count} containers have an id that begins with {prefix}")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// How many.
        count: usize,
    },
    /// A container's record that cannot be read or written.
    #[error("{} is no container record", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A profile of system calls that cannot be understood.
    #[error("{} is no seccomp profile", path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Files that go to or from a container.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A clone of a full clone that would share with it.
    #[error("container {name} is a full clone: nothing can share its layer")]
    Unlinkable {
        /// The container.
        name: String,
    },
    /// A volume, or a mount of one.
    #[error(transparent)]
    Volumes(#[from] VolumeError),
    /// A wish that means nothing here.
    #[error(transparent)]
    Wish(#[from] WishError),
    /// What was asked for does not fit where the container is in its life.
    #[error("cannot {attempt} container {name}: it is {state}")]
    Unfit {
        /// What was asked for.
        attempt: &'static str,
        /// The container.
        name: String,
        /// Where it is.
        state: &'static str,
    },
    /// What would be written of it would be gone with it.
    #[error("container {name} is removed with its end, and what is written of it with it")]
    Passing {
        /// The container.
        name: String,
    },
    /// The name of something that was written of a container before.
    #[error("there is a checkpoint {name} of container {container} already")]
    CheckpointTaken {
        /// The name.
        name: String,
        /// The container.
        container: String,
    },
    /// Nothing of that name was written of a container.
    #[error("there is no checkpoint {name} of container {container}")]
    NoCheckpoint {
        /// What was asked for.
        name: String,
        /// The container.
        container: String,
    },
    /// Nobody stands by the container who could be talked to.
    #[error("cannot {attempt} container {name}: nobody stands by it")]
    NoKeeper {
        /// What was asked for.
        attempt: &'static str,
        /// The container.
        name: String,
    },
    /// Nothing of what the container prints is kept.
    #[error("container {name} has no log")]
    NoLog {
        /// The container.
        name: String,
    },
    /// A container that does not end though it was killed.
    #[error("container {name} does not end")]
    Unending {
        /// The container.
        name: String,
    },
    /// A process of ours beside a container.
    #[error("cannot {attempt} the process that stands by container {name}")]
    Keeper {
        /// What was tried.
        attempt: &'static str,
        /// The container.
        name: String,
        /// What the system answered.
        source: io::Error,
    },
    /// What another process of ours could not do, in its words.
    #[error("{message}")]
    Told {
        /// The whole chain.
        message: String,
        /// The status that goes with it.
        code: u8,
        /// What to try next.
        hint: Option<String>,
    },
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
    /// Whether it is only that there is no such image.
    pub fn is_missing_image(&self) -> bool {
        matches!(self, Self::NoImage { .. } | Self::Image(ImageError::Unknown { .. }))
    }

    /// The status to end with, as docker's users know it: 127 for a program that is not there, 126 for one that cannot be
    /// executed, 125 for all else.
    pub fn code(&self) -> u8 {
        match self {
            Self::Container(ContainerError::ProgramMissing { .. }) => 127,
            Self::Container(ContainerError::ProgramDenied { .. }) => 126,
            Self::Told { code, .. } => *code,
            // docker's status for a verb about a container that is not there, or not as it has to be.
            Self::NoContainer { .. }
            | Self::Ambiguous { .. }
            | Self::Unfit { .. }
            | Self::Unending { .. }
            | Self::NoKeeper { .. }
            | Self::NoLog { .. }
            | Self::Passing { .. }
            | Self::CheckpointTaken { .. }
            | Self::NoCheckpoint { .. }
            | Self::Copy(_)
            | Self::Unlinkable { .. }
            | Self::Volumes(VolumeError::Unknown { .. } | VolumeError::InUse { .. }) => 1,
            _ => 125,
        }
    }

    /// What to try next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoImage { .. } => "`isolab-ctr images` shows those that are there; pull, build or import it first",
            Self::Image(error) => return error.hint(),
            Self::Network(error) => return error.hint(),
            Self::Container(ContainerError::ProgramMissing { .. }) => {
                "the program is looked for in the image, in the folders of its PATH"
            }
            Self::Container(error) => return error.hint(),
            Self::NoUser { .. } | Self::NoGroup { .. } => {
                "names are looked up in the image's /etc/passwd and /etc/group; a number needs no list"
            }
            Self::NoCommand => "name a program behind the image, such as /bin/sh",
            Self::NoContainer { .. } => "`isolab-ctr ps -a` shows those that are there",
            Self::Ambiguous { .. } => "give more digits, or its name",
            Self::NoKeeper { .. } => {
                "a process of ours stands by a container that keeps a log (which is the default), has a terminal, or is restarted"
            }
            Self::NoLog { .. } => {
                "it was made with --log-driver none, or runs in the foreground with --rm: what it prints goes there"
            }
            Self::Passing { .. } => "name a folder for it with --checkpoint-dir",
            Self::CheckpointTaken { .. } => "remove it with `isolab-ctr checkpoint rm`, or choose another name",
            Self::NoCheckpoint { .. } => "`isolab-ctr checkpoint ls` shows those that are there",
            Self::NameTaken { .. } => "remove or rename that container, or choose another name",
            Self::Name { .. } => "letters, digits and _.- are allowed, at least two, the first a letter or digit",
            Self::Unfit { attempt: "remove", .. } => "stop it first, or remove it with -f",
            Self::Unfit { state: "paused", .. } => "unpause it first",
            Self::Unfit { state: "created" | "exited", .. } => "start it first",
            Self::Volumes(error) => return error.hint(),
            Self::Unlinkable { .. } => "make a full clone of it, or commit it",
            Self::Told { hint, .. } => return hint.clone(),
            _ => return None,
        };
        Some(text.to_owned())
    }
}

pub(crate) fn io_error(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> EngineError {
    let path = path.into();
    move |source| EngineError::Io { attempt, path, source }
}
