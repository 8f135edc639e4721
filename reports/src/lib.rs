//! Results in, pages out: the schema of a run, the statistics over it, and the report that is drawn from them.
//!
//! Everything here is pure: values in, values or text out. Only [`criterion`], [`folder`] and [`pdf`] touch files.

#![cfg_attr(test, expect(clippy::float_cmp, reason = "known answers are exact"))]

pub mod analysis;
pub mod answers;
pub mod chart;
pub mod compare;
pub mod copies;
pub mod criterion;
pub mod density;
pub mod export;
pub mod figures;
pub mod folder;
pub mod hosts;
pub mod model;
mod page;
pub mod pdf;
pub mod phases;
pub mod read;
pub mod report;
pub mod series;
pub mod stats;
pub mod tables;
mod text;
pub mod units;
pub mod verdict;
pub mod words;
