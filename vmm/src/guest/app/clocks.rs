//! The program's clocks: the host's, and how far they are from them.
//!
//! A program that starts sees the host's clocks. One that goes on from a snapshot must not see them jump where they never
//! may: the monotonic clock goes on from the instant of the snapshot, for the time in between did not pass for the program
//! (as under Linux, where it stands still while a machine is suspended); the boot-time clock counts that time; the clock of
//! the day is the host's, so it is right at once; and used processor time is not forgotten.

use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::ClockId;
use serde::{Deserialize, Serialize};

/// How far each clock of the program is before the host's, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Clocks {
    monotonic: i64,
    boot: i64,
    process: i64,
    thread: i64,
}

/// What the program's clocks showed at the instant of a snapshot, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Readings {
    day: i64,
    monotonic: i64,
    boot: i64,
    process: i64,
    thread: i64,
}

impl Readings {
    /// A machine can't have run for longer than this (about 146 years), nor the year be later than 2116: so the sum of any
    /// two is a number of 64 bits.
    const MOST: i64 = i64::MAX / 2;

    /// Whether clocks can show this.
    pub(super) fn are_possible(&self) -> bool {
        [self.day, self.monotonic, self.boot, self.process, self.thread].iter().all(|at| (0..=Self::MOST).contains(at))
    }
}

impl Clocks {
    /// What the program sees on clock `id` now.
    pub(super) fn now(&self, id: ClockId) -> Result<TimeSpec, Errno> {
        Ok(nix::time::clock_gettime(id)? + TimeSpec::nanoseconds(self.offset(id)))
    }

    /// When the host's clock shows what the program's will show `at`; the beginning of time where that is before.
    pub(super) fn on_host(&self, id: ClockId, at: TimeSpec) -> TimeSpec {
        // In seconds and nanoseconds: a program may wait until a time that has no number of nanoseconds.
        let (seconds, nanos) = split(self.offset(id));
        let (mut whole, mut rest) = (at.tv_sec().saturating_sub(seconds), at.tv_nsec() - nanos);
        if rest < 0 {
            (whole, rest) = (whole.saturating_sub(1), rest + SECOND);
        }
        if whole < 0 { TimeSpec::new(0, 0) } else { TimeSpec::new(whole, rest) }
    }

    /// What the clocks show, to be kept in a snapshot.
    pub(super) fn read(&self) -> Result<Readings, Errno> {
        let read = |id| Ok::<_, Errno>(self.now(id)?.num_nanoseconds());
        Ok(Readings {
            day: since_1970(),
            monotonic: read(ClockId::CLOCK_MONOTONIC)?,
            boot: read(ClockId::CLOCK_BOOTTIME)?,
            process: read(ClockId::CLOCK_PROCESS_CPUTIME_ID)?,
            thread: read(ClockId::CLOCK_THREAD_CPUTIME_ID)?,
        })
    }

    /// The clocks of a program that goes on from a snapshot.
    pub(super) fn going_on(from: &Readings) -> Result<Self, Errno> {
        let host = |id| Ok::<_, Errno>(nix::time::clock_gettime(id)?.num_nanoseconds());
        // A host whose day is before that of the snapshot has a wrong clock; time never runs backwards for it.
        let away = since_1970().saturating_sub(from.day).max(0);
        Ok(Self {
            monotonic: from.monotonic - host(ClockId::CLOCK_MONOTONIC)?,
            boot: from.boot.saturating_add(away) - host(ClockId::CLOCK_BOOTTIME)?,
            process: from.process - host(ClockId::CLOCK_PROCESS_CPUTIME_ID)?,
            thread: from.thread - host(ClockId::CLOCK_THREAD_CPUTIME_ID)?,
        })
    }

    fn offset(&self, id: ClockId) -> i64 {
        match id.as_raw() {
            libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE => self.monotonic,
            libc::CLOCK_BOOTTIME => self.boot,
            libc::CLOCK_PROCESS_CPUTIME_ID => self.process,
            libc::CLOCK_THREAD_CPUTIME_ID => self.thread,
            _ => 0,
        }
    }
}

const SECOND: i64 = 1_000_000_000;

/// Seconds and nanoseconds, the latter never negative.
fn split(nanos: i64) -> (i64, i64) {
    (nanos.div_euclid(SECOND), nanos.rem_euclid(SECOND))
}

fn since_1970() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(clocks: &Clocks, id: ClockId) -> i64 {
        clocks.now(id).unwrap().num_nanoseconds()
    }

    #[test]
    fn a_new_program_sees_the_hosts_clocks() {
        let host = nix::time::clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().num_nanoseconds();
        let program = now(&Clocks::default(), ClockId::CLOCK_MONOTONIC);
        assert!((0..SECOND).contains(&(program - host)));
    }

    #[test]
    fn after_a_snapshot_the_monotonic_clock_goes_on_and_the_boot_time_counts_the_time_away() {
        let hour = 3600 * SECOND;
        let day = since_1970() - hour;
        let readings = Readings { day, monotonic: 5 * SECOND, boot: 7 * SECOND, process: SECOND, thread: SECOND };
        let clocks = Clocks::going_on(&readings).unwrap();
        for (id, expected) in [
            (ClockId::CLOCK_MONOTONIC, 5 * SECOND),
            (ClockId::CLOCK_BOOTTIME, 7 * SECOND + hour),
            (ClockId::CLOCK_PROCESS_CPUTIME_ID, SECOND),
        ] {
            assert!((0..SECOND).contains(&(now(&clocks, id) - expected)), "{id:?}");
        }
        assert!((now(&clocks, ClockId::CLOCK_REALTIME) - since_1970()).abs() < SECOND);
    }

    #[test]
    fn a_time_of_the_program_is_a_time_of_the_host() {
        let clocks = Clocks { monotonic: -2_500_000_000, ..Clocks::default() };
        let on_host = |seconds, nanos| {
            let at = clocks.on_host(ClockId::CLOCK_MONOTONIC, TimeSpec::new(seconds, nanos));
            (at.tv_sec(), at.tv_nsec())
        };
        assert_eq!(on_host(1, 600_000_000), (4, 100_000_000));
        assert_eq!(on_host(i64::MAX, 0).0, i64::MAX - 1);
        let ahead = Clocks { monotonic: 2_500_000_000, ..Clocks::default() };
        let early = ahead.on_host(ClockId::CLOCK_MONOTONIC, TimeSpec::new(1, 0));
        assert_eq!((early.tv_sec(), early.tv_nsec()), (0, 0));
    }
}
