//! The system calls that are served: one table, one file a family.
//!
//! Each is what its man page (section 2) says, as far as one process, one thread and three open files go. All that the
//! program hands over is checked, and each answer is a number or an error number; nothing that it asks for can stop the
//! monitor, and nothing makes it wait where the machine's time limit and a stop signal cannot end the wait.

mod futex;
mod host;
mod ident;
mod io;
mod memory;
mod process;
mod signal;
mod time;

pub(super) use self::host::random_bytes;

use nix::errno::Errno;
use syscalls::Sysno;

use super::AppError;
use super::space::SpaceError;
use super::task::{Task, sysno};
use super::user::User;
use crate::memory::Memory;

/// One system call: who calls, with what.
pub(super) struct Call<'a> {
    /// The caller.
    pub(super) task: &'a mut Task,
    /// The machine's memory.
    pub(super) memory: &'a Memory,
    /// RDI, RSI, RDX, R10, R8, R9 (System V ABI, x86-64 supplement, section A.2.1).
    pub(super) args: [u64; 6],
}

impl Call<'_> {
    /// The caller's memory.
    fn user(&self) -> User<'_> {
        User::new(self.memory.guest(), self.task.space.tables())
    }
}

/// What a served call gives: a number, or something else.
type Served = Result<u64, Instead>;

/// What there can be instead of a number.
#[derive(Debug)]
enum Instead {
    /// An error number, as Linux would give it.
    Errno(Errno),
    /// This call, or this variant of it, is not served: `ENOSYS`, and counted.
    Unserved,
    /// The program is over.
    Exit(u8),
    /// The machine is.
    Broken(AppError),
}

impl From<Errno> for Instead {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<SpaceError> for Instead {
    fn from(error: SpaceError) -> Self {
        match error {
            SpaceError::Refused(errno) => Self::Errno(errno),
            other => Self::Broken(AppError::Space(other)),
        }
    }
}

/// How the machine goes on after a system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    /// The program runs on with this in RAX.
    Return(u64),
    /// It has ended with this status.
    Exit(u8),
    /// It was interrupted, because the machine shall stand still, rest or end: the program makes the call again when it goes on.
    Again,
}

/// Serves system call `number`.
///
/// # Errors
/// Only what ends the machine: the program hurt itself beyond going on, or memory failed.
pub(super) fn serve(number: u64, mut call: Call<'_>) -> Result<Reply, AppError> {
    let served = match handler(number) {
        Some(handler) => handler(&mut call),
        None => Err(Instead::Unserved),
    };
    match served {
        Ok(value) => Ok(Reply::Return(value)),
        // No signal is ever delivered to the program, so none of its calls is ever interrupted on its own account.
        Err(Instead::Errno(Errno::EINTR)) => Ok(Reply::Again),
        Err(Instead::Errno(errno)) => Ok(Reply::Return(failure(errno))),
        Err(Instead::Unserved) => {
            call.task.count_unserved(number);
            Ok(Reply::Return(failure(Errno::ENOSYS)))
        }
        Err(Instead::Exit(status)) => Ok(Reply::Exit(status)),
        Err(Instead::Broken(error)) => Err(error),
    }
}

/// An error as RAX carries it: the negative error number.
fn failure(errno: Errno) -> u64 {
    i64::from(-(errno as i32)) as u64
}

/// The table of what is served.
fn handler(number: u64) -> Option<fn(&mut Call<'_>) -> Served> {
    Some(match sysno(number)? {
        Sysno::exit | Sysno::exit_group => process::exit,
        Sysno::arch_prctl => process::arch_prctl,
        Sysno::prctl => process::prctl,
        Sysno::set_tid_address => process::set_tid_address,
        Sysno::set_robust_list => process::set_robust_list,
        Sysno::rseq => process::rseq,
        Sysno::prlimit64 => process::prlimit64,
        Sysno::getrlimit => process::getrlimit,
        Sysno::sched_yield => process::sched_yield,
        Sysno::futex => futex::futex,

        Sysno::brk => memory::brk,
        Sysno::mmap => memory::mmap,
        Sysno::munmap => memory::munmap,
        Sysno::mprotect => memory::mprotect,

        Sysno::read => io::read,
        Sysno::readv => io::readv,
        Sysno::write => io::write,
        Sysno::writev => io::writev,
        Sysno::close => io::close,
        Sysno::fstat => io::fstat,
        Sysno::newfstatat => io::newfstatat,
        Sysno::ioctl => io::ioctl,
        Sysno::poll => io::poll,
        Sysno::ppoll => io::ppoll,
        Sysno::getrandom => io::getrandom,

        Sysno::clock_gettime => time::clock_gettime,
        Sysno::clock_getres => time::clock_getres,
        Sysno::gettimeofday => time::gettimeofday,
        Sysno::time => time::time,
        Sysno::nanosleep => time::nanosleep,
        Sysno::clock_nanosleep => time::clock_nanosleep,
        Sysno::pause => time::pause,

        Sysno::rt_sigaction => signal::rt_sigaction,
        Sysno::rt_sigprocmask => signal::rt_sigprocmask,
        Sysno::sigaltstack => signal::sigaltstack,
        Sysno::kill | Sysno::tkill => signal::kill,
        Sysno::tgkill => signal::tgkill,

        Sysno::uname => ident::uname,
        Sysno::readlink => ident::readlink,
        Sysno::readlinkat => ident::readlinkat,
        Sysno::getpid | Sysno::gettid => ident::own_number,
        Sysno::getppid | Sysno::getuid | Sysno::geteuid | Sysno::getgid | Sysno::getegid => ident::zero,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "../syscalls_tests.rs"]
mod tests;
