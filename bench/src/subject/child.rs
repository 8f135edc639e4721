//! Starting a program the cheapest way there is, and hearing of its end: `posix_spawn(3)`, `pidfd_open(2)`, wait4(2).
//!
//! `posix_spawn` clones with `CLONE_VM | CLONE_VFORK`: nothing of the harness' memory is copied, so a start costs the same
//! however large the harness has grown. Everything that needs memory is made before, in [`Ready`].

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A program with its arguments and descriptors, an instant before its start.
pub(crate) struct Ready {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    actions: Box<libc::posix_spawn_file_actions_t>,
    attributes: Box<libc::posix_spawnattr_t>,
    /// Named by `actions`, and closed once the child has its copies.
    descriptors: Vec<OwnedFd>,
}

// SAFETY: the two structures of the C library hold plain memory of their own, and nothing of a thread's.
unsafe impl Send for Ready {}

/// A child of this process' that has not been waited for.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    reaped: bool,
}

/// What a child used, with the children that it waited for (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) user_ns: u64,
    pub(crate) system_ns: u64,
    pub(crate) peak_rss_bytes: u64,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Status(i32),
    Signal(i32),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Status(status) => write!(out, "ended with status {status}"),
            Self::Signal(signal) => {
                let name = Signal::try_from(signal).map_or("unknown", Signal::as_str);
                write!(out, "was killed by signal {signal} ({name})")
            }
        }
    }
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// An error number as what `posix_spawn`'s family returns it.
fn check(number: i32) -> io::Result<()> {
    if number == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(number)) }
}

impl Ready {
    /// Prepares a start in `folder`. The child gets `descriptors` as its 0, 1, 2 and so on, and no other.
    pub(crate) fn new(
        program: &Path,
        arguments: &[impl AsRef<OsStr>],
        environment: &[CString],
        folder: &Path,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<Self> {
        let program = c_string(program.as_os_str())?;
        let folder = c_string(folder.as_os_str())?;
        let given = arguments.iter().map(|argument| c_string(argument.as_ref()));
        let arguments = std::iter::once(Ok(program.clone())).chain(given).collect::<io::Result<_>>()?;
        Ok(Self {
            program,
            arguments,
            environment: environment.to_vec(),
            actions: file_actions(&folder, &descriptors)?,
            attributes: attributes()?,
            descriptors,
        })
    }

    /// Starts it. What this returns, returns once the program's first instruction is next.
    pub(crate) fn spawn(self) -> io::Result<Child> {
        let mut pid = 0;
        let arguments = pointers(&self.arguments);
        let environment = pointers(&self.environment);
        // SAFETY: all strings are NUL-terminated and all arrays end with a null pointer; both structures were initialized;
        // all of it outlives the call.
        check(unsafe {
            libc::posix_spawn(
                &raw mut pid,
                self.program.as_ptr(),
                &raw const *self.actions,
                &raw const *self.attributes,
                arguments.as_ptr(),
                environment.as_ptr(),
            )
        })?;
        Ok(Child { pid: Pid::from_raw(pid), reaped: false })
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        // SAFETY: both were initialized in `new` and are destroyed once.
        unsafe {
            libc::posix_spawn_file_actions_destroy(&raw mut *self.actions);
            libc::posix_spawnattr_destroy(&raw mut *self.attributes);
        }
        self.descriptors.clear();
    }
}

/// The array that execve(2) wants. `posix_spawn` does not write through its pointers, whatever their type says.
fn pointers(strings: &[CString]) -> Vec<*mut libc::c_char> {
    strings.iter().map(|text| text.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

fn file_actions(folder: &CStr, descriptors: &[OwnedFd]) -> io::Result<Box<libc::posix_spawn_file_actions_t>> {
    let mut actions = Box::new(MaybeUninit::uninit());
    // SAFETY: `init` fills the structure that it is given; the others add to it and copy what they are given.
    unsafe {
        check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
        check(libc::posix_spawn_file_actions_addchdir_np(actions.as_mut_ptr(), folder.as_ptr()))?;
        // In ascending order: a descriptor of ours that has the number of a later target was copied by then, as ours lie
        // above 2 (the standard library opens /dev/null for what is closed at our start).
        for (target, descriptor) in (0..).zip(descriptors) {
            check(libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), descriptor.as_raw_fd(), target))?;
        }
        Ok(actions.assume_init())
    }
}

fn attributes() -> io::Result<Box<libc::posix_spawnattr_t>> {
    let flags = libc::POSIX_SPAWN_SETPGROUP | libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
    let mut attributes = Box::new(MaybeUninit::uninit());
    let mut none = MaybeUninit::uninit();
    let mut ignored = MaybeUninit::uninit();
    // SAFETY: `init` and `sigemptyset` fill what they are given; the others change or copy it.
    unsafe {
        check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigemptyset(ignored.as_mut_ptr());
        // Rust programs ignore it, and what is ignored stays so over execve.
        libc::sigaddset(ignored.as_mut_ptr(), libc::SIGPIPE);
        check(libc::posix_spawnattr_setflags(attributes.as_mut_ptr(), flags as libc::c_short))?;
        // A process group of its own: Ctrl-C in a terminal reaches the harness, which then ends the subject in good order.
        check(libc::posix_spawnattr_setpgroup(attributes.as_mut_ptr(), 0))?;
        check(libc::posix_spawnattr_setsigmask(attributes.as_mut_ptr(), none.as_ptr()))?;
        check(libc::posix_spawnattr_setsigdefault(attributes.as_mut_ptr(), ignored.as_ptr()))?;
        Ok(attributes.assume_init())
    }
}

impl Child {
    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// A descriptor that becomes readable when it ends.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        // SAFETY: a plain system call; as the child has not been waited for, its pid is its own.
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid.as_raw(), 0) };
        let descriptor = Errno::result(descriptor)? as i32;
        // SAFETY: just opened, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> io::Result<(Ending, Used)> {
        self.reap()
    }

    fn reap(&mut self) -> io::Result<(Ending, Used)> {
        let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
        loop {
            // SAFETY: both point to memory of the right size, and `rusage` may be all zeroes.
            let pid = unsafe { libc::wait4(self.pid.as_raw(), &raw mut status, 0, usage.as_mut_ptr()) };
            match Errno::result(pid) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => break,
            }
        }
        self.reaped = true;
        let ending = if libc::WIFSIGNALED(status) {
            Ending::Signal(libc::WTERMSIG(status))
        } else {
            Ending::Status(libc::WEXITSTATUS(status))
        };
        // SAFETY: zeroed above, and filled by the kernel.
        Ok((ending, Used::of(&unsafe { usage.assume_init() })))
    }

    /// Kills it and its process group, whatever they are doing. The end is still to be waited for.
    pub(crate) fn kill(&self) {
        // It may be a zombie with no group left; both calls then fail, and there is nothing to kill.
        let _ = killpg(self.pid, Signal::SIGKILL);
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
    }
}

impl Drop for Child {
    /// A start that went wrong half way leaves neither a process nor a zombie.
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.reap();
        }
    }
}

impl Used {
    fn of(usage: &libc::rusage) -> Self {
        let nanoseconds = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
        Self {
            user_ns: nanoseconds(usage.ru_utime),
            system_ns: nanoseconds(usage.ru_stime),
            peak_rss_bytes: usage.ru_maxrss as u64 * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::path::Path;

    use super::*;

    fn run(script: &str) -> (Ending, String) {
        let (mut reader, writer) = io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        let descriptors = vec![null.into(), writer.into()];
        let ready =
            Ready::new(Path::new("/bin/sh"), &["-c", script], &[c"WORD=heard".to_owned()], Path::new("/"), descriptors);
        let child = ready.unwrap().spawn().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        (child.wait().unwrap().0, text)
    }

    #[test]
    fn a_child_gets_its_folder_environment_and_descriptors_and_its_end_is_told() {
        assert_eq!(run("pwd; echo $WORD; exit 7"), (Ending::Status(7), "/\nheard\n".into()));
        assert_eq!(run("kill -9 $$").0.to_string(), "was killed by signal 9 (SIGKILL)");
    }

    #[test]
    fn a_program_that_is_absent_is_an_error_and_no_child() {
        let ready = Ready::new(Path::new("/no such program"), &[""; 0], &[], Path::new("/"), Vec::new()).unwrap();
        assert_eq!(ready.spawn().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
