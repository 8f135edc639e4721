//! From what is wanted to mounts: decided once, when a container is made, and kept in its record.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::FlockArg;
use tracing::info_span;

use super::error::{VolumeError, io_error};
use super::wish::{MountKind, MountWish, clean};
use super::{DATA, VolumesHeld};
use crate::engine::record::Record;
use crate::engine::{Engine, EngineError, Mount};
use crate::image::{Found, Temporary, copy_tree, find_in};

/// What came of a container's wishes for mounts. Until its record is written no volume is taken away.
#[derive(Debug)]
pub(in crate::engine) struct Settled {
    /// Kept for its lock, which is let go by its end.
    held: Option<VolumesHeld>,
    /// Volumes without a name that were made for it.
    made: Vec<String>,
}

impl Engine {
    /// Decides what a container sees of volumes and of the host, and makes the volumes that are missing.
    pub(in crate::engine) fn settle_mounts(&self, record: &mut Record) -> Result<Settled, EngineError> {
        let wishes = &record.wishes;
        let none = wishes.volumes.is_empty() && wishes.volumes_from.is_empty() && record.config.volumes.is_empty();
        if none {
            return Ok(Settled { held: None, made: Vec::new() });
        }
        let layers = self.layers(record)?;
        let mut mounts = self.inherited(record)?; //            1. what other containers have
        let held = self.hold_volumes(FlockArg::LockShared)?;
        let mut wanted: BTreeMap<PathBuf, MountWish> = BTreeMap::new();
        for place in record.config.volumes.keys() {
            // What the image keeps apart is a volume, unless the user says which.
            let wish = MountWish::parse_short(place).map_err(EngineError::Wish)?;
            if !mounts.contains_key(&wish.target) {
                wanted.insert(wish.target.clone(), wish);
            }
        }
        let mut said = BTreeSet::new();
        for wish in &wishes.volumes {
            if !said.insert(wish.target.clone()) {
                return Err(VolumeError::Twice { place: wish.target.clone() }.into());
            }
            mounts.remove(&wish.target);
            wanted.insert(wish.target.clone(), wish.clone()); // 2. what the image and the user want
        }
        for place in wishes.tmpfs.keys() {
            let place = clean(Path::new(place));
            if said.contains(&place) {
                return Err(VolumeError::Twice { place }.into());
            }
            wanted.remove(&place);
        }
        let mut settled = Settled { held: Some(held), made: Vec::new() };
        for (place, wish) in wanted {
            let mount = self.settle_one(&wish, &layers, &mut settled.made); // 3. volumes are made and filled
            let mount = mount.inspect_err(|_| self.undo_mounts(&settled))?;
            mounts.insert(place, mount);
        }
        // In the order of their places: what is mounted below another is mounted after it.
        record.wishes.mounts.extend(mounts.into_values());
        Ok(settled)
    }

    /// Gives a clone copies of its parent's volumes: of those without a name, and with `all` of the others too.
    pub(in crate::engine) fn copy_volumes(&self, record: &mut Record, all: bool) -> Result<Settled, EngineError> {
        let mut settled = Settled { held: None, made: Vec::new() };
        for mount in &mut record.wishes.mounts {
            let Some(name) = mount.volume.clone() else { continue };
            if settled.held.is_none() {
                settled.held = Some(self.hold_volumes(FlockArg::LockShared)?);
            }
            if !all && !self.volume(&name)?.anonymous {
                continue;
            }
            let copy = self.make_volume(None, BTreeMap::new())?;
            let data = self.volume_data(&copy.name);
            settled.made.push(copy.name.clone());
            let copied = copy_tree(&[self.volume_data(&name)], &data);
            copied.map_err(|source| VolumeError::Fill { name, place: mount.to.clone(), source })?;
            mount.from = data;
            mount.volume = Some(copy.name);
        }
        Ok(settled)
    }

    /// Takes back what was made for a container that could not be made.
    pub(in crate::engine) fn undo_mounts(&self, settled: &Settled) {
        for name in &settled.made {
            // On the way out of another error; `volume prune` finds what stays.
            let _ = self.take_volume(name);
        }
    }

    fn inherited(&self, record: &Record) -> Result<BTreeMap<PathBuf, Mount>, EngineError> {
        let mut mounts = BTreeMap::new();
        for from in &record.wishes.volumes_from {
            let other = self.find(&from.container)?;
            for mount in other.wishes.mounts {
                let read_only = from.read_only.unwrap_or(mount.read_only);
                mounts.insert(mount.to.clone(), Mount { read_only, ..mount });
            }
        }
        Ok(mounts)
    }

    fn settle_one(&self, wish: &MountWish, layers: &[PathBuf], made: &mut Vec<String>) -> Result<Mount, EngineError> {
        let place = find_in(layers, &wish.target).map_err(io_error("look up", &wish.target))?;
        let (to, read_only) = (wish.target.clone(), wish.read_only);
        if wish.kind == MountKind::Bind {
            let from = PathBuf::from(&wish.source);
            let folder = bound(&from, wish.make)?;
            let clash = match (&place, folder) {
                (Found::File, true) => Some(("the folder", "a file")),
                (Found::Folder(_), false) => Some(("the file", "a folder")),
                _ => None,
            };
            if let Some((source_kind, place_kind)) = clash {
                return Err(VolumeError::Kinds { source_kind, what: wish.source.clone(), place: to, place_kind }.into());
            }
            return Ok(Mount { from, to, read_only, volume: None });
        }
        if place == Found::File {
            let what = Some(wish.source.clone()).filter(|name| !name.is_empty()).unwrap_or("without a name".to_owned());
            let (source_kind, place_kind) = ("the volume", "a file");
            return Err(VolumeError::Kinds { source_kind, what, place: to, place_kind }.into());
        }
        let name = Some(wish.source.as_str()).filter(|name| !name.is_empty());
        let volume = self.make_volume(name, BTreeMap::new())?;
        if name.is_none() {
            made.push(volume.name.clone());
        }
        if let (true, Found::Folder(folders)) = (wish.copy, &place) {
            self.fill_volume(&volume.name, folders, &wish.target)?;
        }
        Ok(Mount { from: self.volume_data(&volume.name), to, read_only, volume: Some(volume.name) })
    }

    /// Gives an empty volume what the image has at its place, whole or not at all.
    fn fill_volume(&self, name: &str, folders: &[PathBuf], place: &Path) -> Result<(), EngineError> {
        let data = self.volume_data(name);
        let mut entries = fs::read_dir(&data).map_err(io_error("list", &data))?;
        if entries.next().is_some() || !self.volume_users(name)?.is_empty() {
            return Ok(());
        }
        let _span = info_span!(
            "volume.copy_up",
            call = "read(2), write(2), rename(2)",
            why = "a new volume hides what the image has at its place, so it begins with a copy of that"
        )
        .entered();
        let temporary = Temporary::name_in(&self.volumes_folder());
        super::make_folder(temporary.path(), 0o755)?;
        copy_tree(folders, temporary.path()).map_err(|source| VolumeError::Fill {
            name: name.to_owned(),
            place: place.to_owned(),
            source,
        })?;
        // rename(2) puts a directory in the place of an empty one.
        match fs::rename(temporary.path(), self.volumes_folder().join(name).join(DATA)) {
            // Somebody has filled it meanwhile, which is as good.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => Ok(other.map_err(io_error("fill", &data))?),
        }
    }
}

/// Whether what is to be mounted is a folder. One that is missing is made where that is wanted, as docker does.
fn bound(from: &Path, make: bool) -> Result<bool, VolumeError> {
    match fs::metadata(from) {
        Ok(data) => Ok(data.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
            fs::create_dir_all(from).map_err(io_error("make", from)).map(|()| true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(VolumeError::NoSource { from: from.to_owned() }),
        Err(error) => Err(io_error("look at", from)(error)),
    }
}
