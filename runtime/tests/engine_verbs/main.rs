//! The verbs around containers: volumes, formats, copies, changes, commits, clones, counts and events, as a user types them,
//! and beside podman where both must say the same.

mod files;
mod format;
mod killed;
mod killed_live;
mod lab;
#[path = "../container/needs.rs"]
mod needs;
mod users;
mod volumes;
mod watch;
mod whole;

use libtest_mimic::Arguments;

fn main() {
    let groups = [
        volumes::trials(),
        format::trials(),
        files::trials(),
        watch::trials(),
        whole::trials(),
        killed::trials(),
        killed_live::trials(),
        users::trials(),
    ];
    libtest_mimic::run(&Arguments::from_args(), groups.into_iter().flatten().collect()).exit();
}
