//! The same in an emulated machine with a stock KVM.

use std::process::{Command, Stdio};

use isolab_bench::testbed::{FIRMWARE, STANDS};

use super::monitor::Ground;
use super::{BESIDE, Done, command, word};

/// How often another machine is tried then.
const TRIES: usize = 3;

/// Has the testbed run this program beside all that it needs.
pub(crate) fn compare(ground: &Ground) -> Done<()> {
    let folder = tempfile::Builder::new().prefix("isolab-devices-").tempdir()?;
    ground.drivers(folder.path())?;
    let own = std::env::current_exe()?;
    let mut forwards =
        vec![format!("{}=/forward/devices", word(&own)), format!("{}=/guest/modules", word(folder.path()))];
    forwards.push(format!("{}=/guest/kernel", word(&ground.kernel)));
    forwards.push(FIRMWARE.join("="));
    for name in ["isolab-vm", "isolab-init", "qemu-system-x86_64"] {
        forwards.push(format!("{}=/forward/{name}", word(&command(name)?)));
    }
    eprintln!("this host's KVM runs no kernel: in the testbed, where only the ratios mean anything");
    for _ in 0..TRIES {
        let mut bench = Command::new(command("isolab-bench")?);
        bench.args(["testbed", "--memory", "4096", "--timeout", "20m"]);
        bench.args(forwards.iter().flat_map(|forward| ["--forward", forward]));
        bench.args(["--", "devices", BESIDE, "/guest/kernel", "/guest/modules"]).stdin(Stdio::null());
        match bench.status()?.code() {
            Some(0) => return Ok(()),
            // The emulator came to a stand (`docs/src/testbed.md`): that says nothing about what ran in it.
            Some(status) if status == i32::from(STANDS) => eprintln!("once more, in another machine"),
            _ => return Err("nothing was measured".into()),
        }
    }
    Err("the emulator stood still each time".into())
}
