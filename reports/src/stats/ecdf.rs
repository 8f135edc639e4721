//! The empirical distribution: for each time, the share of starts that were ready by then.

use super::Sorted;

/// One step of the staircase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// A number that occurs.
    pub at: f64,
    /// The share of all numbers that are not above it, in 0..=1.
    pub share: f64,
}

/// The steps, ascending; equal numbers make one step.
pub fn ecdf(numbers: &Sorted) -> Vec<Step> {
    let count = numbers.len() as f64;
    let mut steps: Vec<Step> = Vec::new();
    for (rank, number) in numbers.as_slice().iter().enumerate() {
        let share = (rank + 1) as f64 / count;
        match steps.last_mut() {
            Some(step) if step.at >= *number => step.share = share,
            _ => steps.push(Step { at: *number, share }),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_steps_are_those_drawn_by_hand() {
        let numbers = Sorted::new([3.0, 1.0, 3.0, 2.0]).expect("finite");
        let by_hand = [(1.0, 0.25), (2.0, 0.5), (3.0, 1.0)].map(|(at, share)| Step { at, share });
        assert_eq!(ecdf(&numbers), by_hand);
    }

    proptest! {
        #[test]
        fn it_climbs_to_exactly_one(numbers in prop::collection::vec(0.0..1e3_f64, 1..80)) {
            let steps = ecdf(&Sorted::new(numbers).expect("finite"));
            prop_assert!(steps.windows(2).all(|pair| pair[0].at < pair[1].at && pair[0].share < pair[1].share));
            prop_assert_eq!(steps.last().map(|step| step.share), Some(1.0));
        }
    }
}
