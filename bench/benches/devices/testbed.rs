//! The same in an emulated machine with a stock KVM.

use std::process::{Command, Stdio};

use super::monitor::Ground;
use super::{BESIDE, Done, command, word};

/// The emulator came to a stand (`docs/src/testbed.md`): that says nothing about what ran in it.
const STOOD: i32 = 75;
/// How often another machine is tried then.
const TRIES: usize = 3;
/// The firmware of QEMU's microVMs, where Debian keeps it.
const FIRMWARE: &str = "/usr/share/qemu/qboot.rom";

/// Has the testbed run this program beside all that it needs.
pub(crate) fn compare(ground: &Ground) -> Done<()> {
    let folder = tempfile::Builder::new().prefix("isolab-devices-").tempdir()?;
    ground.drivers(folder.path())?;
    let own = std::env::current_exe()?;
    let mut forwards =
        vec![format!("{}=/forward/devices", word(&own)), format!("{}=/guest/modules", word(folder.path()))];
    forwards.push(format!("{}=/guest/kernel", word(&ground.kernel)));
    forwards.push(format!("{FIRMWARE}=/share/qemu/qboot.rom"));
    for name in ["isolab-vm", "isolab-init"] {
        forwards.push(format!("{}=/forward/{name}", word(&command(name)?)));
    }
    let qemu = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|folder| folder.join("qemu-system-x86_64")).find(|file| file.is_file())
    });
    forwards
        .push(format!("{}=/forward/qemu-system-x86_64", word(&qemu.ok_or("there is no qemu-system-x86_64 on PATH")?)));
    eprintln!("this host's KVM runs no kernel: in the testbed, where only the ratios mean anything");
    for _ in 0..TRIES {
        let mut bench = Command::new(command("isolab-bench")?);
        bench.args(["testbed", "--memory", "4096", "--timeout", "20m"]);
        bench.args(forwards.iter().flat_map(|forward| ["--forward", forward]));
        bench.args(["--", "devices", BESIDE, "/guest/kernel", "/guest/modules"]).stdin(Stdio::null());
        match bench.status()?.code() {
            Some(0) => return Ok(()),
            Some(STOOD) => eprintln!("once more, in another machine"),
            _ => return Err("nothing was measured".into()),
        }
    }
    Err("the emulator stood still each time".into())
}
