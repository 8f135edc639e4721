//! What a file of a directory tree is besides its content, as archives and disks want it told.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::unistd::geteuid;

use super::xattr;

/// What overlayfs keeps for itself: as root, and as an ordinary user.
const OVERLAY: [&str; 2] = ["trusted.overlay.", "user.overlay."];
/// The host's label of a file means nothing on another host.
const LABEL: &str = "security.selinux";

/// What an entry says besides its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Described {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) modified: i64,
    pub(crate) size: u64,
    /// Where a link leads.
    pub(crate) link: Option<OsString>,
    /// The numbers of a device.
    pub(crate) device: Option<(u32, u32)>,
    pub(crate) xattrs: Vec<(OsString, Vec<u8>)>,
    /// Whether a directory hides what is below it.
    pub(crate) opaque: bool,
}

impl Described {
    /// Reads what is at a name in an open directory. Files of the user `own` are told as root's.
    pub(super) fn read(parent: &impl AsFd, name: &OsStr, stat: &FileStat, own: Option<u32>) -> io::Result<Self> {
        let mut described = Self {
            mode: stat.st_mode & 0o7777,
            uid: if own == Some(stat.st_uid) { 0 } else { stat.st_uid },
            gid: if own.is_some() { 0 } else { stat.st_gid },
            modified: stat.st_mtime,
            ..Self::default()
        };
        // There is no call that reads an attribute of a name in an open directory; /proc makes a path of the two.
        let mut path = OsString::from(format!("/proc/self/fd/{}/", parent.as_fd().as_raw_fd()));
        path.push(name);
        for (name, value) in xattr::all(&path)? {
            match OVERLAY.iter().find_map(|own| name.as_bytes().strip_prefix(own.as_bytes())) {
                Some(b"opaque") => described.opaque = matches!(value.as_slice(), b"y" | b"x"),
                Some(b"redirect" | b"metacopy") => {
                    return Err(io::Error::other(
                        "its content lies elsewhere: the overlay was mounted with redirect_dir \
                                                 or metacopy, which a layer cannot say",
                    ));
                }
                Some(_) => {}
                None if name == LABEL => {}
                None => described.xattrs.push((name, value)),
            }
        }
        Ok(described)
    }
}

/// Whom files belong to that should belong to root: an ordinary user can give no file away, so all are his.
pub(super) fn own_user() -> Option<u32> {
    let own = geteuid();
    (!own.is_root()).then(|| own.as_raw())
}

/// The type bits of a mode.
pub(super) fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// The names in a directory, sorted by their bytes.
pub(super) fn names(directory: &impl AsFd) -> nix::Result<Vec<OsString>> {
    // Another descriptor of the same directory: reading moves the position that a copy would share.
    let mut directory = Dir::openat(directory, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in directory.iter() {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}
