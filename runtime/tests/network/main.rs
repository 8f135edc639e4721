//! Networks of containers, with real packets: `isolab_runtime::network` with bare namespaces as containers.
//!
//! Each trial makes a network namespace and takes it for the host, so that bridges, packet rules and what a host forwards
//! are its own, meet no other trial, and are gone with it.

mod across;
#[path = "../container/checks.rs"]
mod checks;
mod crowd;
mod engine;
mod faults;
mod lab;
mod life;
mod many;
#[path = "../container/needs.rs"]
mod needs;
mod neighbour;
mod pool;
mod ports;
#[path = "../container/printed.rs"]
mod printed;
mod remains;
mod rules;
mod service;
mod through;
mod user;

use libtest_mimic::Arguments;

fn main() {
    let groups = [
        across::trials(),
        ports::trials(),
        remains::trials(),
        rules::trials(),
        many::trials(),
        user::trials(),
        engine::trials(),
        life::trials(),
        neighbour::trials(),
        faults::trials(),
        pool::trials(),
        crowd::trials(),
        service::trials(),
        through::trials(),
    ];
    libtest_mimic::run(&Arguments::from_args(), groups.into_iter().flatten().collect()).exit();
}
