//! From `linux.resources` to files.
//!
//! v2 wants one thing before: a directory has a controller's files only if the one above it hands that controller down
//! (`cgroup.subtree_control`), and that one can do so only if the one above it does.

use std::fs;
use std::path::PathBuf;

use nix::errno::Errno;
use oci_spec::runtime::LinuxResources;
use tracing::info_span;

use super::controller::CONTROLLERS;
use super::folder::{Folder, Setting, errno};
use super::layout::{Flavour, Version};
use super::{Cgroup, CgroupError, cpuset, devices, unified, words};

/// v2 controllers that every cgroup gets where they are to be had, so that its use can be told even without a limit.
const COUNTED: [&str; 4] = ["cpu", "io", "memory", "pids"];

impl Cgroup {
    /// Writes what is asked for into a cgroup that has just been made.
    pub(super) fn limit(&self, asked: &LinuxResources) -> Result<(), CgroupError> {
        let _span = info_span!(
            "cgroup.limit",
            call = "write(2)",
            why = "every limit is one file; written before anyone enters, nothing can exceed it"
        )
        .entered();
        if let Some(folder) = self.folders.first() {
            let failed = |source| CgroupError::Write { file: folder.path.clone(), value: String::new(), source };
            crate::spans::fault().map_err(failed)?;
        }
        let usual = if self.flavour == Flavour::V2 { Version::V2 } else { Version::V1 };
        for controller in CONTROLLERS {
            let home = self.home(controller);
            let version = home.map_or(usual, |folder| folder.version);
            let settings = controller.settings(version, asked, None)?;
            let Some(first) = settings.first() else { continue };
            let folder = home.ok_or_else(|| CgroupError::NoController {
                controller: controller.names().of(version).unwrap_or_default().to_owned(),
                asked: first.file.to_string(),
            })?;
            write_limits(folder, &settings)?;
        }
        self.limit_unified(asked, false)
    }

    /// What only v2 has: any file by its name, and the program for devices. `standing` tells that the cgroup has one.
    pub(super) fn limit_unified(&self, asked: &LinuxResources, standing: bool) -> Result<(), CgroupError> {
        let settings = unified::settings(asked)?;
        let Some(folder) = self.unified() else {
            let refused = |setting: &Setting| CgroupError::Unsupported {
                field: format!("linux.resources.unified ({})", setting.file),
                version: "v1",
            };
            return settings.first().map_or(Ok(()), |setting| Err(refused(setting)));
        };
        for (controller, setting) in unified::controllers(&settings).zip(&settings) {
            if !folder.has(controller) {
                let (controller, asked) = (format!("{controller} (in v2)"), setting.file.to_string());
                return Err(CgroupError::NoController { controller, asked });
            }
        }
        folder.write_all(&settings)?;
        if self.folders.iter().any(|folder| folder.has("devices")) {
            return Ok(());
        }
        devices::restrict(folder, asked, standing)
    }

    /// Has the v2 directories above this cgroup hand down what is needed here, and notes what is.
    ///
    /// A hybrid host has to be asked only for what no v1 hierarchy has.
    pub(super) fn delegate(&mut self, asked: &LinuxResources) -> Result<(), CgroupError> {
        let settings = unified::settings(asked)?;
        let mut wanted: Vec<&str> = unified::controllers(&settings).collect();
        for controller in CONTROLLERS {
            let name = controller.names().v2.filter(|_| self.home(controller).is_none());
            // What is wrong with a value is told when it is written.
            let needed = controller.settings(Version::V2, asked, None).is_ok_and(|settings| !settings.is_empty());
            wanted.extend(name.filter(|_| needed));
        }
        let counted = COUNTED.iter().copied().filter(|_| self.flavour == Flavour::V2);
        let welcome: Vec<&str> = counted.filter(|name| !wanted.contains(name)).collect();
        let unified = self.folders.iter_mut().find(|folder| folder.version == Version::V2);
        let Some(folder) = unified.filter(|_| !wanted.is_empty() || !welcome.is_empty()) else { return Ok(()) };
        folder.controllers = hand_down(folder.levels(), &wanted, &welcome)?;
        Ok(())
    }
}

/// Writes a controller's limits, and fills a v1 cpuset first where the kernel refuses for want of values above.
pub(super) fn write_limits(folder: &Folder, settings: &[Setting]) -> Result<(), CgroupError> {
    match folder.write_all(settings) {
        Err(CgroupError::Write { source: Errno::EACCES | Errno::EINVAL, .. })
            if folder.version == Version::V1 && folder.has(cpuset::NAME) =>
        {
            cpuset::fill(folder)?;
            folder.write_all(settings)
        }
        other => other,
    }
}

/// Has each directory hand controllers down to the next. Answers which reach the last one's children. That one of
/// `wanted` is refused is an error; one of `welcome` may be.
fn hand_down(levels: &[PathBuf], wanted: &[&str], welcome: &[&str]) -> Result<Vec<String>, CgroupError> {
    let mut handed = Vec::new();
    for level in levels {
        let list = |file: &str| match fs::read_to_string(level.join(file)) {
            Ok(text) => Ok(words(&text)),
            Err(error) => Err(CgroupError::Read { file: level.join(file), source: errno(&error) }),
        };
        let (here, mut down) = (list("cgroup.controllers")?, list("cgroup.subtree_control")?);
        for name in wanted.iter().chain(welcome) {
            if down.iter().any(|other| other == name) || !here.iter().any(|other| other == name) {
                continue;
            }
            let (file, value) = (level.join("cgroup.subtree_control"), format!("+{name}"));
            match fs::write(&file, &value) {
                Ok(()) => down.push((*name).to_owned()),
                Err(error) if wanted.contains(name) => {
                    return Err(CgroupError::Write { file, value, source: errno(&error) });
                }
                Err(_) => {}
            }
        }
        handed = down;
    }
    Ok(handed)
}
