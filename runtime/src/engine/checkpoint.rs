//! A container written to disk while it runs, and started from there: with the memory that it had, and in the middle of what
//! it did. CRIU does it (criu(8)), the runtime calls it; here are the names that people give such states, and the container's
//! network and record around it.
//!
//! ```text
//! ROOT/containers/ID/checkpoints/NAME/    CRIU's files, and what of the container was the host's
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tracing::info_span;

use super::control::{note_stopped, unfit};
use super::end::PATIENCE;
use super::error::{EngineError, io_error};
use super::record::{Record, State};
use super::shelf::check_name;
use super::wishes::Network;
use super::{Engine, Locked};
use crate::container::{
    Bundle, Checkpoint, ContainerError, ContainerId, CriuOptions, Handed, ProcessId, Restore, StateError,
};
use crate::image::{Temporary, sweep};
use crate::network::{Lease, Namespace};

/// The folder, in that of a container, of what was written of it.
const FOLDER: &str = "checkpoints";
/// The folder, in that of a container, of CRIU's log.
const LOG: &str = "criu";

impl Engine {
    /// Writes a container that runs to disk, under a name: into `folder`, or into its own. It ends by that, unless it shall
    /// go on.
    pub fn checkpoint(
        &self,
        text: &str,
        name: &str,
        folder: Option<&Path>,
        leave_running: bool,
    ) -> Result<(), EngineError> {
        let _span = info_span!(
            "engine.checkpoint",
            call = "execve(2), rename(2)",
            why = "all that the container's processes are goes into files; they have their name only when they are complete"
        )
        .entered();
        check_name(name)?;
        let mut locked = self.lock(text)?; //                              1. nobody ends or removes it meanwhile
        match self.state(&locked.record)? {
            State::Running => {}
            state => return Err(unfit("checkpoint", &locked.record, state)),
        }
        if locked.record.wishes.remove && folder.is_none() {
            // With the container its own folder goes, and all that is in it.
            return Err(EngineError::Passing { name: locked.record.name.clone() });
        }
        let all = self.checkpoints_of(&locked.record, folder);
        if all.join(name).exists() {
            return Err(EngineError::CheckpointTaken { name: name.to_owned(), container: locked.record.name.clone() });
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&all).map_err(io_error("make", &all))?;
        sweep(&all).map_err(io_error("clean", &all))?;
        let passing = Temporary::name_in(&all);
        // Its log stays where it can be read when the rest has gone.
        let work = Some(self.folder(&locked.record).join(LOG));
        let options = CriuOptions { images: passing.path().to_owned(), work, ..CriuOptions::default() };
        let asked = Checkpoint { options, leave_running, ..Checkpoint::default() };
        let id = locked.record.id.clone();
        self.runtime.checkpoint(&id.parse()?, &asked)?; //                 2. its processes, into files
        if !leave_running {
            // Who sees its end waits for the lock that is held here.
            note_stopped(&mut locked)?;
        }
        passing.publish(&all.join(name)).map_err(io_error("name", all.join(name)))?; // 3. which are complete
        self.note(&locked.record, "checkpoint", &[("checkpoint", name.to_owned())]);
        drop(locked);
        if !leave_running && self.await_end(&id, Some(PATIENCE))?.is_err() {
            return Err(EngineError::Unending { name: id }); //              4. and it is seen to have ended
        }
        Ok(())
    }

    /// The names of what was written of a container.
    pub fn checkpoints(&self, text: &str, folder: Option<&Path>) -> Result<Vec<String>, EngineError> {
        let all = self.checkpoints_of(&self.find(text)?, folder);
        let entries = match fs::read_dir(&all) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(io_error("list", &all))?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| check_name(name).is_ok()).collect();
        names.sort();
        Ok(names)
    }

    /// Removes one of them.
    pub fn remove_checkpoint(&self, text: &str, name: &str, folder: Option<&Path>) -> Result<(), EngineError> {
        let locked = self.lock(text)?;
        let place = self.checkpoint_at(&locked.record, name, folder)?;
        // First it loses its name, at once: half of one must never be taken for a whole one.
        let passing = Temporary::name_in(&self.checkpoints_of(&locked.record, folder));
        fs::rename(&place, passing.path()).map_err(io_error("remove", &place))
    }

    /// Starts a container from what was written of it. Answers it as it is then.
    pub fn start_from(&self, text: &str, name: &str, folder: Option<&Path>) -> Result<Record, EngineError> {
        let record = self.find(text)?;
        let images = self.checkpoint_at(&record, name, folder)?;
        self.start_with(&record.id, Some(&images))
    }

    fn checkpoints_of(&self, record: &Record, folder: Option<&Path>) -> PathBuf {
        folder.map_or_else(|| self.folder(record).join(FOLDER), Path::to_owned)
    }

    /// Where CRIU's files are, for whom they are there.
    fn checkpoint_at(&self, record: &Record, name: &str, folder: Option<&Path>) -> Result<PathBuf, EngineError> {
        check_name(name)?;
        let place = self.checkpoints_of(record, folder).join(name);
        // The keeper that starts it works in another folder.
        let place = std::path::absolute(&place).map_err(io_error("find", &place))?;
        let missing = || EngineError::NoCheckpoint { name: name.to_owned(), container: record.name.clone() };
        if place.is_dir() { Ok(place) } else { Err(missing()) }
    }

    /// Brings a container back with the standard streams of this process. It outlives this process.
    pub(super) fn launch_back(
        &self,
        locked: &mut Locked,
        keeper: Option<ProcessId>,
        images: &Path,
    ) -> Result<i32, EngineError> {
        let _span = info_span!(
            "engine.start",
            call = "execve(criu)",
            why = "the network first; into it, and into the limits, come the processes as they were"
        )
        .entered();
        let (id, mut bundle) = self.bundle(locked, Handed::default())?;
        let restored = self.bring_back(locked, &id, &mut bundle, images);
        let (pid, leases) = restored.map_err(|error| self.not_started(locked, error))?;
        let network = (!leases.is_empty()).then(|| self.told_of(&locked.record, pid, &leases)).transpose();
        let known = network.map_err(Into::into).and_then(|it| self.begun(locked, pid, keeper.as_ref(), it));
        known.map_err(|error| {
            // What nobody knows of must not run.
            let _ = self.runtime.delete(&id, true);
            self.not_started(locked, ContainerError::Caller(error))
        })?;
        Ok(pid)
    }

    fn bring_back(
        &self,
        locked: &mut Locked,
        id: &ContainerId,
        bundle: &mut Bundle,
        images: &Path,
    ) -> Result<(i32, Vec<Lease>), ContainerError> {
        let own = |error: EngineError| ContainerError::Caller(Box::new(error));
        // Kept until CRIU has it.
        let mut namespace = None;
        let mut leases = Vec::new();
        if locked.record.wishes.network == Network::Bridge {
            let made = namespace.insert(Namespace::create().map_err(|error| own(error.into()))?);
            leases = self.join_networks(locked, made).map_err(own)?;
            bundle.lend_network(&made.path());
        }
        let work = Some(locked.folder().join(LOG));
        let options = CriuOptions { images: images.to_owned(), work, ..CriuOptions::default() };
        let restored = self.runtime.restore(id, bundle, &Restore { options, detach: true });
        let pid = restored
            .and_then(|_| self.runtime.overview(id))
            .and_then(|it| it.pid.ok_or_else(|| StateError::Missing(id.clone()).into()));
        if pid.is_err() && namespace.is_some() {
            // On the way out of another error; whoever comes next frees it otherwise.
            let _ = self.networks().detach(&locked.record.id);
        }
        Ok((pid?, leases))
    }
}
