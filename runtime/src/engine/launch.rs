//! Starting a container: the runtime makes it, the network joins in, its program begins. In three ways: as a child of the
//! command that stays and waits ([`Engine::run_attached`]), with nobody of ours beside it ([`Engine::launch_alone`]), or as a
//! child of the process that keeps its log (`keeper`).

use std::path::Path;

use serde_json::Value;
use tracing::info_span;

use super::error::EngineError;
use super::networking::Ready;
use super::place::Place;
use super::record::{Running, boot_id, now};
use super::streams::Streams;
use super::{Engine, Locked};
use crate::container::{Bundle, ContainerError, ContainerId, Ended, Handed, ProcessId};
use crate::network::Networks;

impl Engine {
    /// Starts a container that goes on by itself; none of its output is kept. Answers the number of its first process.
    pub(super) fn launch_alone(&self, locked: &mut Locked, images: Option<&Path>) -> Result<i32, EngineError> {
        let streams = Streams::silence()?;
        let launched = self.launch(locked, None, images);
        drop(streams);
        launched
    }

    /// Starts a container, or brings it back from what was written of it, with the standard streams of this process. It
    /// outlives this process.
    pub(super) fn launch(
        &self,
        locked: &mut Locked,
        keeper: Option<ProcessId>,
        images: Option<&Path>,
    ) -> Result<i32, EngineError> {
        match images {
            Some(images) => self.launch_back(locked, keeper, images),
            None => self.launch_with(locked, Handed::default(), keeper, &mut || Ok(())),
        }
    }

    /// Starts a container with the standard streams of this process. It outlives this process. `created` is called when
    /// everything is there but the program's first instruction.
    pub(super) fn launch_with(
        &self,
        locked: &mut Locked,
        handed: Handed,
        keeper: Option<ProcessId>,
        created: &mut dyn FnMut() -> Result<(), EngineError>,
    ) -> Result<i32, EngineError> {
        let _span = info_span!(
            "engine.start",
            call = "clone3(2), connect(2)",
            why = "everything but the program's first instruction, then the network, then that instruction"
        )
        .entered();
        let networks = self.networks();
        let (id, bundle, mut ready) = self.prepared(&networks, locked, handed)?;
        let mut between = |pid| self.between(locked, pid, keeper.as_ref(), ready.take());
        let made = self.runtime.create_with(&id, &bundle, &mut between);
        let started = made.and_then(|pid| {
            let begun = created().map_err(|error| ContainerError::Caller(Box::new(error)));
            // What did not start is nobody's. That it did not is the error to tell of.
            begun.and_then(|()| self.runtime.start(&id)).inspect_err(|_| drop(self.runtime.delete(&id, true)))?;
            Ok(pid)
        });
        started.map_err(|error| self.not_started(locked, error))
    }

    /// Runs a container as a child of this process, with its streams, and waits for its end.
    pub fn run_attached(&self, mut locked: Locked) -> Result<Ended, EngineError> {
        let networks = self.networks();
        let prepared = self.prepared(&networks, &mut locked, Handed::default());
        let (id, bundle, mut ready) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Err(self.never_started(&locked, error)),
        };
        let keeper = ProcessId::of(nix::unistd::Pid::this());
        let container = locked.record.id.clone();
        let (mut held, mut removers) = (Some(locked), None);
        let run = self.runtime.run_to_end(&id, &bundle, &mut |pid| {
            let Some(mut locked) = held.take() else { return Ok(()) };
            self.between(&mut locked, pid, keeper.as_ref(), ready.take())?;
            removers = locked.record.wishes.remove.then(|| Place::at(locked.folder()).removers());
            // Others may look at it, and ask it to end, from here on.
            Ok(())
        });
        let mut locked = match held {
            Some(locked) => locked,
            None => self.shelf.lock(&container)?,
        };
        let cleared = run.and_then(|remains| match removers {
            Some(removers) => removers.empty_while(|| remains.clear()),
            None => remains.clear(),
        });
        match cleared {
            Ok(ended) => {
                self.finish(&mut locked, Some(ended.ending.code()), ended.out_of_memory)?;
                Ok(ended)
            }
            Err(error) => {
                let error = self.not_started(&mut locked, error);
                Err(self.never_started(&locked, error))
            }
        }
    }

    /// What the runtime is called with, and a network that is ready, where one is.
    fn prepared<'a>(
        &self,
        networks: &'a Networks,
        locked: &mut Locked,
        handed: Handed,
    ) -> Result<(ContainerId, Bundle, Option<Ready<'a>>), EngineError> {
        let (id, mut bundle) = self.bundle(locked, handed)?;
        let ready = Self::take_ready(networks, locked, &mut bundle)?;
        Ok((id, bundle, ready))
    }

    /// Removes a container that was to go with its end, and never began; hands on why.
    pub(super) fn never_started(&self, locked: &Locked, error: EngineError) -> EngineError {
        if locked.record.wishes.remove {
            // That it did not start is the error to tell of.
            let _ = self.forget(locked);
        }
        error
    }

    /// The runtime's name for a container, and its bundle, written anew where it was not made just now: what it joins may
    /// have changed since.
    pub(super) fn bundle(&self, locked: &mut Locked, handed: Handed) -> Result<(ContainerId, Bundle), EngineError> {
        let life = &mut locked.record.life;
        (life.error, life.stopped, life.restarting, life.health) = (None, false, None, None);
        let place = Place::at(locked.folder());
        if !std::mem::take(&mut locked.fresh) {
            place.renew()?;
            self.write_bundle(&locked.record, &place, &self.layers(&locked.record)?)?;
        }
        let mut bundle = Bundle::load(place.folder())?;
        bundle.hand(handed, Vec::new());
        Ok((locked.record.id.parse()?, bundle))
    }

    /// What happens while the container's first process exists and its program has not begun.
    fn between(
        &self,
        locked: &mut Locked,
        pid: i32,
        keeper: Option<&ProcessId>,
        ready: Option<Ready<'_>>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let network = self.attach(locked, pid, ready)?;
        self.begun(locked, pid, keeper, network)
    }

    /// Notes that a container runs, or is about to.
    pub(super) fn begun(
        &self,
        locked: &mut Locked,
        pid: i32,
        keeper: Option<&ProcessId>,
        network: Option<Value>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let gone = || EngineError::from(ContainerError::EndedEarly);
        let init = ProcessId::of(nix::unistd::Pid::from_raw(pid)).ok_or_else(gone)?;
        let checked = locked.record.healthcheck().is_some();
        let life = &mut locked.record.life;
        life.started = Some(now());
        life.health = checked.then(super::health::starting);
        life.running = Some(Running { boot: boot_id().to_owned(), init, keeper: keeper.copied(), network });
        locked.write()?;
        self.note(&locked.record, "start", &[]);
        Ok(())
    }

    /// Notes why a container did not start, and takes back what was made for it.
    pub(super) fn not_started(&self, locked: &mut Locked, error: ContainerError) -> EngineError {
        let error = match error {
            // What was raised in `between` is our own.
            ContainerError::Caller(own) => match own.downcast::<EngineError>() {
                Ok(own) => *own,
                Err(other) => ContainerError::Caller(other).into(),
            },
            other => EngineError::from(other),
        };
        let life = &mut locked.record.life;
        let running = life.running.take();
        (life.error, life.code) = (Some(error.to_string()), Some(i32::from(error.code())));
        if let Some(network) = running.and_then(|running| running.network) {
            self.detach(&locked.record, &network);
        }
        // On the way out of another error, which is the one to tell of.
        let _ = locked.write();
        error
    }
}
