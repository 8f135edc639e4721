//! What a process does to itself, and to others by descriptor.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::Pid;

/// prctl(2) with at most two arguments after the option.
pub(crate) fn prctl(option: i32, first: u64, second: u64) -> nix::Result<()> {
    // SAFETY: the options used in this crate take numbers only.
    super::check(unsafe { libc::syscall(libc::SYS_prctl, option, first, second, 0, 0) }).map(drop)
}

/// Leaves the session keyring that was inherited for a new, empty one (`keyctl(2)`, `KEYCTL_JOIN_SESSION_KEYRING`).
pub(crate) fn new_session_keyring() -> nix::Result<()> {
    // SAFETY: a number and a null pointer, which means "without a name by which others could join it".
    let joined =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    match super::check(joined) {
        // A kernel without keys, or a filter around us that lets nobody in here use them: there is nothing to leave.
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Marks every descriptor from `first` on as "closed by execve" (`close_range(2)`).
pub(crate) fn close_on_exec_from(first: u32) -> nix::Result<()> {
    // SAFETY: three numbers.
    super::check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Whether the working directory lies inside the root directory.
///
/// getcwd(2) (not getcwd(3), which hides this) answers a path that begins with `(unreachable)` for a directory that
/// cannot be reached from the root: the sign of a directory of the host that was smuggled in as a descriptor.
pub(crate) fn working_directory_is_inside() -> nix::Result<bool> {
    let mut buffer = [0_u8; 4096];
    // SAFETY: pointer and length of one array.
    super::check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    Ok(buffer.first() == Some(&b'/'))
}

/// A copy of a descriptor that execve(2) leaves open.
pub(crate) fn inheritable(descriptor: &impl AsFd) -> nix::Result<OwnedFd> {
    /// Out of the way of the low numbers, which many a program takes for its own.
    const ABOVE: RawFd = 100;
    // SAFETY: two numbers beside a descriptor that is open.
    let copy =
        super::check(unsafe { libc::syscall(libc::SYS_fcntl, descriptor.as_fd().as_raw_fd(), libc::F_DUPFD, ABOVE) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy as RawFd) })
}

/// Has a command do something between fork(2) and execve(2): system calls on what lies ready in memory, and no more.
pub(crate) fn before_exec(command: &mut Command, act: impl Fn() -> nix::Result<()> + Send + Sync + 'static) {
    // SAFETY: the callers keep to the sentence above; our commands have one thread, so that nobody holds a lock meanwhile.
    unsafe { command.pre_exec(move || act().map_err(std::io::Error::from)) };
}

/// A descriptor of the process `pid` (`pidfd_open(2)`).
pub(crate) fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: two numbers.
    let opened = super::check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(opened as RawFd) })
}

/// Sends a signal to the process that `pidfd` holds, and to no other that has its number (`pidfd_send_signal(2)`).
pub(crate) fn pidfd_signal(pidfd: &impl AsFd, signal: i32) -> nix::Result<()> {
    // SAFETY: numbers and a null pointer, which means "as kill(2) would".
    super::check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// The highest signal number on x86-64 (signal(7)); the real-time ones end with it.
pub(crate) const LAST_SIGNAL: i32 = 64;

/// Gives a signal its default action (`rt_sigaction(2)`).
///
/// Not by the C library's sigaction(3): that refuses 32 and 33, which it keeps for its threads, and so could not take back
/// what a parent without it has ignored.
pub(crate) fn default_action(signal: i32) -> nix::Result<()> {
    // The kernel's `struct sigaction`: handler, flags, restorer, mask. All zero is the default action without flags.
    let action = [0_usize; 4];
    // SAFETY: `action` has the kernel's layout and outlives the call; a null pointer means the old action isn't asked for;
    // the default action has no handler that could do anything unsafe.
    super::check(unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), std::ptr::null_mut::<usize>(), size_of::<u64>())
    })
    .map(drop)
}

/// The descriptors that this process is done with and that are still open, a bit each.
static DONE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Leaves a descriptor that nobody needs any more for [`close_done`]. Assembling a root needs a hundred for a
/// moment each, and a hundred close(2) calls would make up a fifth of a start's system calls.
///
/// A large number is closed at once: so a bundle with a thousand mounts needs no more than the few descriptors it may have.
pub(crate) fn done_with(descriptor: OwnedFd) {
    let number = descriptor.as_raw_fd() as usize;
    if let Some(set) = DONE.get(number / 64) {
        set.fetch_or(1 << (number % 64), Ordering::Relaxed);
        std::mem::forget(descriptor);
    }
}

/// Closes what was left by [`done_with`], a call for each run of numbers. Before anything of the container's can name
/// them: a folder below a mask, still open, would be a working directory that the mask does not cover.
pub(crate) fn close_done() -> nix::Result<()> {
    let [low, high] = DONE.each_ref().map(|set| u128::from(set.swap(0, Ordering::Relaxed)));
    let mut left = low | high << 64;
    while left != 0 {
        let first = left.trailing_zeros();
        let length = (left >> first).trailing_ones();
        let last = first + length - 1;
        // SAFETY: three numbers; who has put these descriptors here has given them away.
        super::check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
        left = left.checked_shr(last + 1).and_then(|rest| rest.checked_shl(last + 1)).unwrap_or(0);
    }
    Ok(())
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its program ended by itself, with this status.
    Status(i32),
    /// A signal ended it.
    Signal(i32),
}

impl Ending {
    /// From the number that wait(2) has for it: the signal in the low seven bits, the status above the low byte.
    pub(crate) fn of(number: i32) -> Self {
        let signal = number & 0x7f;
        if signal == 0 { Self::Status(number >> 8 & 0xff) } else { Self::Signal(signal) }
    }

    /// The status a shell would give: that of the program, or 128 and the signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Status(status) => status,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Waits for a child's end and reaps it (waitid(2)). `nix` has this call too, but knows no real-time signal.
pub(crate) fn reap(pidfd: &impl AsFd) -> nix::Result<Ending> {
    loop {
        // SAFETY: a structure of integers, which the call fills.
        let mut told: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `told` outlives the call.
        let returned = unsafe {
            libc::waitid(libc::P_PIDFD, pidfd.as_fd().as_raw_fd() as libc::id_t, &raw mut told, libc::WEXITED)
        };
        match Errno::result(returned) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => {
                // SAFETY: after a successful wait the structure holds what belongs to SIGCHLD.
                let status = unsafe { told.si_status() };
                return Ok(if told.si_code == libc::CLD_EXITED {
                    Ending::Status(status)
                } else {
                    Ending::Signal(status)
                });
            }
        }
    }
}

/// What `PIDFD_GET_INFO` fills (linux/pidfd.h, the first version of the structure: 64 bytes).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    numbers: [u32; 11],
    exit_code: i32,
}

/// `_IOWR(0xff, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;
/// Whether the exit code is asked for, and told.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// How a process ended that is no child of ours. Since Linux 6.15 that is told to whoever held it by descriptor before its
/// parent reaped it; nothing where it has not been reaped yet, or the kernel is older.
pub(crate) fn ending_of(pidfd: &impl AsFd) -> Option<Ending> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: `info` has the size that the request names, and outlives the call.
    let told = unsafe { libc::syscall(libc::SYS_ioctl, pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    super::check(told).ok()?;
    if info.mask & PIDFD_INFO_EXIT == 0 {
        return None;
    }
    Some(Ending::of(info.exit_code))
}

/// Waits until the process has ended, child or not; false where that takes more than so many milliseconds.
pub(crate) fn wait_end(pidfd: &impl AsFd, milliseconds: u16) -> nix::Result<bool> {
    let mut it = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut it, milliseconds) {
            Err(Errno::EINTR) => {}
            other => return other.map(|count| count > 0),
        }
    }
}

/// Sets the NIS domain name of the calling process's UTS namespace (setdomainname(2)).
pub(crate) fn set_domainname(name: &CStr) -> nix::Result<()> {
    // SAFETY: pointer and length of one string.
    super::check(unsafe { libc::syscall(libc::SYS_setdomainname, name.as_ptr(), name.count_bytes()) }).map(drop)
}

/// Waits for a connection (accept4(2)).
pub(crate) fn accept(listener: &impl AsFd) -> nix::Result<OwnedFd> {
    loop {
        let listener = listener.as_fd().as_raw_fd();
        // SAFETY: null pointers mean that the peer's address is not asked for.
        let returned = unsafe {
            libc::syscall(
                libc::SYS_accept4,
                listener,
                std::ptr::null::<u8>(),
                std::ptr::null::<u8>(),
                libc::SOCK_CLOEXEC,
            )
        };
        match super::check(returned) {
            Err(Errno::EINTR) => {}
            // SAFETY: a new descriptor that nobody else owns.
            other => return other.map(|opened| unsafe { OwnedFd::from_raw_fd(opened as RawFd) }),
        }
    }
}

/// NUL-terminated strings and the array of pointers to them that `execve` wants, made before the fork.
#[derive(Debug)]
pub(crate) struct Strings {
    strings: Vec<CString>,
    /// With room for one more before the end.
    pointers: Vec<Cell<*const c_char>>,
}

impl Strings {
    /// Keeps `strings` and points at each; a null pointer ends the array.
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let ends = [std::ptr::null(); 2];
        let pointers = strings.iter().map(|text| text.as_ptr()).chain(ends).map(Cell::new).collect();
        Self { strings, pointers }
    }

    fn as_ptr(&self) -> *const *const c_char {
        // A cell is laid out as what is in it.
        self.pointers.as_ptr().cast()
    }

    /// The strings.
    pub(crate) fn list(&self) -> &[CString] {
        &self.strings
    }
}

/// As [`execute`], the program being a file that is open (`execveat(2)`).
pub(crate) fn execute_file(file: &impl AsFd, arguments: &Strings, environment: &Strings) -> Errno {
    let (file, flags) = (file.as_fd().as_raw_fd(), libc::AT_EMPTY_PATH);
    let (arguments, environment) = (arguments.as_ptr(), environment.as_ptr());
    // SAFETY: the pointers are those of strings that `Strings` owns and never changes, and end with null.
    unsafe { libc::syscall(libc::SYS_execveat, file, c"".as_ptr(), arguments, environment, flags) };
    Errno::last()
}

/// Replaces the process's program (execve(2)); returns only where that fails. `more` is one more variable.
pub(crate) fn execute(path: &CStr, arguments: &Strings, environment: &Strings, more: Option<&CStr>) -> Errno {
    // Nothing is allocated here: the array has the room, and points nowhere again before `more` can go.
    let room = environment.pointers.get(environment.strings.len());
    let set = |to| room.into_iter().for_each(|room| room.set(to));
    set(more.map_or(std::ptr::null(), CStr::as_ptr));
    // SAFETY: the pointers are those of strings that live until this returns, and end with null.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    let errno = Errno::last();
    set(std::ptr::null());
    errno
}
