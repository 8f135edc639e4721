//! How many fit: instances that stay alive side by side, and what each of them costs.
//!
//! A subject's *ladder* goes from no instance to 1, 2, 4 and so on. Each instance has proved itself by its nonce, and at the top
//! each of them gives it back once more: what does not answer is not alive, whatever it costs. What one costs is the
//! *slope* of memory over their number; the first instance also pays for what all others share.
//!
//! Ladders are climbed in passes, all subjects once a pass in an order of its own: what changes on the host meanwhile then
//! meets all of them alike. Where time is short the first pass is short for those who take long, so that each has its turn.

mod brake;
pub(super) mod gauge;
mod ksm;
mod rest;

use std::thread;
use std::time::{Duration, Instant};

use isolab_reports::model::{Cell, Density, Ended, Ladder, Role};
use isolab_reports::stats::Random;
use isolab_reports::units;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{cell, twin};
use crate::host::{memory, read};
use crate::interrupt;
use crate::plan::shuffled;
use crate::subject::{Held, Subject};
use brake::{Brake, Halt};
use ksm::Ksm;
pub use rest::Rest;

/// The suite's name.
pub const NAME: &str = "density";

/// What the kernel puts off (freeing a network namespace, a control group) is done within this after a change; and by then a
/// machine whose program waits has given back what it need not have meanwhile.
const SETTLE: Duration = Duration::from_millis(120);

/// What an instance whose cost is not known yet may take, without what it is told to touch.
const UNKNOWN: u64 = 64 << 20;

/// So many instances each subject has in the first pass, however late it is: fewer have no slope.
const FIRST_RUNGS: usize = 2;

/// How far to climb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Seed of the order.
    pub seed: u64,
    /// Instances alive at once, at the most.
    pub most: u32,
    /// Mebibytes that each touches after READY.
    pub touch_mib: u32,
    /// Mebibytes that must stay available; a tenth of the host's memory, 512 at the least, where none is given.
    pub reserve_mib: Option<u32>,
    /// How often each ladder is climbed.
    pub passes: u32,
    /// Wall-clock time of all ladders.
    pub budget: Duration,
    /// Whether the kernel is to merge equal pages meanwhile.
    pub ksm: bool,
}

impl Terms {
    fn reserve(&self) -> u64 {
        match self.reserve_mib {
            Some(mib) => u64::from(mib) << 20,
            None => (memory::total() / 10).max(512 << 20),
        }
    }
}

/// A cell, and what is kept alive for it.
struct Place<'a> {
    cell: Cell,
    subject: &'a dyn Subject,
}

/// Climbs all ladders of the subjects that can stay; none where no subject can. The error says why KSM can't be had.
pub fn measure(subjects: &[Box<dyn Subject + '_>], terms: &Terms) -> Result<Option<Density>, String> {
    let places = places(subjects);
    if places.is_empty() {
        return Ok(None);
    }
    let _merging = terms.ksm.then(Ksm::on).transpose()?;
    room_for_descriptors(terms.most);
    let reserve = terms.reserve();
    let deadline = Instant::now() + terms.budget;
    let mut density = Density {
        most: terms.most,
        passes: terms.passes,
        budget_s: terms.budget.as_secs(),
        touched_bytes: u64::from(terms.touch_mib) << 20,
        reserve_bytes: reserve,
        ksm: read::text("/sys/kernel/mm/ksm/run").as_deref() == Some("1"),
        cells: places.iter().map(|place| place.cell.clone()).collect(),
        ladders: Vec::new(),
    };
    let (brake, mut rest) = (Brake::new(reserve, deadline), Rest::of_now());
    let mut random = Random::new(terms.seed);
    let mut given_up = vec![false; places.len()];
    for pass in 0..terms.passes {
        for (turn, cell) in shuffled(places.len(), &mut random).into_iter().enumerate() {
            let (Some(place), Some(given_up)) = (places.get(cell), given_up.get_mut(cell)) else { continue };
            let over = pass > 0 && Instant::now() >= deadline;
            if over || *given_up || interrupt::received().is_some() {
                continue;
            }
            let waiting = places.len().saturating_sub(turn + 1);
            let brake =
                if pass == 0 { brake.leaving(kept_for(waiting, places.len(), terms.budget)) } else { brake.clone() };
            let dying_groups = rest.come();
            let ladder = Ladder { dying_groups, ..climb(place, cell, pass, &brake, terms) };
            if ladder.ended == Ended::Failed && ladder.rungs.len() < 2 {
                *given_up = true;
            }
            if dying_groups > 0 {
                let groups = units::count(dying_groups as usize, "removed control group");
                eprintln!("density: {}: the kernel still has {groups} of an earlier ladder", place.cell.name);
            }
            if let Some(reason) = &ladder.reason {
                eprintln!("density: {}: {reason}", place.cell.name);
            }
            density.ladders.push(ladder);
        }
    }
    // What is measured next begins on a host at rest too.
    rest.come();
    Ok(Some(density))
}

/// How much of the time is kept for those who wait for their first turn: half of it is divided among all, and the other half
/// is whose turn it is. So a subject with slow instances does not take all, and one among quick ones has what it needs.
fn kept_for(waiting: usize, all: usize, budget: Duration) -> Duration {
    budget.mul_f64(waiting as f64 / (2 * all).max(1) as f64)
}

/// A place for each subject that can stay, and the A/A twin beside the baseline.
fn places<'a>(subjects: &'a [Box<dyn Subject + 'a>]) -> Vec<Place<'a>> {
    let staying = subjects.iter().filter(|subject| subject.stays());
    let mut places: Vec<Place<'a>> =
        staying.map(|subject| Place { cell: cell(&**subject, 1), subject: &**subject }).collect();
    let original = places.iter().position(|place| place.cell.role == Role::Baseline).unwrap_or(0);
    if let Some(place) = places.get(original) {
        let twin = Place { cell: twin(&place.cell), subject: place.subject };
        places.insert(original + 1, twin);
    }
    places
}

/// Numbers of instances to stop at: the powers of two, and the most.
fn numbers(most: u32) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..32).map(|power| 1 << power).take_while(|number| *number < most).collect();
    numbers.push(most);
    numbers
}

/// One ladder, from its foot to where it ends; nothing of it is alive afterwards.
fn climb(place: &Place<'_>, cell: usize, pass: u32, brake: &Brake, terms: &Terms) -> Ladder {
    let (mut held, keeper): (Vec<Held>, _) = (Vec::new(), place.subject.keeper());
    let mut ladder = Ladder {
        cell,
        pass,
        rungs: vec![gauge::read_rung(&[], keeper, Vec::new())],
        ended: Ended::Complete,
        reason: None,
        dying_groups: 0,
    };
    let foot = ladder.rungs.first().map_or(0, |rung| rung.available_bytes);
    for number in numbers(terms.most) {
        let (starts, halt) = grow(place.subject, &mut held, number, brake, foot, terms);
        if !starts.is_empty() {
            thread::sleep(SETTLE);
            if terms.ksm {
                Ksm::settle();
            }
            ladder.rungs.push(gauge::read_rung(&held, keeper, starts));
        }
        if let Some(halt) = halt {
            (ladder.ended, ladder.reason) = (halt.ended, Some(halt.reason));
            break;
        }
    }
    if let Err(reason) = all_answer(&mut held) {
        (ladder.ended, ladder.reason) = (Ended::Failed, Some(reason));
    }
    if let Err(reason) = end_all(held) {
        (ladder.ended, ladder.reason) = (Ended::Failed, Some(reason));
    }
    ladder
}

/// Starts instances until so many are alive; how long each took, and why it stopped short.
fn grow(
    subject: &dyn Subject,
    held: &mut Vec<Held>,
    number: u32,
    brake: &Brake,
    foot: u64,
    terms: &Terms,
) -> (Vec<u64>, Option<Halt>) {
    let mut starts = Vec::new();
    let touched = u64::from(terms.touch_mib) << 20;
    while (held.len() as u32) < number {
        if let Some(halt) = brake.check(held.len(), likely(foot, held.len(), touched)) {
            return (starts, Some(halt));
        }
        let started = subject.hold().and_then(|mut instance| {
            if terms.touch_mib > 0 {
                instance.touch(terms.touch_mib)?;
            }
            Ok(instance)
        });
        match started {
            Ok(instance) => {
                starts.push(instance.ready_ns());
                held.push(instance);
            }
            Err(reason) => {
                let reason = format!("failed at {} alive: {reason}", held.len());
                return (starts, Some(Halt { ended: Ended::Failed, reason }));
            }
        }
    }
    (starts, None)
}

/// What one more may take, in bytes: twice what each has taken so far, or a guess for the first ones.
fn likely(foot: u64, alive: usize, touched: u64) -> u64 {
    let taken = foot.saturating_sub(gauge::available());
    match alive {
        0..8 => UNKNOWN + touched,
        _ => (2 * taken / alive as u64).max(touched),
    }
}

fn all_answer(held: &mut [Held]) -> Result<(), String> {
    let count = held.len();
    for (place, instance) in held.iter_mut().enumerate() {
        instance.answers().map_err(|reason| format!("instance {} of {count} alive: {reason}", place + 1))?;
    }
    Ok(())
}

/// Orders all to end, then waits for each.
fn end_all(mut held: Vec<Held>) -> Result<(), String> {
    for instance in &mut held {
        instance.dismiss();
    }
    let mut ended = Ok(());
    for instance in held {
        ended = instance.end().and(ended);
    }
    ended
}

/// Each instance has a few descriptors here: the pipes to and from it, and what stands for its process.
fn room_for_descriptors(most: u32) {
    let wanted = u64::from(most) * 8 + 256;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < wanted
    {
        // Refused, it shows as an instance that can't be started, with the reason.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard);
    }
}

/// What can be accounted for while these are alive: proportional sets of all their processes, and all that the kernel keeps for itself on
/// the whole host, in bytes. Two of these figures can be subtracted from each other; one alone says nothing.
pub fn accounted(held: &[Held]) -> u64 {
    thread::sleep(SETTLE);
    let rung = gauge::read_rung(held, None, Vec::new());
    rung.pss_bytes.saturating_add(rung.kernel_bytes())
}

/// Whether any instance of any subject was ever alive.
pub fn any_alive(density: &Density) -> bool {
    density.ladders.iter().any(|ladder| ladder.rungs.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ladder_doubles_and_ends_at_the_most() {
        assert_eq!(numbers(1), [1]);
        assert_eq!(numbers(8), [1, 2, 4, 8]);
        assert_eq!(numbers(100), [1, 2, 4, 8, 16, 32, 64, 100]);
    }

    #[test]
    fn who_waits_for_a_first_turn_has_a_share_of_half_the_time() {
        let budget = Duration::from_mins(1);
        assert_eq!(kept_for(15, 15, budget), Duration::from_secs(30));
        assert_eq!(kept_for(5, 15, budget), Duration::from_secs(10));
        assert_eq!(kept_for(0, 15, budget), Duration::ZERO);
    }

    #[test]
    fn an_unknown_subject_is_taken_for_a_large_one() {
        assert_eq!(likely(u64::MAX, 0, 5), UNKNOWN + 5);
        assert_eq!(likely(0, 100, 5), 5);
    }
}
