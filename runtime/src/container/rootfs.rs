//! The container's root: assembled beside the host's tree, then swapped for it.
//!
//! Runs in the container's first process, inside its new mount namespace, so nothing of it is ever seen outside. Each
//! destination is opened by descriptor inside the root ([`super::inside`]) and mounted upon by descriptor.

use std::ffi::{CString, NulError};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, SFlag};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{chdir, chroot, fchdir, pivot_root};
use tracing::info_span;

use super::bundle::Bundle;
use super::cgroup_mount::CgroupMount;
use super::copy_up;
use super::covers::{Covers, kind_of};
use super::devices::{self, DevicePlan};
use super::inside::{self, Node};
use super::mounts::{self, CopyUp, Filesystem, Kind, MountPlan, Propagation};
use super::namespaces::Namespaces;
use super::overlay::OverlayPlan;
use super::report::{At, Failure, Step};
use super::sys::mount::{Change, Context, attach, attribute, clone_tree, set_attributes};
use super::sys::process::{close_done, done_with};

/// Everything about the root, decided before the process is made.
#[derive(Debug)]
pub(crate) struct RootfsPlan {
    /// The place where the root is assembled.
    path: CString,
    readonly: bool,
    overlay: Option<OverlayPlan>,
    /// The folder that the program begins in.
    working_directory: PathBuf,
    pub(crate) mounts: Vec<MountPlan>,
    cgroup: CgroupMount,
    /// Nothing where the bundle binds a /dev of its own.
    pub(crate) devices: Option<Vec<DevicePlan>>,
    pub(crate) covers: Covers,
    /// Whether `pivot_root(2)` is left alone: see [`RootfsPlan::move_root`].
    no_pivot: bool,
    /// Whether the tree around the root stays, as it is not the container's own: inherited, or a joined namespace's.
    shared: bool,
    /// Whether the host's mounts of later days may appear: slave or private.
    outer: MsFlags,
    /// The propagation of the finished root, if the bundle asks for one.
    propagation: Option<Propagation>,
}

/// What other files may be covered below /proc: those that describe the machine, which a bundle may want to describe
/// otherwise. Anything else would let an image choose what we and the container believe about processes.
const PROC_COVERS: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
];

impl RootfsPlan {
    /// Reads the wishes of `bundle`.
    pub(crate) fn new(bundle: &Bundle, namespaces: &Namespaces, cgroup: CgroupMount) -> Result<Self, NulError> {
        let linux = &bundle.linux;
        let mounts = mounts::plan(bundle, namespaces)?;
        let own_dev = mounts.iter().any(|mount| mount.is_at("/dev") && matches!(mount.kind, Kind::Bind { .. }));
        let in_user_namespace = namespaces.in_user_namespace();
        let overlay = bundle.root.overlay.as_ref();
        let propagation = linux.rootfs_propagation().as_deref().and_then(mounts::propagation);
        Ok(Self {
            path: CString::new(bundle.root.path.as_os_str().as_bytes())?,
            readonly: bundle.root.readonly,
            overlay: overlay.map(|it| OverlayPlan::new(it, &bundle.root.path, in_user_namespace)).transpose()?,
            working_directory: bundle.process.cwd().clone(),
            mounts,
            cgroup,
            devices: if own_dev { None } else { Some(devices::plan(linux.devices().as_ref())?) },
            covers: Covers::plan(linux),
            no_pivot: bundle.handed.no_pivot,
            shared: !namespaces.has_new(CloneFlags::CLONE_NEWNS),
            outer: match propagation {
                Some(Propagation { kind: MsFlags::MS_PRIVATE, .. }) => MsFlags::MS_PRIVATE,
                _ => MsFlags::MS_SLAVE,
            },
            propagation,
        })
    }

    /// Has the overlay be one that was made already.
    pub(crate) fn take_overlay(&mut self, ready: OwnedFd) {
        if let Some(overlay) = &mut self.overlay {
            overlay.ready = Some(ready);
        }
    }

    /// Opens the place of an overlay that was made already, while the process has the host's rights still: its folder may be
    /// one that no user of the container could enter.
    pub(crate) fn open_place_early(&self) -> Result<Option<OwnedFd>, Failure> {
        let is_ready = self.overlay.as_ref().is_some_and(|overlay| overlay.ready.is_some());
        is_ready.then(|| self.open_place()).transpose()
    }

    fn open_place(&self) -> Result<OwnedFd, Failure> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(self.path.as_c_str(), flags, Mode::empty()).at(Step::RootFolder)
    }

    /// Assembles the root and returns its descriptor. `place` is where, if that was opened already. `before_cgroup` is called
    /// before the first mount that shows cgroups.
    pub(crate) fn assemble(
        &self,
        place: Option<OwnedFd>,
        before_cgroup: &mut dyn FnMut() -> Result<(), Failure>,
    ) -> Result<OwnedFd, Failure> {
        if !self.shared {
            self.leave_host_alone()?;
        }
        let root = self.open_root(place)?;
        if self.shared {
            // Where that tree is shared with others still, what is mounted in here would else show up with them too.
            let private = Change { propagation: MsFlags::MS_PRIVATE.bits(), ..Change::default() };
            set_attributes(&root, &private, true).at(Step::Propagation)?;
        }
        for (index, plan) in self.mounts.iter().enumerate() {
            if plan.kind == Kind::Cgroup {
                before_cgroup()?;
            }
            self.mount(&root, plan, index)?;
        }
        if let Some(devices) = &self.devices {
            devices::make(&root, devices)?;
        }
        // Images often lack it. Where it cannot be made, entering it fails later, and tells better what is wrong.
        if self.working_directory != Path::new("/") {
            let _ = inside::folder(&root, &self.working_directory);
        }
        self.covers.make_readonly(&root)?;
        self.covers.mask(&root)?;
        if self.readonly {
            let readonly = Change { set: attribute::RDONLY, ..Change::default() };
            set_attributes(&root, &readonly, false).at(Step::ReadonlyRoot)?;
        }
        close_done().at(Step::CloseDescriptors)?;
        Ok(root)
    }

    /// Swaps the host's tree for `root`.
    pub(crate) fn enter(&self, root: &OwnedFd) -> Result<(), Failure> {
        let _span = info_span!("rootfs.pivot", call = "pivot_root(2), umount2(2)",
            why = "the container's root becomes /, and the host's tree is gone from its sight; chroot would leave it there")
        .entered();
        if self.shared {
            return enter_root(root).at(Step::Pivot);
        }
        if self.no_pivot {
            return Self::move_root(root).at(Step::Pivot).and_then(|()| self.propagate());
        }
        fchdir(root).at(Step::Pivot)?;
        // pivot_root(2), "pivot_root(., .)": the old root ends up mounted upon the new one, so no folder is needed for it.
        pivot_root(c".", c".").at(Step::Pivot)?;
        // What is mounted on top at "." now is the old root. MNT_DETACH: it is busy, as half of the host runs from it.
        umount2(c".", MntFlags::MNT_DETACH).at(Step::Pivot)?;
        chdir(c"/").at(Step::Pivot)?;
        self.propagate()
    }

    /// The other way, for a host that runs from its first file system, which can be no one's old root (`pivot_root(2)`,
    /// "rootfs"): the new root is moved over the host's. That is still there beneath, so what of it tells most is taken away
    /// first, and whoever may chroot(2) could leave.
    fn move_root(root: &OwnedFd) -> nix::Result<()> {
        for path in [c"/proc", c"/sys"] {
            // One that is not mounted, or that a user namespace holds fast: then there is nothing to take away, or no way.
            let _ = umount2(path, MntFlags::MNT_DETACH);
        }
        fchdir(root)?;
        mount(Some(c"."), c"/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
        enter_root(root)
    }

    fn propagate(&self) -> Result<(), Failure> {
        if let Some(Propagation { kind, recursive }) = self.propagation {
            let deep = if recursive { MsFlags::MS_REC } else { MsFlags::empty() };
            mount(None::<&str>, c"/", None::<&str>, kind | deep, None::<&str>).at(Step::RootPropagation)?;
        }
        Ok(())
    }

    /// A new mount namespace is a copy that still shares what happens to shared mounts; without this the host would see
    /// every mount that follows.
    fn leave_host_alone(&self) -> Result<(), Failure> {
        let _span = info_span!(
            "rootfs.private",
            call = "mount(MS_REC|MS_SLAVE)",
            why = "the new mount namespace is a copy; from here on nothing mounted in it shows up on the host"
        )
        .entered();
        mount(None::<&str>, c"/", None::<&str>, self.outer | MsFlags::MS_REC, None::<&str>).at(Step::Propagation)
    }

    /// The root as a mount of its own (`pivot_root(2)` wants one), attached at its place.
    fn open_root(&self, place: Option<OwnedFd>) -> Result<OwnedFd, Failure> {
        let place = place.map_or_else(|| self.open_place(), Ok)?;
        if let Some(overlay) = &self.overlay {
            return overlay.mount(place.as_fd(), &self.path);
        }
        let _span = info_span!(
            "rootfs.bind",
            call = "open_tree(2), move_mount(2)",
            why = "the folder with the image becomes a mount of its own, as only a mount can become a root"
        )
        .entered();
        let root = clone_tree(place.as_fd(), c"", true).at(Step::RootFolder)?;
        attach(&root, place.as_fd()).at(Step::RootFolder)?;
        Ok(root)
    }

    fn mount(&self, root: &OwnedFd, plan: &MountPlan, index: usize) -> Result<(), Failure> {
        let _span = info_span!(
            "rootfs.mount",
            call = "openat2(2), move_mount(2)",
            on = inside::shown(&plan.destination),
            why = "each file system the bundle asks for is made by descriptor, inside the root whatever its links say"
        )
        .entered();
        if let Kind::Remount(words) = &plan.kind {
            return plan.remount(root, words.as_deref()).at_index(Step::Remount, index);
        }
        let mounted = match (&plan.ready, &plan.kind) {
            (Some(ready), _) => duplicate(ready).at_index(Step::Mount, index)?,
            // What is copied must be written first, whatever the mount's attributes say of writing.
            (None, Kind::New(filesystem)) if plan.copy_up.is_some() => filesystem.make(0, index)?,
            (None, Kind::New(filesystem)) => filesystem.make(plan.change.set, index)?,
            (None, Kind::Bind { source, recursive }) => {
                clone_tree(AT_FDCWD, source, *recursive).at_index(Step::Mount, index)?
            }
            (None, Kind::Cgroup) => return self.cgroup.mount(root, plan, index),
            (None, Kind::Remount(_)) => return Err(Failure::new(Step::Remount, index, Errno::EINVAL)),
        };
        if let Some(copied) = plan.copy_up {
            let covered = plan.place(root, &mounted, index)?;
            copy_up::copy(&covered, &mounted, copied == CopyUp::Folder).at_index(Step::CopyUp, index)?;
        }
        if (plan.copy_up.is_some() || matches!(plan.kind, Kind::Bind { .. })) && !plan.change.is_empty() {
            set_attributes(&mounted, &plan.change, false).at_index(Step::Mount, index)?;
        }
        if !plan.deep_change.is_empty() {
            set_attributes(&mounted, &plan.deep_change, true).at_index(Step::Mount, index)?;
        }
        let place = plan.place(root, &mounted, index)?;
        attach(&mounted, place.as_fd()).at_index(Step::Mount, index)?;
        for Propagation { kind, recursive } in &plan.propagation {
            let change = Change { propagation: kind.bits(), ..Change::default() };
            set_attributes(&mounted, &change, *recursive).at_index(Step::Mount, index)?;
        }
        done_with(mounted);
        done_with(place);
        Ok(())
    }
}

/// Makes `root` the process's own, and nobody else's: for a tree that others live in too.
pub(super) fn enter_root(root: &OwnedFd) -> nix::Result<()> {
    fchdir(root)?;
    chroot(c".")?;
    chdir(c"/")
}

/// Another descriptor of the same mount.
pub(super) fn duplicate(mount: &OwnedFd) -> nix::Result<OwnedFd> {
    mount.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE)))
}

impl MountPlan {
    /// Opens the destination, and checks that nothing false is put below /proc.
    pub(crate) fn place(&self, root: &OwnedFd, mounted: &OwnedFd, index: usize) -> Result<OwnedFd, Failure> {
        // A new file system is a folder always; what is bound may be a file.
        let is_folder =
            matches!(self.kind, Kind::New(_)) || kind_of(mounted).at_index(Step::Mount, index)? == SFlag::S_IFDIR;
        let node = if is_folder { Node::Folder } else { Node::File };
        let place = inside::place(root, &self.destination, node).at_index(Step::MountPoint, index)?;
        if self.is_at("/proc") {
            let is_proc = fstatfs(mounted).at_index(Step::Mount, index)?.filesystem_type() == PROC_SUPER_MAGIC;
            // The real thing in the real place: an image's /proc may be a link to where it keeps forged files.
            let plain = inside::open_plain(root, &self.destination, OFlag::O_DIRECTORY);
            let genuine = is_proc && plain.is_ok();
            return if genuine { Ok(place) } else { Err(Failure::new(Step::MountOverProc, index, Errno::EPERM)) };
        }
        let below_proc = fstatfs(&place).at_index(Step::MountPoint, index)?.filesystem_type() == PROC_SUPER_MAGIC;
        let allowed = PROC_COVERS.iter().any(|path| self.is_at(path));
        if below_proc && !allowed {
            return Err(Failure::new(Step::MountOverProc, index, Errno::EPERM));
        }
        Ok(place)
    }
}

impl MountPlan {
    /// Changes what is mounted at the destination already (mount(2), "Remounting an existing mount").
    fn remount(&self, root: &OwnedFd, words: Option<&[(CString, Option<CString>)]>) -> nix::Result<()> {
        let mounted = inside::open(root, &self.destination, OFlag::empty())?;
        if let Some(words) = words {
            let context = Context::pick(mounted.as_fd())?;
            for (key, value) in words {
                match value {
                    Some(value) => context.set(key, value)?,
                    None => context.set_flag(key)?,
                }
            }
            context.reconfigure()?;
        }
        for (change, recursive) in [(&self.change, false), (&self.deep_change, true)] {
            if !change.is_empty() {
                set_attributes(&mounted, change, recursive)?;
            }
        }
        done_with(mounted);
        Ok(())
    }
}

impl Filesystem {
    /// Makes the file system as a mount that is attached nowhere yet.
    pub(crate) fn make(&self, attributes: u64, index: usize) -> Result<OwnedFd, Failure> {
        let context = Context::open(&self.fstype).at_index(Step::Mount, index)?;
        let mounted = self.configure(&context).and_then(|()| context.mount(attributes)).map_err(|errno| {
            let mut words = [0_u8; 112];
            let length = context.complaint(&mut words);
            Failure::new(Step::Mount, index, errno).with_detail(words.get(..length).unwrap_or_default())
        })?;
        context.leave();
        Ok(mounted)
    }

    fn configure(&self, context: &Context) -> nix::Result<()> {
        context.set(c"source", &self.source)?;
        for (key, value) in &self.options {
            match value {
                Some(value) => context.set(key, value)?,
                None => context.set_flag(key)?,
            }
        }
        Ok(())
    }
}
