//! How a process joins a container that runs already.
//!
//! First its cgroup, so that nothing of it is ever without limits; then, in one call, all of its namespaces; then, since
//! a PID namespace is only entered by being born there, a last copy of itself, which goes on to become the program.
//!
//! From the moment it is in the namespaces the container's processes can see it, and it still has rights and descriptors
//! that they must not have. So before that it is made "not dumpable": the kernel then opens nothing of it in /proc, and
//! lets nobody trace it, whoever has not `CAP_SYS_PTRACE` over the host (ptrace(2), "Ptrace access mode checking"). Its
//! executable is not the host's file but a read-only view of it: see `shield`.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::Mode;
use nix::unistd::{setsid, write};
use tracing::info_span;

use super::cgroup::{Cgroup, CgroupError, Doors, Layout, Version};
use super::channel::{Heard, ProcessEnd, Word, pair};
use super::error::ContainerError;
use super::exec::Affinity;
use super::init::{close_descriptors, enter, leave_keyring};
use super::labels::Labels;
use super::process::ProcessPlan;
use super::report::{At, Failure, Step};
use super::rootfs::enter_root;
use super::signals;
use super::spawn::InitProcess;
use super::sys::clone::{Side, clone_sibling, clone3, exit_now};
use super::sys::credentials;
use super::sys::process::{pidfd_open, prctl, reap};
use super::sys::scheduling::set_affinity;
use super::terminal::TerminalPlan;
use super::treatment::Treatment;

/// All that the process will do, decided while nothing has been done.
pub(crate) struct JoinPlan {
    /// The container's first process, by descriptor: its number may be another's by now.
    pub(crate) init: OwnedFd,
    /// Its number, for what /proc alone can tell of it.
    pub(crate) init_pid: i32,
    /// Those of its namespaces that are not ours.
    pub(crate) namespaces: CloneFlags,
    /// Its root, where that is not the one of its mount namespace.
    pub(crate) root: Option<OwnedFd>,
    pub(crate) process: ProcessPlan,
    pub(crate) treatment: Treatment,
    pub(crate) labels: Labels,
    pub(crate) terminal: Option<TerminalPlan>,
    pub(crate) oom_score: Option<String>,
    /// Whether the session keyring of the caller stays.
    pub(crate) session_keyring: bool,
    /// The first descriptor that is not handed over.
    pub(crate) first_closed: u32,
    pub(crate) affinity: Affinity,
    pub(crate) dies_with_runtime: bool,
    pub(crate) mask: SigSet,
}

/// Makes the process and waits until it has become its program.
pub(crate) fn begin(plan: &JoinPlan, cgroup: Option<&Cgroup>) -> Result<InitProcess, ContainerError> {
    let doors = cgroup.map(Cgroup::doors).transpose()?.unwrap_or_default();
    let failed = |source| ContainerError::System { attempt: "make", on: "another process".to_owned(), source };
    let (wire, process_end) = pair().map_err(failed)?;
    if let Some(processors) = &plan.affinity.first {
        // Of this process: its copy inherits it. Entering a cgroup with processors of its own takes it away again.
        set_affinity(processors).map_err(ContainerError::system("set", "execCPUAffinity.initial"))?;
    }
    let span = info_span!(
        "exec.clone3",
        call = "clone3(2)",
        why =
            "a copy of the runtime that only joins: who enters a PID namespace must be born there, so it makes another"
    )
    .entered();
    crate::spans::fault().map_err(failed)?;
    // SAFETY: the child runs `live`, which neither allocates nor returns.
    let mut made = unsafe { clone3(0, cgroup.and_then(Cgroup::clone_into)) };
    if matches!(made, Err(Errno::EBUSY | Errno::EOPNOTSUPP)) {
        let folder = innermost(plan.init_pid)?;
        // SAFETY: as above.
        made = unsafe { clone3(0, folder.as_ref().map(AsFd::as_fd)) };
    }
    let joiner = match made.map_err(failed)? {
        Side::Child => {
            drop(wire);
            live(plan, &doors, &process_end)
        }
        Side::Parent { pidfd, .. } => pidfd,
    };
    if let Some(listener) = &plan.process.listener {
        listener.leave_to_process();
    }
    drop((process_end, span));
    let heard = wire.hear().map_err(failed);
    // It only lives to make the other one: by now it has, or never will.
    reap(&joiner).map_err(failed)?;
    let pid = match heard? {
        Heard::Child(pid) => pid,
        Heard::Failed(failure) => return Err(error(&failure, plan)),
        _ => return Err(ContainerError::EndedEarly),
    };
    // Our own child (CLONE_PARENT): its number stays its own until we reap it.
    let process = InitProcess::adopt(pid, pidfd_open(pid).map_err(failed)?, wire);
    crate::spans::container_is(pid.as_raw().unsigned_abs());
    let _span = info_span!(
        "container.await_exec",
        call = "recv(2)",
        why = "the wire to the process closes by itself at its execve: that is how the runtime knows"
    )
    .entered();
    ContainerError::fault("container.await_exec")?;
    process.say(Word::Furnished)?;
    loop {
        match process.hear_plain()? {
            Heard::Failed(failure) => return Err(error(&failure, plan)),
            Heard::Ended => break,
            _ => {}
        }
    }
    crate::spans::executed();
    Ok(process)
}

/// The v2 cgroup that the container's first process is in. A container may have made groups of its own inside of its
/// cgroup and handed controllers down to them, as systemd does; then nobody can be in the outer one any more (cgroups(7),
/// "no internal processes").
fn innermost(pid: i32) -> Result<Option<OwnedFd>, ContainerError> {
    let file = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&file).map_err(|source| CgroupError::Detect { path: file.into(), source })?;
    let layout = Layout::detect()?;
    let unified = layout.hierarchies().iter().find(|hierarchy| hierarchy.version() == Version::V2);
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let (Some(unified), Some(path)) = (unified, path) else { return Ok(None) };
    let path = unified.mount_point().join(path);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = nix::fcntl::open(&path, flags, Mode::empty());
    opened.map(Some).map_err(|source| CgroupError::Open { path, source }.into())
}

/// What the process told, in words.
fn error(failure: &Failure, plan: &JoinPlan) -> ContainerError {
    let program = || {
        let first = plan.process.arguments.list().first();
        first.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    let attempt = match failure.step {
        Step::ProgramMissing => return ContainerError::ProgramMissing { program: program() },
        Step::ProgramDenied => return ContainerError::ProgramDenied { program: program() },
        Step::JoinNamespace => "join the container's namespaces".to_owned(),
        Step::WorkingDirectory => format!("enter {}", plan.process.working_directory.to_string_lossy()),
        Step::Rlimit => match plan.process.limits.get(failure.index as usize) {
            Some((kind, ..)) => format!("set the limit {kind}"),
            None => "set a limit".to_owned(),
        },
        _ => return ContainerError::from_init(failure, None),
    };
    ContainerError::Init { attempt, detail: None, source: failure.errno }
}

/// Lives the process's life. Never returns: it becomes the program, or ends.
fn live(plan: &JoinPlan, doors: &Doors, wire: &ProcessEnd) -> ! {
    crate::spans::in_container();
    let failure = match join(plan, doors, wire) {
        Err(failure) => failure,
        Ok(never) => match never {},
    };
    wire.failed(failure);
    exit_now(1)
}

fn join(plan: &JoinPlan, doors: &Doors, wire: &ProcessEnd) -> Result<Infallible, Failure> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0).at(Step::Session)?;
    enter(doors)?; //                                     1. the container's limits are its own from here on
    if let Some(processors) = &plan.affinity.last {
        set_affinity(processors).at(Step::Affinity)?;
    }
    if let Some(score) = &plan.oom_score {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = nix::fcntl::open(c"/proc/self/oom_score_adj", flags, Mode::empty());
        file.and_then(|file| write(&file, score.as_bytes())).at(Step::OomScore)?;
    }
    prctl(libc::PR_SET_DUMPABLE, 0, 0).at(Step::Session)?; // 2. nobody in there may look into it
    {
        let _span = info_span!(
            "container.join",
            call = "setns(pidfd)",
            why = "one call moves this process into all namespaces of the container's first one, or into none"
        )
        .entered();
        if !plan.namespaces.is_empty() {
            setns(&plan.init, plan.namespaces).at(Step::JoinNamespace)?; // 3. all of its namespaces at once
        }
        if let Some(root) = &plan.root {
            enter_root(root).at(Step::JoinNamespace)?;
        }
    }
    // SAFETY: neither of the two allocates or returns to code that believes it is the runtime.
    match unsafe { clone_sibling() }.at(Step::Sibling)? {
        Some(pid) => {
            wire.has_child(pid)?;
            exit_now(0)
        }
        None => become_program(plan, wire), //            4. born into its PID namespace
    }
}

fn become_program(plan: &JoinPlan, wire: &ProcessEnd) -> Result<Infallible, Failure> {
    die_with_runtime(plan)?;
    // The runtime answers only if it still lives: one that had ended before the line above could not be died with.
    let pid = wire.await_word(Word::Furnished)?;
    if let Some(listener) = &plan.process.listener {
        listener.pid_is(pid);
    }
    setsid().at(Step::Session)?;
    if plan.namespaces.contains(CloneFlags::CLONE_NEWUSER) {
        credentials::set_group(0).at(Step::IdentityInside)?;
        credentials::set_user(0).at(Step::IdentityInside)?;
    }
    if let Some(terminal) = &plan.terminal {
        terminal.make()?; //                              5. its terminal, made in there
    }
    leave_keyring(plan.session_keyring)?;
    close_descriptors(plan.first_closed)?; //             6. nothing of the host stays open past execve
    plan.labels.apply()?;
    plan.treatment.apply()?;
    let home = plan.process.home();
    plan.process.restrict()?; //                          7. the user, its capabilities, its folder
    die_with_runtime(plan)?;
    if plan.dies_with_runtime {
        wire.end_without_runtime();
    }
    let program = plan.process.find_program()?;
    signals::restore_defaults();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&plan.mask), None).at(Step::Execute)?;
    Err(plan.process.execute(program, home.as_ref())) //  8. the filter, and the program
}

/// Forgotten by the kernel at each change of user, so it is said again after that.
fn die_with_runtime(plan: &JoinPlan) -> Result<(), Failure> {
    let signal = if plan.dies_with_runtime { libc::SIGKILL } else { 0 };
    prctl(libc::PR_SET_PDEATHSIG, signal as u64, 0).at(Step::Session)
}

#[cfg(test)]
mod tests {
    use super::innermost;
    use std::os::fd::AsRawFd;

    #[test]
    fn the_innermost_cgroup_is_the_one_that_the_process_is_in() {
        let own = std::process::id();
        let Some(folder) = innermost(own as i32).expect("cgroups are here") else { return };
        let listed = std::fs::read_to_string(format!("/proc/self/fd/{}/cgroup.procs", folder.as_raw_fd()));
        assert!(listed.expect("it lists who is in").lines().any(|line| line == own.to_string()));
    }
}
