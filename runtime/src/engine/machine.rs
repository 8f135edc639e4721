//! What an image runs, for a machine with a kernel of its own: the words that `isolab-init`, the first process there, is told what
//! to do with (`docs/src/linux.md`).
//!
//! A container is told by its bundle, a machine by a file in its first file system. Both say the same, by the same rules: program,
//! environment, user, folder.

use serde::Serialize;

use super::error::EngineError;
use super::prepare::{arguments, environment};
use super::read_document;
use super::user::identify;
use super::wishes::Wishes;
use crate::image::{Image, Store};

/// What a machine's first process is to do for an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MachineInit {
    /// None where the first file system itself has the image's files.
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<Root>,
    hostname: String,
    process: Process,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Root {
    device: &'static str,
    filesystem: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Process {
    args: Vec<String>,
    env: Vec<String>,
    cwd: String,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl MachineInit {
    /// For an image of this name; its files are on the machine's first disk, on a file system that its kernel knows by this
    /// name, or in the first file system.
    pub fn of(store: &Store, name: &str, image: &Image, on: Option<&'static str>) -> Result<Self, EngineError> {
        let config = read_document(name, &store.blob(&image.id())?)?.config;
        let (wishes, hostname) = (Wishes::default(), image.id().short());
        let identity = identify(&config.user, &image.lower_dirs())?;
        let process = Process {
            args: arguments(&config, &wishes)?,
            env: environment(&config, &wishes, &identity, &hostname),
            cwd: if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir },
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups,
        };
        Ok(Self { root: on.map(|filesystem| Root { device: "/dev/vda", filesystem }), hostname, process })
    }
}
