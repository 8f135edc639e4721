//! Changing the limits of a cgroup that is in use: all of what is asked for, or nothing.
//!
//! A limit is a file, and the kernel takes one file at a time. So all values are made first, which refuses what makes no
//! sense; then each file's old value is read; and where the kernel refuses one, those written before it are written back.

use std::collections::BTreeSet;

use oci_spec::runtime::LinuxResources;
use tracing::info_span;

use super::controller::CONTROLLERS;
use super::folder::{Absent, Folder, Setting};
use super::layout::{Flavour, Version};
use super::limits::write_limits;
use super::{Cgroup, CgroupError, unified};

/// The value that a file had.
struct Old<'a> {
    folder: &'a Folder,
    file: String,
    value: String,
}

impl Cgroup {
    /// Changes limits of a cgroup that is in use; what is not asked for stays as it is. If one is refused, so are all:
    /// where the kernel does not even take an old value back, the error says which file is changed.
    pub fn apply(&self, asked: &LinuxResources) -> Result<(), CgroupError> {
        let _span = info_span!(
            "cgroup.update",
            call = "read(2), write(2)",
            why = "a limit is a file: written while processes are inside, it holds for what they do from then on"
        )
        .entered();
        if let Some(folder) = self.folders.first() {
            let failed = |source| CgroupError::Write { file: folder.path.clone(), value: String::new(), source };
            crate::spans::fault().map_err(failed)?;
        }
        let planned = self.planned(asked)?;
        let mut old = Vec::new();
        for (folder, settings) in &planned {
            old.extend(remember(folder, settings));
        }
        if let Some(folder) = self.unified() {
            old.extend(remember(folder, &unified::settings(asked)?));
        }
        let written = planned.iter().try_for_each(|(folder, settings)| write_limits(folder, settings));
        written.and_then(|()| self.limit_unified(asked, true)).map_err(|error| restore(&old, error))
    }

    /// The files of each controller, with the values that they shall have.
    fn planned(&self, asked: &LinuxResources) -> Result<Vec<(&Folder, Vec<Setting>)>, CgroupError> {
        let usual = if self.flavour == Flavour::V2 { Version::V2 } else { Version::V1 };
        let mut planned = Vec::new();
        for controller in CONTROLLERS {
            let home = self.home(controller);
            let version = home.map_or(usual, |folder| folder.version);
            let settings = controller.settings(version, asked, home)?;
            let Some(first) = settings.first() else { continue };
            let folder = home.ok_or_else(|| CgroupError::NoController {
                controller: controller.names().of(version).unwrap_or_default().to_owned(),
                asked: first.file.to_string(),
            })?;
            planned.push((folder, settings));
        }
        Ok(planned)
    }
}

/// The values that the files of `settings` have now. A file of several lines is no single value; neither it nor one
/// that can only be written (a device list) can be written back.
fn remember<'a>(folder: &'a Folder, settings: &[Setting]) -> Vec<Old<'a>> {
    let files: BTreeSet<&str> = settings.iter().flat_map(files).collect();
    let value = |file: &str| folder.read(file).ok().filter(|value| !value.is_empty() && !value.contains('\n'));
    let old = |file: &str| Some(Old { folder, file: file.to_owned(), value: value(file)? });
    files.into_iter().filter_map(old).collect()
}

/// The file of a setting, and those that would stand in for it.
fn files(setting: &Setting) -> Vec<&str> {
    let mut names = vec![setting.file.as_ref()];
    let mut other = &setting.absent;
    while let Absent::Instead(setting) = other {
        names.push(setting.file.as_ref());
        other = &setting.absent;
    }
    names
}

/// Writes old values back, twice: one may be refused until another is back (a limit above that on memory and swap).
fn restore(old: &[Old<'_>], error: CgroupError) -> CgroupError {
    let differs = |old: &&Old<'_>| old.folder.read(&old.file).is_ok_and(|now| now != old.value);
    for _ in 0..2 {
        for old in old.iter().rev().filter(differs) {
            // Whether it worked is looked at below, for all.
            drop(old.folder.write(&old.file, &old.value));
        }
    }
    let changed: Vec<String> =
        old.iter().filter(differs).map(|old| old.folder.path.join(&old.file).display().to_string()).collect();
    if changed.is_empty() { error } else { CgroupError::Partly { changed, source: Box::new(error) } }
}
