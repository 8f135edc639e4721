//! Everything that is decided about a container, and nothing of it done: what a configuration with anything in it is tried
//! with, since a container of it would do to the host whatever it says.

use std::path::Path;

use nix::sys::signal::SigSet;

use super::bundle::Bundle;
use super::error::ContainerError;
use super::id::ContainerId;
use super::limits::Limits;
use super::plan::{Plan, Start};
use super::state::Record;

/// Reads a bundle and plans a container of it, as [`super::Runtime::run`] does before it makes anything. Answers the
/// warnings that a user would see.
///
/// # Errors
/// What that run would fail with before its first step.
pub fn rehearse(id: &ContainerId, folder: &Path) -> Result<Vec<String>, ContainerError> {
    let bundle = Bundle::load(folder)?;
    let mut warnings = bundle.warnings().to_vec();
    let limits = Limits::plan(id, &bundle, &mut warnings)?;
    let record = Record::new(id, &bundle, limits.path());
    Plan::new(&bundle, &limits, &record, Start::AtOnce, SigSet::empty(), &mut warnings)?;
    Ok(warnings)
}
