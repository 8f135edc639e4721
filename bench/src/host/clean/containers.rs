//! Containers whose runtime was killed while it stood by them.

use std::fs;
use std::path::{Path, PathBuf};

use isolab_runtime::container::{ContainerId, Runtime};

use super::super::roots::Roots;
use super::{BENCH, Cleaned, Kind, owner_in};

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
    let runtime = Runtime::new(root, |_| {});
    for id in of_dead_benches(&states) {
        // Also one that was killed between its first two calls, which the runtime itself leaves alone for a while: another
        // runtime could be about to make its second. Nobody is, where the bench that chose the name is dead.
        let outcome = runtime.delete(&id, true).map_err(|error| crate::chain(&error));
        cleaned.note(Kind::Container, states.join(id.as_str()).display().to_string(), outcome);
    }
    match runtime.prune() {
        Ok(ids) => {
            for id in ids {
                cleaned.note(Kind::Container, states.join(id.as_str()).display().to_string(), Ok::<_, String>(()));
            }
        }
        Err(error) => cleaned.note(Kind::Container, states.display().to_string(), Err(crate::chain(&error))),
    }
    // Only where it is empty; the next container's runtime makes it again.
    let _ = fs::remove_dir(&states);
}

/// The containers that a dead bench started: by now its runtimes have been ended too.
fn of_dead_benches(states: &Path) -> Vec<ContainerId> {
    let entries = fs::read_dir(states).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let dead = |name: &String| owner_in(name, BENCH).is_some_and(|owner| !owner.alive());
    names.filter(dead).filter_map(|name| name.parse().ok()).collect()
}
