//! Other projects' programs on the same work: the same image, the same payload, the same clock.

mod bwrap;
mod engine;
mod firecracker;
mod linux;
mod oci;
mod root;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use thiserror::Error;

use super::catalogue::LeftOut;
use super::lab::Lab;
use crate::host::tools;

pub(super) use bwrap::Bwrap;
pub(super) use engine::Engine;
pub(super) use firecracker::Firecracker;
pub(super) use linux::LinuxMonitor;
pub use linux::qemu_microvm;
pub(super) use oci::Oci;
pub(crate) use root::MountedRoot;

/// The peers that the lab can start.
const NAMES: [&str; 9] =
    ["runc", "crun", "youki", "bwrap", "podman", "docker", "firecracker", "qemu-microvm", "cloud-hypervisor"];

/// What a peer's program is called.
pub(crate) fn program(peer: &'static str) -> &'static str {
    if peer == "qemu-microvm" { "qemu-system-x86_64" } else { peer }
}

/// Where peers lie that are not on `PATH`, and what they share.
#[derive(Debug, Default)]
pub struct Peers {
    paths: BTreeMap<&'static str, PathBuf>,
    /// The image's layers, mounted once for all starts that follow each other.
    root: OnceLock<Result<MountedRoot, String>>,
}

/// A peer's name and its program: `firecracker=/opt/firecracker`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPath {
    name: &'static str,
    path: PathBuf,
}

impl PeerPath {
    /// The peer's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its program.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Why a text names no peer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PeerError {
    /// There is no `=`, or nothing behind it.
    #[error("expected NAME=PATH, as in firecracker=/opt/firecracker")]
    Form,
    /// The lab can't start this one.
    #[error("no peer is called {0:?}; peers are {list}", list = NAMES.join(", "))]
    Unknown(String),
    /// No program lies there.
    #[error("{} is no file", .0.display())]
    NoFile(PathBuf),
}

impl FromStr for PeerPath {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let (name, path) = text.split_once('=').filter(|(_, path)| !path.is_empty()).ok_or(PeerError::Form)?;
        let known = NAMES.into_iter().find(|known| *known == name);
        let name = known.ok_or_else(|| PeerError::Unknown(name.to_owned()))?;
        let path = PathBuf::from(path);
        // Absolute, as it is started from another folder.
        path.canonicalize()
            .ok()
            .filter(|path| path.is_file())
            .map(|path| Self { name, path })
            .ok_or(PeerError::NoFile(path))
    }
}

impl Peers {
    /// Peers at these places; the others are looked for on `PATH`.
    pub fn at(paths: impl IntoIterator<Item = PeerPath>) -> Self {
        Self { paths: paths.into_iter().map(|peer| (peer.name, peer.path)).collect(), root: OnceLock::new() }
    }

    /// A peer's program and version.
    fn find(&self, name: &'static str) -> Result<(PathBuf, Option<String>), LeftOut> {
        let path = self.paths.get(name).cloned().or_else(|| tools::find(program(name))).ok_or_else(|| {
            let hint = format!("install it, or tell where it lies: --peer {name}=PATH");
            let reason = if program(name) == name { String::new() } else { format!("{} is ", program(name)) };
            LeftOut::new(name, format!("{reason}not on PATH"), hint)
        })?;
        let version = tools::version_of(&path);
        Ok((path, version))
    }

    /// Whether a peer's program is there.
    pub(crate) fn has(&self, name: &'static str) -> bool {
        self.paths.contains_key(name) || tools::find(program(name)).is_some()
    }

    /// The image's layers, stacked by the harness before anything is timed, as a container engine does for its runtime.
    fn root(&self, name: &'static str, lab: &Lab) -> Result<&Path, LeftOut> {
        let mounted = self.root.get_or_init(|| MountedRoot::mount(lab, &lab.scratch().path().join("peers")));
        mounted.as_ref().map(MountedRoot::path).map_err(|reason| {
            LeftOut::new(name, reason.clone(), "run as root: only root can mount the image's layers for a peer")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_named_with_the_file_that_it_is() {
        let peer: PeerPath = "firecracker=/bin/sh".parse().unwrap();
        assert_eq!((peer.name, peer.path), ("firecracker", Path::new("/bin/sh").canonicalize().unwrap()));
        assert_eq!("firecracker".parse::<PeerPath>(), Err(PeerError::Form));
        assert_eq!("runc=".parse::<PeerPath>(), Err(PeerError::Form));
        assert_eq!("lxc=/bin/sh".parse::<PeerPath>(), Err(PeerError::Unknown("lxc".into())));
        assert_eq!("runc=/none".parse::<PeerPath>(), Err(PeerError::NoFile("/none".into())));
        assert_eq!("runc=/etc".parse::<PeerPath>(), Err(PeerError::NoFile("/etc".into())));
    }
}
