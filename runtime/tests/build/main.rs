//! Builds: `isolab-ctr build` and `run`, alone and beside buildah, which has to come to the same files and the same
//! configuration from the same Dockerfile.
//!
//! No network is needed: everything stands on busybox, copied into an image from scratch. The one trial that fetches
//! packages is shown as ignored unless `ISOLAB_REQUIRE` names `debian`.

mod buildah;
mod debian;
mod failures;
mod instructions;
mod lab;
mod mounts;
#[path = "../container/needs.rs"]
mod needs;
mod running;
mod tree;

use libtest_mimic::Arguments;

fn main() {
    let groups = [
        buildah::trials(),
        instructions::trials(),
        running::trials(),
        mounts::trials(),
        failures::trials(),
        debian::trials(),
    ];
    libtest_mimic::run(&Arguments::from_args(), groups.into_iter().flatten().collect()).exit();
}
