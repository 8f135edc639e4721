//! The lab's main job, run in a testbed.

use std::path::Path;

use isolab_reports::folder;

use crate::host::tools;
use crate::subject::PeerPath;

use super::{Config, Forward, TestbedError};

/// Peers that a testbed can start: those that are one program.
const PEERS: [&str; 3] = ["runc", "crun", "bwrap"];

/// Measures in a testbed with these arguments of `isolab-bench run`, and puts the report into the folder `out`. This host's
/// peers come along. Returns the exit status of the run.
///
/// The report says by itself that its machine was emulated: the machine's CPU says so.
pub fn run_lab(arguments: Vec<String>, peers: &[PeerPath], out: &Path) -> Result<i32, TestbedError> {
    // Before minutes are spent.
    folder::check(out)?;
    let mut command = ["isolab-bench", "run", "--out", "/out"].map(str::to_owned).to_vec();
    command.extend(arguments);
    let mut config = Config { out: out.to_owned(), ..Config::new(command) };
    let named = peers.iter().map(|peer| (peer.name(), peer.path().to_owned()));
    let found = PEERS.into_iter().filter(|name| !peers.iter().any(|peer| peer.name() == *name));
    let found = found.filter_map(|name| Some((name, tools::find(name)?)));
    // Under their names: the folder of forwarded files is the first on PATH there.
    config.forward = named.chain(found).map(|(name, host)| Forward { host, guest: Some(name.into()) }).collect();
    super::run(&config)
}
