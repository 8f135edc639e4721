//! What can be done to a container that is there: stopped, killed, held still, limited anew, removed.

use std::time::Duration;

use nix::sys::signal::Signal;
use tracing::info_span;

use super::error::EngineError;
use super::limits::Limits;
use super::record::{Record, State};
use super::wishes::Restart;
use super::{Engine, Locked};
use crate::container::{ContainerError, StateError, parse_signal};

/// How long the kernel may take to end a process that was killed.
const AFTER_KILL: Duration = Duration::from_secs(10);

impl Engine {
    /// Asks a container to end, and kills it where it has not after `patience` (its own, where none is said). One that does
    /// not run is left as it is.
    pub fn stop(&self, text: &str, signal: Option<&str>, patience: Option<Duration>) -> Result<(), EngineError> {
        let mut locked = self.lock(text)?;
        let id = locked.record.id.clone();
        match self.state(&locked.record)? {
            State::Restarting => return give_up(&mut locked),
            State::Running => {}
            State::Paused => self.runtime.resume(&id.parse()?)?,
            _ => return Ok(()),
        }
        let number = parse_signal(signal.unwrap_or(locked.record.stop_signal()))?;
        let patience = patience.unwrap_or(locked.record.stop_timeout());
        self.send(&mut locked, number, true)?;
        self.note(&locked.record, "stop", &[]);
        drop(locked);
        if self.await_end(&id, Some(patience))?.is_ok() {
            return Ok(());
        }
        self.end(&id)
    }

    /// Sends a container a signal.
    pub fn kill(&self, text: &str, signal: &str) -> Result<(), EngineError> {
        let number = parse_signal(signal)?;
        let mut locked = self.lock(text)?;
        match self.state(&locked.record)? {
            State::Running | State::Paused => {}
            state => return Err(unfit("kill", &locked.record, state)),
        }
        let ends = number == Signal::SIGKILL as i32 || parse_signal(locked.record.stop_signal()).ok() == Some(number);
        self.note(&locked.record, "kill", &[("signal", number.to_string())]);
        self.send(&mut locked, number, ends)
    }

    /// Removes a container. One that runs is removed only with `force`, which kills it.
    pub fn remove(&self, text: &str, force: bool) -> Result<Record, EngineError> {
        let mut locked = self.lock(text)?;
        match self.state(&locked.record)? {
            State::Created | State::Exited => {}
            state if !force => return Err(unfit("remove", &locked.record, state)),
            State::Restarting => give_up(&mut locked)?,
            State::Dead => self.bury(&locked.record)?,
            State::Running | State::Paused => {
                let id = locked.record.id.clone();
                self.send(&mut locked, Signal::SIGKILL as i32, true)?;
                let record = locked.record.clone();
                drop(locked);
                self.end(&id)?;
                locked = match self.shelf.lock(&id) {
                    // It was to be removed at its end.
                    Err(EngineError::NoContainer { .. }) => return Ok(record),
                    other => other?,
                };
            }
        }
        // A start that was killed may have left something that its record, which is written last, knows nothing of.
        self.leave_networks(&locked.record);
        self.forget(&locked)?;
        Ok(locked.record)
    }

    /// Holds every process of a container still.
    pub fn pause(&self, text: &str) -> Result<(), EngineError> {
        let _span = info_span!(
            "engine.pause",
            call = "write(2)",
            why = "the freezer holds all processes of a cgroup at once, so none sees another one stopped; a signal would be seen"
        )
        .entered();
        let locked = self.lock(text)?;
        match self.state(&locked.record)? {
            State::Running => self.runtime.pause(&locked.record.id.parse()?)?,
            state => return Err(unfit("pause", &locked.record, state)),
        }
        self.note(&locked.record, "pause", &[]);
        Ok(())
    }

    /// Lets the processes of a paused container go on.
    pub fn unpause(&self, text: &str) -> Result<(), EngineError> {
        let _span = info_span!(
            "engine.unpause",
            call = "write(2)",
            why = "the freezer lets all processes of the cgroup go on where they were"
        )
        .entered();
        let locked = self.lock(text)?;
        match self.state(&locked.record)? {
            State::Paused => self.runtime.resume(&locked.record.id.parse()?)?,
            state => return Err(unfit("unpause", &locked.record, state)),
        }
        self.note(&locked.record, "unpause", &[]);
        Ok(())
    }

    /// Changes what a container may use, and what follows its end; what is not said stays as it is.
    pub fn update(&self, text: &str, limits: Limits, restart: Option<Restart>) -> Result<(), EngineError> {
        limits.check()?;
        let _span = info_span!(
            "engine.update",
            call = "write(2), rename(2)",
            why = "limits are files of the cgroup: what is written there holds from then on; the record keeps them for the next start"
        )
        .entered();
        let mut locked = self.lock(text)?;
        if self.state(&locked.record)?.is_up() && limits != Limits::default() {
            let asked = serde_json::to_value(limits.resources()).and_then(serde_json::from_value);
            let path = locked.folder().to_owned();
            let asked = asked.map_err(|source| EngineError::Record { path, source })?;
            self.runtime.update(&locked.record.id.parse()?, &asked)?;
        }
        let wishes = &mut locked.record.wishes;
        wishes.limits = limits.over(std::mem::take(&mut wishes.limits));
        wishes.restart = restart.unwrap_or(wishes.restart);
        locked.write()?;
        self.note(&locked.record, "update", &[]);
        Ok(())
    }

    /// Kills what runs of a container, and waits until nothing of it does.
    fn end(&self, id: &str) -> Result<(), EngineError> {
        match self.runtime.kill(&id.parse()?, Signal::SIGKILL as i32, false) {
            // It has ended by itself meanwhile.
            Ok(()) | Err(ContainerError::Status { .. } | ContainerError::State(_) | ContainerError::System { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match self.await_end(id, Some(AFTER_KILL))? {
            Ok(_) => Ok(()),
            Err(_) => Err(EngineError::Unending { name: id.to_owned() }),
        }
    }

    /// Ends what may still run of a container of which nothing else is known.
    fn bury(&self, record: &Record) -> Result<(), EngineError> {
        match self.runtime.delete(&record.id.parse()?, true) {
            Ok(()) | Err(ContainerError::State(StateError::Missing(_))) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a signal; `ends`: the container shall not be started again when it ends by that.
    ///
    /// Who would start it again waits for the lock that is held here. So the signal can come first: a command that is killed
    /// between the two leaves a container that runs, or runs again, and not one that runs and is taken for stopped.
    fn send(&self, locked: &mut Locked, signal: i32, ends: bool) -> Result<(), EngineError> {
        {
            let _span = info_span!(
                "engine.signal",
                call = "pidfd_send_signal(2)",
                why = "the first process is meant, by a descriptor that no other process can have, even if its number is used again"
            )
            .entered();
            match self.runtime.kill(&locked.record.id.parse()?, signal, false) {
                // It has ended meanwhile, which is what was wanted.
                Err(ContainerError::Status { .. }) if ends => {}
                other => other?,
            }
        }
        if ends { note_stopped(locked) } else { Ok(()) }
    }
}

/// Notes that a container was ended by who asked for that.
pub(super) fn note_stopped(locked: &mut Locked) -> Result<(), EngineError> {
    let _span = info_span!(
        "engine.stopped",
        call = "write(2), rename(2)",
        why = "whoever stands by reads in the record that its end was wanted, and does not start it again"
    )
    .entered();
    locked.record.life.stopped = true;
    locked.write()
}

/// Ends the wait of the process that was to start a container again. It holds no lock while it waits.
fn give_up(locked: &mut Locked) -> Result<(), EngineError> {
    locked.record.life.stopped = true;
    if let Some(keeper) = locked.record.life.restarting.take() {
        // It may have gone by itself.
        let _ = keeper.signal(Signal::SIGKILL as i32);
    }
    locked.write()
}

pub(super) fn unfit(attempt: &'static str, record: &Record, state: State) -> EngineError {
    EngineError::Unfit { attempt, name: record.name.clone(), state: state.word() }
}
