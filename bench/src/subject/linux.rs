//! The payload's image with a kernel of its own beneath it: what an operating system costs beside the machine that it runs in.
//!
//! A kernel and an archive with the image's files in it: that is the ground that our monitor and its peers all stand on, with
//! the same words on the kernel's command line. The payload is the first process, so READY is the moment at which the kernel
//! has come to `/init`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use isolab_reports::model::Role;
use isolab_runtime::image::{DiskFormat, write_disk};
use kvm_ioctls::Kvm;

use super::catalogue::{LeftOut, engine};
use super::launch::{Launch, TIMELINE};
use super::microvm::{MEMORY, may_use_kvm};
use super::{About, Lab, Nonce, Subject};
use crate::host::guest_speed::{self, INTERPRETED, Mode};
use crate::testbed;

/// How long a kernel may take to boot. Where all is emulated, one that unpacks itself takes ten seconds alone.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// What every monitor boots.
#[derive(Debug)]
pub(super) struct Ground {
    /// The kernel: a `vmlinux`, which needs no unpacking, or a `bzImage`.
    pub(super) kernel: PathBuf,
    /// The image's files, and `/init`, which is the payload.
    pub(super) initrd: PathBuf,
}

impl Ground {
    /// Sees whether guests' kernels run here, looks for one, and packs the image.
    pub(super) fn make(lab: &Lab) -> Result<Self, String> {
        let speed = Kvm::new()
            .map_err(|error| error.to_string())
            .and_then(|kvm| guest_speed::measure(&kvm, Mode::Kernel).map_err(|error| crate::chain(&error)))?;
        if speed < INTERPRETED {
            return Err(format!("this KVM interprets guests' kernels, at 1/{:.0} of the host's speed", 1.0 / speed));
        }
        let kernel = kernel_in(&lab.roots().data).ok_or("there is no kernel for guests")?;
        Ok(Self { kernel, initrd: pack(lab)? })
    }

    /// The same for all subjects, or why it can't be had.
    pub(super) fn of<'a>(lab: &'a Lab, name: &'static str) -> Result<&'a Self, LeftOut> {
        may_use_kvm(name)?;
        lab.ground().map_err(|reason| {
            let hint = match reason.as_str() {
                reason if reason.contains("no kernel") => {
                    "isolab-bench testbed -- true fetches one; another can be kernel/vmlinux in the lab's data folder"
                }
                reason if reason.contains("interprets") => "isolab-bench run --testbed has a KVM that runs them",
                _ => "isolab-bench doctor tells more",
            };
            LeftOut::new(name, reason, hint)
        })
    }
}

/// The kernel that somebody has put into the folder of data, otherwise the one that the testbed has fetched.
pub(crate) fn kernel_in(data: &Path) -> Option<PathBuf> {
    let built = data.join("kernel/vmlinux");
    if built.is_file() { Some(built) } else { testbed::fetched(&data.join("testbed")) }
}

/// The image's layers as the archive that a kernel begins with. Above them lies one with the payload's names as `/init`.
fn pack(lab: &Lab) -> Result<PathBuf, String> {
    let folder = lab.scratch().path().join("linux");
    let top = folder.join("init");
    let made = fs::create_dir_all(&top)
        .and_then(|()| symlink("isolab-payload", top.join("init")))
        .and_then(|()| symlink("isolab-payload", top.join("init-off")));
    made.map_err(|error| format!("cannot make {}: {error}", top.display()))?;
    let layers: Vec<PathBuf> = std::iter::once(top).chain(lab.image()?.lower_dirs()).collect();
    let initrd = folder.join("initrd");
    write_disk(&layers, DiskFormat::Initramfs, None, &initrd).map_err(|error| crate::chain(&error))?;
    Ok(initrd)
}

/// What the kernel is told: nothing is printed but what the payload prints, and no bus is searched that no machine here has.
/// After the dashes come the payload's arguments. `more` is what one monitor needs.
pub(super) fn command_line(more: &str, nonce: &str) -> String {
    format!("console=ttyS0 loglevel=1 panic=-1 pci=off {more} -- {nonce}")
}

/// What our own monitor needs: nothing.
const OURS: &str = "reboot=t";

/// Our monitor with a Linux guest.
pub(super) struct Linux<'a> {
    lab: &'a Lab,
    about: About,
    program: PathBuf,
    ground: &'a Ground,
}

impl<'a> Linux<'a> {
    pub(super) fn new(lab: &'a Lab) -> Result<Self, LeftOut> {
        let name = "microvm-linux";
        let program = engine(name, "isolab-vm", "isolab-vmm")?;
        let ground = Ground::of(lab, name)?;
        let about = "The payload's image in a virtual machine with a Linux kernel of its own; READY is the kernel's first \
                     program.";
        let words = ["isolab-vm", "--timeline", TIMELINE, "run", "--memory", MEMORY, "--kernel", "KERNEL", "--initrd"];
        let words = words.into_iter().chain(["INITRD", "--cmdline"]).map(str::to_owned);
        let command = words.chain([command_line(OURS, "{}")]).collect();
        Ok(Self { lab, about: About { name, role: Role::Subject, about, command, version: None }, program, ground })
    }

    fn launch_of(&self, nonce: &Nonce, tells: bool) -> Launch {
        let timeline: &[&str] = if tells { &["--timeline", TIMELINE] } else { &[] };
        let mut arguments: Vec<OsString> =
            timeline.iter().chain(&["run", "--memory", MEMORY, "--kernel"]).map(OsString::from).collect();
        arguments.extend([self.ground.kernel.clone().into(), "--initrd".into(), self.ground.initrd.clone().into()]);
        arguments.extend(["--cmdline".into(), command_line(OURS, &nonce.to_string()).into()]);
        launch(self.lab, &self.program, arguments, nonce, tells)
    }
}

/// A start of a monitor with such a machine.
pub(super) fn launch(lab: &Lab, program: &Path, arguments: Vec<OsString>, nonce: &Nonce, tells: bool) -> Launch {
    Launch { tells, patience: PATIENCE, ..Launch::new(lab, program, arguments, nonce.token()) }
}

impl Subject for Linux<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn launch(&self, _: u64, nonce: &Nonce) -> Result<Launch, String> {
        Ok(self.launch_of(nonce, true))
    }

    fn launch_to_stay(&self, _: u64, nonce: &Nonce) -> Result<Launch, String> {
        Ok(self.launch_of(nonce, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_of_ones_own_is_taken_before_one_that_was_fetched() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(kernel_in(data.path()), None);
        let boot = data.path().join("testbed/linux-image-9.9/boot");
        fs::create_dir_all(&boot).unwrap();
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        fs::write(boot.join("vmlinuz-9.9"), image).unwrap();
        assert_eq!(kernel_in(data.path()), Some(boot.join("vmlinuz-9.9")));
        fs::create_dir(data.path().join("kernel")).unwrap();
        fs::write(data.path().join("kernel/vmlinux"), "").unwrap();
        assert_eq!(kernel_in(data.path()), Some(data.path().join("kernel/vmlinux")));
    }

    #[test]
    fn the_nonce_is_the_first_argument_of_the_first_process() {
        let line = command_line("reboot=t", "0123");
        assert!(line.ends_with(" reboot=t -- 0123") && line.starts_with("console=ttyS0 "), "{line}");
    }
}
