//! How much memory a monitor takes beside that of its guest.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use super::smaps::Resident;
use super::stock::{CMDLINE, busybox, files, initrd, text};
use super::{Done, trial};

/// KiB: the bound of a released monitor. What runs in a build for tests is several times as large, and its code as well.
const MOST: u64 = if cfg!(debug_assertions) { 12 << 10 } else { 4 << 10 };
/// KiB, of what the monitor has written to: none of it is in a file that others share. In a build for tests that hangs on
/// which thread happened to need its deep stack for what: 2 to 3.5 MiB were seen.
const MOST_OWN: u64 = if cfg!(debug_assertions) { 5 << 10 } else { 1 << 10 };
/// KiB, of the guest.
const MEMORY: u64 = 128 << 10;

pub(super) fn trials() -> Vec<Trial> {
    let needs = &["kernel", "busybox", "root"];
    vec![trial("a_monitor_with_disk_and_card_takes_little_memory_beside_its_guest_s", needs, beside)]
}

/// One processor, a disk that has been read and a card that is up.
fn beside() -> Done {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    fs::File::create(&disk)?.set_len(16 << 20)?;
    let script = "busybox dd if=/dev/vda of=/dev/null bs=64k count=64 2>/dev/null; echo up; busybox sleep 100";
    let init = serde_json::json!({
        "network": {"interface": "eth0", "address": "10.111.6.2/24"},
        "process": {"args": ["/bin/busybox", "sh", "-c", script], "env": ["PATH=/bin"]},
    });
    let busybox = busybox().ok_or("no busybox")?;
    let (initrd, (kernel, _)) =
        (initrd(folder.path(), &init, &[(&busybox, "bin/busybox")])?, files().ok_or("no kernel")?);
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-vm"));
    command.args(["run", "--kernel", text(&kernel)?, "--initrd", text(&initrd)?, "--cmdline", CMDLINE]);
    command.args(["--timeout", "120", "--memory", "128", "--disk", text(&disk)?, "--net", "tap=isolabt6"]);
    let mut monitor = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut said = String::new();
    let mut output = BufReader::new(monitor.stdout.take().ok_or("no output")?);
    while !said.ends_with("up\r\n") && !said.ends_with("up\n") && output.read_line(&mut said)? > 0 {}
    let found = Resident::of(monitor.id(), MEMORY);
    monitor.kill()?;
    monitor.wait()?;
    let found = found?;
    assert!(found.guest > 16 << 10, "{found:?}: {said}");
    assert!(found.others <= MOST && found.own <= MOST_OWN, "{found:?}");
    Ok(())
}
