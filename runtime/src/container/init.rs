//! The container's first process, from its birth to the program's first instruction.
//!
//! It is a copy of the runtime, so all that it needs lies in memory already, in the form the kernel takes ([`Plan`]).
//! It allocates nothing. What fails is told over the wire ([`super::channel`]) as a step and an error number.

use std::convert::Infallible;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigmaskHow, sigprocmask};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::stat::{Mode, umask};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{sethostname, setsid, write};
use tracing::info_span;

use super::cgroup::Doors;
use super::channel::{ProcessEnd, Word};
use super::hooks::HookPlan;
use super::network;
use super::plan::{Plan, Start};
use super::report::{At, Failure, Step};
use super::signals;
use super::sys::clone::exit_now;
use super::sys::credentials;
use super::sys::process::{accept, close_on_exec_from, new_session_keyring, prctl, set_domainname};
use super::terminal::show_console;

/// What `start` says to a waiting process.
pub(crate) const GO: &[u8] = b"go";

/// Lives the process's life. Never returns: it becomes the program, or ends.
pub(crate) fn live(plan: &Plan, doors: &Doors, wire: ProcessEnd) -> ! {
    crate::spans::in_container();
    let mut process = Init { plan, wire: Some(wire), starter: None, host_pid: None };
    let failure = match process.live(doors) {
        Err(failure) => failure,
        Ok(never) => match never {},
    };
    process.report(failure);
    exit_now(1)
}

struct Init<'a> {
    plan: &'a Plan,
    /// Closed once the container is written down.
    wire: Option<ProcessEnd>,
    /// The connection of the one who said "go".
    starter: Option<OwnedFd>,
    /// The number of this process on the host, once the runtime has told it.
    host_pid: Option<i32>,
}

impl Init<'_> {
    fn live(&mut self, doors: &Doors) -> Result<Infallible, Failure> {
        let plan = self.plan;
        self.be_born(doors)?; //                                   1. die with the runtime; inside its limits
        let place = plan.rootfs.open_place_early()?;
        self.enter_namespaces()?; //                               2. those that clone3 could not make
        let root = plan.rootfs.assemble(place, &mut || self.be_furnished())?; // 3. the file system, beside the host's
        self.settle()?; //                                         4. names, network, kernel parameters
        self.be_furnished()?; //                                   5. all that the runtime writes is written
        self.let_hooks_run()?; //                                  6. others may add to the container
        plan.rootfs.enter(&root)?; //                              7. the host's tree is gone
        drop(root);
        self.take_terminal()?;
        leave_keyring(plan.session_keyring)?;
        close_descriptors(plan.first_closed)?; //                  8. nothing of the host stays open past execve
        plan.labels.apply()?;
        plan.treatment.apply()?;
        let home = plan.process.home();
        plan.process.restrict()?; //                               9. the user, its capabilities
        self.die_with_runtime()?;
        let program = if plan.nothing_to_run { None } else { Some(plan.process.find_program()?) };
        self.await_start()?; //                                   10. `create` ends here, and waits for `start`
        self.run_hooks(&plan.start_container)?;
        self.set_signals()?;
        let program = program.ok_or_else(|| Failure::new(Step::ProgramMissing, 0, Errno::ENOENT))?;
        Err(plan.process.execute(program, home.as_ref())) //      11. the filter, and the program
    }

    fn be_born(&self, doors: &Doors) -> Result<(), Failure> {
        self.die_with_runtime()?;
        enter(doors)?;
        umask(Mode::empty()); // the modes in the plan are meant as they stand
        setsid().map(drop).at(Step::Session)
    }

    /// The kernel forgets this at each change of user, so it is said again after that; and a runtime that ended in between is
    /// one that nothing can be heard of any more.
    fn die_with_runtime(&self) -> Result<(), Failure> {
        let Some(wire) = &self.wire else { return Ok(()) };
        prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0).at(Step::Session)?;
        wire.end_without_runtime();
        Ok(())
    }

    fn enter_namespaces(&self) -> Result<(), Failure> {
        let namespaces = &self.plan.namespaces;
        for (index, join) in namespaces.joined.iter().enumerate() {
            if join.kind == CloneFlags::CLONE_NEWUSER && namespaces.born_through().is_some() {
                continue; // born in there, and setns(2) refuses to enter where one is
            }
            setns(&join.file, join.kind).at_index(Step::JoinNamespace, index)?;
        }
        // Before the change of user: after it, this process's own files in /proc are the host's root's (proc(5)).
        let time = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
        if namespaces.unshared_later.contains(time) {
            unshare(time).at(Step::TimeNamespace)?;
            if let Some(offsets) = &namespaces.time_offsets {
                write_file(c"/proc/self/timens_offsets", offsets).at(Step::TimeNamespace)?;
            }
            if !namespaces.execve_enters_time {
                // The offsets are written; from here on somebody may be in it.
                let path = c"/proc/self/ns/time_for_children";
                let made = nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
                setns(made.at(Step::TimeNamespace)?, time).at(Step::TimeNamespace)?;
            }
        }
        if namespaces.ids.is_some() {
            let _span = info_span!("namespace.identity", call = "setresuid(2)",
                why = "in a new user namespace nobody has a number until the maps are written; then this process is its root")
            .entered();
            self.wire()?.await_word(Word::Mapped)?;
        }
        if namespaces.in_user_namespace() {
            credentials::set_group(0).at(Step::IdentityInside)?;
            credentials::set_user(0).at(Step::IdentityInside)?;
        }
        if namespaces.joined_pid.is_some() {
            // Others are in there already, and could look into this process while it still has the host's rights: see `join`.
            prctl(libc::PR_SET_DUMPABLE, 0, 0).at(Step::JoinNamespace)?;
        }
        Ok(())
    }

    fn settle(&self) -> Result<(), Failure> {
        let plan = self.plan;
        if let Some(name) = &plan.hostname {
            let _span = info_span!(
                "uts.hostname",
                call = "sethostname(2)",
                why = "the UTS namespace holds a host name of the container's own"
            )
            .entered();
            sethostname(OsStr::from_bytes(name.to_bytes())).at(Step::Hostname)?;
        }
        if let Some(name) = &plan.domainname {
            set_domainname(name).at(Step::Domainname)?;
        }
        if plan.loopback {
            let _span = info_span!(
                "network.loopback",
                call = "ioctl(SIOCSIFFLAGS)",
                why = "a new network namespace has one interface, lo, and it is down"
            )
            .entered();
            network::loopback_up().at(Step::Loopback)?;
        }
        plan.sysctl.set()
    }

    /// Waits, once, until the runtime has written all that it has to write.
    fn be_furnished(&mut self) -> Result<(), Failure> {
        if self.host_pid.is_some() {
            return Ok(());
        }
        let pid = self.wire()?.await_word(Word::Furnished)?;
        self.host_pid = Some(pid);
        if let Some(listener) = &self.plan.process.listener {
            listener.pid_is(pid);
        }
        if self.plan.namespaces.unshared_later.contains(CloneFlags::CLONE_NEWCGROUP) {
            let _span = info_span!(
                "cgroup.namespace",
                call = "unshare(CLONE_NEWCGROUP)",
                why = "the cgroup this process is in now becomes the root of what it can see of the tree"
            )
            .entered();
            unshare(CloneFlags::CLONE_NEWCGROUP).at(Step::CgroupNamespace)?;
        }
        Ok(())
    }

    fn let_hooks_run(&self) -> Result<(), Failure> {
        if self.plan.waits_for_hooks() {
            self.wire()?.at_hooks()?;
            self.wire()?.await_word(Word::HooksDone)?;
        }
        self.run_hooks(&self.plan.create_container)
    }

    fn run_hooks(&self, hooks: &[HookPlan]) -> Result<(), Failure> {
        let (before, after) = &self.plan.state;
        let mut digits = [0_u8; 10];
        let pid = decimal(self.host_pid.unwrap_or(0), &mut digits);
        for (index, hook) in hooks.iter().enumerate() {
            let ended = hook.run(&[before.as_bytes(), pid, after.as_bytes()]).at_index(Step::Hook, index)?;
            if ended.is_some() {
                let path = hook.path().to_bytes();
                return Err(Failure::new(Step::Hook, index, Errno::ECANCELED).with_detail(path));
            }
        }
        Ok(())
    }

    /// For `create`: lets go of the runtime once that has written the container down, and waits to be told to go on.
    fn await_start(&mut self) -> Result<(), Failure> {
        let Start::WhenTold(listener) = &self.plan.start else { return Ok(()) };
        self.wire()?.ready()?;
        self.wire()?.await_word(Word::Released)?;
        // From here on the container is in the state folder, so it needs no runtime to be found again. The wire is closed
        // only after that is settled: the runtime waits for it, and would take this process along otherwise.
        prctl(libc::PR_SET_PDEATHSIG, 0, 0).at(Step::StartSignal)?;
        self.wire = None;
        loop {
            let starter = accept(listener).at(Step::StartSignal)?;
            let mut word = [0; 2];
            // Whoever connects and leaves again has changed his mind, or was killed: the next one may mean it.
            if matches!(recv(starter.as_raw_fd(), &mut word, MsgFlags::empty()), Ok(2)) && word == *GO {
                self.starter = Some(starter);
                return Ok(());
            }
        }
    }

    fn take_terminal(&self) -> Result<(), Failure> {
        let Some(terminal) = &self.plan.terminal else { return Ok(()) };
        show_console(&terminal.make()?)
    }

    fn set_signals(&self) -> Result<(), Failure> {
        signals::restore_defaults();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.plan.mask), None).at(Step::Execute)
    }

    fn wire(&self) -> Result<&ProcessEnd, Failure> {
        self.wire.as_ref().ok_or_else(|| Failure::new(Step::Protocol, 0, Errno::EPIPE))
    }

    /// Tells whoever is listening now.
    fn report(&self, failure: Failure) {
        if let Some(wire) = &self.wire {
            wire.failed(failure);
        }
        if let Some(starter) = &self.starter {
            let _ = send(starter.as_raw_fd(), &failure.to_bytes(), MsgFlags::MSG_NOSIGNAL);
        }
    }
}

pub(crate) fn enter(doors: &Doors) -> Result<(), Failure> {
    let _span = info_span!(
        "cgroup.attach",
        call = "write(tasks)",
        why =
            "from here on the kernel counts and limits this process; who moves himself in need not wait for all others"
    )
    .entered();
    crate::spans::fault().at(Step::Cgroup)?;
    doors.enter().map_err(|(path, errno)| Failure::new(Step::Cgroup, 0, errno).with_detail(path.as_os_str().as_bytes()))
}

/// The keys of a caller's session are nobody's in a container.
pub(crate) fn leave_keyring(stays: bool) -> Result<(), Failure> {
    if stays { Ok(()) } else { new_session_keyring().at(Step::Keyring) }
}

pub(crate) fn close_descriptors(first: u32) -> Result<(), Failure> {
    let _span = info_span!(
        "process.close",
        call = "close_range(CLOEXEC)",
        why = "a descriptor left open would be a door into the host, whatever the namespaces say"
    )
    .entered();
    close_on_exec_from(first).at(Step::CloseDescriptors)
}

/// Writes a file in /proc, proved to be in a procfs: a joined mount namespace may have anything there.
fn write_file(path: &CStr, text: &CStr) -> nix::Result<()> {
    let file = nix::fcntl::open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    if fstatfs(&file)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(Errno::EXDEV);
    }
    write(&file, text.to_bytes()).map(drop)
}

/// The decimal digits of a number that is not negative, without allocation.
pub(crate) fn decimal(number: i32, digits: &mut [u8; 10]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut first = digits.len();
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        first = place;
        if rest == 0 {
            break;
        }
    }
    digits.get(first..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn a_number_is_written_in_decimal() {
        for (number, text) in [(0, "0"), (7, "7"), (42, "42"), (i32::MAX, "2147483647")] {
            assert_eq!(decimal(number, &mut [0; 10]), text.as_bytes());
        }
    }
}
