//! bpf(2), for the programs that decide about devices in a v2 cgroup. `libc` has no types for it: the fields below are
//! those of `union bpf_attr` that the four commands read.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::container::cgroup::program::Instruction;

const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const PROG_DETACH: u32 = 9;
const PROG_GET_FD_BY_ID: u32 = 13;
const PROG_QUERY: u32 = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
/// Others, above and below, may have programs too, and all have to agree. Without it a container in the container, or
/// an init system that sets its own, would be refused.
const ALLOW_MULTI: u32 = 1 << 1;
/// More programs than one cgroup can have (`BPF_CGROUP_MAX_PROGS`).
const PROGRAMS_MAX: usize = 64;

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    asking: u32,
    attached: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// One call. `T` is one of the structures above, which the kernel reads, and writes in `Query`.
fn bpf<T>(command: u32, attributes: &mut T) -> nix::Result<libc::c_long> {
    // SAFETY: pointer and size of one structure of plain numbers; the addresses in it point to arrays of the lengths
    // beside them, which the callers below keep alive over the call.
    super::check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) })
}

fn new_descriptor(number: libc::c_long) -> OwnedFd {
    // SAFETY: a descriptor that the kernel has just made for us.
    unsafe { OwnedFd::from_raw_fd(number as RawFd) }
}

/// Has the kernel verify and keep a device program.
pub(crate) fn load_device_program(program: &[Instruction]) -> nix::Result<OwnedFd> {
    let mut attributes = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
    };
    bpf(PROG_LOAD, &mut attributes).map(new_descriptor)
}

/// Has a cgroup ask the program from now on.
pub(crate) fn attach_device_program(cgroup: BorrowedFd<'_>, program: &impl AsFd) -> nix::Result<()> {
    attachment(PROG_ATTACH, cgroup, program, ALLOW_MULTI)
}

/// Has a cgroup no longer ask the program.
pub(crate) fn detach_device_program(cgroup: BorrowedFd<'_>, program: &impl AsFd) -> nix::Result<()> {
    attachment(PROG_DETACH, cgroup, program, 0)
}

fn attachment(command: u32, cgroup: BorrowedFd<'_>, program: &impl AsFd, flags: u32) -> nix::Result<()> {
    let (target, program) = (cgroup.as_raw_fd() as u32, program.as_fd().as_raw_fd() as u32);
    bpf(command, &mut Attach { target, program, kind: CGROUP_DEVICE, flags }).map(drop)
}

/// The device programs that a cgroup asks.
pub(crate) fn device_programs(cgroup: BorrowedFd<'_>) -> nix::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; PROGRAMS_MAX];
    let mut query = Query {
        target: cgroup.as_raw_fd() as u32,
        kind: CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: PROGRAMS_MAX as u32,
        ..Query::default()
    };
    bpf(PROG_QUERY, &mut query)?;
    let found = ids.iter().take(query.count as usize);
    found.map(|id| bpf(PROG_GET_FD_BY_ID, &mut ById { id: *id, ..ById::default() }).map(new_descriptor)).collect()
}
