//! What a container has changed of its image: its upper folder, read against the layers below. And all of what it sees, as
//! an archive.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tracing::info_span;

use super::error::{EngineError, io_error};
use super::record::Record;
use super::volumes::clean;
use super::{Engine, Place};
use crate::image::{Changed, Step, flat_archive, is_opaque, step_in};

/// Where the runtime mounts something in every container.
const MOUNT_POINTS: [&str; 6] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev", "/proc", "/sys"];

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The image has it not.
    Added,
    /// The image has it otherwise.
    Changed,
    /// It is gone.
    Deleted,
}

impl Change {
    /// docker's letter.
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

impl Engine {
    /// What a container has changed, by path, a folder before what is in it.
    pub fn changes(&self, record: &Record) -> Result<Vec<(Change, PathBuf)>, EngineError> {
        let _span = info_span!(
            "engine.compare",
            call = "getdents64(2), statx(2)",
            why =
                "the upper folder has all that was written; the layers below say whether that is new, changed or gone"
        )
        .entered();
        let layers = self.layers(record)?;
        let upper = self.place(record).upper;
        let mut comparing = Comparing { skip: self.scaffolding(record)?, found: Vec::new() };
        comparing.folder(&upper, Path::new("/"), &layers)?;
        Ok(comparing.found)
    }

    /// Writes all that a container sees, but for what is mounted, as an archive.
    pub fn export(&self, record: &Record, out: impl Write) -> Result<Changed, EngineError> {
        let layers = self.seen(record)?;
        Ok(flat_archive(&layers, out).map_err(crate::image::ImageError::from)?)
    }

    /// The folders that a container's root is made of, what it has written the uppermost.
    pub(crate) fn seen(&self, record: &Record) -> Result<Vec<PathBuf>, EngineError> {
        let mut folders = vec![self.place(record).upper];
        folders.extend(self.layers(record)?);
        Ok(folders)
    }

    pub(crate) fn place(&self, record: &Record) -> Place {
        Place::at(&self.folder(record))
    }

    /// What is in the upper folder only because something had to be mounted there: files without content, folders without
    /// files, and folders that were copied up to hold them. Relative to the root.
    pub(crate) fn scaffolding(&self, record: &Record) -> Result<BTreeSet<PathBuf>, EngineError> {
        let (layers, upper) = (self.layers(record)?, self.place(record).upper);
        let wishes = &record.wishes;
        let mut points: Vec<PathBuf> = MOUNT_POINTS.iter().map(PathBuf::from).collect();
        points.extend(wishes.mounts.iter().map(|mount| mount.to.clone()));
        points.extend(wishes.tmpfs.keys().map(PathBuf::from));
        let mut all = BTreeSet::new();
        for point in &points {
            let point = clean(point);
            for path in point.strip_prefix("/").unwrap_or(&point).ancestors() {
                if path.as_os_str().is_empty() || !only_holds(&upper, path, &layers, &all)? {
                    break;
                }
                all.insert(path.to_owned());
            }
        }
        Ok(all)
    }
}

/// Whether what the upper folder has at a path is there for mounts alone.
fn only_holds(upper: &Path, path: &Path, layers: &[PathBuf], known: &BTreeSet<PathBuf>) -> Result<bool, EngineError> {
    let place = upper.join(path);
    let Ok(data) = place.symlink_metadata() else { return Ok(false) };
    let holds = if data.is_dir() {
        let names = fs::read_dir(&place).map_err(io_error("list", &place))?;
        let names = names.collect::<io::Result<Vec<_>>>().map_err(io_error("list", &place))?;
        names.iter().all(|entry| known.contains(&path.join(entry.file_name())))
    } else {
        data.is_file() && data.len() == 0
    };
    let mut lower = Step::Folder(layers.to_vec());
    for part in path {
        lower = match &lower {
            Step::Folder(folders) => step_in(folders, part).map_err(io_error("look up", path))?,
            Step::Nothing => break,
            Step::File | Step::Link(_) => return Ok(false),
        };
    }
    Ok(holds
        && match lower {
            Step::Nothing => true,
            Step::Folder(folders) => folders.first().is_some_and(|folder| is_as(&data, folder, false)),
            Step::File | Step::Link(_) => false,
        })
}

/// Whether a folder has the same owner and mode as another, and the same time where that counts.
fn is_as(data: &Metadata, other: &Path, time: bool) -> bool {
    let of = |data: &Metadata| (data.mode(), data.uid(), data.gid(), if time { data.mtime() } else { 0 });
    other.symlink_metadata().is_ok_and(|other| of(&other) == of(data))
}

struct Comparing {
    skip: BTreeSet<PathBuf>,
    found: Vec<(Change, PathBuf)>,
}

impl Comparing {
    /// `lower` are the layers' folders for the same path.
    fn folder(&mut self, upper: &Path, path: &Path, lower: &[PathBuf]) -> Result<(), EngineError> {
        for (name, data) in sorted(upper)? {
            let (place, below) = (upper.join(&name), path.join(&name));
            if self.skip.contains(below.strip_prefix("/").unwrap_or(&below)) {
                continue;
            }
            let before = step_in(lower, &name).map_err(io_error("look up", &below))?;
            let change = if matches!(before, Step::Nothing) { Change::Added } else { Change::Changed };
            if data.file_type().is_char_device() && data.rdev() == 0 {
                // One of what the layers have not says nothing.
                self.found.extend((change == Change::Changed).then_some((Change::Deleted, below)));
            } else if data.is_dir() {
                self.subfolder(&place, &below, &data, before)?;
            } else {
                self.found.push((change, below));
            }
        }
        Ok(())
    }

    fn subfolder(&mut self, place: &Path, path: &Path, data: &Metadata, before: Step) -> Result<(), EngineError> {
        let Step::Folder(folders) = before else {
            let change = if matches!(before, Step::Nothing) { Change::Added } else { Change::Changed };
            self.found.push((change, path.to_owned()));
            return self.folder(place, path, &[]);
        };
        let number = self.found.len();
        if is_opaque(place) {
            for name in gone(place, &folders)? {
                self.found.push((Change::Deleted, path.join(name)));
            }
            self.folder(place, path, &[])?;
            if let Some(rest) = self.found.get_mut(number..) {
                rest.sort_by(|one, other| one.1.cmp(&other.1));
            }
        } else {
            self.folder(place, path, &folders)?;
        }
        let same = folders.first().is_some_and(|folder| is_as(data, folder, true));
        if self.found.len() > number || !same {
            self.found.insert(number, (Change::Changed, path.to_owned()));
        }
        Ok(())
    }
}

/// The names that layers have in a folder, and the upper folder, which hides them all, has not.
fn gone(upper: &Path, lower: &[PathBuf]) -> Result<BTreeSet<std::ffi::OsString>, EngineError> {
    let mut names = BTreeSet::new();
    for folder in lower {
        names.extend(sorted(folder)?.into_iter().map(|(name, _)| name));
    }
    names.retain(|name| {
        let seen = step_in(lower, name).is_ok_and(|step| !matches!(step, Step::Nothing));
        seen && upper.join(name).symlink_metadata().is_err()
    });
    Ok(names)
}

fn sorted(folder: &Path) -> Result<Vec<(std::ffi::OsString, Metadata)>, EngineError> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error("list", folder))? {
        let entry = entry.map_err(io_error("list", folder))?;
        // What is gone meanwhile is not there.
        all.extend(entry.metadata().ok().map(|data| (entry.file_name(), data)));
    }
    all.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(all)
}
