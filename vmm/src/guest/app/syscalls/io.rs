//! The three open files: standard input, output and error of the monitor, and nothing else of the host.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll as host_ppoll};
use nix::sys::signal::Signal;
use nix::sys::stat;
use nix::sys::time::TimeSpec;

use super::super::task::{DEFAULT, Ready};
use super::super::user::{Access, Slice};
use super::{Call, Instead, Served, host, signal, time};
use crate::guest::READY;

/// The most that one call moves, in bytes; the rest is for the next call. It bounds the walk of the page tables.
const TRANSFER_MAX: u64 = 16 << 20;
/// The most vectors of readv(2) and entries of poll(2).
const VECTORS_MAX: u64 = 1024;

/// read(2).
pub(super) fn read(call: &mut Call<'_>) -> Served {
    let [fd, address, length, ..] = call.args;
    transfer(call, fd, &[[address, length]], Access::Write)
}

/// readv(2).
pub(super) fn readv(call: &mut Call<'_>) -> Served {
    let vectors = vectors(call)?;
    transfer(call, call.args[0], &vectors, Access::Write)
}

/// write(2).
pub(super) fn write(call: &mut Call<'_>) -> Served {
    let [fd, address, length, ..] = call.args;
    transfer(call, fd, &[[address, length]], Access::Read)
}

/// writev(2).
pub(super) fn writev(call: &mut Call<'_>) -> Served {
    let vectors = vectors(call)?;
    transfer(call, call.args[0], &vectors, Access::Read)
}

/// The vectors that readv(2) and writev(2) are given: address and length each.
fn vectors(call: &Call<'_>) -> Result<Vec<[u64; 2]>, Instead> {
    let [_, address, count, ..] = call.args;
    if count > VECTORS_MAX {
        return Err(Errno::EINVAL.into());
    }
    let mut vectors = vec![[0; 2]; count as usize];
    for (vector, index) in vectors.iter_mut().zip(0..) {
        *vector = call.user().read_value(address.saturating_add(index * 16))?;
    }
    Ok(vectors)
}

/// Moves bytes between a descriptor and the program's memory.
fn transfer(call: &mut Call<'_>, fd: u64, vectors: &[[u64; 2]], access: Access) -> Served {
    let index = descriptor(call, fd)?;
    let slices = gather(call, vectors, access)?;
    if slices.is_empty() {
        return Ok(0);
    }
    let says_ready = access == Access::Read && index == 1 && call.task.ready == Ready::No && begins_ready(&slices);
    if access == Access::Write && host::is_silent(call.task.files.get(index))? {
        call.task.awaited = Some(index);
        return Err(Errno::EINTR.into());
    }
    let moved = match access {
        Access::Write => host::read_into(call.task.files.get(index), &slices),
        Access::Read => host::write_from(call.task.files.get(index), &slices),
    };
    match moved {
        Ok(count) if says_ready => {
            call.task.ready = Ready::Said;
            Ok(count)
        }
        Err(Errno::EPIPE) if signal::action(call, Signal::SIGPIPE) == DEFAULT => {
            // Nobody reads any more: Linux ends the writer, quietly, unless it wants to hear of it as an error.
            Err(Instead::Exit(128 + Signal::SIGPIPE as u8))
        }
        other => Ok(other?),
    }
}

/// Whether the bytes begin a line by which a program says that it is ready.
fn begins_ready(slices: &[Slice<'_>]) -> bool {
    let mut start = [0; READY.len()];
    slices.first().is_some_and(|first| first.copy_to(&mut start) == start.len() && start == READY)
}

/// The guest memory behind vectors, up to the first page that is not accessible; `EFAULT` where that is the first.
fn gather<'a>(call: &'a Call<'_>, vectors: &[[u64; 2]], access: Access) -> Result<Vec<Slice<'a>>, Errno> {
    let user = call.user();
    let mut slices = Vec::new();
    let mut left = TRANSFER_MAX;
    for [address, length] in vectors {
        let wanted = (*length).min(left);
        match user.accessible(*address, wanted, access) {
            Ok(more) => {
                let found: u64 = more.iter().map(|slice| slice.len() as u64).sum();
                slices.extend(more);
                left -= found;
                if found < *length {
                    break;
                }
            }
            Err(errno) if slices.is_empty() => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(slices)
}

/// close(2). The host's descriptor stays open: it is the monitor's.
pub(super) fn close(call: &mut Call<'_>) -> Served {
    let index = descriptor(call, call.args[0])?;
    if let Some(open) = call.task.open.get_mut(index) {
        *open = false;
    }
    Ok(0)
}

/// fstat(2).
pub(super) fn fstat(call: &mut Call<'_>) -> Served {
    let [fd, address, ..] = call.args;
    write_stat(call, fd, address)
}

/// fstatat(2), where it means fstat(2): an empty path and `AT_EMPTY_PATH`. There is no other file.
pub(super) fn newfstatat(call: &mut Call<'_>) -> Served {
    let [fd, path, address, flags, ..] = call.args;
    let path = call.user().read_string(path, libc::PATH_MAX as usize)?;
    if !path.is_empty() || flags & libc::AT_EMPTY_PATH as u64 == 0 {
        return Err(Errno::ENOENT.into());
    }
    write_stat(call, fd, address)
}

/// `struct stat` of one of the three, as the host has it; its owner is the program.
fn write_stat(call: &Call<'_>, fd: u64, address: u64) -> Served {
    let index = descriptor(call, fd)?;
    let stat = stat::fstat(call.task.files.get(index))?;
    let mut words = [0_u64; 18];
    words[0] = stat.st_dev;
    words[1] = stat.st_ino;
    words[2] = stat.st_nlink;
    words[3] = u64::from(stat.st_mode);
    words[5] = stat.st_rdev;
    words[6] = stat.st_size as u64;
    words[7] = stat.st_blksize as u64;
    words[8] = stat.st_blocks as u64;
    words[9..15].copy_from_slice(
        &[stat.st_atime, stat.st_atime_nsec, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec]
            .map(|part| part as u64),
    );
    call.user().write_value(address, &words)?;
    Ok(0)
}

/// ioctl(2): none of the three is a terminal here, even where the monitor's is.
pub(super) fn ioctl(call: &mut Call<'_>) -> Served {
    descriptor(call, call.args[0])?;
    Err(Errno::ENOTTY.into())
}

/// poll(2).
pub(super) fn poll(call: &mut Call<'_>) -> Served {
    // A negative timeout is none at all.
    let timeout = u64::try_from(call.args[2] as i32).ok().map(Duration::from_millis);
    poll_for(call, timeout)
}

/// ppoll(2). No signal is ever delivered, so its mask changes nothing.
pub(super) fn ppoll(call: &mut Call<'_>) -> Served {
    let timeout = match call.args[2] {
        0 => None,
        address => Some(time::read_duration(call, address)?),
    };
    poll_for(call, timeout)
}

fn poll_for(call: &mut Call<'_>, timeout: Option<Duration>) -> Served {
    let [address, count, ..] = call.args;
    if count > VECTORS_MAX {
        return Err(Errno::EINVAL.into());
    }
    // Made again after an interruption, the call waits only for what was left.
    let timeout = timeout.map(|timeout| call.task.remaining.take().unwrap_or(timeout));
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    // struct pollfd: a descriptor, the events wanted, the events seen.
    let mut entries = vec![[0_u8; 8]; count as usize];
    for (entry, index) in entries.iter_mut().zip(0..) {
        *entry = call.user().read_value(address.saturating_add(index * 8))?;
    }
    let mut seen = vec![0_i16; entries.len()];
    let files = call.task.files.clone();
    let (mut slots, mut fds) = (Vec::new(), Vec::new());
    for (slot, [f0, f1, f2, f3, e0, e1, ..]) in entries.iter().enumerate() {
        let fd = i32::from_le_bytes([*f0, *f1, *f2, *f3]);
        let events = PollFlags::from_bits_truncate(i16::from_le_bytes([*e0, *e1]));
        let host = match descriptor(call, fd as u64) {
            _ if fd < 0 => continue,
            Ok(index) => files.get(index),
            Err(_) => {
                seen[slot] = libc::POLLNVAL;
                continue;
            }
        };
        slots.push(slot);
        fds.push(PollFd::new(host, events));
    }
    let answered = seen.iter().any(|events| *events != 0);
    let left = || deadline.map(|at| at.saturating_duration_since(Instant::now()));
    let polled = host::retry(|| {
        let wait = if answered { Some(Duration::ZERO) } else { left() };
        host_ppoll(&mut fds, wait.map(TimeSpec::from_duration), None)
    });
    if polled == Err(Errno::EINTR) {
        call.task.remaining = left();
    }
    polled?;
    for (slot, fd) in slots.iter().zip(&fds) {
        seen[*slot] = fd.revents().unwrap_or(PollFlags::empty()).bits();
    }
    for (events, index) in seen.iter().zip(0..) {
        call.user().write(address.saturating_add(index * 8 + 6), &events.to_le_bytes())?;
    }
    Ok(seen.iter().filter(|events| **events != 0).count() as u64)
}

/// getrandom(2), from the host's.
pub(super) fn getrandom(call: &mut Call<'_>) -> Served {
    let [address, length, flags, ..] = call.args;
    if flags & !u64::from(libc::GRND_NONBLOCK | libc::GRND_RANDOM | libc::GRND_INSECURE) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut filled = 0;
    for slice in call.user().accessible(address, length.min(TRANSFER_MAX), Access::Write)? {
        match host::random_into(&slice, flags as u32) {
            Ok(count) => filled += count,
            Err(errno) if filled == 0 => return Err(errno.into()),
            Err(_) => break,
        }
    }
    Ok(filled)
}

/// The index of an open descriptor of the program; `EBADF` for every other number.
pub(super) fn descriptor(call: &Call<'_>, fd: u64) -> Result<usize, Errno> {
    // The kernel takes a descriptor from the low half of its register.
    let index = fd as u32 as usize;
    match call.task.open.get(index) {
        Some(true) => Ok(index),
        _ => Err(Errno::EBADF),
    }
}
