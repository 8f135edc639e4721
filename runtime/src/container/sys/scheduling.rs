//! How the kernel shall treat the calling thread: its turns on the processors and disks, and where its memory comes from.

/// `struct sched_attr` of linux/sched/types.h, in its second version (Linux 5.3).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SchedulerAttributes {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
    pub(crate) utilization_min: u32,
    pub(crate) utilization_max: u32,
}

/// A set of NUMA nodes, as many as a kernel can be built for.
pub(crate) type NodeMask = [u64; 16];

/// Sets the scheduling policy of the calling thread (`sched_setattr(2)`).
pub(crate) fn set_scheduler(attributes: &SchedulerAttributes) -> nix::Result<()> {
    // SAFETY: the kernel reads as many bytes as the structure says of itself.
    super::check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attributes), 0) }).map(drop)
}

/// Sets the I/O priority of the calling thread (`ioprio_set(2)`): a class in the upper three bits, a level below.
pub(crate) fn set_io_priority(value: u16) -> nix::Result<()> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: three numbers.
    super::check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, i32::from(value)) }).map(drop)
}

/// Sets where the calling thread's memory comes from (`set_mempolicy(2)`).
pub(crate) fn set_memory_policy(mode: i32, nodes: &NodeMask) -> nix::Result<()> {
    let empty = nodes.iter().all(|word| *word == 0);
    let (mask, bits) =
        if empty { (std::ptr::null(), 0) } else { (nodes.as_ptr(), u64::BITS as usize * nodes.len() + 1) };
    // SAFETY: a null pointer with a length of zero, or an array with one bit less than the length says, as the call wants.
    super::check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// Lets the calling thread run on these processors only (`sched_setaffinity(2)`).
pub(crate) fn set_affinity(processors: &NodeMask) -> nix::Result<()> {
    // SAFETY: an array of numbers and its size; 0 is the calling thread.
    super::check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of::<NodeMask>(), processors.as_ptr()) })
        .map(drop)
}

/// Sets the execution domain (personality(2)), which execve(2) keeps.
pub(crate) fn set_personality(domain: u32) -> nix::Result<()> {
    // SAFETY: one number.
    super::check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) }).map(drop)
}
