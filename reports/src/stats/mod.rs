//! The statistics of a report: pure functions over plain numbers, each tested against known answers.
//!
//! Start-up times have a long right tail, so everything here rests on ranks: medians, quantiles, and intervals from
//! resampling. Nothing assumes a bell curve and nothing drops a value.

mod bootstrap;
mod ecdf;
mod fieller;
mod holm;
mod ols;
mod permutation;
mod random;
mod sorted;
mod student;
mod tukey;

pub use bootstrap::{FEWEST_ROUNDS, Interval, RESAMPLES, Resampled, Rounds, Statistic, percentile_interval, resamples};
pub use ecdf::{Step, ecdf};
pub use fieller::ratio_of;
pub use holm::holm;
pub use ols::{Estimate, Line, ols};
pub use permutation::{PERMUTATIONS, permutation_test};
pub use random::Random;
pub use sorted::Sorted;
pub use student::student_quantile;
pub use tukey::{Fences, Outlier};
