//! The process itself: its end, its segments, its limits, and what a C library tells a kernel about its only thread.

use nix::errno::Errno;

use super::super::USER_END;
use super::super::task::PID;
use super::{Call, Instead, Served};

/// `arch_prctl(2)`, from `asm/prctl.h`.
const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;
/// The size of `struct robust_list_head`, in bytes.
const ROBUST_LIST_HEAD: u64 = 24;
/// The size and alignment of `struct rseq` as first defined; a program may have a larger one.
const RSEQ: u64 = 32;
const RSEQ_FLAG_UNREGISTER: u64 = 1;

/// exit(2) and `exit_group(2)`: one thread, one end. Of the status the low eight bits are kept (wait(2)).
pub(super) fn exit(call: &mut Call<'_>) -> Served {
    Err(Instead::Exit(call.args[0] as u8))
}

/// `arch_prctl(2)`: where FS points, a C library keeps its thread.
pub(super) fn arch_prctl(call: &mut Call<'_>) -> Served {
    let [code, address, ..] = call.args;
    match code {
        ARCH_SET_FS | ARCH_SET_GS if address >= USER_END => return Err(Errno::EPERM.into()),
        ARCH_SET_FS => call.task.bases.fs = address,
        ARCH_SET_GS => call.task.bases.gs = address,
        ARCH_GET_FS => call.user().write_value(address, &call.task.bases.fs)?,
        ARCH_GET_GS => call.user().write_value(address, &call.task.bases.gs)?,
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// prctl(2): the name, and nothing else.
pub(super) fn prctl(call: &mut Call<'_>) -> Served {
    let [option, address, ..] = call.args;
    match option as i32 {
        libc::PR_SET_NAME => {
            let mut name = [0; 16];
            let given = match call.user().read_string(address, 16) {
                Err(Errno::ENAMETOOLONG) => call.user().read_value::<[u8; 16]>(address)?.to_vec(),
                other => other?,
            };
            // Longer names are cut, as by Linux; the last byte stays zero.
            for (kept, byte) in name.iter_mut().zip(given.iter().take(15)) {
                *kept = *byte;
            }
            call.task.name = name;
        }
        libc::PR_GET_NAME => call.user().write(address, &call.task.name)?,
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// `set_tid_address(2)`: the word is cleared when the thread ends, and then nobody is left to look.
#[expect(clippy::unnecessary_wraps, reason = "the table holds functions of one form")]
pub(super) fn set_tid_address(_: &mut Call<'_>) -> Served {
    Ok(PID)
}

/// `set_robust_list(2)`: as above.
pub(super) fn set_robust_list(call: &mut Call<'_>) -> Served {
    if call.args[1] == ROBUST_LIST_HEAD { Ok(0) } else { Err(Errno::EINVAL.into()) }
}

/// rseq(2): the processor is always number 0 and no sequence is ever interrupted, so writing that once is all.
pub(super) fn rseq(call: &mut Call<'_>) -> Served {
    let [address, length, flags, ..] = call.args;
    if address % RSEQ != 0 || length < RSEQ {
        return Err(Errno::EINVAL.into());
    }
    match (flags, call.task.rseq) {
        (0, None) => {
            // cpu_id_start and cpu_id.
            call.user().write_value(address, &[0_u32; 2])?;
            call.task.rseq = Some(address);
            Ok(0)
        }
        (0, Some(registered)) if registered == address => Err(Errno::EBUSY.into()),
        (RSEQ_FLAG_UNREGISTER, Some(registered)) if registered == address => {
            call.task.rseq = None;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// prlimit64(2), for the program itself.
pub(super) fn prlimit64(call: &mut Call<'_>) -> Served {
    let [pid, resource, new, old, ..] = call.args;
    if pid != 0 && pid != PID {
        return Err(Errno::ESRCH.into());
    }
    let kept = limit(call, resource)?;
    if new != 0 {
        let set: [u64; 2] = call.user().read_value(new)?;
        let [soft, hard] = set;
        if soft > hard {
            return Err(Errno::EINVAL.into());
        }
        // No limit here can be raised: what is behind it is as large as it will ever be.
        if hard > kept[1] {
            return Err(Errno::EPERM.into());
        }
        if let Some(limit) = call.task.limits.get_mut(resource as usize) {
            *limit = set;
        }
    }
    if old != 0 {
        call.user().write_value(old, &kept)?;
    }
    Ok(0)
}

/// getrlimit(2).
pub(super) fn getrlimit(call: &mut Call<'_>) -> Served {
    let [resource, address, ..] = call.args;
    let kept = limit(call, resource)?;
    call.user().write_value(address, &kept)?;
    Ok(0)
}

fn limit(call: &Call<'_>, resource: u64) -> Result<[u64; 2], Errno> {
    usize::try_from(resource).ok().and_then(|index| call.task.limits.get(index)).copied().ok_or(Errno::EINVAL)
}

/// `sched_yield(2)`: nobody else wants to run.
#[expect(clippy::unnecessary_wraps, reason = "the table holds functions of one form")]
pub(super) fn sched_yield(_: &mut Call<'_>) -> Served {
    Ok(0)
}
