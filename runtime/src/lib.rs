//! Containers, from a bundle or an image to a running process and back.
//!
//! [`container`] is what the kernel does for one: namespaces, cgroups, a root file system, fewer rights. [`spans`] records
//! each step, so that a start can be read as a lesson and measured as a benchmark.

pub mod build;
pub mod container;
pub mod engine;
#[cfg(feature = "fault")]
pub mod faults;
pub mod image;
pub mod network;
pub mod registry;
pub mod spans;

/// An error with all that caused it, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Some errors tell their cause themselves.
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
