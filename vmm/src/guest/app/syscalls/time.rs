//! Time: the host's clocks, and sleep that a stop of the machine ends.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags};

use super::{Call, Served, host};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// `clock_gettime(2)`.
pub(super) fn clock_gettime(call: &mut Call<'_>) -> Served {
    let now = call.task.clocks.now(clock(call.args[0])?)?;
    call.user().write_value(call.args[1], &[now.tv_sec(), now.tv_nsec()])?;
    Ok(0)
}

/// `clock_getres(2)`.
pub(super) fn clock_getres(call: &mut Call<'_>) -> Served {
    let step = nix::time::clock_getres(clock(call.args[0])?)?;
    if call.args[1] != 0 {
        call.user().write_value(call.args[1], &[step.tv_sec(), step.tv_nsec()])?;
    }
    Ok(0)
}

/// gettimeofday(2). The time zone is that of Greenwich.
pub(super) fn gettimeofday(call: &mut Call<'_>) -> Served {
    let now = nix::time::clock_gettime(ClockId::CLOCK_REALTIME)?;
    if call.args[0] != 0 {
        call.user().write_value(call.args[0], &[now.tv_sec(), now.tv_nsec() / 1000])?;
    }
    if call.args[1] != 0 {
        call.user().write_value(call.args[1], &[0_i32; 2])?;
    }
    Ok(0)
}

/// time(2): returned, and also stored where the program wants it.
pub(super) fn time(call: &mut Call<'_>) -> Served {
    let seconds = nix::time::clock_gettime(ClockId::CLOCK_REALTIME)?.tv_sec();
    if call.args[0] != 0 {
        call.user().write_value(call.args[0], &seconds)?;
    }
    Ok(seconds as u64)
}

/// nanosleep(2).
pub(super) fn nanosleep(call: &mut Call<'_>) -> Served {
    let duration = read_duration(call, call.args[0])?;
    sleep_for(call, ClockId::CLOCK_MONOTONIC, duration)
}

/// `clock_nanosleep(2)`.
pub(super) fn clock_nanosleep(call: &mut Call<'_>) -> Served {
    let [id, flags, request, ..] = call.args;
    let clock = clock(id)?;
    // A clock of processor time stands still while the program sleeps: it would never wake.
    if ![ClockId::CLOCK_REALTIME, ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_BOOTTIME, ClockId::CLOCK_TAI]
        .contains(&clock)
    {
        return Err(Errno::EINVAL.into());
    }
    let given = read_duration(call, request)?;
    match flags as i32 {
        libc::TIMER_ABSTIME => sleep_until(call, clock, TimeSpec::from_duration(given)),
        0 => sleep_for(call, clock, given),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// pause(2): no signal will ever come, but the machine can be stopped.
pub(super) fn pause(_: &mut Call<'_>) -> Served {
    host::retry(|| -> Result<u64, Errno> {
        nix::unistd::pause();
        Err(Errno::EINTR)
    })
    .map_err(Into::into)
}

/// A `struct timespec` of the program; `EINVAL` where it is none.
pub(super) fn read_duration(call: &Call<'_>, address: u64) -> Result<Duration, Errno> {
    let [seconds, nanos]: [i64; 2] = call.user().read_value(address)?;
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) if i64::from(nanos) < NANOS_PER_SECOND => Ok(Duration::new(seconds, nanos)),
        _ => Err(Errno::EINVAL),
    }
}

/// Sleeps so long on `clock`. Interrupted, because the machine shall stand still, it keeps what is left for the same call
/// made again.
pub(super) fn sleep_for(call: &mut Call<'_>, clock: ClockId, duration: Duration) -> Served {
    let duration = call.task.remaining.take().unwrap_or(duration);
    let until = after(nix::time::clock_gettime(clock)?, duration);
    let slept = sleep(clock, until);
    if matches!(slept, Err(Errno::EINTR)) {
        call.task.remaining = Some(left(nix::time::clock_gettime(clock)?, until));
    }
    slept.map_err(Into::into)
}

/// Sleeps until the program's `clock` shows `until`.
pub(super) fn sleep_until(call: &Call<'_>, clock: ClockId, until: TimeSpec) -> Served {
    Ok(sleep(clock, call.task.clocks.on_host(clock, until))?)
}

/// Sleeps until `until` on the host's `clock`, or `EINTR`. An absolute time survives interrupted sleeps without drift.
fn sleep(clock: ClockId, until: TimeSpec) -> Result<u64, Errno> {
    host::retry(|| nix::time::clock_nanosleep(clock, ClockNanosleepFlags::TIMER_ABSTIME, &until)).map(|_| 0)
}

/// The time `duration` after `now`.
fn after(now: TimeSpec, duration: Duration) -> TimeSpec {
    let nanos = now.tv_nsec() + i64::from(duration.subsec_nanos());
    let seconds = now.tv_sec().saturating_add_unsigned(duration.as_secs()).saturating_add(nanos / NANOS_PER_SECOND);
    TimeSpec::new(seconds, nanos % NANOS_PER_SECOND)
}

/// How long it is from `now` to `until`.
fn left(now: TimeSpec, until: TimeSpec) -> Duration {
    if until <= now { Duration::ZERO } else { Duration::from(until - now) }
}

/// The host's clock of that number; `EINVAL` for clocks of other processes and devices.
fn clock(id: u64) -> Result<ClockId, Errno> {
    match id as i32 {
        id @ (0..=7 | libc::CLOCK_TAI) => Ok(ClockId::from_raw(id)),
        _ => Err(Errno::EINVAL),
    }
}
