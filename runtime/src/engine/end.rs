//! The end of a container, and how it is learned of: from whoever stood by, or from the kernel, by who looks next.

use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::info_span;

use super::create::pin;
use super::error::EngineError;
use super::record::{Record, State, boot_id};
use super::still::is_abandoned;
use super::wire::Wire;
use super::{Engine, Locked};
use crate::container::{ContainerError, ContainerId, ProcessId, StateError, Status, ending_of};

/// How long who stands by may take to write down what it saw, between two looks.
pub(super) const STEP: Duration = Duration::from_millis(3);
/// How long it may take in all: those who listen may read its last words until then.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

impl Engine {
    /// Where a container is in its life.
    pub fn state(&self, record: &Record) -> Result<State, EngineError> {
        let life = &record.life;
        if record.damaged {
            return Ok(State::Dead);
        }
        let Some(running) = &life.running else {
            let restarting = life.restarting.as_ref().is_some_and(ProcessId::is_alive);
            return Ok(match (restarting, life.finished) {
                (true, _) => State::Restarting,
                (false, Some(_)) => State::Exited,
                (false, None) => State::Created,
            });
        };
        if running.boot != boot_id() || !running.init.is_alive() {
            return Ok(State::Exited);
        }
        match self.runtime.overview(&record.id.parse()?) {
            Ok(overview) if overview.status == Status::Paused => Ok(State::Paused),
            Ok(_) => Ok(State::Running),
            Err(ContainerError::State(StateError::Missing(_))) => Ok(State::Dead),
            Err(error) => Err(error.into()),
        }
    }

    /// The same record, or a newer one where the container ended and nobody was there to see it, or was held by nobody alive.
    pub(super) fn settled(&self, record: Record) -> Result<Record, EngineError> {
        if !unseen(&record) && !is_abandoned(&record) {
            return Ok(record);
        }
        let mut locked = self.shelf.lock(&record.id)?;
        self.settle(&mut locked)?;
        if locked.record.life.running.is_none() && locked.record.wishes.remove && !locked.folder().exists() {
            return Err(EngineError::NoContainer { name: record.name });
        }
        Ok(locked.record)
    }

    /// Writes the end of a container down that nobody saw, and lets one go on that a killed command held. With which status it
    /// ended is not known then: the kernel tells that to the parent, and to who held the process before.
    pub(super) fn settle(&self, locked: &mut Locked) -> Result<(), EngineError> {
        if is_abandoned(&locked.record) {
            self.let_go(locked)?;
        }
        self.settle_as(locked, None)
    }

    /// The same, by one who knows the status.
    fn settle_as(&self, locked: &mut Locked, code: Option<i32>) -> Result<(), EngineError> {
        if !unseen(&locked.record) {
            return Ok(());
        }
        let this_boot = locked.record.life.running.as_ref().is_some_and(|running| running.boot == boot_id());
        let id: ContainerId = locked.record.id.parse()?;
        let out_of_memory = this_boot && self.runtime.ran_out_of_memory(&id).unwrap_or(false);
        self.finish(locked, code, out_of_memory)
    }

    /// All that follows a container's end: its network, its cgroup and its state are taken back, and the record says how it
    /// was. One that shall be removed at its end is removed.
    pub(super) fn finish(
        &self,
        locked: &mut Locked,
        code: Option<i32>,
        out_of_memory: bool,
    ) -> Result<(), EngineError> {
        let _span = info_span!(
            "engine.end",
            call = "rmdir(2), rename(2)",
            why = "the processes are gone; what the kernel and this lab kept for them goes too, and the record says how it ended"
        )
        .entered();
        if let Some(network) = locked.record.life.running.as_ref().and_then(|running| running.network.clone()) {
            self.detach(&locked.record, &network);
        }
        match self.runtime.delete(&locked.record.id.parse()?, true) {
            Ok(()) | Err(ContainerError::State(StateError::Missing(_))) => {}
            Err(error) => return Err(error.into()),
        }
        // Nobody is behind its door any more, whatever became of who was.
        let _ = std::fs::remove_file(self.door(&locked.record.id));
        locked.record.ended(code, out_of_memory);
        if out_of_memory {
            self.note(&locked.record, "oom", &[]);
        }
        let status = code.map_or_else(|| "?".to_owned(), |code| code.to_string());
        self.note(&locked.record, "die", &[("exitCode", status)]);
        if locked.record.wishes.remove { self.forget(locked) } else { locked.write() }
    }

    /// Takes a container away that has ended.
    pub(super) fn forget(&self, locked: &Locked) -> Result<(), EngineError> {
        let _ = std::fs::remove_file(self.door(&locked.record.id));
        self.shelf.remove(locked)?;
        self.note(&locked.record, "destroy", &[]);
        if locked.record.wishes.remove {
            self.remove_anonymous_volumes(&locked.record)?;
        }
        Ok(self.store.unpin(&pin(&locked.record.id))?)
    }

    /// Waits for a container's end; the status it ended with, where anybody saw that.
    pub fn wait(&self, text: &str) -> Result<Option<i32>, EngineError> {
        let _span = info_span!(
            "engine.wait",
            call = "poll(2)",
            why = "a descriptor of a process becomes readable with its end; only a parent hears the status, so the record is read then"
        )
        .entered();
        let record = self.find(text)?;
        if record.wishes.remove && record.life.running.is_some() {
            // Its record is gone with its end. Its keeper tells those who are connected.
            if let Ok(wire) = Wire::connect(&self.door(&record.id)) {
                while let Ok(Some(message)) = wire.hear() {
                    if message.kind == b'x' {
                        return Ok(std::str::from_utf8(&message.bytes).ok().and_then(|text| text.parse().ok()));
                    }
                }
            }
        }
        let ended = self.await_end(&record.id, None)?;
        Ok(ended.ok().flatten().unwrap_or(record).code())
    }

    /// Waits for a container's end, at most so long. Answers its record then; nothing where it was removed with its end.
    pub fn await_end(
        &self,
        id: &str,
        patience: Option<Duration>,
    ) -> Result<Result<Option<Record>, TimedOut>, EngineError> {
        let until = patience.map(|patience| Instant::now() + patience);
        let began = self.shelf.read(id)?.and_then(|record| record.life.started);
        loop {
            let Some(record) = self.shelf.read(id)? else { return Ok(Ok(None)) };
            let Some(running) = &record.life.running else { return Ok(Ok(Some(record))) };
            if record.life.started != began {
                // It ended, and was started again meanwhile.
                return Ok(Ok(Some(record)));
            }
            if unseen(&record) {
                return match self.settled(record) {
                    Err(EngineError::NoContainer { .. }) => Ok(Ok(None)),
                    other => other.map(|record| Ok(Some(record))),
                };
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(Err(TimedOut));
            }
            match running.init.open() {
                Some(process) => {
                    wait_for(&process, until);
                    if running.keeper.is_none()
                        && let Some(code) = status_of(&process, &running.init)
                    {
                        self.settle_as(&mut self.shelf.lock(id)?, Some(code))?;
                    }
                }
                None => sleep(STEP),
            }
        }
    }
}

/// The time was over before the container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut;

/// Whether a container that ran has ended, and who stands by is about to write that down.
pub(super) fn is_ending(record: &Record) -> bool {
    record.life.running.as_ref().is_some_and(|running| !running.init.is_alive())
}

/// Whether a container that ran has ended, and nobody stands by who would write that down.
fn unseen(record: &Record) -> bool {
    record.life.running.as_ref().is_some_and(|running| {
        let kept = running.keeper.as_ref().is_some_and(ProcessId::is_alive);
        running.boot != boot_id() || (!running.init.is_alive() && !kept)
    })
}

/// The status of a process that has ended and is not our child: as long as its parent has not asked anybody may read it in
/// /proc, and from then on the kernel tells it to who has held the process all the while. Nothing where it does not.
fn status_of(process: &impl AsFd, id: &ProcessId) -> Option<i32> {
    /// Between being a zombie and being told of lies a moment in which it is neither.
    const LOOKS: u32 = 10;
    if poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) != Ok(1) {
        return None;
    }
    for _ in 0..LOOKS {
        if let Some(ending) = id.ending().or_else(|| ending_of(process)) {
            return Some(ending.code());
        }
        sleep(STEP);
    }
    None
}

fn wait_for(process: &impl AsFd, until: Option<Instant>) {
    let rest = until.map(|until| until.saturating_duration_since(Instant::now()).as_millis().min(60_000) + 1);
    let rest = rest.map_or(PollTimeout::NONE, |rest| PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX));
    // Woken by anything else, the caller looks again.
    let _ = poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], rest);
}
