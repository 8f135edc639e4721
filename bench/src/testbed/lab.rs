//! The lab's main job, run in a testbed.

use std::path::{Path, PathBuf};

use isolab_reports::folder;

use crate::host::roots::Roots;
use crate::host::tools;
use crate::subject::{PeerPath, kernel_in, program_of};

use super::{Config, Forward, TestbedError};

/// Peers that a testbed can start: those that are one program, and a file or two.
const PEERS: [&str; 6] = ["runc", "crun", "bwrap", "firecracker", "qemu-microvm", "cloud-hypervisor"];

/// The firmware of QEMU's microVMs, where Debian keeps it; and where QEMU looks for it in the machine, beside the folder that it
/// lies in itself.
pub const FIRMWARE: [&str; 2] = ["/usr/share/qemu/qboot.rom", "/share/qemu/qboot.rom"];

/// Where the lab in the machine looks for its files: there it is root's.
const DATA: &str = "/var/lib/isolab";

/// Measures in a testbed with these arguments of `isolab-bench run`, and puts the report into the folder `out`. This host's
/// peers come along, and its kernel for guests. Returns the exit status of the run.
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
    let found = found.filter_map(|name| Some((name, tools::find(program_of(name))?)));
    // Under their programs' names: the folder of forwarded files is the first on PATH there.
    let forward = |(name, host)| Forward { host, guest: Some(program_of(name).into()) };
    config.forward = named.chain(found).map(forward).collect();
    config.forward.extend(firmware());
    config.forward.extend(guests_kernel(&Roots::of_user().data)?);
    super::run(&config)
}

fn firmware() -> Option<Forward> {
    let [host, guest] = FIRMWARE.map(PathBuf::from);
    host.is_file().then_some(Forward { host, guest: Some(guest) })
}

/// The kernel for guests, to the place where it has on this host: the testbed's own comes along for them too.
fn guests_kernel(data: &Path) -> Result<Option<Forward>, TestbedError> {
    // A first run would find none to take along: the machine's kernel is fetched when it is started.
    let kept = super::Kernel::kept(&data.join("testbed"))?;
    let host = kernel_in(data).unwrap_or(kept.image);
    let guest = host.strip_prefix(data).ok().map(|place| Path::new(DATA).join(place));
    Ok(guest.map(|guest| Forward { host, guest: Some(guest) }))
}
