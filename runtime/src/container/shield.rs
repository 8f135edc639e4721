//! The host's own command, out of the container's reach.
//!
//! While the runtime's copy becomes the container's program, `/proc/self/exe` in there is the runtime's executable. An image
//! whose program is a link to that, or a script for that as its interpreter, makes the kernel start the host's file inside
//! the container; whoever then opens `/proc/PID/exe` may write to it once it has ended, and so owns the host at the next
//! start of any container (CVE-2019-5736). Nothing that is checked before `execve` helps for sure, as another container may
//! share the image's files and change them meanwhile.
//!
//! So the command first starts itself again from a view of its file that is read-only by its mount: one that is attached
//! nowhere, so that nobody can find it to make it writable, and which is gone when the last process on it is. To write
//! through it is `EROFS` for everybody, whatever capabilities a container was given. The view
//! costs 0.04 ms and the second start of the command some 0.9 ms of 9 for a whole container, measured against the same file
//! on a mount that is read-only anyway, where neither is needed; a sealed copy in memory would cost a copy of the whole file
//! each time.
//!
//! An ordinary user cannot make such a view. Where that user cannot write the file, nothing started by it inside can; where it
//! can, the copy in memory is the way left.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::sys::statvfs::FsFlags;
use nix::unistd::{AccessFlags, access};

use super::inside;
use super::sys::mount::{Change, attribute, clone_tree, set_attributes};
use super::sys::process::{Strings, execute_file};

const OWN: &CStr = c"/proc/self/exe";

/// Why the command cannot be put out of reach.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} this command's own file, which a container could otherwise write to")]
pub struct ShieldError {
    attempt: &'static str,
    source: io::Error,
}

impl ShieldError {
    fn at<E: Into<io::Error>>(attempt: &'static str) -> impl Fn(E) -> Self {
        move |source| Self { attempt, source: source.into() }
    }
}

/// Starts this command again from where no container can write to it; returns where that is so already. To be called
/// first of all, while nothing has been done that would be done twice.
pub fn shield() -> Result<(), ShieldError> {
    let own = File::open("/proc/self/exe").map_err(ShieldError::at("open"))?;
    let around = fstatfs(&own).map_err(ShieldError::at("look at"))?;
    // Only a file in memory can be sealed (`fcntl(2)`, "File sealing").
    let in_memory = around.filesystem_type() == TMPFS_MAGIC;
    if around.flags().contains(FsFlags::ST_RDONLY) || in_memory && is_sealed(&own) {
        return Ok(());
    }
    let safe = match read_only_view(&own) {
        Ok(view) => view,
        Err(_) if access(OWN, AccessFlags::W_OK).is_err() => return Ok(()),
        Err(_) => sealed_copy(own)?,
    };
    let texts = |all: Vec<std::ffi::OsString>| {
        Strings::new(all.into_iter().filter_map(|text| CString::new(text.into_vec()).ok()).collect())
    };
    let arguments = texts(std::env::args_os().collect());
    let environment = texts(
        std::env::vars_os()
            .map(|(mut name, value)| {
                name.push("=");
                name.push(value);
                name
            })
            .collect(),
    );
    Err(ShieldError::at("execute")(execute_file(&safe, &arguments, &environment)))
}

/// The folder that the file lies in, as a read-only mount, and the file in there: so it keeps its name in process lists.
fn read_only_view(own: &File) -> nix::Result<OwnedFd> {
    let path = nix::fcntl::readlink(OWN)?;
    let (folder, name) = inside::split(Path::new(&path)).ok_or(Errno::ENOENT)?;
    let place = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let folder = nix::fcntl::open(folder, place | OFlag::O_DIRECTORY, Mode::empty())?;
    let view = clone_tree(folder.as_fd(), c"", false)?;
    set_attributes(&view, &Change { set: attribute::RDONLY, ..Change::default() }, false)?;
    let file = nix::fcntl::openat(&view, name, place, Mode::empty())?;
    // Replaced since we were started, or moved: another program now.
    let (found, expected) = (fstat(&file)?, fstat(own)?);
    let same = (found.st_dev, found.st_ino) == (expected.st_dev, expected.st_ino);
    if same { Ok(file) } else { Err(Errno::ESTALE) }
}

/// A copy in memory that can never be changed again (`memfd_create(2)`).
fn sealed_copy(mut own: File) -> Result<OwnedFd, ShieldError> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = memfd_create(c"isolab-oci", flags).map_err(ShieldError::at("make a copy of"))?;
    let mut copy = File::from(memory);
    io::copy(&mut own, &mut copy).map_err(ShieldError::at("copy"))?;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals())).map_err(ShieldError::at("seal the copy of"))?;
    Ok(OwnedFd::from(copy))
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

fn is_sealed(own: &impl AsFd) -> bool {
    fcntl(own, FcntlArg::F_GET_SEALS).is_ok_and(|found| SealFlag::from_bits_truncate(found).contains(seals()))
}
