//! A snapshot that shares nothing: its disks with all that they stand on.
//!
//! A snapshot of a PC names disks: its own copies, which may be overlays of other snapshots' disks, and files that are only
//! read. Whoever shall have it alone needs them whole: each becomes one raw file beside the state, and the state names that.

use std::path::{Path, PathBuf};

use super::Snapshot;
use super::state::State;
use crate::devices::virtio::block::image::Contents;
use crate::devices::virtio::block::{DiskError, Format};
use crate::guest::GuestState;
use crate::machine::pc::{Disk, Wiring};

/// A disk, and what it is to be called.
pub(crate) struct Bundled {
    /// Its name beside the state.
    pub(crate) name: String,
    path: PathBuf,
    format: Format,
}

impl Bundled {
    /// Opens it with all that it stands on.
    pub(crate) fn open(&self) -> Result<Contents, DiskError> {
        Contents::open(&self.path, self.format)
    }
}

/// The disks of a snapshot; `state`, which is a copy of its state, names them where they shall be.
pub(crate) fn bundle(snapshot: &Snapshot, state: &mut State) -> Vec<Bundled> {
    let GuestState::Linux(linux) = &mut state.guest else { return Vec::new() };
    let mut bundled = Vec::new();
    for (number, wiring) in linux.devices.iter_mut().enumerate() {
        let Wiring::Disk(disk) = wiring else { continue };
        let name = format!("disk-{number}");
        bundled.push(Bundled { name: name.clone(), path: source(disk, snapshot.path()), format: disk.format() });
        *disk = Disk { path: name.into(), format: Some(Format::Raw), ..disk.clone() };
    }
    bundled
}

fn source(disk: &Disk, folder: &Path) -> PathBuf {
    if disk.is_kept() { folder.join(&disk.path) } else { disk.path.clone() }
}

/// Whether a state stands on no other, and names no disk but such as lie beside it.
pub(crate) fn is_bundled(state: &State) -> bool {
    if state.below.is_some() {
        return false;
    }
    match &state.guest {
        GuestState::Linux(linux) => {
            linux.devices.iter().all(|wiring| !matches!(wiring, Wiring::Disk(disk) if !disk.is_kept()))
        }
        GuestState::App(_) | GuestState::Bare(_) => true,
    }
}

/// The names of the disks that lie beside a state.
pub(crate) fn kept_disks(state: &State) -> Vec<&Path> {
    let GuestState::Linux(linux) = &state.guest else { return Vec::new() };
    let disks = linux.devices.iter().filter_map(|wiring| match wiring {
        Wiring::Disk(disk) if disk.is_kept() => Some(disk.path.as_path()),
        _ => None,
    });
    disks.collect()
}
