//! Other monitors with the machine of `microvm-linux`: the same kernel, the same initial file system, as much memory, one
//! processor, a serial port, and no device besides.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use isolab_reports::model::Role;
use serde_json::json;

use super::super::catalogue::LeftOut;
use super::super::launch::Launch;
use super::super::linux::{Ground, command_line, launch};
use super::super::microvm::MEMORY;
use super::super::{About, Lab, Nonce, Subject};
use super::Peers;

/// A monitor, and how it is told what to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Qemu,
    Firecracker,
    CloudHypervisor,
}

impl Kind {
    /// The peer whose program it is.
    fn peer(self) -> &'static str {
        match self {
            Self::Qemu => "qemu-microvm",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Qemu => {
                "QEMU's machine for microVMs, without the old interrupt controller, timer and clock, by its smallest firmware \
                 (qboot); the kernel, image and memory of microvm-linux."
            }
            Self::Firecracker => "Firecracker without its API socket; the kernel, image and memory of microvm-linux.",
            Self::CloudHypervisor => "Cloud Hypervisor; the kernel, image and memory of microvm-linux.",
        }
    }

    /// What the kernel is told besides: by which wire the machine is restarted, which each takes for its end but the last,
    /// where the payload switches it off.
    fn words(self) -> &'static str {
        match self {
            Self::Qemu => "reboot=t",
            Self::Firecracker => "reboot=k",
            Self::CloudHypervisor => "rdinit=/init-off",
        }
    }

    /// The command's arguments; `file` is a machine described in a file, for the one that wants that.
    fn arguments(self, ground: &Ground, file: &Path, nonce: &str) -> Vec<OsString> {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let line = command_line(self.words(), nonce).into();
        let (kernel, initrd) = (ground.kernel.clone().into(), ground.initrd.clone().into());
        match self {
            Self::Qemu => {
                let mut all = words(&qemu_microvm(MEMORY));
                all.extend(["-kernel".into(), kernel, "-initrd".into(), initrd, "-append".into(), line]);
                all
            }
            Self::Firecracker => {
                let mut all = words(&["--no-api", "--level", "Error", "--config-file"]);
                all.push(file.into());
                all
            }
            Self::CloudHypervisor => {
                let memory = format!("size={MEMORY}M");
                let mut all = words(&["--cpus", "boot=1", "--memory", &memory, "--serial", "tty", "--console", "off"]);
                all.extend(["--kernel".into(), kernel, "--initramfs".into(), initrd, "--cmdline".into(), line]);
                all
            }
        }
    }
}

/// QEMU's machine for microVMs with so many MiB of memory, one processor and a serial port that is this command's input and output: the
/// arguments besides those that say what it boots and which devices it has.
#[must_use]
pub fn qemu_microvm(memory: &str) -> [&str; 17] {
    let machine = "microvm,accel=kvm,pic=off,pit=off,rtc=off,x-option-roms=off";
    [
        "-machine",
        machine,
        "-cpu",
        "host",
        "-m",
        memory,
        "-smp",
        "1",
        "-bios",
        "qboot.rom",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
    ]
}

pub(in super::super) struct LinuxMonitor<'a> {
    lab: &'a Lab,
    about: About,
    program: PathBuf,
    ground: &'a Ground,
    kind: Kind,
}

impl<'a> LinuxMonitor<'a> {
    pub(in super::super) fn new(name: &'static str, lab: &'a Lab, peers: &Peers) -> Result<Self, LeftOut> {
        let kind = match name {
            "firecracker-linux" => Kind::Firecracker,
            "cloud-hypervisor" => Kind::CloudHypervisor,
            _ => Kind::Qemu,
        };
        let (program, version) = peers.find(kind.peer()).map_err(|missing| LeftOut { name, ..missing })?;
        let ground = Ground::of(lab, name)?;
        if kind == Kind::Firecracker && !is_elf(&ground.kernel) {
            let reason = format!("it boots no bzImage, and {} is one", ground.kernel.display());
            return Err(LeftOut::new(name, reason, "put a vmlinux into the lab's data folder, as kernel/vmlinux"));
        }
        let named = Ground { kernel: "KERNEL".into(), initrd: "INITRD".into() };
        let words = kind.arguments(&named, Path::new("{}"), "{}");
        let command = std::iter::once(super::program(kind.peer()).to_owned());
        let command = command.chain(words.iter().map(|word| word.to_string_lossy().into_owned())).collect();
        let about = About { name, role: Role::Peer, about: kind.about(), command, version };
        Ok(Self { lab, about, program, ground, kind })
    }

    /// Firecracker is told by a file.
    fn describe(&self, file: &Path, nonce: &Nonce) -> std::io::Result<()> {
        let memory: u32 = MEMORY.parse().unwrap_or(128);
        let machine = json!({
            "boot-source": {
                "kernel_image_path": self.ground.kernel,
                "initrd_path": self.ground.initrd,
                "boot_args": command_line(self.kind.words(), &nonce.to_string()),
            },
            "drives": [],
            "machine-config": { "vcpu_count": 1, "mem_size_mib": memory }
        });
        fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
        fs::write(file, machine.to_string())
    }
}

fn is_elf(file: &Path) -> bool {
    let mut magic = [0; 4];
    fs::File::open(file).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic)).is_ok()
        && magic == *b"\x7fELF"
}

impl Subject for LinuxMonitor<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn launch(&self, number: u64, nonce: &Nonce) -> Result<Launch, String> {
        let scratch = self.lab.scratch();
        let folder = scratch.path().join(scratch.name(number));
        let file = folder.join("machine.json");
        if self.kind == Kind::Firecracker {
            self.describe(&file, nonce).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        }
        let arguments = self.kind.arguments(self.ground, &file, &nonce.to_string());
        let litter = (self.kind == Kind::Firecracker).then_some(folder);
        Ok(Launch { litter, ..launch(self.lab, &self.program, arguments, nonce, false) })
    }
}
