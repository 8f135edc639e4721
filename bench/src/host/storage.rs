//! Storage: what the images and the containers' files will lie on.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use isolab_reports::model::Fact;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statvfs::statvfs;

use super::finding::Findings;
use super::mounts::{self, Mount};
use super::read::size;
use super::roots::Roots;
use super::trial;

/// One of the lab's folders and what it lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The folder, or the nearest one above it that exists.
    path: PathBuf,
    /// Type of its file system.
    kind: String,
    /// Bytes that this user may still write.
    free: Option<u64>,
    /// Whether files can share their blocks (`FICLONE`).
    reflink: nix::Result<()>,
    /// Whether this user may make files there.
    writable: bool,
}

/// Looks at the lab's two folders.
pub(crate) fn look(table: &[Mount], roots: &Roots) -> [Place; 2] {
    [look_at(table, &roots.data), look_at(table, &roots.runtime)]
}

fn look_at(table: &[Mount], wanted: &Path) -> Place {
    let path = wanted.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned();
    // The mount table names no symbolic links: /var/run is /run.
    let real = path.canonicalize().unwrap_or_else(|_| path.clone());
    let writable = nix::unistd::access(&path, nix::unistd::AccessFlags::W_OK).is_ok();
    Place {
        kind: mounts::holding(table, &real).map_or_else(|| "unknown".into(), |mount| mount.kind.clone()),
        free: statvfs(&path).ok().map(|fs| fs.blocks_available().saturating_mul(fs.fragment_size())),
        reflink: try_reflink(&path),
        writable,
        path,
    }
}

mod ioctl {
    // `_IOW(0x94, 9, int)`: ioctl_ficlone(2).
    nix::ioctl_write_int!(ficlone, 0x94, 9);
}

/// Makes a file share another's blocks. Neither file ever has a name (`O_TMPFILE`), so nothing can be left behind.
fn try_reflink(folder: &Path) -> nix::Result<()> {
    let nameless = || -> nix::Result<File> {
        open(folder, OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
    };
    let (source, target) = (nameless()?, nameless()?);
    // A file without blocks would be cloned by any file system.
    nix::unistd::write(&source, &[1; 4096])?;
    // SAFETY: both descriptors are open files of ours; the argument is a descriptor, not a pointer.
    unsafe { ioctl::ficlone(target.as_raw_fd(), source.as_raw_fd() as u64) }.map(drop)
}

/// The default image, the store, and room for a student's own images.
const WANTED: u64 = 1 << 30;

/// What it means.
pub(crate) fn judge(places: &[Place; 2]) -> Vec<Fact> {
    let mut findings = Findings::on("storage");
    for (place, what) in places.iter().zip(["images", "state"]) {
        let value = format!("{} on {}", place.path.display(), place.kind);
        if !place.writable {
            findings.warn(what, format!("{value}, read-only for this user"), "choose another folder with --root DIR");
        } else if place.kind == "overlay" && what == "images" {
            findings.warn(
                what,
                format!("{value}: an overlay's layers cannot lie on an overlay"),
                "choose a folder on another file system with --root DIR",
            );
        } else {
            findings.info(what, value);
        }
    }
    let [images, _] = places;
    match images.free {
        Some(free) if free < WANTED => {
            findings.warn("free", size(free), "below 1 GiB images may not fit: make room, or --root DIR");
        }
        Some(free) => findings.ok("free", size(free)),
        None => {}
    }
    match images.reflink {
        Ok(()) => findings.ok("reflink", "yes: a full clone of a disk costs no copy"),
        Err(Errno::EACCES | Errno::EPERM | Errno::EROFS) => {
            findings.info("reflink", "not tried: this user may not write there");
        }
        Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::EXDEV | Errno::ENOTTY | Errno::EISDIR) => {
            findings.info(
                "reflink",
                format!("no: {} copies every block of a full clone; xfs and btrfs share them", images.kind),
            );
        }
        Err(errno) => findings.info("reflink", format!("could not be tried: {}", trial::in_words(errno))),
    }
    findings.into_facts()
}

#[cfg(test)]
mod tests {
    use isolab_reports::model::Status;

    use super::super::finding::tests::{assert_hints, fact};
    use super::*;

    fn place(kind: &str) -> Place {
        Place {
            path: "/var/lib".into(),
            kind: kind.into(),
            free: Some(50 << 30),
            reflink: Err(Errno::EOPNOTSUPP),
            writable: true,
        }
    }

    #[test]
    fn a_plain_disk_is_told_as_it_is() {
        let facts = judge(&[place("ext4"), place("tmpfs")]);
        assert_eq!(fact(&facts, "images").value, "/var/lib on ext4");
        assert_eq!(fact(&facts, "free").value, "50.0 GiB");
        assert!(fact(&facts, "reflink").value.starts_with("no: ext4 copies"));
        let facts = judge(&[Place { reflink: Ok(()), ..place("xfs") }, place("tmpfs")]);
        assert_eq!(fact(&facts, "reflink").status, Status::Ok);
    }

    #[test]
    fn a_place_that_will_not_do_is_warned_of() {
        let facts =
            judge(&[Place { free: Some(1 << 20), ..place("overlay") }, Place { writable: false, ..place("tmpfs") }]);
        for name in ["images", "state", "free"] {
            assert_eq!(fact(&facts, name).status, Status::Warn, "{name}");
        }
        assert_hints(&facts);
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_the_one_above() {
        let place = look_at(&mounts::table(), Path::new("/tmp/no/such/folder"));
        assert_eq!(place.path, Path::new("/tmp"));
    }
}
