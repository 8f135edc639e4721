//! Memory: the register side of [`super::super::space`].

use nix::errno::Errno;

use super::super::rights::Rights;
use super::super::space::Placement;
use super::{Call, Served, io};

/// brk(2), as the kernel has it: the answer is where the heap ends now, also where nothing was changed.
pub(super) fn brk(call: &mut Call<'_>) -> Served {
    Ok(call.task.space.brk(call.memory, call.args[0])?)
}

/// mmap(2): anonymous memory. Shared and private are the same where there is one process.
pub(super) fn mmap(call: &mut Call<'_>) -> Served {
    let [address, length, prot, flags, fd, _] = call.args;
    let has = |flag: i32| flags & flag as u64 != 0;
    let rights = Rights::from_prot(prot).ok_or(Errno::EINVAL)?;
    if flags & libc::MAP_TYPE as u64 == 0 || has(libc::MAP_HUGETLB) {
        return Err(Errno::EINVAL.into());
    }
    if !has(libc::MAP_ANONYMOUS) {
        io::descriptor(call, fd)?;
        // None of the three files can be mapped.
        return Err(Errno::ENODEV.into());
    }
    let placement = if has(libc::MAP_FIXED_NOREPLACE) {
        Placement::FixedNoReplace(address)
    } else if has(libc::MAP_FIXED) {
        Placement::Fixed(address)
    } else {
        Placement::Hint(address)
    };
    Ok(call.task.space.mmap(call.memory, length, rights, placement)?)
}

/// munmap(2).
pub(super) fn munmap(call: &mut Call<'_>) -> Served {
    let [address, length, ..] = call.args;
    call.task.space.munmap(call.memory, address, length)?;
    Ok(0)
}

/// mprotect(2).
pub(super) fn mprotect(call: &mut Call<'_>) -> Served {
    let [address, length, prot, ..] = call.args;
    let rights = Rights::from_prot(prot).ok_or(Errno::EINVAL)?;
    call.task.space.mprotect(call.memory, address, length, rights)?;
    Ok(0)
}
