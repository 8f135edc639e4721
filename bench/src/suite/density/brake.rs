//! When a ladder must end: before the host swaps, before the OOM killer acts, when the time is over, when the user says so.

use std::time::{Duration, Instant};

use isolab_reports::model::Ended;

use super::{FIRST_RUNGS, gauge};
use crate::host::read::size;
use crate::interrupt;

/// Swapping this much more than at the beginning is swapping. A few pages move on any host with swap.
const SWAPPED_MAX: u64 = 8 << 20;

/// Stops a ladder before it does harm.
#[derive(Clone, Debug)]
pub(super) struct Brake {
    reserve: u64,
    deadline: Instant,
    /// So many instances may come late.
    excused: usize,
    swapped: u64,
}

/// Why there is to be no further instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Halt {
    pub(super) ended: Ended,
    pub(super) reason: String,
}

/// What the host has at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Now {
    available: u64,
    swapped: u64,
    interrupted: bool,
    late: bool,
}

impl Brake {
    /// `reserve`: bytes that must stay available.
    pub(super) fn new(reserve: u64, deadline: Instant) -> Self {
        Self { reserve, deadline, excused: 0, swapped: gauge::swapped() }
    }

    /// For a first turn: it ends so much earlier, and not before its first rungs.
    pub(super) fn leaving(&self, time: Duration) -> Self {
        let deadline = self.deadline.checked_sub(time).unwrap_or(self.deadline);
        Self { deadline, excused: FIRST_RUNGS, ..self.clone() }
    }

    /// Whether one more instance is too much. `next` is what it may take, in bytes; `alive` how many there are.
    pub(super) fn check(&self, alive: usize, next: u64) -> Option<Halt> {
        let now = Now {
            available: gauge::available(),
            swapped: gauge::swapped(),
            interrupted: interrupt::received().is_some(),
            late: Instant::now() >= self.deadline,
        };
        self.judge(now, alive, next)
    }

    fn judge(&self, now: Now, alive: usize, next: u64) -> Option<Halt> {
        let halt = |ended, reason: String| Some(Halt { ended, reason: format!("ended at {alive} alive: {reason}") });
        if now.interrupted {
            return halt(Ended::Interrupted, "the user asked for it".to_owned());
        }
        if now.available.saturating_sub(next) < self.reserve {
            let (available, next, reserve) = (size(now.available), size(next), size(self.reserve));
            let reason = format!("{available} are available, one more may take {next}, and {reserve} are to be left");
            return halt(Ended::Memory, reason);
        }
        let swapped = now.swapped.saturating_sub(self.swapped);
        if swapped > SWAPPED_MAX {
            return halt(Ended::Memory, format!("the host has begun to swap: {} since the start", size(swapped)));
        }
        if now.late && alive >= self.excused { halt(Ended::Budget, "the time given is over".to_owned()) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Now = Now { available: 8 << 30, swapped: 5 << 20, interrupted: false, late: false };

    fn judged(now: Now, next: u64) -> Option<(Ended, String)> {
        let brake = Brake { reserve: 1 << 30, deadline: Instant::now(), excused: 2, swapped: 5 << 20 };
        brake.judge(now, 7, next).map(|halt| (halt.ended, halt.reason))
    }

    #[test]
    fn a_host_with_room_gets_one_more() {
        assert_eq!(judged(CALM, 1 << 20), None);
    }

    #[test]
    fn it_ends_before_the_reserve_is_touched_and_says_with_which_figures() {
        let tight = Now { available: (1 << 30) + (64 << 20), ..CALM };
        assert_eq!(judged(tight, 32 << 20), None);
        let (ended, reason) = judged(tight, 65 << 20).unwrap();
        assert_eq!(ended, Ended::Memory);
        assert_eq!(
            reason,
            "ended at 7 alive: 1.1 GiB are available, one more may take 65.0 MiB, and 1.0 GiB are to be left"
        );
    }

    #[test]
    fn the_first_rungs_are_climbed_however_late_it_is() {
        let brake =
            Brake { reserve: 0, deadline: Instant::now(), excused: 0, swapped: 5 << 20 }.leaving(Duration::ZERO);
        let late = Now { late: true, ..CALM };
        assert_eq!(brake.judge(late, FIRST_RUNGS - 1, 0), None);
        assert_eq!(brake.judge(late, FIRST_RUNGS, 0).map(|halt| halt.ended), Some(Ended::Budget));
    }

    #[test]
    fn swapping_time_and_the_user_end_it_too() {
        assert_eq!(judged(Now { swapped: 14 << 20, ..CALM }, 0).unwrap().0, Ended::Memory);
        assert_eq!(judged(Now { late: true, ..CALM }, 0).unwrap().0, Ended::Budget);
        assert_eq!(judged(Now { interrupted: true, late: true, ..CALM }, 0).unwrap().0, Ended::Interrupted);
    }
}
