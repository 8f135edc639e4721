//! A hybrid host, seen as one of version 1.
//!
//! crun starts nothing where it sees both versions of control groups (1.8: "cgroups in hybrid mode not supported"). The second version has no
//! controllers on most such hosts, so nothing is lost where nobody sees it. It is hidden from all subjects alike: what is
//! compared must meet the same host.

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::mounts;

/// The same for a benchmark, which has no record to note it in: where it can't be hidden, that is said.
pub fn hide_for_all() {
    if let Err(errno) = hide_unified() {
        eprintln!(
            "both versions of control groups are in sight, and crun runs nothing there: they can't be hidden: {errno}"
        );
    }
}

/// Hides the second version from this thread, and from what it starts from now on; whether there was anything to hide. Needs root.
pub fn hide_unified() -> Result<bool, Errno> {
    let none = None::<&str>;
    let table = mounts::table();
    if !table.iter().any(|mount| mount.kind == "cgroup") {
        return Ok(false);
    }
    let unified: Vec<_> = table.iter().filter(|mount| mount.kind == "cgroup2").collect();
    if unified.is_empty() {
        return Ok(false);
    }
    // In a mount namespace of its own, and private before anything is unmounted: the host's own tree must stay as it is.
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    for mount in unified {
        umount2(&mount.point, MntFlags::MNT_DETACH)?;
    }
    Ok(true)
}
