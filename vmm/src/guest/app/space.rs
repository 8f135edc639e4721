//! The memory that the program sees: what mmap(2), munmap(2), mprotect(2) and brk(2) act on.
//!
//! ```text
//! 0x0000_0000  nothing: a null pointer must fault
//! 0x0000_1000  the monitor's pages (see `stub`)
//! 0x0001_0000  a position-independent program, its heap after it (brk)
//! 0x0040_0000  a program linked at the usual address, its heap after it
//! ...          1 MiB that nothing may use, below the stack
//! 0x3000_0000  top of the stack; from here upward what mmap(2) gives
//! ```
//!
//! All that a small program uses lies in the first GiB and so under one table of each upper level. Memory is given when
//! it is mapped and taken back, zeroed, when it is unmapped; a `PROT_NONE` mapping takes none, so a program can reserve a
//! terabyte.

use std::ops::Range;

use nix::errno::Errno;
use thiserror::Error;

use super::areas::Areas;
use super::frames::Frames;
use super::rights::Rights;
use super::tables::{Leaf, TableError, Tables};
use super::{PAGE, RESERVED_END, USER_END, page_up, shadow};
use crate::memory::{Memory, MemoryError};

/// The top of the stack, where nothing of the program is in the way.
const STACK_TOP: u64 = 0x3000_0000;
/// Where the search for free addresses begins.
const MMAP_BASE: u64 = STACK_TOP;
/// What stays free below the stack: as much as Linux keeps (`stack_guard_gap`, 256 pages).
const STACK_GUARD: u64 = 256 * PAGE;
/// The stack of a Linux program by default (`RLIMIT_STACK`).
const STACK_MAX: u64 = 8 << 20;
/// How many stretches of equal rights a program may have: Linux's `vm.max_map_count`.
pub(super) const AREAS_MAX: usize = 65530;

/// Why memory was not given, taken or changed.
#[derive(Debug, Error)]
pub enum SpaceError {
    /// What the program is told.
    #[error("{0}")]
    Refused(Errno),
    /// Guest memory itself failed: the machine cannot go on.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A page table is out of reach.
    #[error(transparent)]
    Table(TableError),
    /// The kernel would not drop what it knows about a page.
    #[error("cannot make KVM forget the rights of pages {:#x}-{:#x}", .0.start, .0.end)]
    Forget(Range<u64>, #[source] Errno),
}

impl From<TableError> for SpaceError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Full => Self::Refused(Errno::ENOMEM),
            TableError::Memory(_) => Self::Table(error),
        }
    }
}

/// Where mmap(2) shall put a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Placement {
    /// Here if it is free, else anywhere. 0: anywhere.
    Hint(u64),
    /// Exactly here, in place of what is there (`MAP_FIXED`).
    Fixed(u64),
    /// Exactly here, or not at all (`MAP_FIXED_NOREPLACE`).
    FixedNoReplace(u64),
}

/// The program's addresses: what is in use, with which rights, and the frames behind.
#[derive(Debug)]
pub(super) struct Space {
    areas: Areas,
    frames: Frames,
    tables: Tables,
    heap: Range<u64>,
}

impl Space {
    /// An empty space that takes its frames from `frames`, the guest-physical memory that is free.
    pub(super) fn new(memory: [Range<u64>; 2]) -> Result<Self, SpaceError> {
        let mut frames = Frames::new(0..0);
        for range in memory {
            frames.give(range);
        }
        let tables = Tables::new(&mut frames)?;
        Ok(Self { areas: Areas::default(), frames, tables, heap: 0..0 })
    }

    /// What it is made of, to be saved: areas, frames, tables, and the heap.
    pub(super) fn parts(&self) -> (&Areas, &Frames, &Tables, &Range<u64>) {
        (&self.areas, &self.frames, &self.tables, &self.heap)
    }

    /// The space that is made of these.
    pub(super) fn from_parts(areas: Areas, frames: Frames, tables: Tables, heap: Range<u64>) -> Self {
        Self { areas, frames, tables, heap }
    }

    /// The page tables, for walks and for CR3.
    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// How many bytes of memory nobody has.
    pub(super) fn available(&self) -> u64 {
        self.frames.available()
    }

    /// Maps one of the monitor's own pages, outside what the program may ask for.
    pub(super) fn map_reserved(&mut self, memory: &Memory, address: u64, leaf: Leaf) -> Result<(), SpaceError> {
        Ok(self.tables.map(memory.guest(), &mut self.frames, address, &[leaf])?)
    }

    /// Gives `range` memory in one piece, and says where that is: a file is then mapped over it.
    pub(super) fn give_run(
        &mut self,
        memory: &Memory,
        range: &Range<u64>,
        rights: Rights,
    ) -> Result<Range<u64>, SpaceError> {
        self.unmap(memory, range)?;
        let run = self.frames.take_run(range.end - range.start).ok_or(SpaceError::Refused(Errno::ENOMEM))?;
        self.tables.map_runs(memory.guest(), &mut self.frames, range.start, std::slice::from_ref(&run), rights)?;
        self.areas.insert(range.clone(), rights);
        Ok(run)
    }

    /// Starts the heap, empty, at `start`.
    pub(super) fn start_heap(&mut self, start: u64) {
        self.heap = start..start;
    }

    /// Makes a stack with a guard below it. Its size is Linux's 8 MiB, or an eighth of a small machine.
    pub(super) fn make_stack(&mut self, memory: &Memory, executable: bool) -> Result<Range<u64>, SpaceError> {
        let length = page_up((memory.size() / 8).min(STACK_MAX));
        let whole = length + STACK_GUARD;
        let usual = STACK_TOP - whole..STACK_TOP;
        let range = if self.areas.is_free(&usual) { usual } else { self.find(whole)? };
        let stack = range.start + STACK_GUARD..range.end;
        self.areas.insert(range.start..stack.start, Rights::NONE);
        self.allot(memory, &stack, Rights { execute: executable, ..Rights::READ_WRITE })?;
        Ok(stack)
    }

    /// mmap(2), anonymous: where the `length` bytes are now.
    pub(super) fn mmap(
        &mut self,
        memory: &Memory,
        length: u64,
        rights: Rights,
        placement: Placement,
    ) -> Result<u64, SpaceError> {
        if length == 0 {
            return Err(SpaceError::Refused(Errno::EINVAL));
        }
        if length > USER_END || self.areas.len() >= AREAS_MAX {
            return Err(SpaceError::Refused(Errno::ENOMEM));
        }
        let length = page_up(length);
        let start = match placement {
            Placement::Hint(hint) => match range_at(hint.saturating_add(PAGE - 1) & !(PAGE - 1), length) {
                Some(range) if self.areas.is_free(&range) => range.start,
                _ => self.find(length)?.start,
            },
            Placement::Fixed(at) | Placement::FixedNoReplace(at) => {
                if at % PAGE != 0 {
                    return Err(SpaceError::Refused(Errno::EINVAL));
                }
                // Linux: EPERM below vm.mmap_min_addr, ENOMEM beyond the end.
                let below = if at < RESERVED_END { Errno::EPERM } else { Errno::ENOMEM };
                let range = range_at(at, length).ok_or(SpaceError::Refused(below))?;
                match placement {
                    Placement::FixedNoReplace(_) if !self.areas.is_free(&range) => {
                        return Err(SpaceError::Refused(Errno::EEXIST));
                    }
                    _ => self.unmap(memory, &range)?,
                }
                at
            }
        };
        self.allot(memory, &(start..start + length), rights)?;
        Ok(start)
    }

    /// munmap(2): takes the pages back; what was not mapped is no error.
    pub(super) fn munmap(&mut self, memory: &Memory, address: u64, length: u64) -> Result<(), SpaceError> {
        let range = checked_range(address, length).filter(|_| length > 0).ok_or(SpaceError::Refused(Errno::EINVAL))?;
        // Cutting a hole makes two stretches of one.
        if self.areas.len() >= AREAS_MAX {
            return Err(SpaceError::Refused(Errno::ENOMEM));
        }
        self.unmap(memory, &range)
    }

    /// mprotect(2). Where a part is not mapped nothing is changed (Linux changes what comes before that part).
    pub(super) fn mprotect(
        &mut self,
        memory: &Memory,
        address: u64,
        length: u64,
        rights: Rights,
    ) -> Result<(), SpaceError> {
        if !address.is_multiple_of(PAGE) {
            return Err(SpaceError::Refused(Errno::EINVAL));
        }
        if length == 0 {
            return Ok(());
        }
        let range = checked_range(address, length).ok_or(SpaceError::Refused(Errno::ENOMEM))?;
        if !self.areas.covers(&range) || self.areas.len() >= AREAS_MAX {
            return Err(SpaceError::Refused(Errno::ENOMEM));
        }
        self.protect(memory, &range, rights)
    }

    /// brk(2): moves the end of the heap to `end` if that is possible, and says where it is now.
    pub(super) fn brk(&mut self, memory: &Memory, end: u64) -> Result<u64, SpaceError> {
        let (old, new) = (page_up(self.heap.end), page_up(end.min(USER_END)));
        if end < self.heap.start || end > USER_END {
            return Ok(self.heap.end);
        }
        if new < old {
            self.unmap(memory, &(new..old))?;
        } else if new > old {
            let range = old..new;
            if !self.areas.is_free(&range) {
                return Ok(self.heap.end);
            }
            match self.allot(memory, &range, Rights::READ_WRITE) {
                Err(SpaceError::Refused(_)) => return Ok(self.heap.end),
                other => other?,
            }
        }
        self.heap.end = end;
        Ok(end)
    }

    /// Puts `range`, which is free, in use. All frames and tables are counted before the first is taken.
    fn allot(&mut self, memory: &Memory, range: &Range<u64>, rights: Rights) -> Result<(), SpaceError> {
        if !rights.is_none() {
            let length = range.end - range.start;
            if length.saturating_add(Tables::cost(range)) > self.frames.available() {
                return Err(SpaceError::Refused(Errno::ENOMEM));
            }
            let runs = self.frames.take(length).ok_or(SpaceError::Refused(Errno::ENOMEM))?;
            self.tables.map_runs(memory.guest(), &mut self.frames, range.start, &runs, rights)?;
        }
        self.areas.insert(range.clone(), rights);
        Ok(())
    }

    /// Takes back what is in use of `range`. Its frames are discarded: the host has its memory again, KVM drops its
    /// mappings, and the next owner finds zeroes.
    fn unmap(&mut self, memory: &Memory, range: &Range<u64>) -> Result<(), SpaceError> {
        if self.areas.is_free(range) {
            return Ok(());
        }
        let mut runs = Runs::default();
        self.tables.update(memory.guest(), range, &mut |_, leaf| {
            runs.add(leaf.frame());
            Leaf::default()
        })?;
        self.areas.remove(range);
        for run in runs.0 {
            memory.discard(vm_memory::GuestAddress(run.start), run.end - run.start)?;
            self.frames.give(run);
        }
        Ok(())
    }

    /// Changes the rights of `range`, which is in use; pages that never had memory get it now if they need it.
    fn protect(&mut self, memory: &Memory, range: &Range<u64>, rights: Rights) -> Result<(), SpaceError> {
        let mut missing = Gaps { next: range.start, found: Vec::new() };
        self.tables.update(memory.guest(), range, &mut |address, leaf| {
            missing.skip(address);
            leaf
        })?;
        let missing = missing.until(range.end);
        if !rights.is_none() {
            let needed: u64 = missing.iter().map(|gap| gap.end - gap.start + Tables::cost(gap)).sum();
            if needed > self.frames.available() {
                return Err(SpaceError::Refused(Errno::ENOMEM));
            }
        }
        let mut changed = Runs::default();
        self.tables.update(memory.guest(), range, &mut |_, leaf| {
            let new = leaf.with(rights);
            // What the processor cannot have seen it cannot remember.
            if leaf.is_present() && new != leaf {
                changed.add(leaf.frame());
            }
            new
        })?;
        for run in changed.0 {
            shadow::forget(memory.guest(), &run).map_err(|errno| SpaceError::Forget(run, errno))?;
        }
        for gap in missing {
            self.areas.remove(&gap);
            self.allot(memory, &gap, rights)?;
        }
        self.areas.insert(range.clone(), rights);
        Ok(())
    }

    /// A free stretch of `length` bytes.
    fn find(&self, length: u64) -> Result<Range<u64>, SpaceError> {
        let start = self.areas.find(length, &(MMAP_BASE..USER_END)).ok_or(SpaceError::Refused(Errno::ENOMEM))?;
        Ok(start..start + length)
    }
}

/// Frames gathered into as few stretches as they make, in the order they come.
#[derive(Default)]
struct Runs(Vec<Range<u64>>);

impl Runs {
    fn add(&mut self, frame: u64) {
        match self.0.last_mut() {
            Some(last) if last.end == frame => last.end += PAGE,
            _ => self.0.push(frame..frame + PAGE),
        }
    }
}

/// The pages of a range that were not shown.
struct Gaps {
    next: u64,
    found: Vec<Range<u64>>,
}

impl Gaps {
    fn skip(&mut self, page: u64) {
        if page > self.next {
            self.found.push(self.next..page);
        }
        self.next = page + PAGE;
    }

    fn until(mut self, end: u64) -> Vec<Range<u64>> {
        self.skip(end);
        self.found
    }
}

/// `length` bytes (whole pages) from `start` on, if a program may have them.
fn range_at(start: u64, length: u64) -> Option<Range<u64>> {
    let end = start.checked_add(length)?;
    (start >= RESERVED_END && end <= USER_END).then_some(start..end)
}

/// The pages of `length` bytes at the page aligned `address`, if a program may have them.
fn checked_range(address: u64, length: u64) -> Option<Range<u64>> {
    (address.is_multiple_of(PAGE) && length <= USER_END).then(|| range_at(address, page_up(length)))?
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
