//! futex(2) where there is one thread: nobody to wait for, nobody to wake.

use nix::errno::Errno;
use nix::time::ClockId;

use super::super::AppError;
use super::{Call, Instead, Served, time};

/// futex(2), waiting and waking only. To wait without a time limit for a word that holds the expected value is to wait
/// for ever: no other thread can change it. That ends the machine with an error, where Linux would hang.
pub(super) fn futex(call: &mut Call<'_>) -> Served {
    let [address, operation, expected, timeout, ..] = call.args;
    let flags = libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME;
    let command = operation as i32 & !flags;
    match command {
        libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET => Ok(0),
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => {
            if address % 4 != 0 {
                return Err(Errno::EINVAL.into());
            }
            let word: u32 = call.user().read_value(address)?;
            if word != expected as u32 {
                return Err(Errno::EAGAIN.into());
            }
            if timeout == 0 {
                return Err(Instead::Broken(AppError::Deadlock { address, word }));
            }
            let given = time::read_duration(call, timeout)?;
            let real = operation as i32 & libc::FUTEX_CLOCK_REALTIME != 0;
            let clock = if real { ClockId::CLOCK_REALTIME } else { ClockId::CLOCK_MONOTONIC };
            // FUTEX_WAIT takes a duration, FUTEX_WAIT_BITSET a time of day (futex(2), "timeout").
            match command {
                libc::FUTEX_WAIT => time::sleep_for(call, clock, given)?,
                _ => time::sleep_until(call, clock, nix::sys::time::TimeSpec::from_duration(given))?,
            };
            Err(Errno::ETIMEDOUT.into())
        }
        _ => Err(Instead::Unserved),
    }
}
