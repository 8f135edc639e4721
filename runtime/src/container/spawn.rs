//! The container's first process, as the runtime holds it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{Pid, pipe2, read, write};
use tracing::info_span;

use super::cgroup::Cgroup;
use super::channel::{Heard, RuntimeEnd, Word, pair};
use super::error::ContainerError;
use super::lifecycle::Between;
use super::namespaces::Join;
use super::net_devices;
use super::plan::Plan;
use super::signals::Signals;
use super::subids;
use super::sys::clone::{CLONE_PARENT, Side, clone3, exit_now};
use super::sys::process::{Ending, pidfd_open, pidfd_signal, reap, wait_end};

/// A process that is the runtime's to end: dropped, it is killed and reaped.
#[derive(Debug)]
pub(crate) struct InitProcess {
    pid: Pid,
    pidfd: OwnedFd,
    wire: RuntimeEnd,
    ours: bool,
}

impl InitProcess {
    /// Makes the process in its new namespaces: on v2 inside `cgroup`, on v1 before its doors. It begins to follow `plan` at
    /// once.
    pub(crate) fn new(plan: &Plan, cgroup: Option<&Cgroup>) -> Result<Self, ContainerError> {
        let doors = cgroup.map(Cgroup::doors).transpose()?.unwrap_or_default();
        let failed =
            |source| ContainerError::System { attempt: "make a process in", on: "new namespaces".to_owned(), source };
        let (wire, process_end) = pair().map_err(failed)?;
        let through = plan.namespaces.born_through();
        let joined_pid = plan.namespaces.joined_pid.as_ref();
        let _elsewhere = joined_pid.filter(|_| through.is_none()).map(PidNamespace::enter).transpose()?;
        let _span = info_span!("container.clone3", call = "clone3(2)",
            why = "one call makes the process and its namespaces; it is a copy of the runtime and prepares itself from here on")
        .entered();
        crate::spans::fault().map_err(failed)?;
        let flags = u64::from(plan.namespaces.born_into.bits() as u32);
        let cgroup = cgroup.and_then(Cgroup::clone_into);
        let side = match through {
            // SAFETY: the child runs `init::live`, which neither allocates nor returns.
            None => unsafe { clone3(flags, cgroup) },
            // SAFETY: as above.
            Some(user) => unsafe { born_through(user, joined_pid, flags, cgroup) },
        };
        match side.map_err(failed)? {
            Side::Child => {
                drop(wire);
                super::init::live(plan, &doors, process_end)
            }
            Side::Parent { child, pidfd } => {
                crate::spans::container_is(child.as_raw().unsigned_abs());
                if let Some(listener) = &plan.process.listener {
                    listener.leave_to_process();
                }
                Ok(Self { pid: child, pidfd, wire, ours: true })
            }
        }
    }

    /// One that was made elsewhere, by another of our children.
    pub(crate) fn adopt(pid: Pid, pidfd: OwnedFd, wire: RuntimeEnd) -> Self {
        Self { pid, pidfd, wire, ours: true }
    }

    /// It, by descriptor.
    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Its number on the host.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Writes what only an outsider can: the numbers of the user namespace, how soon it dies when memory runs out, and what
    /// the caller has to add.
    pub(crate) fn furnish(&self, plan: &Plan, between: Between<'_>) -> Result<(), ContainerError> {
        if plan.namespaces.ids.is_some() || plan.oom_score.is_some() {
            self.write_files(plan)?;
        }
        net_devices::give(&plan.net_devices, &plan.namespaces, self.pid)?;
        between(self.pid.as_raw()).map_err(ContainerError::Caller)?;
        self.say(Word::Furnished)
    }

    fn write_files(&self, plan: &Plan) -> Result<(), ContainerError> {
        let files = ProcFiles::open(self.pid)?;
        if let Some(score) = plan.oom_score {
            files.write("oom_score_adj", &score.to_string())?;
        }
        if let Some(ids) = &plan.namespaces.ids {
            let _span = info_span!(
                "namespace.map",
                call = "write(uid_map), write(gid_map)",
                why = "root inside is an ordinary user outside: that is what makes the user namespace worth having"
            )
            .entered();
            ContainerError::fault("namespace.map")?;
            if ids.deny_setgroups {
                files.write("setgroups", "deny")?;
            }
            if ids.lent {
                subids::map(self.pid, ids)?;
            } else {
                files.write("uid_map", &ids.users)?;
                files.write("gid_map", &ids.groups)?;
            }
            self.say(Word::Mapped)?;
        }
        Ok(())
    }

    /// Tells the process something.
    pub(crate) fn say(&self, word: Word) -> Result<(), ContainerError> {
        self.wire.say(word, self.pid).map_err(ContainerError::system("talk to", "the container's process"))
    }

    /// Waits until the process tells something.
    pub(crate) fn hear_plain(&self) -> Result<Heard, ContainerError> {
        self.wire.hear().map_err(ContainerError::system("hear", "the container's process"))
    }

    /// Waits until the process tells something; what it tells of a failure becomes an error.
    pub(crate) fn hear(&self, plan: &Plan) -> Result<Heard, ContainerError> {
        match self.hear_plain()? {
            Heard::Failed(failure) => Err(ContainerError::from_init(&failure, Some(plan))),
            heard => Ok(heard),
        }
    }

    /// Waits until the process has become its program, and sends signals on meanwhile. False: it ended before.
    pub(crate) fn await_program(&self, plan: &Plan, signals: &Signals) -> Result<bool, ContainerError> {
        while !self.wait_beside(self.wire.as_fd(), signals)? {}
        loop {
            if matches!(self.hear(plan)?, Heard::Ended) {
                return Ok(!matches!(wait_end(&self.pidfd, 0), Ok(true)));
            }
        }
    }

    /// Waits for the end, sends signals on meanwhile, and reaps.
    pub(crate) fn await_end(&mut self, signals: &Signals) -> Result<Ending, ContainerError> {
        while !self.wait_beside(self.pidfd.as_fd(), signals)? {}
        self.reap()
    }

    /// Waits for one of two: `what` is readable (true), or a signal came and was sent on (false).
    fn wait_beside(&self, what: BorrowedFd<'_>, signals: &Signals) -> Result<bool, ContainerError> {
        let failed = ContainerError::system("wait for", "the container's process");
        let mut both = [PollFd::new(what, PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut both, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok(false),
            other => other.map_err(failed)?,
        };
        let [it, signal] = both;
        if signal.any() == Some(true) {
            while let Some(number) = signals.next().map_err(ContainerError::system("read", "signals"))? {
                match pidfd_signal(&self.pidfd, number) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(source) => {
                        return Err(ContainerError::System {
                            attempt: "send a signal to",
                            on: "the container".to_owned(),
                            source,
                        });
                    }
                }
            }
        }
        Ok(it.any() == Some(true))
    }

    fn reap(&mut self) -> Result<Ending, ContainerError> {
        self.ours = false;
        reap(&self.pidfd).map_err(ContainerError::system("reap", "the container's process"))
    }

    /// Lets it go, and returns its number: a created container belongs to the state folder from here on.
    pub(crate) fn release(mut self) -> Pid {
        self.ours = false;
        self.pid
    }
}

impl Drop for InitProcess {
    fn drop(&mut self) {
        if self.ours {
            // On the way out of another error. A process that is gone already needs no killing, only reaping.
            let _ = pidfd_signal(&self.pidfd, Signal::SIGKILL as i32);
            let _ = self.reap();
        }
    }
}

/// Makes the process as a child of this one, but by a helper that is in an existing user namespace, so that the new
/// namespaces belong to that one. The helper has ended when this returns.
///
/// # Safety
/// As for [`clone3`].
unsafe fn born_through(
    user: &Join,
    pids: Option<&Join>,
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> nix::Result<Side> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the helper makes system calls and ends, or becomes the new process, for which the caller answers. It, and not
    // the new process, enters the cgroup: a child is born in its maker's, and from inside the right to it is gone.
    let Side::Parent { pidfd: helper, .. } = unsafe { clone3(0, cgroup) }? else {
        drop(reader);
        let born = (|| {
            if let Some(pids) = pids {
                setns(&pids.file, CloneFlags::CLONE_NEWPID)?;
            }
            setns(&user.file, CloneFlags::CLONE_NEWUSER)?;
            // SAFETY: as above.
            unsafe { clone3(flags | CLONE_PARENT, None) }
        })();
        let told = match born {
            Ok(Side::Child) => return Ok(Side::Child),
            // Its number as this helper's own PID namespace has it, which is the runtime's.
            Ok(Side::Parent { child, .. }) => child.as_raw(),
            Err(errno) => -(errno as i32),
        };
        let _ = write(&writer, &told.to_ne_bytes());
        exit_now(0)
    };
    drop(writer);
    let mut bytes = [0; 4];
    let length = read(&reader, &mut bytes)?;
    reap(&helper)?;
    match i32::from_ne_bytes(bytes) {
        _ if length != bytes.len() => Err(Errno::ECHILD),
        child if child > 0 => {
            // A child that nobody else reaps: its number is its own until then.
            let child = Pid::from_raw(child);
            Ok(Side::Parent { child, pidfd: pidfd_open(child)? })
        }
        errno => Err(Errno::from_raw(-errno)),
    }
}

/// The runtime's stay in another PID namespace, for its children's sake; over when dropped.
struct PidNamespace {
    back: OwnedFd,
}

impl PidNamespace {
    fn enter(join: &Join) -> Result<Self, ContainerError> {
        let path = c"/proc/self/ns/pid_for_children";
        let back = nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(ContainerError::system("open", "/proc/self/ns/pid_for_children"))?;
        setns(&join.file, CloneFlags::CLONE_NEWPID).map_err(ContainerError::system("join", "the PID namespace"))?;
        Ok(Self { back })
    }
}

impl Drop for PidNamespace {
    fn drop(&mut self) {
        // The way back to one's own namespace is always open (setns(2)); and this command has no other child to make.
        let _ = setns(&self.back, CloneFlags::CLONE_NEWPID);
    }
}

/// The folder of a process in /proc, proved to be in a procfs: somebody may have mounted something else there.
pub(crate) struct ProcFiles {
    folder: OwnedFd,
    pid: Pid,
}

impl ProcFiles {
    /// Opens the folder of the process `pid`.
    pub(crate) fn open(pid: Pid) -> Result<Self, ContainerError> {
        let name = format!("/proc/{pid}");
        let failed = |source| ContainerError::System { attempt: "open", on: name.clone(), source };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = nix::fcntl::open(name.as_str(), flags, Mode::empty()).map_err(failed)?;
        if fstatfs(&folder).map_err(failed)?.filesystem_type() != PROC_SUPER_MAGIC {
            return Err(failed(Errno::EXDEV));
        }
        Ok(Self { folder, pid })
    }

    /// Opens a file of the process for reading.
    pub(crate) fn open_file(&self, name: &str) -> Result<OwnedFd, ContainerError> {
        nix::fcntl::openat(&self.folder, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(ContainerError::system("open", format!("/proc/{}/{name}", self.pid)))
    }

    /// Writes a file of the process at once.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), ContainerError> {
        let file = nix::fcntl::openat(&self.folder, name, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
        let written = file.and_then(|file| write(&file, text.as_bytes()));
        written
            .map(drop)
            .map_err(ContainerError::system("write", format!("{:?} to /proc/{}/{name}", text.trim(), self.pid)))
    }
}
