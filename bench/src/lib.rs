//! Processes, containers and microVMs on one clock.

pub mod host;
pub mod payload;
