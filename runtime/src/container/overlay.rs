//! overlayfs: folders that are never written, and one that takes the changes, seen as one tree
//! (Documentation/filesystems/overlayfs.rst).

use std::ffi::{CStr, CString, NulError};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, fchownat};
use tracing::info_span;

use super::bundle::Overlay;
use super::report::{At, Failure, Step};
use super::rootfs::duplicate;
use super::sys::mount::{Context, VALUE_MAX, attach, clone_tree};

/// An overlay, ready to be mounted at the root's place.
#[derive(Debug)]
pub(crate) struct OverlayPlan {
    lower: Vec<CString>,
    upper: CString,
    work: CString,
    /// Changes go to a tmpfs that is mounted at the place first and seen by nobody else.
    private_upper: bool,
    /// In a user namespace overlayfs must keep its notes in `user.*` attributes; `trusted.*` are the real root's.
    in_user_namespace: bool,
    /// Its end does not write the changes to the disk. Otherwise the kernel syncs the whole file system that they lie on,
    /// and with it what everybody else has written there.
    volatile: bool,
    /// All of it as one line, for mount(2).
    line: CString,
    /// One that the runtime has made already (see `outside_overlay`).
    pub(crate) ready: Option<OwnedFd>,
}

impl OverlayPlan {
    /// Plans the overlay that goes to `place`.
    pub(crate) fn new(overlay: &Overlay, place: &Path, in_user_namespace: bool) -> Result<Self, NulError> {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
        let (upper, work) = match &overlay.upper {
            Some((upper, work)) => (text(upper)?, text(work)?),
            None => (text(&place.join("upper"))?, text(&place.join("work"))?),
        };
        let lower = overlay.lower.iter().map(|path| text(path)).collect::<Result<Vec<_>, _>>()?;
        let escaped: Vec<Vec<u8>> = lower.iter().map(|path| escape(path, b"\\:,")).collect();
        let mut line = [b"lowerdir=", escaped.join(&b':').as_slice()].concat();
        for (key, path) in [("upperdir", &upper), ("workdir", &work)] {
            line.extend([b",", key.as_bytes(), b"="].concat());
            line.extend(escape(path, b"\\,"));
        }
        if in_user_namespace {
            line.extend(b",userxattr");
        }
        if overlay.volatile {
            line.extend(b",volatile");
        }
        let line = CString::new(line)?;
        let (private_upper, volatile) = (overlay.upper.is_none(), overlay.volatile);
        Ok(Self { lower, upper, work, private_upper, in_user_namespace, volatile, line, ready: None })
    }

    /// Mounts the overlay upon `place` and returns the descriptor of its root. `path` is the path of `place`.
    pub(crate) fn mount(&self, place: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Failure> {
        if let Some(ready) = &self.ready {
            attach(ready, place).at(Step::Overlay)?;
            return duplicate(ready).at(Step::Overlay);
        }
        if self.private_upper {
            self.make_private_upper(place)?;
        }
        let _span = info_span!(
            "rootfs.overlay",
            call = "fsopen+fsconfig+fsmount",
            why = "the image's layers and the container's own changes become one tree, and no layer is ever written"
        )
        .entered();
        match self.configure()? {
            Some(context) => match context.mount(0) {
                Ok(mounted) => {
                    attach(&mounted, place).at(Step::Overlay)?;
                    Ok(mounted)
                }
                // Before Linux 6.5 overlayfs has its options read by the kernel's stand-in for file systems that know only
                // mount(2). That takes any name, `lowerdir+` too, and refuses it only now.
                Err(Errno::EINVAL) => self.mount_by_line(path),
                Err(errno) => Err(complain(&context, errno)),
            },
            None => self.mount_by_line(path),
        }
    }

    /// Makes it as a mount that is attached nowhere. Where the kernel knows only the old call it is mounted upon `place`
    /// first, a folder of whoever calls.
    pub(crate) fn detached(&self, place: &CStr) -> Result<OwnedFd, Failure> {
        if let Some(context) = self.configure()? {
            match context.mount(0) {
                Err(Errno::EINVAL) => {}
                other => return other.map_err(|errno| complain(&context, errno)),
            }
        }
        self.mount_by_line(place)?;
        clone_tree(AT_FDCWD, place, false).at(Step::Overlay)
    }

    /// Sets all options one by one; nothing where this kernel, or the length of a path, wants the old call.
    fn configure(&self) -> Result<Option<Context>, Failure> {
        let paths = || self.lower.iter().chain([&self.upper, &self.work]);
        if paths().any(|path| path.count_bytes() > VALUE_MAX) {
            return Ok(None);
        }
        let context = match Context::open(c"overlay") {
            Err(Errno::ENOSYS) => return Ok(None),
            other => other.at(Step::Overlay)?,
        };
        let failed = |errno| complain(&context, errno);
        for (index, lower) in self.lower.iter().enumerate() {
            match context.set(c"lowerdir+", lower) {
                Err(Errno::EINVAL) if index == 0 => return Ok(None),
                other => other.map_err(failed)?,
            }
        }
        context.set(c"upperdir", &self.upper).map_err(failed)?;
        context.set(c"workdir", &self.work).map_err(failed)?;
        if self.in_user_namespace {
            context.set_flag(c"userxattr").map_err(failed)?;
        }
        if self.volatile {
            context.set_flag(c"volatile").map_err(failed)?;
        }
        Ok(Some(context))
    }

    /// The one call of older kernels; all options together must fit in a page there.
    fn mount_by_line(&self, path: &CStr) -> Result<OwnedFd, Failure> {
        mount(Some(c"overlay"), path, Some(c"overlay"), MsFlags::empty(), Some(self.line.as_c_str()))
            .at(Step::Overlay)?;
        nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).at(Step::Overlay)
    }

    /// A tmpfs at the root's own place, which the overlay is then mounted upon: nobody can see it, and it is gone with the
    /// last process of the container.
    fn make_private_upper(&self, place: BorrowedFd<'_>) -> Result<(), Failure> {
        let _span = info_span!(
            "rootfs.upper",
            call = "fsopen(tmpfs)+mkdirat",
            why = "what the container writes goes to memory of its own and vanishes with it"
        )
        .entered();
        let context = Context::open(c"tmpfs").at(Step::OverlayUpper)?;
        context.set(c"mode", c"0700").at(Step::OverlayUpper)?;
        let tmpfs = context.mount(0).at(Step::OverlayUpper)?;
        attach(&tmpfs, place).at(Step::OverlayUpper)?;
        mkdirat(&tmpfs, c"work", Mode::S_IRWXU).at(Step::OverlayUpper)?;
        // The merged root takes its owner and mode from the upper folder, so these must be the image's.
        let top = self.lower.first().map_or(c"/", CString::as_c_str);
        let image = fstatat(AT_FDCWD, top, AtFlags::empty()).at(Step::OverlayUpper)?;
        mkdirat(&tmpfs, c"upper", Mode::from_bits_truncate(image.st_mode)).at(Step::OverlayUpper)?;
        let made = fstatat(tmpfs.as_fd(), c"upper", AtFlags::empty()).at(Step::OverlayUpper)?;
        if (made.st_uid, made.st_gid) != (image.st_uid, image.st_gid) {
            let owner = (Some(Uid::from_raw(image.st_uid)), Some(Gid::from_raw(image.st_gid)));
            match fchownat(&tmpfs, c"upper", owner.0, owner.1, AtFlags::empty()) {
                // The owner has no number in this user namespace: nobody in here could tell the difference.
                Err(Errno::EINVAL | Errno::EPERM) if self.in_user_namespace => {}
                other => other.at(Step::OverlayUpper)?,
            }
        }
        Ok(())
    }
}

/// A failure with what the kernel wrote about it.
fn complain(context: &Context, errno: Errno) -> Failure {
    let mut words = [0_u8; 112];
    let length = context.complaint(&mut words);
    Failure::new(Step::Overlay, 0, errno).with_detail(words.get(..length).unwrap_or_default())
}

/// Puts a backslash before each of `special`.
fn escape(path: &CStr, special: &[u8]) -> Vec<u8> {
    let escaped = |byte: &u8| {
        let backslash = special.contains(byte).then_some(b'\\');
        backslash.into_iter().chain([*byte])
    };
    path.to_bytes().iter().flat_map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::OverlayPlan;
    use crate::container::bundle::Overlay;
    use std::path::{Path, PathBuf};

    #[test]
    fn a_path_with_a_separator_in_it_stays_one_path() {
        let lower = ["/a:b", "/c,d"].map(PathBuf::from).to_vec();
        let overlay = Overlay { lower, upper: None, volatile: true, maps_ids: false };
        let plan = OverlayPlan::new(&overlay, Path::new("/r:s"), true).expect("no NUL in it");
        let line = r"lowerdir=/a\:b:/c\,d,upperdir=/r:s/upper,workdir=/r:s/work,userxattr,volatile";
        assert_eq!(plan.line.to_str(), Ok(line));
    }
}
