//! Results in, pages out: the schema of a run, the statistics over it, and the report that is drawn from them.
//!
//! Everything here is pure: values in, values or text out. Files are read and written by the commands.

#![cfg_attr(test, expect(clippy::float_cmp, reason = "known answers are exact"))]

pub mod analysis;
pub mod model;
pub mod phases;
pub mod read;
pub mod series;
pub mod stats;
pub mod units;
pub mod verdict;
