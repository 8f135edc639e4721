//! Who the program is, and on what it runs.

use nix::errno::Errno;

use super::super::task::PID;
use super::{Call, Served};

/// The length of each of the six texts of `struct utsname`, in bytes.
const TEXT: usize = 65;
/// What uname(2) says. The release is one that every C library of today accepts ("kernel too old" is checked by it).
const NAMES: [&str; 6] =
    ["Linux", "isolab", "6.1.0-isolab", "no kernel: isolab-vm serves the system calls", "x86_64", "(none)"];

/// uname(2).
pub(super) fn uname(call: &mut Call<'_>) -> Served {
    let mut texts = [0_u8; TEXT * NAMES.len()];
    for (text, name) in texts.chunks_exact_mut(TEXT).zip(NAMES) {
        for (kept, byte) in text.iter_mut().zip(name.bytes().take(TEXT - 1)) {
            *kept = byte;
        }
    }
    call.user().write(call.args[0], &texts)?;
    Ok(0)
}

/// readlink(2): there is one link, `/proc/self/exe`.
pub(super) fn readlink(call: &mut Call<'_>) -> Served {
    let [path, buffer, size, ..] = call.args;
    follow(call, path, buffer, size)
}

/// readlinkat(2): as above; the path is absolute, so the directory does not matter.
pub(super) fn readlinkat(call: &mut Call<'_>) -> Served {
    let [_, path, buffer, size, ..] = call.args;
    follow(call, path, buffer, size)
}

fn follow(call: &Call<'_>, path: u64, buffer: u64, size: u64) -> Served {
    // The size is an int: 0 and less is EINVAL.
    let size = usize::try_from(size as i32).ok().filter(|size| *size > 0).ok_or(Errno::EINVAL)?;
    let path = call.user().read_string(path, libc::PATH_MAX as usize)?;
    if path != b"/proc/self/exe" {
        return Err(Errno::ENOENT.into());
    }
    // What does not fit is cut, and there is no zero byte at the end (readlink(2)).
    let target = call.task.executable.get(..size).unwrap_or(&call.task.executable);
    call.user().write(buffer, target)?;
    Ok(target.len() as u64)
}

/// getpid(2), gettid(2).
#[expect(clippy::unnecessary_wraps, reason = "the table holds functions of one form")]
pub(super) fn own_number(_: &mut Call<'_>) -> Served {
    Ok(PID)
}

/// getuid(2) and its kin: the program is root in its machine, which means nothing outside. Its parent has no number.
#[expect(clippy::unnecessary_wraps, reason = "the table holds functions of one form")]
pub(super) fn zero(_: &mut Call<'_>) -> Served {
    Ok(0)
}
