//! Results in, pages out: the schema of a run, the statistics over it, and the report that is drawn from them.
//!
//! Everything here is pure: values in, values or text out. Files are read and written by the commands.

pub mod model;
pub mod stats;
