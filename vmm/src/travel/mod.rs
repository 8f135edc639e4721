//! Snapshots that travel: a snapshot as an OCI image layout, the form in which registries keep images.
//!
//! A registry knows nothing of machines. It keeps *blobs* by the digest of their bytes, and a *manifest* that lists blobs.
//! So a snapshot is cut into blobs: its state, and its memory in pieces, each packed by zstd. A piece that two snapshots
//! have in common has one digest and travels once; a piece that holds nothing does not travel at all. What is written here
//! any tool takes to any registry and back:
//!
//! ```text
//! isolab-vm export web@before there:v1
//! skopeo copy oci:there:v1 docker://registry/web:v1
//! skopeo copy docker://registry/web:v1 oci:here:v1
//! isolab-vm import here:v1 web
//! ```
//!
//! `push` and `pull` do the same in one step each (registry.rs).
//!
//! (OCI image specification 1.1: `image-layout.md`, `manifest.md`.)

mod layout;
mod pack;
mod registry;
mod unpack;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

pub use pack::{export, push};
pub use registry::Reference;
use serde::{Deserialize, Serialize};
pub use unpack::{import, pull};

use crate::named::{About, Name, NamedError, Record};
use crate::snapshot::format::FormatError;

/// What each blob is.
const STATE: &str = "application/vnd.isolab.vm.state.v1+zstd";
const MEMORY: &str = "application/vnd.isolab.vm.memory.v1+zstd";
const DISK: &str = "application/vnd.isolab.vm.disk.v1+zstd";
/// What a registry's tools take the whole for: an image whose layers they need not understand.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// What it is to whoever knows.
const ARTIFACT: &str = "application/vnd.isolab.vm.snapshot.v1";
/// The annotation of a piece of memory: where it begins.
const OFFSET: &str = "org.isolab.vm.offset";

/// The annotation of a piece: of which file it is.
const OF: &str = "org.isolab.vm.file";

/// The least size of a piece, in bytes: large enough for zstd to find something, small enough to have in common.
const PIECE: u64 = 1 << 20;
/// The most pieces: their list must fit into a manifest, which registries limit to 4 MiB.
const PIECES: u64 = 4096;

/// How large the pieces of a memory are.
fn piece(memory: u64) -> u64 {
    memory.div_ceil(PIECES).next_multiple_of(PIECE).max(PIECE)
}

/// What stands in the config blob, besides what an image's config must have.
#[derive(Debug, Serialize, Deserialize)]
struct Config {
    architecture: String,
    os: String,
    rootfs: RootFs,
    isolab: Machine,
}

/// An image's config must have this.
#[derive(Debug, Serialize, Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<String>,
}

/// What is known of the machine and the snapshot.
#[derive(Debug, Serialize, Deserialize)]
struct Machine {
    snapshot: Name,
    about: About,
    record: Record,
    /// How long its disks are, by their names.
    #[serde(default)]
    disks: BTreeMap<String, u64>,
}

/// Why a snapshot does not travel.
#[derive(Debug, thiserror::Error)]
pub enum TravelError {
    /// A file could not be reached.
    #[error("cannot {attempt} {}", .path.display())]
    Files {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A JSON file that says nothing one can use.
    #[error("cannot use {what}")]
    Json {
        /// Which.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The layout has nothing of that name.
    #[error("{} has nothing with the tag {tag}", .path.display())]
    NoTag {
        /// The layout.
        path: PathBuf,
        /// The tag.
        tag: String,
    },
    /// It has something else.
    #[error("{0} is no snapshot of a machine")]
    NoSnapshot(String),
    /// A blob is not what its digest says.
    #[error("blob {digest}: {why}")]
    Blob {
        /// Its digest.
        digest: String,
        /// What is wrong.
        why: String,
    },
    /// The registry is out of reach.
    #[error("cannot reach the registry {registry}")]
    Registry {
        /// Which.
        registry: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// It wants to know who we are.
    #[error("the registry {0} does not let us in")]
    Unauthorized(String),
    /// It would not.
    #[error("the registry {registry} did not {what}: {why}")]
    Refused {
        /// Which.
        registry: String,
        /// What it was asked for.
        what: String,
        /// What it said.
        why: String,
    },
    /// The state is none.
    #[error("cannot use the state")]
    Format(#[from] FormatError),
    /// The machine can't be found, or kept.
    #[error(transparent)]
    Named(#[from] NamedError),
}

impl TravelError {
    /// The next thing to try, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Named(error) => error.hint(),
            Self::Unauthorized(registry) => Some(format!("isolab-ctr login {registry} keeps a password for it")),
            Self::Blob { .. } => Some("it was changed or cut short on its way: fetch it again".to_owned()),
            _ => None,
        }
    }
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TravelError {
    let path = path.to_owned();
    move |source| TravelError::Files { attempt, path, source }
}
