//! cpuset: which CPUs and memory nodes (cpuset(7)).
//!
//! A v1 cpuset is born empty, and a process cannot enter one without a CPU to run on: `ENOSPC`. Two things help. A
//! parent that we make gets its own parent's values and `cgroup.clone_children`, so each container below is born with
//! them. And where the parent is someone else's, the values are copied down when, and only when, the kernel has refused.

use std::fs;
use std::path::Path;

use oci_spec::runtime::LinuxResources;

use super::controller::{Controller, Names};
use super::folder::{Folder, Setting, errno};
use super::layout::Version;
use super::{CgroupError, Stats};
use crate::container::pseudo_file::read_record;

pub(super) const NAME: &str = "cpuset";
/// The list of CPUs.
pub(super) const CPUS: &str = "cpuset.cpus";
const FILES: [&str; 2] = [CPUS, "cpuset.mems"];

/// The controller.
pub(super) struct Cpuset;

impl Controller for Cpuset {
    fn names(&self) -> Names {
        Names { v1: Some(NAME), v2: Some(NAME) }
    }

    fn settings(&self, _: Version, asked: &LinuxResources, _: Option<&Folder>) -> Result<Vec<Setting>, CgroupError> {
        let Some(cpu) = asked.cpu() else { return Ok(Vec::new()) };
        let lists = FILES.into_iter().zip([cpu.cpus(), cpu.mems()]);
        let given = lists.filter_map(|(file, list)| Some((file, list.as_ref().filter(|list| !list.is_empty())?)));
        Ok(given.map(|(file, list)| Setting::new(file, list)).collect())
    }

    fn measure(&self, folder: &Folder, stats: &mut Stats) -> Result<(), CgroupError> {
        stats.cpu.cpus = match folder.version {
            Version::V1 => folder.read_optional(CPUS)?,
            Version::V2 => folder.read_optional("cpuset.cpus.effective")?,
        };
        Ok(())
    }
}

/// Gives a v1 cpuset that has just been made what its parent has, and lets its children be born with the same.
pub(super) fn hand_down(folder: &Path) -> Result<(), CgroupError> {
    inherit(folder)?;
    write(folder, "cgroup.clone_children", "1")
}

/// Copies what is empty in a v1 cpuset from its parent.
fn inherit(folder: &Path) -> Result<(), CgroupError> {
    let Some(parent) = folder.parent() else { return Ok(()) };
    for file in FILES {
        if read(folder, file)?.is_empty() {
            write(folder, file, &read(parent, file)?)?;
        }
    }
    Ok(())
}

/// Copies values down through each directory above a v1 cpuset, and into it: what the kernel refused for want of them
/// can be tried again.
pub(super) fn fill(folder: &Folder) -> Result<(), CgroupError> {
    for level in folder.levels().iter().skip(1) {
        inherit(level)?;
    }
    inherit(&folder.path)
}

fn read(folder: &Path, file: &str) -> Result<String, CgroupError> {
    match read_record(folder.join(file)) {
        Ok(text) => Ok(text.trim().to_owned()),
        // A folder that poses as cgroupfs has no files yet; the kernel's always have.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(CgroupError::Read { file: folder.join(file), source: errno(&error) }),
    }
}

fn write(folder: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let file = folder.join(file);
    fs::write(&file, value).map_err(|error| CgroupError::Write { file, value: value.to_owned(), source: errno(&error) })
}
