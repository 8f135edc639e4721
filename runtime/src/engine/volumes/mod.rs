//! Volumes: files that outlive the container that wrote them.
//!
//! ```text
//! ROOT/volumes/NAME/volume.json    what is known of it
//! ROOT/volumes/NAME/_data/         its files, which a container sees at a place of its own
//! ROOT/volumes/lock                who uses volumes, and who takes them away
//! ROOT/volumes/.tmp-...            not finished
//! ```
//!
//! A named volume is made where a container first asks for it; one without a name belongs to the container that it was made
//! for. A new volume begins with what the image has at its place, so that a program finds there what its makers put there.
//!
//! `wish` reads what users write, `settle` makes mounts of it.

mod error;
mod settle;
mod wish;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::info_span;

pub use error::VolumeError;
use error::io_error;
pub(super) use wish::clean;
pub use wish::{MountKind, MountWish, VolumesFrom};

use super::record::{Record, now};
use super::shelf::random_id;
use super::{Engine, EngineError};
use crate::container::rfc3339;
use crate::image::{Temporary, sweep};

const DOCUMENT: &str = "volume.json";
const DATA: &str = "_data";

/// What is known of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// What it is called.
    pub name: String,
    /// When it was made, in nanoseconds since the epoch.
    pub created: u64,
    /// Notes.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether nobody gave it a name.
    #[serde(default)]
    pub anonymous: bool,
}

/// Volumes of which none is taken away while this lives.
#[derive(Debug)]
pub(super) struct VolumesHeld(#[expect(dead_code, reason = "held, and let go by its end")] Flock<File>);

impl Engine {
    /// Makes a volume; where nobody says a name, one of 64 digits. One that is there already is as good.
    pub fn create_volume(&self, name: Option<&str>, labels: BTreeMap<String, String>) -> Result<Volume, EngineError> {
        let _span = info_span!(
            "engine.volume",
            call = "mkdir(2), rename(2)",
            why = "a volume is a folder that no container owns, so it stays when they go"
        )
        .entered();
        let _held = self.hold_volumes(FlockArg::LockShared)?;
        self.make_volume(name, labels)
    }

    fn make_volume(&self, name: Option<&str>, labels: BTreeMap<String, String>) -> Result<Volume, EngineError> {
        let _span = info_span!(
            "volume.create",
            call = "mkdir(2), rename(2)",
            why = "files that outlive their container lie outside of it, in a folder that is mounted into it"
        )
        .entered();
        let name = name.map_or_else(random_id, |name| Ok(name.to_owned()))?;
        let anonymous = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        check_name(&name)?;
        if let Some(volume) = self.read_volume(&name)? {
            return Ok(volume);
        }
        let volume = Volume { name, created: now(), labels, anonymous };
        let temporary = Temporary::name_in(&self.volumes_folder());
        make_folder(temporary.path(), 0o701)?;
        make_folder(&temporary.path().join(DATA), 0o755)?;
        let document = temporary.path().join(DOCUMENT);
        let text = json!(volume).to_string();
        let written = File::create_new(&document).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(io_error("write", &document))?;
        let place = self.volumes_folder().join(&volume.name);
        temporary.publish(&place).map_err(io_error("make", &place))?;
        self.note_event("volume", "create", &volume.name, BTreeMap::new());
        // Whoever was quicker has made the one that counts.
        Ok(self.read_volume(&volume.name)?.unwrap_or(volume))
    }

    /// The volume of a name.
    pub fn volume(&self, name: &str) -> Result<Volume, EngineError> {
        self.read_volume(name)?.ok_or_else(|| VolumeError::Unknown { name: name.to_owned() }.into())
    }

    /// All volumes, by their names.
    pub fn volumes(&self) -> Result<Vec<Volume>, EngineError> {
        let folder = self.volumes_folder();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(io_error("list", &folder))?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| check_name(name).is_ok() && name != "lock").collect();
        names.sort();
        // One that is taken away meanwhile is not among them.
        names.iter().filter_map(|name| self.read_volume(name).transpose()).collect()
    }

    /// Where a volume's files are.
    pub fn volume_data(&self, name: &str) -> PathBuf {
        self.volumes_folder().join(name).join(DATA)
    }

    /// The names of the containers, running or not, that have a volume.
    pub fn volume_users(&self, name: &str) -> Result<Vec<String>, EngineError> {
        let has = |record: &Record| record.wishes.mounts.iter().any(|mount| mount.volume.as_deref() == Some(name));
        let mut users = Vec::new();
        // Not settled first, as `list` does: that waits for containers' locks, and who has one may wait for volumes.
        for id in self.shelf.ids()? {
            users.extend(self.shelf.read(&id)?.filter(has).map(|record| record.name));
        }
        Ok(users)
    }

    /// Takes a volume and its files away. Refused where a container has it.
    pub fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let _span = info_span!(
            "engine.volume_remove",
            call = "rename(2), unlink(2)",
            why = "who uses it is looked up in the containers' records; renamed first, it is gone for all at once"
        )
        .entered();
        let _held = self.hold_volumes(FlockArg::LockExclusive)?;
        self.volume(name)?;
        let users = self.volume_users(name)?;
        if !users.is_empty() {
            return Err(VolumeError::InUse { name: name.to_owned(), users }.into());
        }
        self.take_volume(name)
    }

    /// Takes away the volumes that no container has: those without a name, and with `all` the others too. Answers them and
    /// how many bytes their files had.
    pub fn prune_volumes(&self, all: bool) -> Result<(Vec<String>, u64), EngineError> {
        let _span = info_span!(
            "engine.volume_prune",
            call = "getdents64(2), unlink(2)",
            why = "what no container's record names is nobody's"
        )
        .entered();
        let _held = self.hold_volumes(FlockArg::LockExclusive)?;
        sweep(&self.volumes_folder()).map_err(io_error("clean", &self.volumes_folder()))?;
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for volume in self.volumes()? {
            if (all || volume.anonymous) && self.volume_users(&volume.name)?.is_empty() {
                bytes += size(&self.volume_data(&volume.name));
                self.take_volume(&volume.name)?;
                removed.push(volume.name);
            }
        }
        Ok((removed, bytes))
    }

    /// Takes away the volumes without a name that a container had alone; it is gone already.
    pub fn remove_anonymous_volumes(&self, record: &Record) -> Result<(), EngineError> {
        let names: Vec<&String> = record.wishes.mounts.iter().filter_map(|mount| mount.volume.as_ref()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let _held = self.hold_volumes(FlockArg::LockExclusive)?;
        for name in names {
            let anonymous = self.read_volume(name)?.is_some_and(|volume| volume.anonymous);
            if anonymous && self.volume_users(name)?.is_empty() {
                self.take_volume(name)?;
            }
        }
        Ok(())
    }

    /// All that is known of a volume, as docker's `volume inspect` names it.
    pub fn inspect_volume(&self, volume: &Volume) -> Value {
        json!({
            "Name": volume.name,
            "Driver": "local",
            "Mountpoint": self.volume_data(&volume.name),
            "CreatedAt": rfc3339(Duration::from_nanos(volume.created)),
            "Labels": volume.labels,
            "Options": {},
            "Scope": "local",
        })
    }

    fn volumes_folder(&self) -> PathBuf {
        self.store.root().join("volumes")
    }

    fn read_volume(&self, name: &str) -> Result<Option<Volume>, EngineError> {
        check_name(name)?;
        let path = self.volumes_folder().join(name).join(DOCUMENT);
        match fs::read(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(io_error("read", &path)(error).into()),
            Ok(text) => {
                Ok(Some(serde_json::from_slice(&text).map_err(|source| VolumeError::Document { path, source })?))
            }
        }
    }

    /// First it loses its name, at once: half a volume must never be taken for a whole one.
    fn take_volume(&self, name: &str) -> Result<(), EngineError> {
        let place = self.volumes_folder().join(name);
        let temporary = Temporary::name_in(&self.volumes_folder());
        fs::rename(&place, temporary.path()).map_err(io_error("remove", &place))?;
        fs::remove_dir_all(temporary.path()).map_err(io_error("remove", temporary.path()))?;
        self.note_event("volume", "destroy", name, BTreeMap::new());
        Ok(())
    }

    /// Shared for who uses volumes, until a record says so; alone for who takes them away.
    fn hold_volumes(&self, how: FlockArg) -> Result<VolumesHeld, EngineError> {
        let folder = self.volumes_folder();
        // Others than the owner may go through, and not look: a container's user may be any.
        DirBuilder::new().recursive(true).mode(0o701).create(&folder).map_err(io_error("make", &folder))?;
        let path = folder.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(io_error("open", &path))?;
        let locked = Flock::lock(file, how).map_err(|(_, errno)| io_error("lock", &path)(errno.into()))?;
        Ok(VolumesHeld(locked))
    }
}

fn make_folder(path: &Path, mode: u32) -> Result<(), VolumeError> {
    DirBuilder::new().mode(mode).create(path).map_err(io_error("make", path))
}

/// A name as docker takes it.
fn check_name(name: &str) -> Result<(), VolumeError> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && name.len() <= 200 { Ok(()) } else { Err(VolumeError::Name { name: name.to_owned() }) }
}

/// How many bytes the files below a folder have.
pub(super) fn size(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(data) = entry.metadata() else { continue };
            bytes += if data.is_file() { data.len() } else { 0 };
            if data.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    bytes
}
