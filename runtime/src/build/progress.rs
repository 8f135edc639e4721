//! What a build tells while it goes on.

use std::time::Duration;

/// Who hears of it.
pub trait Progress {
    /// A step begins: the stage's name, the step's number and how many there are, the instruction.
    fn step(&self, stage: &str, number: usize, of: usize, text: &str);
    /// It had been done before.
    fn cached(&self);
    /// It is done; with the layer that came of it, and its size in bytes.
    fn done(&self, took: Duration, layer: Option<(&str, u64)>);
    /// What a user should know though it works.
    fn warn(&self, text: &str);
    /// Whether what programs of the build print shall be seen.
    fn shows_output(&self) -> bool;
}

/// Nobody.
#[derive(Debug)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: &str, _: usize, _: usize, _: &str) {}
    fn cached(&self) {}
    fn done(&self, _: Duration, _: Option<(&str, u64)>) {}
    fn warn(&self, _: &str) {}
    fn shows_output(&self) -> bool {
        false
    }
}
