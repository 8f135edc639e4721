//! Processes, containers and microVMs on one clock.

pub mod payload;
