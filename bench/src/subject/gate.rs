//! The barrier that several starts wait behind.
//!
//! All instances begin at one instant, the release, and that is t0 of each. Starting them one after the other from a loop
//! would let the first be ready before the last has begun, and measure the loop.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::clock;

/// A barrier that tells the instant at which it opened.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Debug)]
struct State {
    awaited: u32,
    released: Option<u64>,
}

impl Gate {
    /// A gate that opens once so many have come.
    pub(crate) fn of(count: u32) -> Self {
        Self { state: Mutex::new(State { awaited: count, released: None }), opened: Condvar::new() }
    }

    /// Waits for all the others; returns the instant of the release, the same for all.
    pub(crate) fn pass(&self) -> u64 {
        // A thread that panics ends the whole program, so no lock is ever poisoned.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.awaited = state.awaited.saturating_sub(1);
        if state.awaited == 0 {
            self.opened.notify_all();
            return *state.released.get_or_insert_with(clock::now);
        }
        loop {
            if let Some(release) = state.released {
                return release;
            }
            state = self.opened.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn nobody_passes_before_the_last_has_come_and_all_hear_one_instant() {
        let (gate, arrived) = (Gate::of(4), AtomicU32::new(0));
        let passes: Vec<(u64, u32)> = thread::scope(|scope| {
            let visit = || {
                arrived.fetch_add(1, Ordering::SeqCst);
                (gate.pass(), arrived.load(Ordering::SeqCst))
            };
            let visitors: Vec<_> = (0..4).map(|_| scope.spawn(visit)).collect();
            visitors.into_iter().map(|visitor| visitor.join().unwrap()).collect()
        });
        assert!(passes.iter().all(|(release, seen)| *release == passes[0].0 && *seen == 4));
    }
}
