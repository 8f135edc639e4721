//! The program's clocks: the host's, and how far they are from them.
//!
//! A program that starts sees the host's clocks. One that goes on from a snapshot must not see them jump where they never
//! may: the monotonic clock goes on from the instant of the snapshot, for the time in between did not pass for the program
//! (as under Linux, where it stands still while a machine is suspended); the boot-time clock counts that time; the clock of
//! the day is the host's, so it is right at once; and used processor time is not forgotten.

use nix::errno::Errno;
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::ClockId;

/// How far each clock of the program is before the host's, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Clocks {
    monotonic: i64,
    boot: i64,
    process: i64,
    thread: i64,
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
