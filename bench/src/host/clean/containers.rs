//! Containers whose runtime was killed while it stood by them.

use std::error::Error;
use std::path::{Path, PathBuf};

use isolab_runtime::container::Runtime;

use super::super::roots::Roots;
use super::{Cleaned, Kind};

/// Removes the remnants below the runtime root, and below each dead scratch folder: a bench may keep a root of its own there.
///
/// What is a remnant is for the runtime to say: a container that was created and left to run has no runtime beside it,
/// and lives.
pub(super) fn prune(roots: &Roots, scratches: &[PathBuf], cleaned: &mut Cleaned) {
    for root in [&roots.runtime].into_iter().chain(scratches) {
        prune_below(root, cleaned);
    }
}

fn prune_below(root: &Path, cleaned: &mut Cleaned) {
    let states = root.join("oci");
    // A cleaner has nothing to say of what a container lacks.
    let pruned = Runtime::new(root, |_| {}).prune();
    match pruned {
        Ok(ids) => {
            for id in ids {
                cleaned.note(Kind::Container, states.join(id.as_str()).display().to_string(), Ok::<_, String>(()));
            }
        }
        Err(error) => cleaned.note(Kind::Container, states.display().to_string(), Err(chain(&error))),
    }
}

/// An error with all that caused it.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
