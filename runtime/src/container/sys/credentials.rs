//! Who the process is: user, groups, capabilities.
//!
//! These are the raw system calls on purpose. glibc's `setresuid(3)` wants to change all threads of a process and looks
//! for them in a list that a process made by a bare `clone3` has inherited from its parent: it would wait for ever for
//! threads that exist only there.

use nix::unistd::Gid;

/// Sets the real, effective and saved group id (setresgid(2)).
pub(crate) fn set_group(id: u32) -> nix::Result<()> {
    // SAFETY: three numbers.
    super::check(unsafe { libc::syscall(libc::SYS_setresgid, id, id, id) }).map(drop)
}

/// Sets the real, effective and saved user id (setresuid(2)).
pub(crate) fn set_user(id: u32) -> nix::Result<()> {
    // SAFETY: three numbers.
    super::check(unsafe { libc::syscall(libc::SYS_setresuid, id, id, id) }).map(drop)
}

/// Sets the supplementary groups (setgroups(2)).
pub(crate) fn set_groups(groups: &[Gid]) -> nix::Result<()> {
    // SAFETY: `Gid` is a transparent `gid_t`; pointer and length are those of one slice.
    super::check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Three of the five sets, a bit a capability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
}

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// The layout of capget(2): 64 bits a set, in two halves of 32.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// What the calling thread holds (capget(2)).
pub(crate) fn held() -> nix::Result<Sets> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: version 3 means two halves, and there are two.
    super::check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, halves.as_mut_ptr()) })?;
    let [low, high] = halves;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Sets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// Replaces the three sets of the calling thread (capset(2)).
pub(crate) fn hold(sets: Sets) -> nix::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Half {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: as for capget.
    super::check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) }).map(drop)
}

/// Gives up one capability for ever, also for what is executed later (`PR_CAPBSET_DROP`).
pub(crate) fn drop_bounding(capability: u8) -> nix::Result<()> {
    super::process::prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0)
}

/// Empties the ambient set (`PR_CAP_AMBIENT`).
pub(crate) fn clear_ambient() -> nix::Result<()> {
    super::process::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)
}

/// Adds one capability, which must be permitted and inheritable, to those that survive an ordinary `execve`.
pub(crate) fn raise_ambient(capability: u8) -> nix::Result<()> {
    super::process::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(capability))
}
