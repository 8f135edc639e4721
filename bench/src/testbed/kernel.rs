//! The kernel that the testbed boots: a file that the user names, or Debian's kernel for clouds, kept in the state folder.
//!
//! The package is got with the distribution's own commands: `apt-get download` checks the archive's signatures, `dpkg -x`
//! unpacks without installing, so neither needs root and neither changes the host.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::host::owner::Owner;

/// The package whose one dependency is the current kernel for clouds: few drivers, quick to boot.
const METAPACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel, and the modules that were built with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    /// The bzImage, or whatever else the emulator boots.
    pub(super) image: PathBuf,
    /// `/lib/modules/RELEASE` of that kernel; none where there are no modules for it.
    pub(super) modules: Option<PathBuf>,
}

/// Why there is no kernel to boot.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file that was named cannot be read.
    #[error("cannot read the kernel {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file that was named is no kernel.
    #[error("{} is no Linux kernel: neither a bzImage nor an ELF file", .0.display())]
    NoKernel(PathBuf),
    /// The kernel's package could not be fetched.
    #[error("cannot fetch Debian's kernel: `{command}` failed: {said}")]
    Fetch {
        /// The command that failed.
        command: String,
        /// What it said, or why it could not be started.
        said: String,
    },
    /// The package has no kernel in it.
    #[error("the package {0} has no kernel in it")]
    Empty(String),
    /// The state folder cannot be used.
    #[error("cannot keep the kernel in {}", path.display())]
    State {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl KernelError {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Fetch { .. } => Some(format!(
                "sudo apt update; or install one and name it: sudo apt install {METAPACKAGE}, \
                 then --kernel /boot/vmlinuz-...-cloud-amd64"
            )),
            Self::NoKernel(_) => Some("on Debian kernels are /boot/vmlinuz-*".to_owned()),
            _ => None,
        }
    }
}

impl Kernel {
    /// A kernel that the user names, with its modules where they lie beside it or where the system keeps them.
    pub(super) fn named(image: &Path) -> Result<Self, KernelError> {
        let unreadable = |source| KernelError::Unreadable { path: image.to_owned(), source };
        let mut file = File::open(image).map_err(unreadable)?;
        let release = match Form::of(&mut file).map_err(unreadable)? {
            Form::BzImage { release } => Some(release),
            Form::Elf => image.file_name().and_then(|name| Some(name.to_str()?.split_once('-')?.1.to_owned())),
            Form::Other => return Err(KernelError::NoKernel(image.to_owned())),
        };
        Ok(Self { image: image.to_owned(), modules: release.and_then(|release| modules_of(image, &release)) })
    }

    /// Debian's kernel, from the state folder where it was kept, else fetched now.
    pub(super) fn kept(state: &Path) -> Result<Self, KernelError> {
        match Self::newest_in(state)? {
            Some(kernel) => Ok(kernel),
            None => Self::fetch(state),
        }
    }

    /// The newest of the packages unpacked in the state folder.
    fn newest_in(state: &Path) -> Result<Option<Self>, KernelError> {
        let entries = match fs::read_dir(state) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(KernelError::State { path: state.to_owned(), source }),
        };
        let is_package =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("linux-image-"));
        let packages = entries.flatten().map(|entry| entry.path()).filter(is_package);
        let newest = packages.max_by_key(|path| path.metadata().and_then(|folder| folder.modified()).ok());
        newest.as_deref().and_then(image_in).map(|image| Self::named(&image)).transpose()
    }

    /// Fetches the package into the state folder.
    fn fetch(state: &Path) -> Result<Self, KernelError> {
        let kept = |source| KernelError::State { path: state.to_owned(), source };
        let package = current_package()?;
        let owner = Owner::me().map(|owner| owner.to_string()).unwrap_or_default();
        let unfinished = state.join(format!(".tmp-{owner}-kernel"));
        fs::create_dir_all(&unfinished).map_err(kept)?;
        let outcome = unpack(&package, &unfinished).and_then(|()| {
            match fs::rename(unfinished.join("unpacked"), state.join(&package)) {
                // Another testbed was quicker: its copy is as good.
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
                renamed => renamed.map_err(kept),
            }
        });
        fs::remove_dir_all(&unfinished).map_err(kept)?;
        outcome?;
        let image = image_in(&state.join(&package)).ok_or(KernelError::Empty(package))?;
        Self::named(&image)
    }
}

/// The kernel that the testbed has fetched, if it has: in the folder `state`, which is `testbed` in the lab's folder of data.
pub fn fetched(state: &Path) -> Option<PathBuf> {
    Kernel::newest_in(state).ok().flatten().map(|kernel| kernel.image)
}

/// The package of the kernel that the metapackage stands for today.
fn current_package() -> Result<String, KernelError> {
    let mut ask = Command::new("apt-cache");
    let said = output_of(ask.args(["depends", METAPACKAGE]))?;
    let package = said.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let known = package.filter(|name| name.starts_with("linux-image-") && !name.contains('/'));
    known.map(str::to_owned).ok_or_else(|| KernelError::Fetch {
        command: format!("apt-cache depends {METAPACKAGE}"),
        said: "it names no kernel".to_owned(),
    })
}

/// Downloads a package into a folder and unpacks it to `unpacked` there.
fn unpack(package: &str, folder: &Path) -> Result<(), KernelError> {
    let mut download = Command::new("apt-get");
    // As root apt downloads as a user of its own, who cannot write here, and then warns of doing it as root after all.
    output_of(download.args(["-q", "-o", "APT::Sandbox::User=root", "download", package]).current_dir(folder))?;
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let archive = entries.find(|path| path.extension().is_some_and(|end| end == "deb"));
    let archive = archive.ok_or_else(|| KernelError::Empty(package.to_owned()))?;
    output_of(Command::new("dpkg").arg("-x").arg(archive).arg(folder.join("unpacked")))?;
    Ok(())
}

/// What a command prints, where it succeeds.
fn output_of(command: &mut Command) -> Result<String, KernelError> {
    let failed = |command: &Command, said: String| {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let command = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        KernelError::Fetch { command, said }
    };
    let output = command.stdin(Stdio::null()).output().map_err(|error| failed(command, error.to_string()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(failed(command, String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// The kernel in an unpacked package.
fn image_in(package: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(package.join("boot")).ok()?.flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))).max()
}

/// Where the modules of this release lie: in the tree that the image lies in (`boot/` beside `lib/`), or in the system's.
fn modules_of(image: &Path, release: &str) -> Option<PathBuf> {
    let folder = image.parent().unwrap_or(Path::new(""));
    let candidates = [folder.join("../lib/modules"), folder.join("lib/modules"), PathBuf::from("/lib/modules")];
    candidates.into_iter().map(|modules| modules.join(release)).find(|modules| modules.is_dir())
}

/// What a kernel file is.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    /// A compressed image with the boot protocol's header, which tells the kernel's release.
    BzImage {
        release: String,
    },
    /// An uncompressed `vmlinux`.
    Elf,
    Other,
}

impl Form {
    /// Offsets: the kernel's `Documentation/arch/x86/boot.rst`, "The Real-Mode Kernel Header".
    fn of(file: &mut (impl Read + Seek)) -> io::Result<Self> {
        const MAGIC: usize = 0x202;
        const VERSION: usize = 0x20e;
        let mut head = Vec::new();
        file.take(0x210).read_to_end(&mut head)?;
        if head.starts_with(b"\x7fELF") {
            return Ok(Self::Elf);
        }
        let (Some(b"HdrS"), Some(&[low, high])) = (head.get(MAGIC..MAGIC + 4), head.get(VERSION..VERSION + 2)) else {
            return Ok(Self::Other);
        };
        // A string "6.1.0-56-cloud-amd64 (builder) #1 ..." at this offset after the first sector.
        let at = u64::from(u16::from_le_bytes([low, high])) + 0x200;
        file.seek(SeekFrom::Start(at))?;
        let mut version = Vec::new();
        file.take(256).read_to_end(&mut version)?;
        let release = version.split(|byte| *byte == b' ' || *byte == 0).next().unwrap_or_default();
        Ok(Self::BzImage { release: String::from_utf8_lossy(release).into_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn bzimage(release: &str) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x300 + release.len()].copy_from_slice(release.as_bytes());
        image
    }

    #[test]
    fn a_bzimage_tells_its_release() {
        let release = Form::of(&mut Cursor::new(bzimage("6.1.0-56-cloud-amd64 (debian@x) #1 SMP"))).unwrap();
        assert_eq!(release, Form::BzImage { release: "6.1.0-56-cloud-amd64".to_owned() });
        assert_eq!(Form::of(&mut Cursor::new(b"\x7fELF\x02".to_vec())).unwrap(), Form::Elf);
        for other in [&b""[..], b"#!/bin/sh\n", &[0; 0x400]] {
            assert_eq!(Form::of(&mut Cursor::new(other.to_vec())).unwrap(), Form::Other);
        }
    }

    #[test]
    fn modules_are_found_in_the_tree_that_the_kernel_lies_in() {
        let tree = tempfile::tempdir().unwrap();
        let image = tree.path().join("boot/vmlinuz-9.9-test");
        fs::create_dir_all(tree.path().join("boot")).unwrap();
        fs::create_dir_all(tree.path().join("lib/modules/9.9-test")).unwrap();
        fs::write(&image, bzimage("9.9-test (x)")).unwrap();
        let modules = Kernel::named(&image).unwrap().modules.unwrap();
        assert_eq!(modules.canonicalize().unwrap(), tree.path().canonicalize().unwrap().join("lib/modules/9.9-test"));
        fs::write(&image, bzimage("9.8-other (x)")).unwrap();
        assert_eq!(Kernel::named(&image).unwrap().modules, None);
    }

    #[test]
    fn a_kernel_that_is_none_is_refused_with_its_name() {
        let missing = Kernel::named(Path::new("/no such kernel")).unwrap_err();
        assert!(missing.to_string().contains("/no such kernel"), "{missing}");
        let script = Kernel::named(Path::new("/etc/passwd")).unwrap_err();
        assert!(matches!(script, KernelError::NoKernel(_)), "{script}");
    }

    #[test]
    fn the_newest_kept_kernel_is_taken_and_unfinished_ones_are_not() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(Kernel::newest_in(&state.path().join("none")).unwrap(), None);
        let boot = state.path().join("linux-image-9.9-test/boot");
        let unfinished = state.path().join(".tmp-1-1-kernel/boot");
        for folder in [&boot, &unfinished] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("vmlinuz-9.9-test"), bzimage("9.9-test (x)")).unwrap();
        }
        assert_eq!(Kernel::newest_in(state.path()).unwrap().unwrap().image, boot.join("vmlinuz-9.9-test"));
    }
}
