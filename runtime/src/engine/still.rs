//! Holding a container still while its files are read, so that a copy of them is of one moment.
//!
//! A command that is killed meanwhile lets nothing go on any more. So it notes first who it is; whoever finds that note and
//! no such process lets the container go on in its place. Every command that looks at a container looks at its note.

use nix::unistd::Pid;
use tracing::info_span;

use super::error::EngineError;
use super::record::{Record, State};
use super::{Engine, Locked};
use crate::container::ProcessId;

impl Engine {
    /// Has a container's files read, and holds its processes still meanwhile, where they run.
    pub(crate) fn while_still<T>(
        &self,
        locked: &mut Locked,
        read: impl FnOnce(&Record) -> T,
    ) -> Result<T, EngineError> {
        if self.state(&locked.record)? != State::Running {
            return Ok(read(&locked.record));
        }
        locked.record.life.held = ProcessId::of(Pid::this());
        locked.write()?; //                                             1. who does it, before it is done
        let paused = self.runtime.pause(&locked.record.id.parse()?); //  2. nobody writes
        let answer = paused.map(|()| {
            let _span = info_span!(
                "engine.still",
                call = "read(2)",
                why = "the freezer holds all processes of the container: what is read of its files is of one moment"
            )
            .entered();
            read(&locked.record)
        });
        self.let_go(locked)?; //                                        3. on they go, and nobody holds them any more
        Ok(answer?)
    }

    /// Lets a container go on that somebody has held still.
    pub(super) fn let_go(&self, locked: &mut Locked) -> Result<(), EngineError> {
        // One that has ended meanwhile has nothing to go on with; of one that was not held yet there is nothing to undo.
        let _ = self.runtime.resume(&locked.record.id.parse()?);
        locked.record.life.held = None;
        locked.write()
    }
}

/// Whether the command that held it still was killed before it let it go.
pub(super) fn is_abandoned(record: &Record) -> bool {
    record.life.held.is_some_and(|holder| !holder.is_alive())
}
