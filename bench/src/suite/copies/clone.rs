//! What a clone costs: linked, sharing what it does not change, beside full, sharing nothing.
//!
//! For machines and for containers alike: from the command that makes it to the proof that it runs; then it writes 1, 10, 50, 100 % of
//! what its original had written (pages of memory, or files), once while that is shared and once more when it is its own. Further
//! cells are clones of clones, up to sixteen deep, and several made at once.

use std::path::Path;
use std::thread;

use isolab_reports::model::{Act, Copies, CopyCell, Cost, Sweep};

use super::measure::{MIB, PAGE, disk, machine, with_disk};
use super::{Group, Outcomes, Single, Terms, measure, outcome, singles};
use crate::subject::family::{Family, Files, ORIGIN};
use crate::subject::farm::Farm;
use crate::subject::original::Monitor;
use crate::subject::{Lab, Subject, command, next_number};

/// The suite's name.
pub const NAME: &str = "clone";

/// The machine: its memory and what it has written, in mebibytes.
const MACHINE: (u32, u32) = (128, 64);
/// The machine of the chains: each link keeps what the one before has written.
const LINK: (u32, u32) = (64, 2);
/// The container's files.
const FILES: Files = Files { count: 100, bytes: 160 << 10 };
/// What a clone writes again, in percent; and when there is little time.
const WRITES: [u32; 5] = [0, 1, 10, 50, 100];
const WRITES_QUICK: [u32; 3] = [0, 10, 100];
/// How deep.
const DEPTHS: [u32; 5] = [1, 2, 4, 8, 16];
/// How many at once.
const TOGETHER: [u32; 4] = [1, 2, 4, 8];

/// Measures it with what is there of the two kinds; none where neither is.
pub fn measure_all(lab: &Lab, subjects: &[Box<dyn Subject + '_>], terms: &Terms) -> Option<Copies> {
    let there = |name: &str| subjects.iter().any(|subject| subject.about().name == name);
    let monitor = Some("microvm-app").filter(|name| there(name)).and_then(|_| command("isolab-vm"));
    let engine = Some("container").filter(|name| there(name)).and_then(|_| command("isolab-ctr"));
    let fewer =
        |numbers: &'static [u32]| numbers.get(..if terms.quick { 3 } else { numbers.len() }).unwrap_or_default();
    let writes = if terms.quick { &WRITES_QUICK[..] } else { &WRITES };
    let mut groups = Vec::new();
    if let Some(program) = &monitor {
        let monitor = Monitor { lab, program };
        let machines = || Kind::Machines(monitor);
        groups.extend([
            written(machines(), writes),
            chain(machines(), fewer(&DEPTHS)),
            crowd(machines(), fewer(&TOGETHER)),
        ]);
    }
    if let Some(program) = &engine {
        let containers = || Kind::Containers(lab, program);
        groups.extend([
            written(containers(), writes),
            chain(containers(), fewer(&DEPTHS)),
            crowd(containers(), fewer(&TOGETHER)),
        ]);
    }
    if groups.is_empty() { None } else { Some(measure(NAME, groups, terms)) }
}

/// A linked and a full clone of each kind, for benchmarks; of what is there.
pub fn benches(lab: &Lab) -> Vec<Single<'_>> {
    // For the rest of the process: a benchmark's program ends with its benchmarks.
    let leaked = |name: &str| command(name).map(|path| -> &Path { Box::leak(Box::new(path)) });
    let machines = leaked("isolab-vm").map(|program| crowd(Kind::Machines(Monitor { lab, program }), &[1]));
    let containers = leaked("isolab-ctr").map(|program| crowd(Kind::Containers(lab, program), &[1]));
    singles(machines.into_iter().chain(containers))
}

/// What is cloned.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Machines(Monitor<'a>),
    Containers(&'a Lab, &'a Path),
}

/// Originals, settled in a folder of their own.
enum Parent<'a> {
    Farm(Farm<'a>),
    Family(Family<'a>),
}

impl<'a> Kind<'a> {
    fn settle(self, (memory, dirty): (u32, u32)) -> Result<Parent<'a>, String> {
        Ok(match self {
            Self::Machines(monitor) => Parent::Farm(Farm::settle(monitor, memory, dirty)?),
            Self::Containers(lab, program) => Parent::Family(Family::settle(lab, program, FILES)?),
        })
    }

    fn subject(self) -> &'static str {
        if matches!(self, Self::Machines(_)) { "microvm-app" } else { "container" }
    }

    /// Of how many writes a share is made, in percent; and of how many bytes.
    fn writes(self, percent: u32) -> (u32, u64) {
        match self {
            Self::Machines(_) => {
                let pages = (u64::from(MACHINE.1) * MIB / PAGE * u64::from(percent) / 100) as u32;
                (pages, u64::from(pages) * PAGE)
            }
            Self::Containers(..) => {
                let files = FILES.count * percent / 100;
                (files, u64::from(files) * FILES.bytes)
            }
        }
    }

    fn cell(self, act: Act, sweep: Sweep, percent: u32, depth: u32, together: u32) -> CopyCell {
        let (writes, touch_bytes) = self.writes(percent);
        let full = act == Act::Full;
        let word = if full { "full" } else { "linked" };
        let over = match sweep {
            Sweep::Depth => format!("depth {depth}"),
            Sweep::Together => format!("{together} at once"),
            Sweep::Touch | Sweep::Size => format!("{percent} % written"),
        };
        let (size_bytes, dirty_bytes, command) = match self {
            Self::Machines(_) => {
                let (memory, dirty) = if sweep == Sweep::Depth { LINK } else { MACHINE };
                let start = if full { ["start", "--eager"] } else { ["start", "--lazy"] };
                (u64::from(memory) * MIB, u64::from(dirty) * MIB, ["isolab-vm", start[0], start[1]])
            }
            Self::Containers(..) => {
                let size = u64::from(FILES.count) * FILES.bytes;
                (size, size, ["isolab-ctr", "start", "-ai"])
            }
        };
        let [program, start, how] = command.map(str::to_owned);
        let clone = [program.clone(), "clone".to_owned(), format!("--{word}"), "{}".to_owned(), "{}".to_owned()];
        let about = match (self, full) {
            (Self::Machines(_), false) => {
                "A clone that names its parent's snapshot, and starts with that memory mapped; what it writes is copied page by page."
            }
            (Self::Machines(_), true) => {
                "A clone with files of its own, which starts after reading all of its memory; nothing is shared."
            }
            (Self::Containers(..), false) => {
                "A clone that stands on its parent's layers; a file is copied when it is first written to."
            }
            (Self::Containers(..), true) => "A clone with every file once more, in one layer of its own.",
        };
        CopyCell {
            name: format!("{} {word}: {over}", self.subject()),
            subject: self.subject().to_owned(),
            act,
            sweep,
            size_bytes,
            dirty_bytes,
            touch_bytes,
            writes,
            depth,
            together,
            about: about.to_owned(),
            command: clone.into_iter().chain(["&&".to_owned(), program, start, how, "{}".to_owned()]).collect(),
        }
    }
}

impl Parent<'_> {
    /// The original, as its commands name it.
    fn original(&self) -> &'static str {
        match self {
            Self::Farm(_) => "m@s",
            Self::Family(_) => ORIGIN,
        }
    }

    fn lab(&self) -> &Lab {
        match self {
            Self::Farm(farm) => farm.lab(),
            Self::Family(family) => family.lab(),
        }
    }

    /// Makes a clone while nobody else does, on a disk at rest.
    fn clone_alone(&self, from: &str, full: bool, writes: u32) -> Result<Cost, String> {
        self.lab().settle_disk();
        self.clone_once(from, full, writes)
    }

    /// Makes a clone, starts it, has it write, and removes it.
    fn clone_once(&self, from: &str, full: bool, writes: u32) -> Result<Cost, String> {
        let name = format!("copy{}", next_number());
        let done = self.clone_named(from, &name, full, writes);
        let removed = match self {
            Self::Farm(farm) => farm.remove(&name),
            Self::Family(family) => family.remove(&name),
        };
        let cost = done?;
        removed.map(|()| cost)
    }

    fn clone_named(&self, from: &str, name: &str, full: bool, writes: u32) -> Result<Cost, String> {
        match self {
            Self::Farm(farm) => {
                let before = disk(farm.root());
                let made = farm.clone_of(from, name, full)?;
                let after = disk(farm.root());
                let cost = machine(farm.start(name, full)?, u64::from(writes), Some(made))?;
                Ok(with_disk(cost, before, after))
            }
            Self::Family(family) => {
                let before = disk(family.root());
                let made = family.clone_of(from, name, full)?;
                let mut held = family.start(name)?;
                let mut cost = Cost { ready_ns: made + held.ready_ns(), made_ns: Some(made), ..Cost::default() };
                if writes > 0 {
                    let mut all = || (0..writes).map(|number| held.write(&Files::path(number))).sum::<Result<u64, _>>();
                    cost.write_ns = Some(all()?);
                    cost.rewrite_ns = Some(all()?);
                }
                held.dismiss();
                held.end()?;
                Ok(with_disk(cost, before, disk(family.root())))
            }
        }
    }

    /// One link of a chain.
    fn link(&self, from: &str, name: &str) -> Result<(), String> {
        match self {
            Self::Farm(farm) => farm.link(from, name),
            Self::Family(family) => family.link(from, name),
        }
    }
}

/// Linked and full, and more and more of it written.
fn written<'a>(kind: Kind<'a>, writes: &[u32]) -> Group<'a> {
    let acts = [Act::Linked, Act::Full];
    let cells: Vec<CopyCell> = acts
        .iter()
        .flat_map(|act| writes.iter().map(|percent| kind.cell(*act, Sweep::Touch, *percent, 1, 1)))
        .collect();
    let plans: Vec<(bool, u32)> = cells.iter().map(|cell| (cell.act == Act::Full, cell.writes)).collect();
    let act = move |parent: &Parent<'_>| {
        let one = |(place, (full, writes)): (usize, &(bool, u32))| {
            (place, outcome(parent.clone_alone(parent.original(), *full, *writes)))
        };
        plans.iter().enumerate().map(one).collect()
    };
    Group::on(cells, move || kind.settle(MACHINE), act)
}

/// Clones of clones.
fn chain<'a>(kind: Kind<'a>, depths: &'static [u32]) -> Group<'a> {
    let cells = depths.iter().map(|depth| kind.cell(Act::Linked, Sweep::Depth, 0, *depth, 1)).collect();
    let act = move |parent: &Parent<'_>| {
        let one = |(place, depth): (usize, &u32)| {
            let from = if *depth == 1 { parent.original().to_owned() } else { format!("d{}", depth - 1) };
            (place, outcome(parent.clone_alone(&from, false, 0)))
        };
        depths.iter().enumerate().map(one).collect()
    };
    Group::on(cells, move || kind.settle(LINK).and_then(|parent| lengthened(parent, depths)), act)
}

/// The chain that the deepest clone hangs on.
fn lengthened<'a>(parent: Parent<'a>, depths: &[u32]) -> Result<Parent<'a>, String> {
    let mut from = parent.original().to_owned();
    for depth in 1..depths.iter().copied().max().unwrap_or(1) {
        let name = format!("d{depth}");
        parent.link(&from, &name)?;
        from = name;
    }
    Ok(parent)
}

/// Several made at once, each from its own command on.
fn crowd<'a>(kind: Kind<'a>, numbers: &'static [u32]) -> Group<'a> {
    let acts = [Act::Linked, Act::Full];
    let cells: Vec<CopyCell> = acts
        .iter()
        .flat_map(|act| numbers.iter().map(|number| kind.cell(*act, Sweep::Together, 0, 1, *number)))
        .collect();
    let plans: Vec<(bool, u32)> = cells.iter().map(|cell| (cell.act == Act::Full, cell.together)).collect();
    let act = move |parent: &Parent<'_>| {
        let at_once = |(place, (full, number)): (usize, &(bool, u32))| {
            parent.lab().settle_disk();
            thread::scope(|scope| {
                // Bytes can't be told apart while several are made; times can.
                let one = || parent.clone_once(parent.original(), *full, 0).map(without_bytes);
                let threads: Vec<_> = (0..*number).map(|_| scope.spawn(one)).collect();
                let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                    thread.join().unwrap_or_else(|_| Err("the harness' thread panicked".to_owned()))
                };
                threads.into_iter().map(|thread| (place, outcome(join(thread)))).collect::<Outcomes>()
            })
        };
        plans.iter().enumerate().flat_map(at_once).collect()
    };
    Group::on(cells, move || kind.settle(MACHINE), act)
}

fn without_bytes(cost: Cost) -> Cost {
    Cost { disk_bytes: None, apparent_bytes: None, memory_bytes: None, ..cost }
}
