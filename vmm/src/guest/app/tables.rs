//! The page tables: how the program's addresses become the guest's physical ones, and who may do what there.
//!
//! Four levels of 512 entries each turn 48 bits of address into a frame (Intel SDM volume 3, section 4.5; AMD APM volume
//! 2, section 5.3). The tables lie in guest memory, where the processor reads them; the program cannot, for no page of it
//! leads to them. Pages are of 4 KiB throughout: protection is per page, and a guard page must be one.
//!
//! An entry without its present bit may still hold a frame: a `PROT_NONE` page keeps its contents for the day it becomes
//! readable again. An entry of 0 is no page at all.

use std::ops::Range;

use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::PAGE;
use super::frames::Frames;
use super::rights::Rights;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// Accessed and dirty are set from the start: the processor would set them at the first access, and under shadow paging
/// each of these stores to a table comes at a price.
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const NO_EXECUTE: u64 = 1 << 63;
/// The frame in an entry.
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Levels: 4 is the root, 1 holds the pages.
const ROOT_LEVEL: u32 = 4;
const ENTRIES: u64 = 512;

/// Why a mapping cannot be made.
#[derive(Debug, Error)]
pub enum TableError {
    /// No frame is left for another table.
    #[error("no frame is left for a page table")]
    Full,
    /// A table lies outside guest memory.
    #[error("cannot reach a page table in guest memory")]
    Memory(#[from] GuestMemoryError),
}

/// One page of the program as its table entry says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Leaf(u64);

impl Leaf {
    /// A page of the program.
    pub(super) fn user(frame: u64, rights: Rights) -> Self {
        // x86 has no "write only" and no "execute only": whatever is allowed can also be read.
        let present = if rights.is_none() { 0 } else { PRESENT };
        let writable = if rights.write { WRITABLE } else { 0 };
        let no_execute = if rights.execute { 0 } else { NO_EXECUTE };
        Self(frame & FRAME | present | writable | no_execute | USER | ACCESSED | DIRTY)
    }

    /// A page that only the processor itself and the monitor's stubs use.
    pub(super) fn supervisor(frame: u64) -> Self {
        Self(Self::user(frame, Rights::READ_WRITE).0 & !USER)
    }

    /// The same frame with other rights.
    pub(super) fn with(self, rights: Rights) -> Self {
        Self::user(self.frame(), rights)
    }

    /// The frame, present or not.
    pub(super) fn frame(self) -> u64 {
        self.0 & FRAME
    }

    /// Whether the processor may have a copy of this entry.
    pub(super) fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether the program may read, or write, this page.
    pub(super) fn allows(self, write: bool) -> bool {
        let needed = PRESENT | USER | if write { WRITABLE } else { 0 };
        self.0 & needed == needed
    }
}

/// A tree of page tables.
#[derive(Debug)]
pub(super) struct Tables {
    root: u64,
}

impl Tables {
    /// An empty tree: no address leads anywhere.
    pub(super) fn new(frames: &mut Frames) -> Result<Self, TableError> {
        Ok(Self { root: frames.take_one().ok_or(TableError::Full)? })
    }

    /// The tree whose root is at guest-physical address `root`.
    pub(super) fn at(root: u64) -> Self {
        Self { root }
    }

    /// The guest-physical address of the root, for CR3.
    pub(super) fn root(&self) -> u64 {
        self.root
    }

    /// How many bytes of new tables mapping `range` can need at most.
    pub(super) fn cost(range: &Range<u64>) -> u64 {
        let last = range.end.saturating_sub(1).max(range.start);
        (2..=ROOT_LEVEL).map(|level| (last >> shift(level)) - (range.start >> shift(level)) + 1).sum::<u64>() * PAGE
    }

    /// Maps the pages from `address` on, in order, to `leaves`. What was mapped there is forgotten.
    pub(super) fn map(
        &self,
        memory: &GuestMemoryMmap,
        frames: &mut Frames,
        address: u64,
        leaves: &[Leaf],
    ) -> Result<(), TableError> {
        let mut page = address;
        let mut rest = leaves;
        while !rest.is_empty() {
            let table = self.table_for(memory, frames, page)?;
            let (now, later) = rest.split_at(rest.len().min((ENTRIES - index(page, 1)) as usize));
            // One store of all the entries in this table, not one each.
            let bytes: Vec<u8> = now.iter().flat_map(|leaf| leaf.0.to_le_bytes()).collect();
            memory.write_slice(&bytes, GuestAddress(table + index(page, 1) * 8))?;
            page += now.len() as u64 * PAGE;
            rest = later;
        }
        Ok(())
    }

    /// Maps the pages from `address` on to the frames of `runs`, in order.
    pub(super) fn map_runs(
        &self,
        memory: &GuestMemoryMmap,
        frames: &mut Frames,
        address: u64,
        runs: &[Range<u64>],
        rights: Rights,
    ) -> Result<(), TableError> {
        let mut page = address;
        for run in runs {
            let leaves: Vec<Leaf> = run.clone().step_by(PAGE as usize).map(|frame| Leaf::user(frame, rights)).collect();
            self.map(memory, frames, page, &leaves)?;
            page += run.end - run.start;
        }
        Ok(())
    }

    /// The page that holds `address`.
    pub(super) fn leaf(&self, memory: &GuestMemoryMmap, address: u64) -> Leaf {
        let mut table = self.root;
        for level in (1..=ROOT_LEVEL).rev() {
            let at = GuestAddress(table + index(address, level) * 8);
            // Only a program that broke into its own tables could lead a walk out of memory; it finds no page there.
            let entry: u64 = memory.read_obj(at).unwrap_or(0);
            if level == 1 {
                return Leaf(entry);
            }
            if entry & PRESENT == 0 {
                break;
            }
            table = entry & FRAME;
        }
        Leaf::default()
    }

    /// Shows every page of `range` that exists to `change`, and stores what it returns. Where no table is, nothing is
    /// looked at: a terabyte of nothing costs nothing.
    pub(super) fn update(
        &self,
        memory: &GuestMemoryMmap,
        range: &Range<u64>,
        change: &mut dyn FnMut(u64, Leaf) -> Leaf,
    ) -> Result<(), TableError> {
        if range.is_empty() {
            return Ok(());
        }
        Self::update_table(memory, self.root, ROOT_LEVEL, 0, range, change)
    }

    /// As [`Tables::update`], in the table at `table`, whose first entry is for address `base`.
    fn update_table(
        memory: &GuestMemoryMmap,
        table: u64,
        level: u32,
        base: u64,
        range: &Range<u64>,
        change: &mut dyn FnMut(u64, Leaf) -> Leaf,
    ) -> Result<(), TableError> {
        let first = range.start.saturating_sub(base) >> shift(level);
        let last = (range.end - 1 - base) >> shift(level);
        // All the entries in question in one read, and in one store where any has changed.
        let mut buffer = [0_u8; PAGE as usize];
        let count = last.min(ENTRIES - 1) + 1 - first;
        let entries = buffer.get_mut(..count as usize * 8).unwrap_or_default();
        let at = GuestAddress(table + first * 8);
        memory.read_slice(entries, at)?;
        let mut changed = false;
        for (slot, index) in entries.as_chunks_mut::<8>().0.iter_mut().zip(first..) {
            let entry = u64::from_le_bytes(*slot);
            let address = base + (index << shift(level));
            if level > 1 && entry & PRESENT != 0 {
                Self::update_table(memory, entry & FRAME, level - 1, address, range, change)?;
            } else if level == 1 && entry != 0 {
                let new = change(address, Leaf(entry)).0;
                changed |= new != entry;
                *slot = new.to_le_bytes();
            }
        }
        if changed {
            memory.write_slice(entries, at)?;
        }
        Ok(())
    }

    /// The lowest table for `address`; those missing on the way are made. A frame is zero when it is taken, so a new
    /// table is empty. Tables are never taken down: a hypervisor that shadows them would have to be told.
    fn table_for(&self, memory: &GuestMemoryMmap, frames: &mut Frames, address: u64) -> Result<u64, TableError> {
        let mut table = self.root;
        for level in (2..=ROOT_LEVEL).rev() {
            let at = GuestAddress(table + index(address, level) * 8);
            let entry: u64 = memory.read_obj(at)?;
            table = if entry & PRESENT != 0 {
                entry & FRAME
            } else {
                let new = frames.take_one().ok_or(TableError::Full)?;
                memory.write_obj(new | PRESENT | WRITABLE | USER | ACCESSED, at)?;
                new
            };
        }
        Ok(table)
    }
}

/// How far an address is shifted to give its index in a table of this level.
fn shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}

fn index(address: u64, level: u32) -> u64 {
    (address >> shift(level)) % ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn world() -> (GuestMemoryMmap, Frames, Tables) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
        let mut frames = Frames::new(PAGE..4 << 20);
        let tables = Tables::new(&mut frames).unwrap();
        (memory, frames, tables)
    }

    #[test]
    fn a_mapped_page_is_found_and_its_neighbours_are_not() {
        let (memory, mut frames, tables) = world();
        tables.map(&memory, &mut frames, 0x7fff_ffff_e000, &[Leaf::user(0x5000, Rights::READ)]).unwrap();
        let leaf = tables.leaf(&memory, 0x7fff_ffff_e123);
        assert_eq!(leaf.frame(), 0x5000);
        assert!(leaf.allows(false) && !leaf.allows(true));
        assert_eq!(tables.leaf(&memory, 0x7fff_ffff_d000), Leaf::default());
        assert_eq!(tables.leaf(&memory, 0x7fff_ffff_f000), Leaf::default());
    }

    #[test]
    fn a_page_without_rights_keeps_its_frame() {
        let (memory, mut frames, tables) = world();
        tables.map(&memory, &mut frames, 0x40_0000, &[Leaf::user(0x7000, Rights::READ_WRITE)]).unwrap();
        tables.update(&memory, &(0x40_0000..0x40_1000), &mut |_, leaf| leaf.with(Rights::NONE)).unwrap();
        let leaf = tables.leaf(&memory, 0x40_0000);
        assert!(!leaf.is_present() && !leaf.allows(false));
        assert_eq!(leaf.frame(), 0x7000);
    }

    #[test]
    fn the_monitors_pages_are_not_the_programs() {
        assert!(!Leaf::supervisor(0x1000).allows(false));
        assert!(Leaf::supervisor(0x1000).is_present());
    }

    #[test]
    fn an_update_of_everything_is_quick_where_nothing_is() {
        let (memory, mut frames, tables) = world();
        tables.map(&memory, &mut frames, 0x40_0000, &[Leaf::user(0x7000, Rights::READ)]).unwrap();
        let mut seen = Vec::new();
        let note = &mut |address, leaf| {
            seen.push(address);
            leaf
        };
        tables.update(&memory, &(0..1 << 47), note).unwrap();
        assert_eq!(seen, [0x40_0000]);
    }

    #[test]
    fn no_frame_left_is_an_error() {
        let (memory, _, tables) = world();
        let mut none = Frames::new(0..0);
        let mapped = tables.map(&memory, &mut none, 0x40_0000, &[Leaf::user(0x7000, Rights::READ)]);
        assert!(matches!(mapped, Err(TableError::Full)));
    }

    proptest! {
        /// Against a map of pages, over addresses that share and do not share tables.
        #[test]
        fn tables_are_a_map_of_pages(
            steps in prop::collection::vec((prop::sample::select(vec![0_u64, 0x1f_f000, 0x3fff_f000, 1 << 39, (1 << 47) - (8 << 12)]), 0_u64..4, 1_u64..4, 1_u64..900), 1..40),
        ) {
            let (memory, mut frames, tables) = world();
            let mut model = BTreeMap::new();
            for (base, page, count, frame) in steps {
                let address = base + page * PAGE;
                let run = frame * PAGE..(frame + count) * PAGE;
                prop_assert!(Tables::cost(&(address..address + count * PAGE)) >= 3 * PAGE);
                tables.map_runs(&memory, &mut frames, address, &[run], Rights::READ_WRITE).unwrap();
                for at in 0..count {
                    model.insert(address + at * PAGE, (frame + at) * PAGE);
                }
            }
            for (address, frame) in &model {
                prop_assert_eq!(tables.leaf(&memory, *address).frame(), *frame);
            }
            let mut seen = Vec::new();
            tables.update(&memory, &(0..1 << 47), &mut |address, _| { seen.push(address); Leaf::default() }).unwrap();
            prop_assert_eq!(seen, model.keys().copied().collect::<Vec<_>>());
            prop_assert_eq!(tables.leaf(&memory, *model.keys().next().unwrap()), Leaf::default());
        }

        /// A tree full of nonsense leads a walk nowhere, and never to a panic.
        #[test]
        fn a_spoiled_tree_is_survived(entries in prop::collection::vec((0_u64..512, any::<u64>()), 1..32), address in 0_u64..1 << 47) {
            let (memory, _, tables) = world();
            for (index, entry) in entries {
                memory.write_obj(entry, GuestAddress(tables.root() + index * 8)).unwrap();
            }
            let _ = tables.leaf(&memory, address);
            let _ = tables.update(&memory, &(address & !0xfff..(address & !0xfff) + PAGE), &mut |_, leaf| leaf);
        }
    }
}
