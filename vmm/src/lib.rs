//! MicroVMs: a monitor small enough to read, and what can be put inside.
//!
//! A virtual machine is three things: memory that a guest takes for its RAM ([`memory`]), a processor that KVM runs on the
//! real one ([`vcpu`]), and somebody who answers when the guest does what neither can do ([`machine`]). [`guest`] is what
//! can be put inside; [`spans`] records each step, so that a start can be read as a lesson and measured as a benchmark.
//!
//! Begin reading at [`machine::Machine::boot`].

pub mod api;
pub mod confine;
pub mod devices;
pub mod guest;
pub mod interface;
mod kvm;
pub mod machine;
pub mod memory;
pub mod named;
mod random;
pub mod serve;
pub mod snapshot;
pub mod spans;
pub mod travel;
pub mod units;
pub mod vcpu;

pub use kvm::KvmError;

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
