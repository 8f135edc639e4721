//! A container whose mount namespace is not its own: it is inherited (config-linux.md, "Namespaces": a kind that is not
//! listed), or an existing one is joined.
//!
//! What is mounted for it is then mounted in the tree of others, and stays when its last process has ended. All of it hangs
//! below one mount, the container's root: taking that away takes all away.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};
use serde::{Deserialize, Serialize};
use tracing::info_span;

use super::bundle::Bundle;
use super::error::ContainerError;
use super::mountinfo::mounts;

/// The place of a root in the tree of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedTree {
    /// Where the root is mounted.
    place: PathBuf,
    /// How many file systems others had mounted there before; they stay.
    beneath: usize,
    /// The namespace, where it is not the one of whoever makes the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    joined: Option<Namespace>,
}

/// A mount namespace by its file, and by what tells it from a later one of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Namespace {
    file: PathBuf,
    device: u64,
    inode: u64,
}

/// What is mounted for a container that is being made. Taken away when this is dropped, unless it was kept.
pub(super) struct Mounted(Option<SharedTree>);

impl SharedTree {
    /// The place for the container of `bundle`; nothing where it has a tree of its own.
    pub(super) fn of(bundle: &Bundle) -> Result<Option<Self>, ContainerError> {
        let mut listed = bundle.linux.namespaces().iter().flatten();
        let joined = match listed.find(|one| one.typ() == LinuxNamespaceType::Mount).map(LinuxNamespace::path) {
            Some(None) => return Ok(None),
            Some(Some(file)) => Some(Namespace::of(file)?),
            None => None,
        };
        let root = &bundle.root.path;
        let (beneath, place) = within(joined.as_ref(), ("find", root), |mounted| {
            let place = root.canonicalize()?;
            Ok((mounted.count(&place)?, place))
        })?;
        Ok(Some(Self { place, beneath, joined }))
    }

    /// Whether it is an existing namespace that the container is put in.
    pub(super) fn is_joined(&self) -> bool {
        self.joined.is_some()
    }

    /// Takes away what the container has mounted.
    pub(super) fn clear(&self) -> Result<(), ContainerError> {
        let _span = info_span!(
            "rootfs.unmount",
            call = "umount2(MNT_DETACH)",
            why = "in a mount namespace of others nothing ends by itself what was mounted for the container"
        )
        .entered();
        ContainerError::fault("rootfs.unmount")?;
        if self.joined.as_ref().is_some_and(Namespace::is_gone) {
            return Ok(()); // and all its mounts with it
        }
        within(self.joined.as_ref(), ("unmount", &self.place), |mounted| {
            while mounted.count(&self.place)? > self.beneath {
                // MNT_DETACH takes along all that is mounted below, and waits for nobody who is still in there.
                umount2(&self.place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
            }
            Ok(())
        })
    }
}

impl Mounted {
    pub(super) fn new(tree: Option<&SharedTree>) -> Self {
        Self(tree.cloned())
    }

    /// Leaves it to the record to tell the next command.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(tree) = &self.0 {
            // Why the container failed is the error to tell of.
            let _ = tree.clear();
        }
    }
}

impl Namespace {
    fn of(file: &Path) -> Result<Self, ContainerError> {
        let found = fs::metadata(file).map_err(failed("find the mount namespace", file.display().to_string()))?;
        Ok(Self { file: file.to_owned(), device: found.dev(), inode: found.ino() })
    }

    fn is_gone(&self) -> bool {
        !fs::metadata(&self.file).is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
    }

    fn enter(&self) -> io::Result<()> {
        let file = File::open(&self.file)?;
        // setns(2): a thread that shares its root and folder with others may not change what they mean.
        unshare(CloneFlags::CLONE_FS)?;
        setns(&file, CloneFlags::CLONE_NEWNS)?;
        Ok(())
    }
}

/// The calling thread's folder in /proc, opened while there surely is a /proc: a namespace that is entered may have none.
struct MountTable(OwnedFd);

impl MountTable {
    fn open() -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(open("/proc/thread-self", flags, Mode::empty())?))
    }

    /// How many file systems are mounted at `place`, one upon the other, in the namespace that the thread is in now.
    fn count(&self, place: &Path) -> io::Result<usize> {
        let file = openat(&self.0, "mountinfo", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text)?;
        Ok(mounts(&text).iter().filter(|mount| mount.point == place).count())
    }
}

/// Does `work` in a mount namespace: in a thread that ends with it, as for one that entered there is no way back.
fn within<T: Send>(
    namespace: Option<&Namespace>,
    (attempt, on): (&'static str, &Path),
    work: impl FnOnce(&MountTable) -> io::Result<T> + Send,
) -> Result<T, ContainerError> {
    let table = MountTable::open;
    let Some(namespace) = namespace else {
        return table().and_then(|table| work(&table)).map_err(failed(attempt, on.display().to_string()));
    };
    let entered = || {
        let table = table()?;
        namespace.enter()?;
        work(&table)
    };
    std::thread::scope(|scope| scope.spawn(entered).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        .map_err(failed(attempt, format!("{} in the mount namespace {}", on.display(), namespace.file.display())))
}

fn failed(attempt: &'static str, on: String) -> impl FnOnce(io::Error) -> ContainerError {
    move |error| {
        let source = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        ContainerError::System { attempt, on, source }
    }
}
