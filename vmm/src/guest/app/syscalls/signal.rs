//! Signals: what the program sets is kept, what it sends itself takes the default action.
//!
//! A handler is never called. A program that faults ends as if it had none (see [`super::super::fault`]); the Rust
//! standard library's handler, which reports an overflowed stack, is thus not heard, but the status is the same kind.

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::super::AppError;
use super::super::task::{DEFAULT, IGNORE, PID};
use super::{Call, Instead, Served};

/// The size of the kernel's signal set, in bytes.
const SET_SIZE: u64 = 8;
/// The smallest alternate stack that sigaltstack(2) takes.
const STACK_MIN: u64 = 2048;

/// `rt_sigaction(2)`.
pub(super) fn rt_sigaction(call: &mut Call<'_>) -> Served {
    let [number, new, old, size, ..] = call.args;
    let index = index(number)?;
    if size != SET_SIZE {
        return Err(Errno::EINVAL.into());
    }
    let fixed = [libc::SIGKILL, libc::SIGSTOP].map(|signal| signal as u64).contains(&number);
    if new != 0 && fixed {
        return Err(Errno::EINVAL.into());
    }
    let set: Option<[u64; 4]> = if new == 0 { None } else { Some(call.user().read_value(new)?) };
    let kept = call.task.actions.get(index).copied().unwrap_or_default();
    if old != 0 {
        call.user().write_value(old, &kept)?;
    }
    if let (Some(set), Some(kept)) = (set, call.task.actions.get_mut(index)) {
        *kept = set;
    }
    Ok(0)
}

/// `rt_sigprocmask(2)`.
pub(super) fn rt_sigprocmask(call: &mut Call<'_>) -> Served {
    let [how, new, old, size, ..] = call.args;
    if size != SET_SIZE {
        return Err(Errno::EINVAL.into());
    }
    let kept = call.task.mask;
    if new != 0 {
        let set: u64 = call.user().read_value(new)?;
        let mask = match how as i32 {
            libc::SIG_BLOCK => kept | set,
            libc::SIG_UNBLOCK => kept & !set,
            libc::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL.into()),
        };
        // These two cannot be blocked; asking for it is no error.
        call.task.mask = mask & !(1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1));
    }
    if old != 0 {
        call.user().write_value(old, &kept)?;
    }
    Ok(0)
}

/// sigaltstack(2).
pub(super) fn sigaltstack(call: &mut Call<'_>) -> Served {
    let [new, old, ..] = call.args;
    let set: Option<[u64; 3]> = if new == 0 { None } else { Some(call.user().read_value(new)?) };
    if let Some([_, flags, size]) = set {
        // The upper half of the flags' word is padding.
        match flags as i32 {
            libc::SS_DISABLE => {}
            0 | libc::SS_ONSTACK if size < STACK_MIN => return Err(Errno::ENOMEM.into()),
            0 | libc::SS_ONSTACK => {}
            _ => return Err(Errno::EINVAL.into()),
        }
    }
    if old != 0 {
        call.user().write_value(old, &call.task.alternate_stack)?;
    }
    if let Some([address, flags, size]) = set {
        call.task.alternate_stack = [address, u64::from(flags as u32 & libc::SS_DISABLE as u32), size];
    }
    Ok(0)
}

/// kill(2) and tkill(2): the program can signal itself only.
pub(super) fn kill(call: &mut Call<'_>) -> Served {
    let [target, number, ..] = call.args;
    // 0 is the caller's process group, which is the caller.
    if target != PID && target != 0 {
        return Err(Errno::ESRCH.into());
    }
    raise(call, number)
}

/// tgkill(2): what raise(3) and abort(3) use.
pub(super) fn tgkill(call: &mut Call<'_>) -> Served {
    let [group, thread, number, ..] = call.args;
    if group != PID || thread != PID {
        return Err(Errno::ESRCH.into());
    }
    raise(call, number)
}

/// Takes the default action of a signal (signal(7), "Standard signals").
fn raise(call: &Call<'_>, number: u64) -> Served {
    if number == 0 {
        return Ok(0);
    }
    let index = index(number)?;
    let handler = call.task.actions.get(index).map_or(DEFAULT, |action| action[0]);
    let blocked = call.task.mask & (1 << index) != 0;
    match number as i32 {
        libc::SIGKILL => Err(Instead::Broken(AppError::Signal(number as u8))),
        _ if handler == IGNORE => Ok(0),
        // Neither a handler nor a signal that waits for its time is served: better no signal than a lost one.
        _ if handler != DEFAULT || blocked => Err(Instead::Unserved),
        libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT => Ok(0),
        libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Err(Instead::Unserved),
        _ => Err(Instead::Broken(AppError::Signal(number as u8))),
    }
}

/// What the program has set for a signal: an address, or one of the two special values.
pub(super) fn action(call: &Call<'_>, signal: Signal) -> u64 {
    call.task.actions.get(signal as usize - 1).map_or(DEFAULT, |action| action[0])
}

/// Where a signal's action is kept; `EINVAL` where there is no such signal.
fn index(number: u64) -> Result<usize, Errno> {
    match number {
        1..=64 => Ok(number as usize - 1),
        _ => Err(Errno::EINVAL),
    }
}
