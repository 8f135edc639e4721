//! `isolab-ctr`'s containers: their whole life, what they print, who talks to them, and what is left when a command is
//! killed in the middle of it.
//!
//! No network is needed: everything stands on busybox.

mod checkpoint;
mod crash;
mod flags;
mod hogs;
mod lab;
mod life;
mod logs;
#[path = "../container/needs.rs"]
mod needs;
mod table;
mod talk;

use libtest_mimic::Arguments;

fn main() {
    let groups = [
        life::trials(),
        logs::trials(),
        talk::trials(),
        flags::trials(),
        crash::trials(),
        checkpoint::trials(),
        hogs::trials(),
        table::trials(),
    ];
    let conclusion = libtest_mimic::run(&Arguments::from_args(), groups.into_iter().flatten().collect());
    lab::tidy();
    conclusion.exit();
}
