//! Snapshots of machines: what goes on, what is new in each that goes on, and what is refused.
//!
//! The guest is `tests/programs/teller.c`, which keeps a nonce and a counter in memory and tells them when asked: whoever
//! tells them right has that memory. A trial that needs what is missing is ignored and says so, or fails where
//! `ISOLAB_REQUIRE` names it.

mod answers;
#[path = "snapshot/bad.rs"]
mod bad;
#[path = "snapshot/changes.rs"]
mod changes;
#[path = "snapshot/confined.rs"]
mod confined;
#[path = "snapshot/crashes.rs"]
mod crashes;
#[path = "snapshot/goes_on.rs"]
mod goes_on;
#[path = "snapshot/kills.rs"]
mod kills;
mod machines;
#[path = "snapshot/named.rs"]
mod named;
mod needs;
#[path = "snapshot/rests.rs"]
mod rests;
#[path = "snapshot/served.rs"]
mod served;
#[path = "snapshot/travels.rs"]
mod travels;
mod walls;

use libtest_mimic::Arguments;

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = goes_on::trials();
    trials.extend(changes::trials());
    trials.extend(bad::trials());
    trials.extend(named::trials());
    trials.extend(crashes::trials());
    trials.extend(kills::trials());
    trials.extend(served::trials());
    trials.extend(rests::trials());
    trials.extend(travels::trials());
    trials.extend(confined::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    machines::clean_up();
    conclusion.exit();
}
