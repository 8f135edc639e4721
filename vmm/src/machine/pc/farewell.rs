//! The end of a machine that may go by itself: its power button is pressed, and then it has a while.
//!
//! Switching off a computer loses what it has not written yet. So a signal that politely asks the monitor to end (SIGTERM,
//! and SIGHUP when its terminal is gone) is passed on as what a guest knows: the button on the case. A guest that does not
//! listen, or takes too long, is switched off after all; and whoever asks twice, or by SIGINT, does not want to wait.

use std::time::{Duration, Instant};

/// How long a guest has, and whether its time runs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Farewell {
    grace: Duration,
    /// The signal that came, and when it takes effect.
    leaving: Option<(i32, Instant)>,
}

impl Farewell {
    /// So long a guest has; none at all where that is nothing.
    pub(super) fn of(grace: Duration) -> Self {
        Self { grace, leaving: None }
    }

    /// A signal came: whether the button is to be pressed, or else the machine to be ended.
    pub(super) fn hears(&mut self, signal: i32, now: Instant) -> bool {
        let polite = matches!(signal, libc::SIGTERM | libc::SIGHUP);
        if !polite || self.leaving.is_some() || self.grace.is_zero() {
            return false;
        }
        self.leaving = now.checked_add(self.grace).map(|until| (signal, until));
        self.leaving.is_some()
    }

    /// How long the guest still has, where its time runs.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.leaving.map(|(_, until)| until.saturating_duration_since(now))
    }

    /// The signal that takes effect now, as the guest's time is up.
    pub(super) fn over(&self, now: Instant) -> Option<i32> {
        self.leaving.filter(|(_, until)| *until <= now).map(|(signal, _)| signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_polite_signal_gives_the_guest_its_time_and_no_more() {
        let now = Instant::now();
        let mut farewell = Farewell::of(10 * SECOND);
        assert_eq!((farewell.left(now), farewell.over(now)), (None, None));
        assert!(farewell.hears(libc::SIGTERM, now));
        assert_eq!(farewell.left(now + 4 * SECOND), Some(6 * SECOND));
        assert_eq!(farewell.over(now + 9 * SECOND), None);
        assert_eq!(farewell.over(now + 10 * SECOND), Some(libc::SIGTERM));
    }

    #[test]
    fn who_asks_twice_or_impolitely_does_not_wait() {
        let now = Instant::now();
        let mut farewell = Farewell::of(SECOND);
        assert!(!farewell.hears(libc::SIGINT, now));
        assert!(farewell.hears(libc::SIGHUP, now));
        assert!(!farewell.hears(libc::SIGTERM, now), "again");
        assert!(!Farewell::of(Duration::ZERO).hears(libc::SIGTERM, now), "nobody gave it time");
        assert!(!Farewell::of(Duration::MAX).hears(libc::SIGTERM, now), "a time that no clock can tell");
    }
}
