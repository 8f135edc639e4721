//! The bootstrap over rounds: how far a median, or a ratio of medians, could have come out otherwise.
//!
//! A round is the unit that is drawn again, because what disturbs one start of a round disturbs the next: treating
//! starts as independent would promise more than the data hold. A resample is then a *weight* for each round, the number of times
//! it was drawn, and a median under weights is a short walk along numbers that were sorted once. That keeps ten thousand
//! resamples linear in the number of rounds.

use super::{Random, Sorted};

/// How many resamples an interval rests on, of runs of usual length.
pub const RESAMPLES: usize = 10_000;

/// The fewest rounds that an interval is drawn from: of five numbers even the whole range holds the median with a probability of
/// 1 − 2·0.5⁵ = 94 % only (Conover, *Practical Nonparametric Statistics*, section 3.2).
pub const FEWEST_ROUNDS: usize = 6;

/// How many it rests on where so many rounds are drawn from: fewer of long runs, whose intervals are narrow and known to more digits
/// than anybody reads, so that no report takes long.
pub fn resamples(rounds: usize) -> usize {
    const WORK: usize = 20_000_000;
    (WORK / rounds.max(1)).clamp(1_000, RESAMPLES)
}

/// An estimate and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The statistic of the data themselves.
    pub estimate: f64,
    /// The 2.5 % quantile of the statistic over all resamples; −∞ where fewer than [`FEWEST_ROUNDS`] have a say.
    pub low: f64,
    /// The 97.5 % quantile; ∞ where they do.
    pub high: f64,
}

impl Interval {
    /// An estimate that nothing is known to bound: what follows from it is inconclusive.
    pub fn unbounded(estimate: f64) -> Self {
        Self { estimate, low: f64::NEG_INFINITY, high: f64::INFINITY }
    }

    /// Whether there is an interval at all.
    pub fn is_bounded(&self) -> bool {
        self.low.is_finite() && self.high.is_finite()
    }

    /// Its ends, where it has some, and the estimate: what an axis must reach.
    pub fn points(&self) -> impl Iterator<Item = f64> {
        [self.low, self.estimate, self.high].into_iter().filter(|point| point.is_finite())
    }
}

/// Numbers, each from one round, sorted once for many weighted medians.
///
/// A median under weights lies near that of the data. So how much weight lies below *that* is summed round by round, and only from
/// there on number by number.
#[derive(Clone, Debug)]
pub struct Rounds {
    numbers: Vec<f64>,
    /// The round that each is from.
    from: Vec<usize>,
    /// For each round, how many numbers it has ...
    all: Vec<u32>,
    /// ... and how many of those lie in the lower half.
    lower: Vec<u32>,
}

impl Rounds {
    /// Takes `(round, number)` pairs; a number that is not finite is the caller's error and is left out. Rounds are counted from 0,
    /// without large gaps.
    pub fn new(pairs: impl IntoIterator<Item = (usize, f64)>) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().filter(|(_, number)| number.is_finite()).collect();
        pairs.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (from, numbers): (Vec<usize>, Vec<f64>) = pairs.into_iter().unzip();
        let length = from.iter().max().map_or(0, |last| last + 1);
        let count = |from: &[usize]| {
            let mut counts = vec![0; length];
            for round in from {
                if let Some(count) = counts.get_mut(*round) {
                    *count += 1;
                }
            }
            counts
        };
        let (all, lower) = (count(&from), count(from.split_at(from.len() / 2).0));
        Self { numbers, from, all, lower }
    }

    /// The median where each number counts as often as its round's weight; none where nothing has weight.
    pub fn median(&self, weights: &[u32]) -> Option<f64> {
        let total = weighed(&self.all, weights);
        // The two middle ranks, which are one and the same for an odd total.
        let (lower, upper) = (total.checked_sub(1)? / 2, total / 2);
        let middle = Place { index: self.numbers.len() / 2, below: weighed(&self.lower, weights) };
        let low = self.seek(middle, lower, weights)?;
        let high = self.seek(low, upper, weights)?;
        let (low, high) = (self.numbers.get(low.index)?, self.numbers.get(high.index)?);
        Some(low + (high - low) / 2.0)
    }

    /// The place of the number that has a rank, looked for from another place on.
    fn seek(&self, from: Place, rank: u64, weights: &[u32]) -> Option<Place> {
        let weight = |index: usize| {
            let round = self.from.get(index)?;
            Some(u64::from(weights.get(*round).copied().unwrap_or(0)))
        };
        let Place { mut index, mut below } = from;
        while below > rank {
            index = index.checked_sub(1)?;
            below -= weight(index)?;
        }
        while below + weight(index)? <= rank {
            below += weight(index)?;
            index += 1;
        }
        Some(Place { index, below })
    }
}

/// A number's place, and how much weight lies below it.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    below: u64,
}

fn weighed(counts: &[u32], weights: &[u32]) -> u64 {
    counts.iter().zip(weights).map(|(count, weight)| u64::from(*count) * u64::from(*weight)).sum()
}

/// A statistic of the data themselves and of each resample.
///
/// Kept, so that a ratio of two statistics over the same resamples is a division for each and no further draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Resampled {
    estimate: f64,
    /// How many rounds have a say, counted up to [`FEWEST_ROUNDS`].
    rounds: usize,
    /// NaN where a resample gives no value.
    values: Vec<f64>,
}

/// A statistic: it is handed a weight for each round, which is how often the round was drawn.
pub type Statistic<'s> = &'s dyn Fn(&[u32]) -> Option<f64>;

impl Resampled {
    /// Several statistics over rounds `0..rounds`, all over the same resamples; none where the data themselves give no value.
    pub fn all(rounds: usize, seed: u64, statistics: &[Statistic<'_>]) -> Vec<Option<Self>> {
        let ones = vec![1; rounds];
        let of_data = |statistic: &Statistic<'_>| {
            statistic(&ones).map(|estimate| Self { estimate, rounds: say(rounds, *statistic), values: Vec::new() })
        };
        let mut all: Vec<Option<Self>> = statistics.iter().map(of_data).collect();
        let mut random = Random::new(seed);
        let mut weights = vec![0_u32; rounds];
        for _ in 0..resamples(rounds) {
            weights.fill(0);
            for _ in 0..rounds {
                if let Some(weight) = weights.get_mut(random.below(rounds)) {
                    *weight += 1;
                }
            }
            for (resampled, statistic) in all.iter_mut().zip(statistics) {
                if let Some(resampled) = resampled {
                    resampled.values.push(statistic(&weights).unwrap_or(f64::NAN));
                }
            }
        }
        all
    }

    /// The 95 % percentile interval (Efron 1979). Resamples without a value (none of a cell's rounds was drawn) are left out.
    pub fn interval(&self) -> Option<Interval> {
        interval(self.estimate, self.rounds, self.values.iter().copied())
    }

    /// The interval of the ratio of this statistic to another over the same resamples.
    pub fn ratio(&self, below: &Self) -> Option<Interval> {
        let divided = |above: f64, below: f64| if below > 0.0 { above / below } else { f64::NAN };
        let estimate = divided(self.estimate, below.estimate);
        let values = self.values.iter().zip(&below.values).map(|(above, below)| divided(*above, *below));
        (!estimate.is_nan()).then(|| interval(estimate, self.rounds.min(below.rounds), values))?
    }
}

/// How many rounds give a statistic a value, each by itself; counted up to [`FEWEST_ROUNDS`].
fn say(rounds: usize, statistic: Statistic<'_>) -> usize {
    let mut weights = vec![0; rounds];
    let alone = |round: &usize| {
        weights.fill(0);
        weights.get_mut(*round).is_some_and(|weight| {
            *weight = 1;
            true
        }) && statistic(&weights).is_some()
    };
    (0..rounds).filter(alone).take(FEWEST_ROUNDS).count()
}

fn interval(estimate: f64, rounds: usize, values: impl Iterator<Item = f64>) -> Option<Interval> {
    let values = Sorted::new(values.filter(|value| !value.is_nan()))?;
    if rounds < FEWEST_ROUNDS {
        return Some(Interval::unbounded(estimate));
    }
    Some(Interval { estimate, low: values.quantile(0.025), high: values.quantile(0.975) })
}

/// The 95 % percentile interval of one statistic over rounds `0..rounds`.
pub fn percentile_interval(rounds: usize, seed: u64, statistic: impl Fn(&[u32]) -> Option<f64>) -> Option<Interval> {
    Resampled::all(rounds, seed, &[&statistic]).pop()??.interval()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one_a_round(numbers: &[f64]) -> Rounds {
        Rounds::new(numbers.iter().copied().enumerate())
    }

    #[test]
    fn the_interval_of_six_numbers_is_the_one_counted_by_hand() {
        // A resample of {1, ... 6} has median 1 where it holds at least four 1s: 406 of the 46,656 equally likely draws, or 0.9 %. It has
        // 1.5 or less where it holds at least three 1s and four that are 1 or 2: 1,626 draws, or 3.5 %. So the 2.5 % quantile is 1.5,
        // and the other one lies opposite.
        let numbers = one_a_round(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let interval = percentile_interval(6, 1, |weights| numbers.median(weights)).expect("six numbers");
        assert_eq!(interval, Interval { estimate: 3.5, low: 1.5, high: 5.5 });
    }

    #[test]
    fn fewer_than_six_rounds_have_an_estimate_and_no_interval() {
        let numbers = one_a_round(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        let interval = percentile_interval(5, 1, |weights| numbers.median(weights));
        assert_eq!(interval, Some(Interval::unbounded(3.0)));
        assert!(!Interval::unbounded(3.0).is_bounded());
    }

    #[test]
    fn rounds_that_say_nothing_do_not_count() {
        // Nine rounds, and a cell that was proved in five of them; its ratio to one that was always proved has no more to rest on.
        let seldom = Rounds::new((0..5).map(|round| (round, 1.0)));
        let often = one_a_round(&[2.0; 9]);
        let all = Resampled::all(9, 1, &[&|weights| seldom.median(weights), &|weights| often.median(weights)]);
        let [Some(seldom), Some(often)] = all.as_slice() else { panic!("two statistics") };
        let bounded = |interval: Option<Interval>| interval.expect("a value").is_bounded();
        assert_eq!([bounded(seldom.interval()), bounded(often.interval())], [false, true]);
        assert_eq!([bounded(often.ratio(seldom)), bounded(often.ratio(often))], [false, true]);
    }

    #[test]
    fn the_interval_of_a_median_agrees_with_order_statistics() {
        // For n = 101 distinct numbers the median's exact 95 % interval (binomial, e.g. Conover, section 3.2) runs from rank 41
        // to rank 61; the percentile bootstrap must land within a rank of it.
        let numbers: Vec<f64> = (1..=101).map(f64::from).collect();
        let numbers = one_a_round(&numbers);
        let interval = percentile_interval(101, 7, |weights| numbers.median(weights)).expect("101 numbers");
        assert_eq!(interval.estimate, 51.0);
        assert!((interval.low - 41.0).abs() <= 1.0 && (interval.high - 61.0).abs() <= 1.0, "{interval:?}");
    }

    #[test]
    fn a_ratio_within_rounds_survives_drift() {
        // Both drift tenfold over the run, but b is twice a in every round: pairing by round leaves no doubt about it.
        let drift: Vec<f64> = (0..40).map(|round| 100.0 * (1.0 + f64::from(round) / 4.0)).collect();
        let (a, b) = (one_a_round(&drift), one_a_round(&drift.iter().map(|t| 2.0 * t).collect::<Vec<_>>()));
        let ratio = percentile_interval(40, 3, |weights| Some(b.median(weights)? / a.median(weights)?));
        assert_eq!(ratio, Some(Interval { estimate: 2.0, low: 2.0, high: 2.0 }));
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_and_another_seed_another_draw() {
        let numbers = one_a_round(&(0..50).map(|n| f64::from(n * n % 53)).collect::<Vec<_>>());
        // A mean under weights, which unlike a median changes with nearly every draw.
        let mean = |weights: &[u32]| {
            let weighted = numbers.numbers.iter().zip(&numbers.from);
            Some(weighted.map(|(n, r)| n * f64::from(weights[*r])).sum::<f64>() / 50.0)
        };
        assert_eq!(percentile_interval(50, 11, mean), percentile_interval(50, 11, mean));
        assert_ne!(percentile_interval(50, 11, mean), percentile_interval(50, 12, mean));
    }

    #[test]
    fn no_rounds_give_no_interval() {
        let none = one_a_round(&[]);
        assert_eq!(percentile_interval(0, 1, |weights| none.median(weights)), None);
        assert_eq!(percentile_interval(5, 1, |weights| none.median(weights)), None);
    }

    #[test]
    fn a_ratio_over_shared_resamples_is_the_one_of_a_statistic_of_its_own() {
        let (a, b) = (one_a_round(&[3.0, 5.0, 9.0, 4.0, 6.0, 8.0]), one_a_round(&[1.0, 2.0, 2.5, 7.0, 3.0, 4.5]));
        let alone = percentile_interval(6, 9, |weights| Some(a.median(weights)? / b.median(weights)?));
        let all = Resampled::all(6, 9, &[&|weights| a.median(weights), &|weights| b.median(weights)]);
        let [Some(above), Some(below)] = all.as_slice() else { panic!("two statistics") };
        assert!(alone.is_some_and(|alone| alone.is_bounded()));
        assert_eq!(above.ratio(below), alone);
    }

    #[test]
    fn long_runs_are_drawn_from_less_often_and_short_ones_as_ever() {
        assert_eq!([0, 200, 2_000, 10_000, 100_000].map(resamples), [10_000, 10_000, 10_000, 2_000, 1_000]);
    }

    proptest! {
        #[test]
        fn a_weighted_median_is_the_median_of_the_numbers_repeated(
            pairs in prop::collection::vec((0.0..1e6_f64, 0_u32..4), 1..40),
        ) {
            let rounds = one_a_round(&pairs.iter().map(|(number, _)| *number).collect::<Vec<_>>());
            let weights: Vec<u32> = pairs.iter().map(|(_, weight)| *weight).collect();
            let repeated = pairs.iter().flat_map(|(number, weight)| vec![*number; *weight as usize]);
            match (rounds.median(&weights), Sorted::new(repeated)) {
                (Some(weighted), Some(repeated)) => prop_assert!((weighted - repeated.median()).abs() < 1e-6),
                (weighted, repeated) => prop_assert!(weighted.is_none() && repeated.is_none()),
            }
        }
    }
}
