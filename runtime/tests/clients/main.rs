//! `isolab-oci` below the engines that people use: dockerd, podman and containerd, each a private one of this test's own,
//! with its files in a folder that goes with it.
//!
//! A trial whose engine is missing here is shown as ignored, with its name; where `ISOLAB_REQUIRE` lists it, it runs and
//! fails instead.

#[path = "../container/checks.rs"]
mod checks;
mod containerd;
mod docker;
#[path = "../container/needs.rs"]
mod needs;
mod podman;
mod scratch;

use std::fs;
use std::path::Path;

use libtest_mimic::Arguments;

/// Folders that the daemons make outside of those that they are told to use; the deepest first.
const MADE_ANYWAY: [&str; 5] =
    ["/run/containerd/fifo", "/run/containerd/s", "/run/containerd", "/run/docker/plugins", "/run/docker"];

fn main() {
    let arguments = Arguments::from_args();
    let new: Vec<&str> = MADE_ANYWAY.into_iter().filter(|folder| !Path::new(folder).exists()).collect();
    let groups = [docker::trials(), podman::trials(), containerd::trials()];
    let conclusion = libtest_mimic::run(&arguments, groups.into_iter().flatten().collect());
    docker::end();
    for folder in new {
        // Only an empty one can be removed, and one that is not is in somebody else's use by now.
        drop(fs::remove_dir(folder));
    }
    conclusion.exit();
}
