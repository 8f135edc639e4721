//! A real operating system: a Linux kernel, with an initial file system and a command line.
//!
//! On a PC firmware finds a boot loader, the boot loader finds the kernel, and each leaves the next what it must know. A
//! monitor can do the work of both in a few writes to memory: the kernel where it wants to lie, a map of the memory, the
//! command line, tables that tell of the devices, and a processor already in the mode that the kernel expects.
//!
//! [`Linux::open`] looks at the files; [`Linux::load`] is the boot loader.

mod boot;
pub mod init;
mod kernel;
pub mod layout;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use kvm_bindings::kvm_sregs;
use tracing::info_span;
use vm_memory::{Bytes, GuestAddress};

use self::boot::Initrd;
pub(crate) use self::boot::MSRS;
use self::kernel::Kernel;
pub use self::kernel::KernelError;
use self::layout::COMMAND_LINE_ROOM;
use super::{Entry, GuestError};
use crate::memory::{Memory, PAGE};

/// Why there is no Linux guest.
#[derive(Debug, thiserror::Error)]
pub enum LinuxError {
    /// The kernel's file is not one.
    #[error(transparent)]
    Kernel(KernelError),
    /// The initial file system can't be read.
    #[error("cannot read the initial file system {}", path.display())]
    Initrd {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("{} is no initial file system: {why}", path.display())]
    NoInitrd {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It does not fit beside the kernel.
    #[error(
        "an initial file system of {length} bytes does not fit: between the kernel and the end of memory are {free}"
    )]
    InitrdTooLarge {
        /// Its length, in bytes.
        length: u64,
        /// The room for it, in bytes.
        free: u64,
    },
    /// The kernel would cut it off.
    #[error("a command line of {length} bytes is too long: the kernel takes {most}")]
    CommandLine {
        /// Its length, in bytes.
        length: u64,
        /// The longest that the kernel takes.
        most: u64,
    },
    /// A zero byte ends a text, so it cannot be in one.
    #[error("the command line has a zero byte in it")]
    ZeroByte,
    /// KVM would interpret the kernel, and does not know all of its instructions.
    #[error(
        "no Linux kernel runs on this host's KVM: it is kvm_pvm, which has no virtualization hardware under it and interprets kernel code, in part"
    )]
    Interpreted,
}

impl LinuxError {
    /// The next thing to try, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Kernel(KernelError::NoKernel { .. }) => Some("on Debian kernels are /boot/vmlinuz-*".to_owned()),
            Self::Kernel(KernelError::Truncated { .. }) => {
                Some("copy or unpack it again: the file ends before the kernel does".to_owned())
            }
            Self::Kernel(KernelError::TooLarge { needed, .. }) => {
                Some(format!("give the machine more: --memory {}", needed + 64))
            }
            Self::InitrdTooLarge { length, free } => {
                Some(format!("give the machine more memory: at least {} MiB more", (length - free).div_ceil(1 << 20)))
            }
            Self::Interpreted => Some(
                "run it in the testbed, which emulates a machine with a stock KVM: \
                 isolab-bench testbed --forward KERNEL -- isolab-vm run --kernel KERNEL"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// A Linux guest that has been looked at.
#[derive(Debug)]
pub struct Linux {
    kernel: Kernel,
    initrd: Option<(PathBuf, File, u64)>,
    command_line: String,
}

impl Linux {
    /// Opens and checks the files; nothing is loaded yet.
    pub fn open(kernel: &Path, initrd: Option<&Path>, command_line: &str) -> Result<Self, LinuxError> {
        let kernel = Kernel::open(kernel)?;
        let most = kernel.longest_command_line().min(COMMAND_LINE_ROOM - 1);
        if command_line.len() as u64 > most {
            return Err(LinuxError::CommandLine { length: command_line.len() as u64, most });
        }
        if command_line.contains('\0') {
            return Err(LinuxError::ZeroByte);
        }
        Ok(Self { kernel, initrd: initrd.map(open_initrd).transpose()?, command_line: command_line.to_owned() })
    }

    /// Does what a boot loader does; says how the first processor starts.
    pub fn load(&self, memory: &Memory, reset: &kvm_sregs) -> Result<Entry, GuestError> {
        let kernel = {
            let _span = info_span!(
                "linux.kernel",
                call = "read(2)",
                why = "the kernel's file goes into guest memory at the address where it wants to lie"
            )
            .entered();
            self.kernel.load(memory).map_err(LinuxError::from)?
        };
        let initrd = self.load_initrd(memory, kernel.end)?;
        let _span = info_span!(
            "linux.boot_params",
            call = "none",
            why = "what a boot loader tells the kernel: where its command line lies, and which memory it has"
        )
        .entered();
        boot::prepare(memory, reset, &kernel, initrd, &self.command_line)
    }

    /// Lays the initial file system as high as it may lie: below it the kernel grows.
    fn load_initrd(&self, memory: &Memory, kernel_end: u64) -> Result<Option<Initrd>, GuestError> {
        let Some((path, file, length)) = &self.initrd else { return Ok(None) };
        let _span = info_span!(
            "linux.initrd",
            call = "read(2)",
            why = "the first file system of the kernel, an archive: programs and modules that it needs before it has a disk"
        )
        .entered();
        let limit = self.kernel.initrd_limit(memory);
        let free = limit.saturating_sub(kernel_end.next_multiple_of(PAGE));
        if *length > free {
            return Err(LinuxError::InitrdTooLarge { length: *length, free }.into());
        }
        let at = (limit - length) / PAGE * PAGE;
        let mut file = file;
        io::Seek::rewind(&mut file).map_err(|source| LinuxError::Initrd { path: path.clone(), source })?;
        memory.guest().read_exact_volatile_from(GuestAddress(at), &mut file, *length as usize)?;
        Ok(Some(Initrd { at, length: *length }))
    }
}

fn open_initrd(path: &Path) -> Result<(PathBuf, File, u64), LinuxError> {
    let failed = |source| LinuxError::Initrd { path: path.to_owned(), source };
    let metadata = path.metadata().map_err(failed)?;
    let refuse = |why| LinuxError::NoInitrd { path: path.to_owned(), why };
    if !metadata.is_file() {
        return Err(refuse("no regular file"));
    }
    if metadata.len() == 0 {
        return Err(refuse("it is empty"));
    }
    Ok((path.to_owned(), File::open(path).map_err(failed)?, metadata.len()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
