//! The folder that holds what one container is made of, and what it writes.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;
use tracing::info_span;

use super::error::{EngineError, io_error};
use super::{Mount, Network, Wishes, networking};
use crate::image::{Temporary, remove};

/// Where, in its own folder, overlayfs notes how it was told to work.
const OVERLAY_MARKS: &str = "work/incompat";

/// A container's folder.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    /// Removes it with all that is in it when this is dropped, where it is not kept; a killed process's is known by its
    /// name, and `prune` removes it.
    _passing: Option<Temporary>,
    /// Where what the container writes goes.
    pub(crate) upper: PathBuf,
    /// Where overlayfs works.
    pub(crate) work: PathBuf,
    /// A folder with nothing in it, to stand on where there is no layer.
    pub(crate) empty: PathBuf,
}

impl Place {
    /// Makes a folder below `data` that is gone when this is dropped. `top` is the uppermost layer.
    pub(crate) fn make(data: &Path, top: Option<&Path>) -> Result<Self, EngineError> {
        let all = data.join("containers");
        make(&all, 0o700)?;
        let folder = Temporary::name_in(&all);
        make(folder.path(), 0o755)?;
        let place = Self::furnish(folder.path(), top)?;
        make(&place.empty, 0o755)?;
        Ok(Self { _passing: Some(folder), ..place })
    }

    /// Makes what a container is made of in a folder that stays.
    pub(crate) fn furnish(folder: &Path, top: Option<&Path>) -> Result<Self, EngineError> {
        let place = Self::at(folder);
        // No more folders than are needed: on a disk each one costs its container a millisecond at its end.
        for path in [&place.upper, &place.work] {
            make(path, 0o755)?;
        }
        if top.is_none() {
            make(&place.empty, 0o755)?;
        }
        if let Some(top) = top {
            // The merged root takes its owner and mode from the upper folder, so these must be the image's.
            let (upper, image) = (&place.upper, fs::metadata(top).map_err(io_error("look at", top))?);
            chown(upper, Some(image.uid()), Some(image.gid())).map_err(io_error("give away", upper))?;
            let mode = Permissions::from_mode(image.mode() & 0o7777);
            fs::set_permissions(upper, mode).map_err(io_error("change", upper))?;
        }
        Ok(place)
    }

    /// A folder that was furnished before.
    pub(crate) fn at(folder: &Path) -> Self {
        let below = |name: &str| folder.join(name);
        let (upper, work, empty) = (below("upper"), below("work"), below("empty"));
        Self { folder: folder.to_owned(), _passing: None, upper, work, empty }
    }

    /// Makes it fit to be mounted again: overlayfs refuses a folder whose changes it was told not to write to the disk, since
    /// it cannot know whether they are there. A container of which that was told and that is still here did not start, and
    /// wrote nothing.
    pub(super) fn renew(&self) -> Result<(), EngineError> {
        let mark = self.work.join(OVERLAY_MARKS).join("volatile");
        match fs::remove_dir_all(&mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", mark)(error)),
            _ => Ok(()),
        }
    }

    /// Threads that will remove what the container writes, once nobody wants it any more. Making them takes time, which there
    /// is while the container is made; they wait until then.
    pub(super) fn removers(&self) -> Removers {
        let marks = self.folder.join("marks");
        let start = |folder: &PathBuf| {
            let (go, told) = mpsc::channel();
            let folder = folder.clone();
            let wait = move || {
                // Who is never told lets everything be.
                if told.recv().is_ok() {
                    drop(remove(&folder));
                }
            };
            thread::Builder::new().spawn(wait).ok().map(|thread| Remover { go, thread })
        };
        let threads = [&self.upper, &self.work, &marks].into_iter().filter_map(start).collect();
        Removers { overlays_marks: self.work.join(OVERLAY_MARKS), marks, threads }
    }

    /// The bundle's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the files that say who is who in the network, and answers where they belong.
    /// With another's network go its files, in the folder `shared`.
    pub(super) fn network_files(
        &self,
        wishes: &Wishes,
        hostname: &str,
        shared: Option<&Path>,
    ) -> Result<Vec<Mount>, EngineError> {
        let (hosts, resolver) = networking::files(wishes, hostname);
        let files = [("hosts", hosts), ("hostname", format!("{hostname}\n")), ("resolv.conf", resolver)];
        let mut mounts = Vec::new();
        for (name, text) in files {
            if let Some(folder) = shared.filter(|_| name != "hostname") {
                let from = folder.join(name);
                mounts.push(Mount { from, to: Path::new("/etc").join(name), read_only: false, volume: None });
                continue;
            }
            let from = self.folder.join(name);
            fs::write(&from, text).map_err(io_error("write", &from))?;
            fs::set_permissions(&from, Permissions::from_mode(0o644)).map_err(io_error("change", &from))?;
            mounts.push(Mount { from, to: Path::new("/etc").join(name), read_only: false, volume: None });
        }
        Ok(mounts)
    }

    pub(super) fn write_configuration(&self, specification: &Value) -> Result<(), EngineError> {
        let path = self.folder.join("config.json");
        fs::write(&path, specification.to_string()).map_err(io_error("write", &path))
    }
}

/// Those who remove what a container wrote.
pub(super) struct Removers {
    /// overlayfs's mark and its folder, and where they go, so that they are not waited for before those that they lie in.
    overlays_marks: PathBuf,
    marks: PathBuf,
    threads: Vec<Remover>,
}

struct Remover {
    go: mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Removers {
    /// Removes what the container wrote, which nobody wants any more, while something else is done.
    ///
    /// A disk that is told what is free may have each folder waited for that goes (ext4 without a journal, mounted with
    /// `discard`: 0.1 to 4 ms each). There are seven here, one in another, and what can be waited for at the same time is. What
    /// cannot be removed now is removed, or complained of, with the folder that it lies in.
    pub(super) fn empty_while<T>(self, task: impl FnOnce() -> T) -> T {
        let _span = info_span!(
            "engine.empty",
            call = "unlinkat(2), rmdir(2)",
            why = "nobody wants what it wrote: threads remove that, while the kernel's part of the container is taken back"
        )
        .entered();
        let _ = fs::rename(&self.overlays_marks, &self.marks);
        for remover in &self.threads {
            let _ = remover.go.send(());
        }
        let done = task();
        for remover in self.threads {
            let _ = remover.thread.join();
        }
        done
    }
}

fn make(path: &Path, mode: u32) -> Result<(), EngineError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(io_error("make", path))
}

/// Removes the folders of containers whose process is gone, and names them.
pub(super) fn prune(data: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let folder = data.join("containers");
    match crate::image::sweep(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(io_error("clean", folder)),
    }
}

/// Twelve digits that nobody else has.
pub(super) fn random_name() -> Result<String, EngineError> {
    let mut bytes = [0_u8; 8];
    let path = "/dev/urandom";
    File::open(path).and_then(|mut file| file.read_exact(&mut bytes)).map_err(io_error("read", path))?;
    Ok(format!("{:012x}", u64::from_ne_bytes(bytes) >> 16))
}

/// A container that shares the host's network is found under the host's name.
pub(super) fn hostname(network: Network, id: &str) -> String {
    let host = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    match network {
        Network::Host => host().unwrap_or_else(|| id.to_owned()),
        Network::None | Network::Bridge | Network::Container => id.to_owned(),
    }
}
