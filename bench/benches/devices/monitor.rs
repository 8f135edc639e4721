//! The monitors, and the machine that both make.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use isolab_bench::host::roots::Roots;
use isolab_bench::subject::qemu_microvm;
use isolab_bench::testbed::fetched;
use isolab_runtime::image::{DiskFormat, write_disk};
use serde_json::json;

use super::guest::{DONE, IN_THE_GUEST, TOOK};
use super::host::Cable;
use super::smaps::Resident;
use super::{Done, command, word};

/// In the order of a table's columns.
pub(crate) const MONITORS: [Monitor; 2] = [Monitor::Isolab, Monitor::Qemu];

/// The drivers of the machine's devices, with all that they need of others.
const DRIVERS: [&str; 7] = [
    "virtio.ko",
    "virtio_ring.ko",
    "virtio_mmio.ko",
    "virtio_blk.ko",
    "virtio_net.ko",
    "net_failover.ko",
    "failover.ko",
];

/// MiB of a machine.
const MEMORY: &str = "256";
/// The same in KiB.
const RAM: u64 = 256 << 10;
/// No bus is searched that no machine here has, and nothing is printed but what the guest's half prints.
const LINE: &str = "console=ttyS0 loglevel=1 panic=-1 pci=off reboot=t";
/// How long one machine may take, in an emulated machine on a loaded host.
const PATIENCE: Duration = Duration::from_mins(2);

/// What every machine here stands on.
pub(crate) struct Ground {
    pub(crate) kernel: PathBuf,
    /// A folder with the kernel's modules, at any depth.
    pub(crate) modules: PathBuf,
}

impl Ground {
    /// The kernel that the testbed keeps.
    pub(crate) fn of_the_testbed() -> Done<Self> {
        let kernel = fetched(&Roots::of_user().data.join("testbed"));
        let kernel = kernel.ok_or("there is no kernel for guests: isolab-bench testbed -- true fetches one")?;
        let modules = kernel.parent().ok_or("a kernel lies in a folder")?.join("../lib/modules");
        Ok(Self { kernel, modules })
    }

    /// Copies the drivers into a folder.
    pub(crate) fn drivers(&self, to: &Path) -> Done<()> {
        fs::create_dir_all(to)?;
        let mut folders = vec![self.modules.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)?.flatten() {
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if DRIVERS.iter().any(|name| entry.file_name() == *name) {
                    fs::copy(entry.path(), to.join(entry.file_name()))?;
                }
            }
        }
        Ok(())
    }

    /// The initial file system: `isolab-init`, the drivers, and this program, which is told where the host listens.
    pub(crate) fn pack(&self, folder: &Path, cable: &Cable, [source, sink]: [u16; 2]) -> Done<PathBuf> {
        let tree = folder.join("tree");
        self.drivers(&tree.join("modules"))?;
        fs::create_dir_all(tree.join("bin"))?;
        fs::copy(command("isolab-init")?, tree.join("init"))?;
        fs::copy(std::env::current_exe()?, tree.join("bin/devices"))?;
        let at = |port: u16| format!("{}:{port}", cable.host());
        let init = json!({
            "network": {"interface": "eth0", "address": format!("{}/30", cable.guest())},
            "process": {"args": ["/bin/devices", IN_THE_GUEST, at(source), at(sink)]},
        });
        fs::write(tree.join("isolab.json"), init.to_string())?;
        let initrd = folder.join("initrd");
        write_disk(&[tree], DiskFormat::Initramfs, None, &initrd)?;
        Ok(initrd)
    }
}

/// A program that makes a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Monitor {
    Isolab,
    Qemu,
}

impl Monitor {
    fn command(self, ground: &Ground, initrd: &Path, disk: &Path, tap: &str) -> Done<Command> {
        let [kernel, initrd, disk] = [&ground.kernel, initrd, disk].map(word);
        let (program, words) = match self {
            Self::Isolab => {
                let mut words = vec!["run".to_owned(), "--kernel".to_owned(), kernel, "--initrd".to_owned(), initrd];
                let more = ["--cmdline", LINE, "--memory", MEMORY, "--net", &format!("tap={tap}"), "--disk", &disk];
                words.extend(more.map(str::to_owned));
                (command("isolab-vm")?, words)
            }
            Self::Qemu => {
                let mut words = qemu_microvm(MEMORY).to_vec();
                let drive = format!("file={disk},format=raw,if=none,id=disk,cache=writeback");
                let card = format!("tap,id=card,ifname={tap},script=no,downscript=no,vhost=off");
                words.extend(["-drive", &drive, "-device", "virtio-blk-device,drive=disk"]);
                words.extend(["-netdev", &card, "-device", "virtio-net-device,netdev=card"]);
                words.extend(["-kernel", &kernel, "-initrd", &initrd, "-append", LINE]);
                ("qemu-system-x86_64".into(), words.into_iter().map(str::to_owned).collect())
            }
        };
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(command)
    }

    /// Boots the machine. What its guest did, and how long each took in nanoseconds; and how much memory the monitor had at the end
    /// beside the guest's, in KiB.
    pub(crate) fn run(
        self,
        ground: &Ground,
        initrd: &Path,
        disk: &Path,
        cable: &Cable,
    ) -> Done<(Vec<(String, u64)>, u64)> {
        let child = self.command(ground, initrd, disk, &cable.tap)?.spawn();
        let mut child = child.map_err(|error| format!("cannot start {self:?}'s monitor: {error}"))?;
        let told = cable.switch_on().and_then(|()| Ok((listen(&mut child)?, Resident::of(child.id(), RAM)?.others)));
        // It has said all, or never will; and its tap goes with it.
        child.kill()?;
        child.wait()?;
        told.map_err(|error| format!("{self:?}: {error}").into())
    }
}

/// What the guest's half says, until it says that it is done.
fn listen(child: &mut Child) -> Done<Vec<(String, u64)>> {
    let output = child.stdout.take().ok_or("no output")?;
    let (sender, lines) = channel();
    // Ends with the machine's output.
    thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let deadline = Instant::now() + PATIENCE;
    let (mut deeds, mut other) = (Vec::new(), String::new());
    loop {
        let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
            return Err(format!("the guest did not get to its end; it said {deeds:?} and {other}").into());
        };
        match line.trim().strip_prefix(TOOK).map(|told| told.split_whitespace().collect::<Vec<_>>()).as_deref() {
            Some([deed, took]) => deeds.push(((*deed).to_owned(), took.parse()?)),
            _ if line.trim() == DONE => return Ok(deeds),
            _ => other.push_str(&line),
        }
    }
}
