//! Containers of images: what is between a name such as `web:1` and a process that the runtime keeps apart, and what can be
//! done to that from then on. No daemon: each verb reads what earlier ones wrote, asks the kernel for the rest, and is done.
//!
//! [`Engine`] is the life of a container as docker's users know it.
//!
//! | file | what |
//! |---|---|
//! | `document`, `user`, `layered` | what an image says about itself, and whom it knows |
//! | `wishes`, `rights`, `limits`, `users` | what a user wants otherwise |
//! | `prepare`, `specification`, `place` | a bundle made of both, and the folder that it lies in |
//! | `machine` | what stands for a bundle where a machine runs the image |
//! | `record`, `shelf`, `names` | what is known between commands; where that is kept; names for who has none |
//! | `create`, `launch`, `end`, `control` | made, started, ended, and what can be done between |
//! | `keeper`, `monitor`, `wire` | the process that stands by a container, in its two forms; what is said to it and by it |
//! | `attach`, `logs`, `log_file`, `exec`, `health`, `init` | talking to a container, reading what it printed, running something in it |
//! | `networking` | its network |
//! | `joints` | where networks and volumes join in |
//! | `volumes` | files that outlive a container, and what it sees of the host's |
//! | `checkpoint` | a running container, onto the disk and back |
//! | `changes`, `copy`, `clone` | what a container has written: told, carried in and out, doubled; `ground` keeps paths inside, `still` the container quiet |
//! | `events`, `usage`, `disk` | what happened, and what is used |
//! | `look` | what is told of a container |
//! | `template` | texts in which what is told is filled in |

mod attach;
mod changes;
mod checkpoint;
mod clone;
mod control;
mod copy;
mod create;
mod disk;
pub mod document;
mod end;
mod error;
mod events;
mod exec;
mod ground;
mod health;
mod init;
mod joints;
mod keeper;
mod launch;
mod layered;
mod limits;
mod log_file;
mod logs;
mod look;
mod machine;
mod monitor;
mod names;
mod networking;
mod place;
mod prepare;
mod record;
mod rights;
mod shelf;
mod specification;
mod still;
mod streams;
pub mod template;
mod usage;
mod user;
mod users;
mod volumes;
mod wire;
mod wishes;

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Instant;

use tracing::info_span;

pub use attach::{KEYS, Manner, Parting, parse_keys};
pub use changes::Change;
pub use copy::{CopyError, CopyOptions, End};
pub use create::Making;
pub use disk::{DiskUsage, Share};
pub use document::{Document, RunConfig};
pub use end::TimedOut;
pub use error::EngineError;
pub use events::Event;
pub use exec::{Other, Process};
pub use init::init;
pub(crate) use layered::has;
pub use limits::{DiskKind, DiskLimit, Limits};
pub use log_file::Rotation;
pub use logs::{Reading, parse_moment};
pub use machine::MachineInit;
pub use monitor::{inherited, monitor};
pub use networking::Networking;
pub use place::Place;
pub use prepare::{Container, read_environment};
pub use record::{CloneLayer, Health, ImageOf, Life, Probe, Record, Running, State};
pub use rights::{CAPABILITIES, read_seccomp};
pub use shelf::Locked;
pub use specification::PATH;
pub use usage::Usage;
pub use user::{Identity, identify};
pub use users::Users;
pub use volumes::{MountKind, MountWish, Volume, VolumeError, VolumesFrom};
pub use wishes::{
    Device, DeviceRule, Log, Mount, Network, Restart, Rights, Seccomp, Sharing, Ulimit, WishError, Wishes, parse_cpus,
    parse_duration, parse_size,
};

use crate::container::{Runtime, default_root};
use crate::image::Store;
use shelf::Shelf;

/// The containers of one root, and what can be done to them.
pub struct Engine {
    store: Store,
    shelf: Shelf,
    runtime: Runtime,
    /// Where what does not outlive a boot is kept.
    run: PathBuf,
    /// Whether other processes of ours tell their steps too.
    explains: bool,
}

impl Engine {
    /// The containers that are kept beside the images of `store`. `warn` hears what a user should know though it works.
    pub fn open(store: Store, warn: impl Fn(&str) + 'static) -> Result<Self, EngineError> {
        let run = default_root()?;
        let shelf = Shelf::below(store.root());
        let engine = Self { runtime: Runtime::new(&run, warn), shelf, store, run, explains: false };
        engine.free_ports();
        Ok(engine)
    }

    /// Whether processes that are started for containers tell their steps on standard error.
    pub fn explain(&mut self, explains: bool) {
        self.explains = explains;
    }

    /// The images.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The runtime's containers, which these are by their ids.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Where what does not outlive a boot is kept.
    pub fn run_root(&self) -> &Path {
        &self.run
    }

    /// A container's folder.
    pub fn folder(&self, record: &Record) -> PathBuf {
        self.shelf.folder_of(&record.id)
    }

    /// The container that a person means: by name, id, or the beginning of that. What ended unseen is settled first.
    pub fn find(&self, text: &str) -> Result<Record, EngineError> {
        let _span = info_span!(
            "engine.find",
            call = "readlink(2), read(2), pidfd_open(2)",
            why = "a name is a link to an id, and the record a file there; whether its process runs only the kernel knows, so it is asked"
        )
        .entered();
        let id = self.shelf.find(text)?;
        let missing = || EngineError::NoContainer { name: text.to_owned() };
        let record = self.shelf.read(&id)?.ok_or_else(missing)?;
        self.settled(record)
    }

    /// All containers, the youngest first. One that is removed meanwhile is not among them.
    pub fn list(&self) -> Result<Vec<Record>, EngineError> {
        let _span = info_span!(
            "engine.list",
            call = "getdents64(2), read(2)",
            why = "no daemon keeps a list: the folders are the list, and whose process is gone is noted as ended now"
        )
        .entered();
        let mut all = Vec::new();
        for id in self.shelf.ids()? {
            let Some(record) = self.shelf.read(&id)? else { continue };
            match self.settled(record) {
                Err(EngineError::NoContainer { .. }) => {}
                other => all.push(other?),
            }
        }
        all.sort_by(|one, other| (other.created, &other.id).cmp(&(one.created, &one.id)));
        Ok(all)
    }

    /// Opens a container to change it, settled. Nobody else changes it meanwhile.
    pub fn lock(&self, text: &str) -> Result<Locked, EngineError> {
        let _span = info_span!(
            "engine.lock",
            call = "flock(2)",
            why = "two commands may want the same container; a lock is let go by the kernel, however its holder ends"
        )
        .entered();
        let id = self.shelf.find(text)?;
        let begin = Instant::now();
        loop {
            let mut locked = self.shelf.lock(&id)?;
            self.settle(&mut locked)?;
            // Between the end and what its keeper does about that it is neither here nor there.
            if !end::is_ending(&locked.record) {
                return Ok(locked);
            }
            if begin.elapsed() > end::PATIENCE {
                return Err(EngineError::Unending { name: locked.record.name });
            }
            drop(locked);
            sleep(end::STEP);
        }
    }

    /// Starts a container that was made, or has ended. Answers it as it is then.
    pub fn start(&self, text: &str) -> Result<Record, EngineError> {
        self.start_with(text, None)
    }

    /// The same; from what CRIU has written in `images`, where that is said.
    fn start_with(&self, text: &str, images: Option<&Path>) -> Result<Record, EngineError> {
        let mut locked = self.lock(text)?;
        match self.state(&locked.record)? {
            State::Created | State::Exited => {}
            State::Running => return Ok(locked.record),
            state => return Err(control::unfit("start", &locked.record, state)),
        }
        if locked.record.wants_keeper() {
            let record = locked.record.clone();
            drop(locked);
            self.start_kept(&record, None, images).map(drop)?;
            return self.find(&record.id);
        }
        self.launch_alone(&mut locked, images)?;
        Ok(locked.record)
    }

    /// Runs a container that was just made and waits for its end, or until the keys are pressed that leave it. Answers the
    /// status to end with.
    ///
    /// One that is gone with its end and has no terminal needs nobody to stand by, and no log: it is a child of this process.
    pub fn run(&self, making: Making, manner: &Manner) -> Result<i32, EngineError> {
        let Making { locked, .. } = making;
        let record = locked.record.clone();
        if record.wishes.remove && !record.wishes.terminal && manner.hears_all() && record.healthcheck().is_none() {
            return Ok(self.run_attached(locked)?.ending.code());
        }
        drop(locked);
        match self.start_and_attach(&record.id, manner)? {
            Parting::Ended(code) => Ok(code),
            Parting::Left => Ok(0),
            Parting::Lost => Err(EngineError::NoKeeper { attempt: "wait for", name: record.name }),
        }
    }

    /// Removes what killed commands left, and names it: folders of containers that were not finished, names, pins.
    pub fn prune(&self) -> Result<Vec<PathBuf>, EngineError> {
        let mut removed = place::prune(self.store.root())?;
        removed.extend(self.shelf.prune()?);
        let pins = self.store.root().join("pins");
        let names = std::fs::read_dir(pins).into_iter().flatten().flatten().map(|entry| entry.file_name());
        for name in names.filter_map(|name| name.into_string().ok()) {
            let Some(id) = name.strip_prefix("container-") else { continue };
            if !self.shelf.folder_of(id).exists() {
                self.store.unpin(&name)?;
            }
        }
        self.free_networks()?;
        // What ended unseen, in another boot or beside a process of ours that was killed, is noted and taken back.
        self.list()?;
        Ok(removed)
    }

    /// Gives a container another name.
    pub fn rename(&self, text: &str, name: &str) -> Result<(), EngineError> {
        let _span = info_span!(
            "engine.rename",
            call = "symlink(2), unlink(2)",
            why = "the new name is taken before the old one is let go: at each instant it has at least one"
        )
        .entered();
        let mut locked = self.lock(text)?;
        let old = locked.record.name.clone();
        self.shelf.rename(&mut locked, name)?;
        self.note(&locked.record, "rename", &[("oldName", old)]);
        Ok(())
    }
}

/// Reads an image's configuration.
pub fn read_document(name: &str, text: &[u8]) -> Result<Document, EngineError> {
    serde_json::from_slice(text).map_err(|source| EngineError::Configuration { name: name.to_owned(), source })
}
