//! Who answers for a machine: on the machine's own thread, while its guest stands still.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::time::Duration;

use super::{Answer, Doing, Reply, Request, Status};
use crate::guest::Guest;
use crate::machine::overseer::{Moment, Overseer, Verdict};
use crate::machine::{Ended, Paused, RunError, Standing, stop};
use crate::snapshot::Saving;

/// How soon a paused machine hears that it shall end.
const LOOK: Duration = Duration::from_millis(20);

/// A request on its way to the machine.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: Request,
    /// Set once the machine has it: nobody need ring any more.
    pub(super) heard: Arc<AtomicBool>,
    pub(super) reply: SyncSender<Reply>,
}

/// Answers requests, and takes a snapshot when the guest is ready, as far as either is wanted.
#[derive(Debug, Default)]
pub struct Attendant {
    requests: Option<Receiver<Asked>>,
    /// Set when somebody has asked.
    asked: Arc<AtomicBool>,
    when_ready: Option<PathBuf>,
}

impl Attendant {
    /// Answers what comes by `requests`.
    pub(super) fn answering(requests: Receiver<Asked>, asked: Arc<AtomicBool>) -> Self {
        Self { requests: Some(requests), asked, when_ready: None }
    }

    /// Whether somebody has asked since the last time this was asked.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.swap(false, Ordering::Acquire)
    }

    /// Saves the machine to `place` when the guest says that it is ready, and ends it.
    #[must_use]
    pub fn saving_when_ready(self, place: Option<PathBuf>) -> Self {
        Self { when_ready: place, ..self }
    }

    /// Answers one request; the machine runs on where it says `Running`.
    fn answer(asked: &Asked, was: Doing, machine: &mut dyn Standing) -> Doing {
        asked.heard.store(true, Ordering::Relaxed);
        let now = match &asked.request {
            Request::Status | Request::Snapshot { .. } | Request::Button => was,
            Request::Pause => Doing::Paused,
            Request::Resume => Doing::Running,
            Request::Stop => Doing::Stopped,
        };
        let reply = match &asked.request {
            Request::Snapshot { to, diff } if to.is_absolute() => match machine.save_as(to, saving(*diff)) {
                Ok(saved) => Reply::Ok(Answer::Snapshot { id: saved.id, bytes: saved.bytes }),
                Err(error) => Reply::Error(crate::chain(&error)),
            },
            Request::Snapshot { to, .. } => Reply::Error(format!("{} is no absolute path", to.display())),
            Request::Button if !machine.press() => Reply::Error("this machine has no power button".to_owned()),
            _ => {
                let memory = machine.memory_size();
                Reply::Ok(Answer::Status(Status { state: now, pid: std::process::id(), memory }))
            }
        };
        // Who asked may be gone.
        let _ = asked.reply.send(reply);
        now
    }
}

fn saving(diff: bool) -> Saving {
    if diff { Saving::Changes } else { Saving::Whole }
}

impl<G: Guest, W: Write> Overseer<G, W> for Attendant {
    fn attend(&mut self, machine: &mut Paused<G, W>, moment: Moment) -> Result<Verdict, RunError> {
        if let (Moment::Ready, Some(place)) = (moment, self.when_ready.take()) {
            machine.save(&place)?;
            return Ok(Verdict::End(Ended::Status(0)));
        }
        self.serve(machine)
    }
}

impl Attendant {
    /// Answers whatever has been asked, with the machine standing still, and for as long as it shall.
    pub(crate) fn serve(&mut self, machine: &mut dyn Standing) -> Result<Verdict, RunError> {
        let Some(requests) = &self.requests else { return Ok(Verdict::GoOn) };
        let mut doing = Doing::Running;
        loop {
            let asked = match doing {
                Doing::Stopped => return Ok(Verdict::End(Ended::Signal(libc::SIGTERM))),
                Doing::Running => match requests.try_recv() {
                    Ok(asked) => asked,
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(Verdict::GoOn),
                },
                Doing::Paused => match requests.recv_timeout(LOOK) {
                    Ok(asked) => asked,
                    // The guest does not get far: the signal has also set the flag that stops it at once.
                    Err(RecvTimeoutError::Timeout) if stop::must_end() => return Ok(Verdict::GoOn),
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return Ok(Verdict::GoOn),
                },
            };
            doing = Self::answer(&asked, doing, machine);
        }
    }
}
