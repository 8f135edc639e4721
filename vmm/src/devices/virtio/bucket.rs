//! A rate limiter: two buckets of tokens, one for bytes and one for operations.
//!
//! A bucket fills at a steady rate up to its size; what is taken from it may be taken at once, as long as it isn't empty.
//! The last one to take may take more than there is, and the next waits until that is paid off: so no request is too large
//! for its bucket, and the rate holds over time. All of it is one point in time, when the bucket will be full again.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde::{Deserialize, Serialize};

/// How much may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Tokens a second, over time.
    pub per_second: u64,
    /// Tokens at once, after a rest.
    pub burst: u64,
}

impl Rate {
    /// So many tokens a second, and at once what comes together in a tenth of one: less would wake the device more often than
    /// a clock ticks, more would let a machine that has rested take its neighbours' share for a while that is noticed.
    pub fn steady(per_second: u64) -> Self {
        Self { per_second, burst: (per_second / 10).max(1) }
    }
}

/// How much a device may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Rate>,
    /// Requests, or frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<Rate>,
}

impl Limits {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// For ever, for a timer; the clock's own type ends somewhere.
const CENTURY: Duration = Duration::from_hours(100 * 365 * 24);

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    full_at: Instant,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    /// How long it takes until so many tokens are there again.
    fn time(&self, tokens: u64) -> Duration {
        let nanos = u128::from(tokens) * 1_000_000_000 / u128::from(self.rate.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How long to wait until it isn't empty.
    fn wait(&self, now: Instant) -> Duration {
        // At least one token fits, or nothing would ever pass.
        let size = self.time(self.rate.burst.max(1));
        self.full_at.saturating_duration_since(now).saturating_sub(size)
    }

    fn take(&mut self, tokens: u64, now: Instant) {
        let time = self.time(tokens).min(CENTURY);
        self.full_at = self.full_at.max(now).checked_add(time).unwrap_or(self.full_at);
    }
}

/// Holds a device to its limits, and wakes it when it may go on.
#[derive(Debug)]
pub struct Limiter {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
    timer: TimerFd,
}

impl Limiter {
    /// One that holds a device to these limits; none where there are none.
    pub fn of(limits: Limits) -> io::Result<Option<Self>> {
        (!limits.is_none()).then(|| Self::new(limits)).transpose()
    }

    /// Both buckets full.
    pub fn new(limits: Limits) -> io::Result<Self> {
        let now = Instant::now();
        let bucket = |rate: Option<Rate>| rate.map(|rate| Bucket::new(rate, now));
        Ok(Self {
            bytes: bucket(limits.bytes),
            operations: bucket(limits.operations),
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?,
        })
    }

    /// Whether one operation of so many bytes may be done now. If not, the timer goes off when it is worth asking again.
    pub fn admit(&mut self, bytes: u64) -> io::Result<bool> {
        let now = Instant::now();
        let wait = |bucket: &Option<Bucket>| bucket.as_ref().map_or(Duration::ZERO, |bucket| bucket.wait(now));
        let wait = wait(&self.bytes).max(wait(&self.operations));
        if wait > Duration::ZERO {
            let after = Expiration::OneShot(TimeSpec::from_duration(wait));
            self.timer.set(after, TimerSetTimeFlags::empty())?;
            return Ok(false);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes, now);
        }
        if let Some(bucket) = &mut self.operations {
            bucket.take(1, now);
        }
        Ok(true)
    }

    /// What becomes readable when it is worth asking again.
    pub fn timer(&self) -> impl AsFd {
        self.timer.as_fd()
    }

    /// The timer has been heard.
    pub fn heard(&self) {
        // Not `TimerFd::wait`: it would wait.
        let mut count = [0; 8];
        let _ = nix::unistd::read(self.timer.as_fd(), &mut count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_saved_up_passes_at_once_and_the_rest_at_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 1000, burst: 500 }, start);
        bucket.take(500, start);
        assert_eq!(bucket.wait(start), Duration::ZERO, "empty only just: one more may overdraw");
        bucket.take(1000, start);
        assert_eq!(bucket.wait(start), Duration::from_secs(1));
        assert_eq!(bucket.wait(start + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(bucket.wait(start + Duration::from_secs(1000)), Duration::ZERO);
    }

    #[test]
    fn a_bucket_without_a_rate_or_a_size_still_counts() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 0, burst: 0 }, start);
        bucket.take(u64::MAX, start);
        assert!(bucket.wait(start) > Duration::from_hours(24));
    }

    proptest! {
        #[test]
        fn over_time_no_more_passes_than_the_rate_the_burst_and_one_request(
            per_second in 1_u64..1 << 30, burst in 1_u64..1 << 30, requests in prop::collection::vec(1_u64..1 << 20, 1..100)
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut bucket = Bucket::new(Rate { per_second, burst }, start);
            let mut passed = 0_u128;
            for request in &requests {
                now += bucket.wait(now);
                prop_assert_eq!(bucket.wait(now), Duration::ZERO);
                bucket.take(*request, now);
                passed += u128::from(*request);
                let allowed = now.duration_since(start).as_nanos() * u128::from(per_second) / 1_000_000_000;
                // A nanosecond is lost here and there when tokens are made into time.
                let slack = u128::from(per_second) * requests.len() as u128 / 1_000_000_000 + requests.len() as u128;
                prop_assert!(passed <= allowed + u128::from(burst) + u128::from(*request) + slack);
            }
        }
    }
}
