//! A running program, as far as it is not in its machine's memory and registers: what a snapshot keeps of it.
//!
//! The program's bytes, its stack, its page tables and where it stands are in memory and registers. Here is what a kernel
//! would know: which addresses are in use, which frames are free, which descriptors are open, what its signals do, what its
//! clocks show. All of it comes back from a file, so each number is checked before anything is made of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use tracing::info_span;

use super::areas::Areas;
use super::clocks::{Clocks, Readings};
use super::frames::Frames;
use super::rights::Rights;
use super::space::{AREAS_MAX, Space};
use super::stub::{Doorbells, FIRST_FREE_FRAME, GENERATION};
use super::tables::Tables;
use super::task::{Bases, Files, LIMITS, Ready, SIGNALS, Task};
use super::user::User;
use super::{App, AppError, PAGE, RESERVED_END, Running, USER_END, syscalls};
use crate::memory::Memory;
use crate::snapshot::raw::{hex, unhex};
use crate::snapshot::state::Impossible;

/// What a snapshot keeps of a program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppState {
    /// What `/proc/self/exe` leads to, in hexadecimal.
    executable: String,
    /// Its name, for prctl(2), in hexadecimal.
    name: String,
    /// Which of its three descriptors are open.
    open: [bool; 3],
    /// Soft and hard limits, by resource number.
    limits: [[u64; 2]; LIMITS],
    /// What it set for signals, by number: handler, flags, restorer, mask. Those not named are as at the start.
    actions: BTreeMap<u8, [u64; 4]>,
    mask: u64,
    alternate_stack: [u64; 3],
    fs: u64,
    gs: u64,
    rseq: Option<u64>,
    /// System calls that were not served, by number, and how often.
    unserved: BTreeMap<u64, u64>,
    /// Whether it has said that it is ready.
    ready: bool,
    /// Of an interrupted sleep: what is left, in nanoseconds.
    remaining: Option<u64>,
    clocks: Readings,
    /// Where its sixteen random bytes are (`AT_RANDOM`).
    random: u64,
    space: SpaceState,
}

/// The program's addresses and frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpaceState {
    /// Stretches of addresses in use: start, end, and rights as `/proc/self/maps` has them.
    areas: Vec<(u64, u64, String)>,
    /// Free guest-physical memory: start and end.
    free: Vec<(u64, u64)>,
    /// Where the page tables begin.
    root: u64,
    /// Start and end of the heap.
    heap: (u64, u64),
}

impl AppState {
    /// Whether a program can be as this says, in a machine with so many bytes of memory.
    pub(crate) fn check(&self, memory: u64) -> Result<(), Impossible> {
        let fail = |field, why: &str| Err(Impossible::new(field, why));
        if unhex(&self.executable).is_none() {
            return fail("guest.executable", "it is not hexadecimal");
        }
        if unhex(&self.name).is_none_or(|name| name.len() != 16) {
            return fail("guest.name", "it is not of 16 bytes in hexadecimal");
        }
        if !self.actions.keys().all(|number| (1..=SIGNALS).contains(&usize::from(*number))) {
            return fail("guest.actions", "there is no such signal");
        }
        if self.fs >= USER_END || self.gs >= USER_END {
            return fail("guest.fs", "the base of a segment lies beyond a program's addresses");
        }
        if !self.clocks.are_possible() {
            return fail("guest.clocks", "no clock shows that");
        }
        if self.random > USER_END - 16 {
            return fail("guest.random", "it lies beyond a program's addresses");
        }
        self.space.check(memory)
    }
}

impl SpaceState {
    fn check(&self, memory: u64) -> Result<(), Impossible> {
        let fail = |field, why: String| Err(Impossible::new(field, why));
        if self.areas.len() > AREAS_MAX {
            return fail("guest.space.areas", format!("a program can't have {}", self.areas.len()));
        }
        let pages = |(start, end): (u64, u64), within: &Range<u64>| {
            start < end
                && start >= within.start
                && end <= within.end
                && start.is_multiple_of(PAGE)
                && end.is_multiple_of(PAGE)
        };
        let [below, above] = Memory::ranges(memory);
        let frames = |range| pages(range, &(FIRST_FREE_FRAME..below.end)) || pages(range, &above);
        let mut last = 0;
        for (start, end, rights) in &self.areas {
            if !pages((*start, *end), &(RESERVED_END..USER_END)) || *start < last || rights_from(rights).is_none() {
                return fail("guest.space.areas", format!("{start:#x}-{end:#x} {rights} can't be there"));
            }
            last = *end;
        }
        last = 0;
        for (start, end) in self.free.iter().copied() {
            if !frames((start, end)) || start < last {
                return fail("guest.space.free", format!("{start:#x}-{end:#x} can't be free"));
            }
            last = end;
        }
        if !frames((self.root, self.root.saturating_add(PAGE))) {
            return fail("guest.space.root", format!("no page tables can be at {:#x}", self.root));
        }
        let (start, end) = self.heap;
        if start > end || end > USER_END {
            return fail("guest.space.heap", format!("{start:#x}-{end:#x} can't be one"));
        }
        Ok(())
    }
}

/// Rights as `/proc/self/maps` shows them.
fn rights_text(rights: Rights) -> String {
    let letter = |has: bool, letter: char| if has { letter } else { '-' };
    [letter(rights.read, 'r'), letter(rights.write, 'w'), letter(rights.execute, 'x')].iter().collect()
}

fn rights_from(text: &str) -> Option<Rights> {
    let has = |byte: u8, letter: u8| match byte {
        b'-' => Some(false),
        byte if byte == letter => Some(true),
        _ => None,
    };
    let [read, write, execute] = text.as_bytes() else { return None };
    Some(Rights { read: has(*read, b'r')?, write: has(*write, b'w')?, execute: has(*execute, b'x')? })
}

impl Running {
    /// What a snapshot keeps.
    pub(super) fn save(&self) -> Result<AppState, AppError> {
        let task = &self.task;
        let actions = (1_u8..).zip(&task.actions).filter(|(_, action)| **action != [0; 4]);
        Ok(AppState {
            executable: hex(&task.executable),
            name: hex(&task.name),
            open: task.open,
            limits: task.limits,
            actions: actions.map(|(number, action)| (number, *action)).collect(),
            mask: task.mask,
            alternate_stack: task.alternate_stack,
            fs: task.bases.fs,
            gs: task.bases.gs,
            rseq: task.rseq,
            unserved: task.unserved.clone(),
            ready: task.ready != Ready::No,
            remaining: task.remaining.map(|left| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)),
            clocks: task.clocks.read().map_err(AppError::Clock)?,
            random: self.random,
            space: saved_space(&task.space),
        })
    }

    /// The program that goes on from `state`, which was checked for a machine with this memory.
    fn restore(state: &AppState, memory: &Memory) -> Result<Self, AppError> {
        let mut actions = [[0; 4]; SIGNALS];
        for (number, action) in &state.actions {
            if let Some(kept) = actions.get_mut(usize::from(*number).wrapping_sub(1)) {
                *kept = *action;
            }
        }
        let mut name = [0; 16];
        name.iter_mut().zip(unhex(&state.name).unwrap_or_default()).for_each(|(kept, byte)| *kept = byte);
        let task = Task {
            space: restored_space(&state.space),
            executable: unhex(&state.executable).unwrap_or_default(),
            name,
            open: state.open,
            files: Files::default(),
            limits: state.limits,
            actions,
            mask: state.mask,
            alternate_stack: state.alternate_stack,
            bases: Bases { fs: state.fs, gs: state.gs },
            rseq: state.rseq,
            unserved: state.unserved.clone(),
            ready: if state.ready { Ready::Known } else { Ready::No },
            clocks: Clocks::going_on(&state.clocks).map_err(AppError::Clock)?,
            remaining: state.remaining.map(Duration::from_nanos),
            awaited: None,
        };
        // How its system calls return is a matter of the KVM beneath, which may be another one now: asked again.
        Ok(Self { task, doorbells: Doorbells::of(memory), returns: None, random: state.random })
    }

    /// Gives the program what no two machines may share: its sixteen random bytes, and its generation.
    pub(super) fn renew(&self, memory: &Memory) -> Result<(), AppError> {
        let _span = info_span!(
            "restore.renew",
            call = "getrandom(2)",
            why = "two machines from one snapshot have the same memory; what must be nobody else's is made anew"
        )
        .entered();
        let user = User::new(memory.guest(), self.task.space.tables());
        // Where the program has unmapped its first page of stack, nobody looks for random bytes there any more.
        match user.write(self.random, &syscalls::random_bytes().map_err(AppError::Random)?) {
            Err(Errno::EFAULT) | Ok(()) => {}
            Err(errno) => return Err(AppError::Random(errno)),
        }
        write_generation(memory)
    }
}

/// Writes a generation that no other machine has to where the program can read it.
pub(super) fn write_generation(memory: &Memory) -> Result<(), AppError> {
    use vm_memory::{Bytes, GuestAddress};
    let generation = syscalls::random_bytes().map_err(AppError::Random)?;
    let written = memory.guest().write_slice(&generation, GuestAddress(GENERATION));
    written.map_err(|source| AppError::Write { what: "the generation", source })
}

fn saved_space(space: &Space) -> SpaceState {
    let (areas, frames, tables, heap) = space.parts();
    SpaceState {
        areas: areas.all().map(|(range, rights)| (range.start, range.end, rights_text(rights))).collect(),
        free: frames.stretches().collect(),
        root: tables.root(),
        heap: (heap.start, heap.end),
    }
}

fn restored_space(state: &SpaceState) -> Space {
    let mut areas = Areas::default();
    for (start, end, rights) in &state.areas {
        areas.insert(*start..*end, rights_from(rights).unwrap_or_default());
    }
    let mut frames = Frames::new(0..0);
    state.free.iter().for_each(|(start, end)| frames.give(*start..*end));
    Space::from_parts(areas, frames, Tables::at(state.root), state.heap.0..state.heap.1)
}

impl App {
    /// A program that goes on from `state`, which was checked for a machine with this memory. There is nothing to load.
    pub fn restore(state: &AppState, memory: &Memory) -> Result<Self, AppError> {
        Ok(Self { program: None, running: Some(Running::restore(state, memory)?) })
    }

    /// Gives the program these files in place of the monitor's own.
    pub(crate) fn lend(&mut self, files: &Arc<[OwnedFd; 3]>) {
        if let Some(running) = &mut self.running {
            running.task.files = Files::Lent(files.clone());
        }
    }
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
