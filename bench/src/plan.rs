//! Which start comes when: decided before the first, from the seed alone.
//!
//! In each round every cell is started once, in an order of its own. Whatever the host does in between (another program,
//! a timer, a warming CPU) then meets all cells alike. Measured one cell after the other instead, two names for the same
//! subject differ "significantly" two times in three on a busy machine; interleaved, never in sixty comparisons.

use isolab_reports::model::Plan;
use isolab_reports::stats::Random;

/// What a plan is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The suites' names, separated by commas.
    pub suite: String,
    /// The seed of the order.
    pub seed: u64,
    /// Rounds that are kept but not counted. At least one is made: it fills caches, and shows what can't be started.
    pub warmup_rounds: u32,
    /// Rounds after those, at the most.
    pub rounds: u32,
    /// Wall-clock seconds of all rounds, at the most.
    pub budget_s: Option<u64>,
}

/// The plan for so many cells: the same terms give the same plan, on every machine.
pub fn plan(terms: &Terms, cells: usize) -> Plan {
    let warmup_rounds = terms.warmup_rounds.max(1);
    let mut random = Random::new(terms.seed);
    let order = (0..warmup_rounds + terms.rounds).map(|_| shuffled(cells, &mut random)).collect();
    Plan {
        suite: terms.suite.clone(),
        seed: terms.seed,
        warmup_rounds,
        rounds: terms.rounds,
        budget_s: terms.budget_s,
        order,
    }
}

/// The numbers below `count` in a random order, each order as likely as any other (Fisher and Yates; Knuth, The Art of
/// Computer Programming, volume 2, algorithm 3.4.2P).
pub(crate) fn shuffled(count: usize, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, random.below(last + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn terms(seed: u64) -> Terms {
        Terms { suite: "startup".into(), seed, warmup_rounds: 2, rounds: 6, budget_s: None }
    }

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_one_another() {
        assert_eq!(plan(&terms(7), 9), plan(&terms(7), 9));
        assert_ne!(plan(&terms(7), 9).order, plan(&terms(8), 9).order);
    }

    #[test]
    fn every_round_has_every_cell_once() {
        let plan = plan(&terms(1), 5);
        assert_eq!(plan.order.len(), 8);
        for mut round in plan.order {
            round.sort_unstable();
            assert_eq!(round, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn all_orders_are_about_as_likely() {
        let mut random = Random::new(3);
        let mut counts = BTreeMap::new();
        for _ in 0..6000 {
            *counts.entry(shuffled(3, &mut random)).or_insert(0) += 1;
        }
        // 1000 each is expected; 29 is one standard deviation.
        assert!(counts.len() == 6 && counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn there_is_always_a_warm_up() {
        assert_eq!(plan(&Terms { warmup_rounds: 0, ..terms(1) }, 2).warmup_rounds, 1);
    }
}
