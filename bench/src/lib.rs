//! Processes, containers and microVMs on one clock.
//!
//! | module | noun |
//! |---|---|
//! | [`subject`] | what can be started, one file a thing; the clock of one start |
//! | [`job`] | the main job: from a request to a record |
//! | [`suite`] | what is measured: cells, and how they are told of afterwards |
//! | [`plan`], [`runner`] | which start comes when, and making them so |
//! | [`record`], [`summary`] | `run.json`; what a user is told at once |
//! | [`host`] | the host's record, its noise, and what killed runs left on it |

pub mod clock;
pub mod host;
pub mod interrupt;
pub mod job;
pub mod payload;
pub mod plan;
mod progress;
pub mod record;
pub mod runner;
pub mod scratch;
pub mod siblings;
pub mod subject;
pub mod suite;
pub mod summary;
pub mod testbed;

pub use isolab_runtime::chain;
