//! Whoever may look at a machine, or change it, while it stands still between two of its steps.
//!
//! A guest that runs belongs to its processor: nothing of it can be read that is not already old. So nothing is done to a
//! machine from outside. Whoever wants something rings ([`super::stop::Bell`]) and is called, on the machine's own thread,
//! when the guest stands: no lock is needed, and what is seen is one instant.

use std::io::Write;

use super::{Ended, Paused, RunError};
use crate::guest::Guest;

/// Why an overseer is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Somebody rang.
    Asked,
    /// The guest has said that it is ready ([`crate::guest::READY`]).
    Ready,
}

/// What becomes of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It runs on.
    GoOn,
    /// It ends.
    End(Ended),
}

/// Is let in between two steps of a machine.
pub trait Overseer<G: Guest, W: Write> {
    /// Does what is to do, with the machine standing still, and says how it goes on.
    fn attend(&mut self, machine: &mut Paused<G, W>, moment: Moment) -> Result<Verdict, RunError>;
}

/// Nobody: the machine runs to its end.
#[derive(Debug)]
pub struct Unattended;

impl<G: Guest, W: Write> Overseer<G, W> for Unattended {
    fn attend(&mut self, _: &mut Paused<G, W>, _: Moment) -> Result<Verdict, RunError> {
        Ok(Verdict::GoOn)
    }
}
