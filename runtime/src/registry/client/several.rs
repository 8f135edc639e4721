//! Several blobs at once.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Transfers at once: enough to hide the registry's pauses, few enough not to be taken for an attack.
const AT_ONCE: usize = 4;

/// Does the same with each item, several at once, begun in their order. Answers what came of them, in that order too, or
/// an error; after the first one none is begun any more.
pub(super) fn several<T: Sync, R: Send, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { return Ok(done) };
            let outcome = work(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed));
            done.push((number, outcome?));
        }
    };
    let outcomes: Vec<Result<_, E>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE.min(items.len())).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    let mut all: Vec<(usize, R)> = outcomes.into_iter().collect::<Result<Vec<_>, E>>()?.into_iter().flatten().collect();
    all.sort_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, Mutex};

    use super::{AT_ONCE, several};

    #[test]
    fn what_is_done_at_once_is_answered_in_order() {
        // Each waits for three others: one after the other they would wait for ever.
        let together = Barrier::new(AT_ONCE);
        let items: Vec<usize> = (0..AT_ONCE * 5).collect();
        let doubled = several(&items, |item| {
            together.wait();
            Ok::<_, ()>(item * 2)
        });
        assert_eq!(doubled, Ok(items.iter().map(|item| item * 2).collect()));
        assert_eq!(several(&[], |item: &u8| Ok::<_, ()>(*item)), Ok(Vec::new()));
    }

    #[test]
    fn after_a_failure_nothing_more_is_begun() {
        let (begun, order) = (AtomicUsize::new(0), Mutex::new(()));
        let items: Vec<usize> = (0..1000).collect();
        let outcome = several(&items, |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            let _turn = order.lock().unwrap();
            if *item == 3 { Err("no") } else { Ok(()) }
        });
        assert_eq!(outcome, Err("no"));
        assert!(begun.load(Ordering::Relaxed) < items.len());
    }
}
