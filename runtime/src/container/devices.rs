//! /dev: the devices and links that every container has (OCI runtime specification, config-linux.md, "Default Devices",
//! "Dev symbolic links").

use std::ffi::{CStr, CString, NulError};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, fstatat, makedev, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use tracing::info_span;

use super::inside::{self, Node};
use super::report::{At, Failure, Step};
use super::sys::mount::{attach, clone_tree};
use super::sys::process::done_with;

/// A device to be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DevicePlan {
    pub(crate) path: PathBuf,
    /// The host's own, to be shown where a new one may not be made.
    host: CString,
    kind: SFlag,
    mode: Mode,
    number: u64,
    owner: (u32, u32),
}

/// Name, major and minor number of what every program expects (Documentation/admin-guide/devices.txt).
const DEFAULTS: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Name below /dev, and what it points at.
pub(crate) const LINKS: [(&CStr, &CStr); 5] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    // Each instance of devpts has a multiplexer of its own; the one at /dev/ptmx would open the host's.
    (c"ptmx", c"pts/ptmx"),
];

/// The default devices and those of the configuration; where both have a path, the configuration's.
pub(crate) fn plan(asked: Option<&Vec<LinuxDevice>>) -> Result<Vec<DevicePlan>, NulError> {
    let asked = asked.map(Vec::as_slice).unwrap_or_default();
    let mut devices = Vec::with_capacity(DEFAULTS.len() + asked.len());
    for (path, major, minor) in DEFAULTS {
        if asked.iter().all(|device| device.path() != Path::new(path)) {
            devices.push(DevicePlan {
                path: PathBuf::from(path),
                host: CString::new(path)?,
                kind: SFlag::S_IFCHR,
                mode: Mode::from_bits_truncate(0o666),
                number: makedev(major, minor),
                owner: (0, 0),
            });
        }
    }
    for device in asked {
        devices.push(DevicePlan {
            path: device.path().clone(),
            host: CString::new(device.path().as_os_str().as_bytes())?,
            kind: match device.typ() {
                LinuxDeviceType::B => SFlag::S_IFBLK,
                LinuxDeviceType::P => SFlag::S_IFIFO,
                _ => SFlag::S_IFCHR,
            },
            mode: Mode::from_bits_truncate(device.file_mode().unwrap_or(0o666)),
            number: makedev(device.major() as u64, device.minor() as u64),
            owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
        });
    }
    Ok(devices)
}

/// Makes the devices and the links inside `root`.
pub(crate) fn make(root: &OwnedFd, devices: &[DevicePlan]) -> Result<(), Failure> {
    let _span = info_span!(
        "rootfs.devices",
        call = "mknodat(2), symlinkat(2)",
        why = "programs expect null, zero, random and a few more; the disks and all else stay out of sight"
    )
    .entered();
    let dev = inside::folder(root, Path::new("/dev")).at(Step::Device)?;
    for (index, device) in devices.iter().enumerate() {
        match device.path.strip_prefix("/dev").ok().filter(|name| name.components().count() == 1) {
            Some(name) => device.make(root, &dev, name),
            None => inside::split(&device.path)
                .ok_or(Errno::EINVAL)
                .and_then(|(folder, name)| device.make(root, &inside::folder(root, folder)?, name)),
        }
        .at_index(Step::Device, index)?;
    }
    for (index, (name, target)) in LINKS.into_iter().enumerate() {
        match symlinkat(target, &dev, name) {
            Err(Errno::EEXIST) if name == c"ptmx" => {
                unlinkat(&dev, name, UnlinkatFlags::NoRemoveDir).and_then(|()| symlinkat(target, &dev, name))
            }
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        }
        .at_index(Step::Link, index)?;
    }
    done_with(dev);
    Ok(())
}

impl DevicePlan {
    fn make(&self, root: &OwnedFd, folder: &OwnedFd, name: &Path) -> nix::Result<()> {
        match mknodat(folder, name, self.kind, self.mode, self.number) {
            Ok(()) if self.owner == (0, 0) => Ok(()),
            Ok(()) => {
                let (user, group) = (Some(Uid::from_raw(self.owner.0)), Some(Gid::from_raw(self.owner.1)));
                fchownat(folder, name, user, group, AtFlags::AT_SYMLINK_NOFOLLOW)
            }
            Err(Errno::EEXIST) => self.is_there(folder, name),
            // In a user namespace nobody makes devices (mknod(2), EPERM); the host's own can be shown instead.
            Err(Errno::EPERM) => self.show_hosts(root),
            Err(errno) => Err(errno),
        }
    }

    /// An image may bring its own; it must be the same device then.
    fn is_there(&self, folder: &OwnedFd, name: &Path) -> nix::Result<()> {
        let found = fstatat(folder.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let same =
            SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == self.kind && found.st_rdev == self.number;
        if same { Ok(()) } else { Err(Errno::EEXIST) }
    }

    fn show_hosts(&self, root: &OwnedFd) -> nix::Result<()> {
        let device = clone_tree(AT_FDCWD, &self.host, false)?;
        let place = inside::place(root, &self.path, Node::File)?;
        attach(&device, place.as_fd())
    }
}

/// The host's /dev/null, proved to be that and nothing else, as the source of masks.
pub(crate) fn null() -> nix::Result<OwnedFd> {
    let null = nix::fcntl::open(c"/dev/null", OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())?;
    let found = nix::sys::stat::fstat(&null)?;
    let is_null =
        SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR && found.st_rdev == makedev(1, 3);
    if is_null { Ok(null) } else { Err(Errno::ENODEV) }
}

#[cfg(test)]
mod tests {
    use super::{DEFAULTS, plan};
    use oci_spec::runtime::{LinuxDeviceBuilder, LinuxDeviceType};

    #[test]
    fn an_asked_device_takes_the_place_of_a_default_one() {
        let asked = LinuxDeviceBuilder::default().path("/dev/full").typ(LinuxDeviceType::C).major(1).minor(5);
        let devices = plan(Some(&vec![asked.build().expect("a device")])).expect("no NUL in it");
        assert_eq!(devices.len(), DEFAULTS.len());
        let numbers: Vec<u64> = devices.iter().filter(|d| d.path.ends_with("full")).map(|d| d.number).collect();
        assert_eq!(numbers, [nix::sys::stat::makedev(1, 5)]);
    }
}
