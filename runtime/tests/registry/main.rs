//! Registries with real peers: others' clients on ours, our client on Debian's, and a registry that lies.

mod chapter;
#[path = "../container/checks.rs"]
mod checks;
mod client;
mod lab;
mod liar;
mod life;
#[path = "../container/needs.rs"]
mod needs;
#[path = "../container/printed.rs"]
mod printed;
mod server;
mod spec;
mod storms;
mod token;

use libtest_mimic::Arguments;

fn main() {
    let arguments = Arguments::from_args();
    let groups = [
        server::trials(),
        spec::trials(),
        token::trials(),
        storms::trials(),
        client::trials(),
        liar::trials(),
        life::trials(),
        chapter::trials(),
    ];
    libtest_mimic::run(&arguments, groups.into_iter().flatten().collect()).exit();
}
