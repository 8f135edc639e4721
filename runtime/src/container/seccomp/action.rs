//! What becomes of a system call: the value that the program returns (seccomp(2), `SECCOMP_RET_*`).

use oci_spec::runtime::LinuxSeccompAction;

use super::SeccompError;

/// What becomes of a call from an architecture that the profile does not speak of. The whole process ends: no program
/// can be expected to go on with one thread missing.
pub(super) const FOREIGN: u32 = libc::SECCOMP_RET_KILL_PROCESS;
/// The largest error number that the kernel hands through to a caller.
const ERRNO_MAX: u32 = 4095;
/// The largest value that a tracer can be told.
const TRACE_MAX: u32 = 0xffff;

/// The value for an action, with the error number that belongs to it; that is EPERM if none is given. `listener`: whether
/// there is somebody to be notified.
pub(super) fn action(action: LinuxSeccompAction, errno: Option<u32>, listener: bool) -> Result<u32, SeccompError> {
    let with = |base, largest| match errno.unwrap_or(libc::EPERM.cast_unsigned()) {
        value if value > largest => Err(SeccompError::Errno { value, largest }),
        value => Ok(base | value),
    };
    let plain = match action {
        LinuxSeccompAction::ScmpActErrno => return with(libc::SECCOMP_RET_ERRNO, ERRNO_MAX),
        LinuxSeccompAction::ScmpActTrace => return with(libc::SECCOMP_RET_TRACE, TRACE_MAX),
        LinuxSeccompAction::ScmpActNotify if listener => libc::SECCOMP_RET_USER_NOTIF,
        LinuxSeccompAction::ScmpActNotify => return Err(SeccompError::Notify),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        LinuxSeccompAction::ScmpActLog => libc::SECCOMP_RET_LOG,
        LinuxSeccompAction::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
    };
    match errno {
        // The specification: "when the action doesn't support an errno, the runtime MUST print an error and fail".
        Some(value) => Err(SeccompError::ErrnoWithoutError { value, action }),
        None => Ok(plain),
    }
}
