//! A container's life: created, started, ended, deleted (OCI runtime specification, runtime.md).
//!
//! Everything that is made is owned by a value that undoes it when dropped. So whatever step fails, no process, mount,
//! cgroup or file stays behind; what a killed runtime leaves is known by [`Runtime::prune`].

use std::error::Error;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use oci_spec::runtime::{ContainerState, State};
use tracing::info_span;

use super::bundle::Bundle;
use super::cgroup::{Cgroup, CgroupError, Layout};
use super::channel::{Heard, Word};
use super::error::ContainerError;
use super::hooks;
use super::id::ContainerId;
use super::limits::Limits;
use super::plan::{Plan, Start};
use super::relay::relay;
use super::signals::Signals;
use super::spawn::InitProcess;
use super::start;
use super::state::{ProcessId, Record, StateError, StateFolder, States};
use super::sys::process::{Ending, pidfd_open, pidfd_signal, wait_end};
use super::terminal::TerminalPlan;

/// The containers below one state root.
pub struct Runtime {
    states: States,
    warn: Box<dyn Fn(&str)>,
}

/// What a caller does to a container whose process exists and has not become its program, such as giving it a network. It
/// hears the process's number.
pub type Between<'a> = &'a mut dyn FnMut(i32) -> Result<(), Box<dyn Error + Send + Sync>>;

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How its first process ended.
    pub ending: Ending,
    /// Whether the kernel killed one of its processes for want of memory.
    pub out_of_memory: bool,
}

/// A container that is being made. Its fields are dropped, and so undone, in this order.
struct Making {
    process: InitProcess,
    cgroup: Option<Cgroup>,
    folder: StateFolder,
    record: Record,
    plan: Plan,
}

impl Runtime {
    /// The containers whose state lies below `root`. `warn` hears what a user should know though it works.
    pub fn new(root: &Path, warn: impl Fn(&str) + 'static) -> Self {
        Self { states: States::below(root), warn: Box::new(warn) }
    }

    /// The steps from a bundle to a process that is about to become its program.
    ///
    /// Side by side with steps 6 to 8 the process follows its own list, in [`super::init`].
    fn make(
        &self,
        id: &ContainerId,
        bundle: &Bundle,
        when: When,
        mask: SigSet,
        between: Between<'_>,
    ) -> Result<Making, ContainerError> {
        let mut warnings = bundle.warnings().to_vec();
        let limits = Limits::plan(id, bundle, &mut warnings)?; //        1. where cgroups are, and whether we may
        let record = Record::new(id, bundle, limits.path());
        let folder = self.states.reserve(id, &record)?; //               2. a name that nobody else has
        folder.keep_config(&bundle.text)?; //                            (which other processes may join later)
        let start = when.prepare(&folder)?;
        let plan = Plan::new(bundle, &limits, &record, start, mask, &mut warnings)?; // 3. all decisions, nothing done yet
        self.warn_of(&warnings);
        let cgroup = limits.make()?; //                                  4. the limits, before anything can exceed them
        let process = InitProcess::new(&plan, cgroup.as_ref())?; //      5. the process, in namespaces of its own
        let mut making = Making { process, cgroup, folder, record, plan };
        making.process.furnish(&making.plan, between)?; //               6. what only an outsider can write
        making.write_down()?; //                                         7. other commands can find it
        making.run_create_hooks()?; //                                   8. others may add to it
        Ok(making)
    }

    /// Creates a container, lets it run, waits for its end and removes it.
    ///
    /// Signals that come meanwhile are sent on to the container. It dies with the calling process.
    pub fn run(&self, id: &ContainerId, bundle: &Bundle) -> Result<Ending, ContainerError> {
        self.run_with(id, bundle, &mut |_| Ok(())).map(|ended| ended.ending)
    }

    /// As [`Runtime::run`], with what the caller does to the container before its program begins.
    pub fn run_with(&self, id: &ContainerId, bundle: &Bundle, between: Between<'_>) -> Result<Ended, ContainerError> {
        let signals = Signals::collect().map_err(ContainerError::system("collect", "signals"))?;
        let mut container = self.make(id, bundle, When::AtOnce, signals.before(), between)?;
        container.await_program(&signals, &*self.warn)?;
        bundle.handed.tell_pid(container.process.pid())?;
        let far = container.plan.terminal.as_ref().map(TerminalPlan::receive).transpose()?.flatten();
        let ending = {
            let _span = info_span!(
                "container.run",
                call = "poll(pidfd)",
                why = "the program runs; the runtime only waits, for its end or for a signal to send on"
            )
            .entered();
            if let Some(far) = far {
                relay(far, container.process.pidfd(), &signals)?;
            }
            container.process.await_end(&signals)?
        };
        let Making { cgroup, folder, record, .. } = container;
        let out_of_memory = cgroup.as_ref().is_some_and(Cgroup::ran_out_of_memory);
        self.remove(folder, cgroup, &record)?;
        Ok(Ended { ending, out_of_memory })
    }

    /// Creates a container and starts it; it outlives the command.
    pub fn run_detached(&self, id: &ContainerId, bundle: &Bundle) -> Result<(), ContainerError> {
        self.create(id, bundle)?;
        self.start(id).inspect_err(|_| {
            // What did not start is nobody's. That it did not is the error to tell of.
            let _ = self.delete(id, true);
        })
    }

    /// Creates a container: everything but its program's first instruction, which waits for [`Runtime::start`]. Returns
    /// the number of its first process.
    pub fn create(&self, id: &ContainerId, bundle: &Bundle) -> Result<i32, ContainerError> {
        self.create_with(id, bundle, &mut |_| Ok(()))
    }

    /// As [`Runtime::create`], with what the caller does to the container meanwhile.
    pub fn create_with(&self, id: &ContainerId, bundle: &Bundle, between: Between<'_>) -> Result<i32, ContainerError> {
        let mask = SigSet::thread_get_mask().map_err(ContainerError::system("read", "the signal mask"))?;
        let mut container = self.make(id, bundle, When::Told, mask, between)?;
        if !matches!(container.process.hear(&container.plan)?, Heard::Ready) {
            return Err(ContainerError::EndedEarly);
        }
        // From here on no runtime answers for the container. First it is written so, then the process may outlive us.
        container.record.owner = None;
        container.folder.write(&container.record)?;
        container.process.say(Word::Released)?;
        container.process.hear(&container.plan)?;
        bundle.handed.tell_pid(container.process.pid())?;
        let Making { process, cgroup, folder, .. } = container;
        let pid = process.release();
        folder.keep();
        if let Some(cgroup) = cgroup {
            cgroup.keep();
        }
        Ok(pid.as_raw())
    }

    /// Lets a created container run.
    pub fn start(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let (folder, record) = self.find(id)?;
        match status(&folder, &record) {
            ContainerState::Created => {}
            status => return Err(ContainerError::Status { attempt: "start", id: id.clone(), status }),
        }
        start::tell(&folder)?;
        self.run_late_hooks("poststart", &record, ContainerState::Running);
        Ok(())
    }

    /// Where a container is in its life, in the form of the specification (runtime.md, "State").
    pub fn state(&self, id: &ContainerId) -> Result<State, ContainerError> {
        let (folder, record) = self.find(id)?;
        Ok(record.state(status(&folder, &record)))
    }

    /// Whether the kernel killed one of the container's processes for want of memory; asked before it is deleted.
    pub fn ran_out_of_memory(&self, id: &ContainerId) -> Result<bool, ContainerError> {
        let (_, record) = self.find(id)?;
        Ok(open_cgroup(&record)?.as_ref().is_some_and(Cgroup::ran_out_of_memory))
    }

    /// The names of all containers, in order.
    pub fn ids(&self) -> Result<Vec<ContainerId>, ContainerError> {
        Ok(self.states.list()?)
    }

    /// The states of all containers, by name.
    pub fn list(&self) -> Result<Vec<State>, ContainerError> {
        let states = self.states.list()?.into_iter().map(|id| self.state(&id));
        // One that was deleted since the names were read is no longer one of them.
        states.filter(|state| !matches!(state, Err(ContainerError::State(StateError::Missing(_))))).collect()
    }

    /// Sends a signal to the container's first process, or to `all` of its processes; those may have outlived the first.
    pub fn kill(&self, id: &ContainerId, signal: i32, all: bool) -> Result<(), ContainerError> {
        let (folder, record) = self.find(id)?;
        let cgroup = if all || signal == Signal::SIGKILL as i32 { open_cgroup(&record)? } else { None };
        let sent =
            |source| ContainerError::System { attempt: "send a signal to", on: format!("container {id}"), source };
        if let (true, Some(cgroup)) = (all, &cgroup) {
            for pid in cgroup.pids()? {
                match nix::sys::signal::kill(pid, None)
                    .and_then(|()| pidfd_open(pid))
                    .and_then(|it| pidfd_signal(&it, signal))
                {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(source) => return Err(sent(source)),
                }
            }
        } else {
            let status = status(&folder, &record);
            let Some(init) = record.init.filter(|_| status != ContainerState::Stopped) else {
                return Err(ContainerError::Status { attempt: "kill", id: id.clone(), status });
            };
            init.signal(signal).map_err(sent)?;
        }
        // One that is held still would die only once let go (v1; v2 lets a killed process go by itself).
        if signal == Signal::SIGKILL as i32 { let_go(cgroup.as_ref()) } else { Ok(()) }
    }

    /// Removes a container. One that has not ended is removed only with `force`, which ends it.
    pub fn delete(&self, id: &ContainerId, force: bool) -> Result<(), ContainerError> {
        let folder = match self.states.find(id) {
            Err(StateError::Missing(_)) if force => return Ok(()),
            other => other?,
        };
        let Some(record) = folder.read()? else {
            // A runtime was killed between its first two calls: there is a folder and nothing else.
            return Ok(folder.remove()?);
        };
        let status = status(&folder, &record);
        if status != ContainerState::Stopped && !force {
            return Err(ContainerError::Status { attempt: "delete", id: id.clone(), status });
        }
        let cgroup = open_cgroup(&record)?;
        end(&record, cgroup.as_ref())?;
        self.remove(folder, cgroup, &record)
    }

    /// Removes what killed runtimes have left behind; returns the names.
    pub fn prune(&self) -> Result<Vec<ContainerId>, ContainerError> {
        let mut removed = Vec::new();
        for id in self.states.list()? {
            let Ok(folder) = self.states.find(&id) else { continue };
            let remnant = match folder.read()? {
                Some(record) => record.is_remnant(),
                None => folder.is_old(),
            };
            if remnant {
                self.delete(&id, true)?;
                removed.push(id);
            }
        }
        Ok(removed)
    }

    /// Tells what a user should know though it works.
    pub(crate) fn warn(&self, text: &str) {
        (self.warn)(text);
    }

    pub(super) fn warn_of(&self, warnings: &[String]) {
        for warning in warnings {
            (self.warn)(warning);
        }
    }

    pub(super) fn find(&self, id: &ContainerId) -> Result<(StateFolder, Record), ContainerError> {
        let folder = self.states.find(id)?;
        let record = folder.read()?.ok_or_else(|| StateError::Missing(id.clone()))?;
        Ok((folder, record))
    }

    /// Takes the container out of the world; its first process has ended.
    fn remove(&self, folder: StateFolder, cgroup: Option<Cgroup>, record: &Record) -> Result<(), ContainerError> {
        if let Some(cgroup) = cgroup {
            if !record.own_pids {
                // Without a PID namespace the end of the first process is not the end of the others.
                cgroup.kill()?;
            }
            cgroup.destroy()?;
        }
        {
            let _span = info_span!(
                "container.forget",
                call = "unlink(2), rmdir(2)",
                why = "the name is free again, and nothing of the container is left"
            )
            .entered();
            folder.remove()?;
        }
        self.run_late_hooks("poststop", record, ContainerState::Stopped);
        Ok(())
    }

    /// Hooks whose failure is told of but changes nothing: what they follow has happened already.
    fn run_late_hooks(&self, moment: &'static str, record: &Record, status: ContainerState) {
        late_hooks(moment, record, status, &*self.warn);
    }
}

/// When a container's program shall begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    AtOnce,
    Told,
}

impl When {
    fn prepare(self, folder: &StateFolder) -> Result<Start, ContainerError> {
        match self {
            Self::AtOnce => Ok(Start::AtOnce),
            Self::Told => start::listen_in(folder).map(Start::WhenTold),
        }
    }
}

impl Making {
    /// Writes which process it is: other commands know it by that, and `prune` if this one is killed.
    fn write_down(&mut self) -> Result<(), ContainerError> {
        let _span = info_span!(
            "container.record",
            call = "write(2), rename(2)",
            why = "a file says which process the container is, so that other commands need no daemon to ask"
        )
        .entered();
        self.record.init = ProcessId::of(self.process.pid());
        Ok(self.folder.write(&self.record)?)
    }

    fn run_create_hooks(&self) -> Result<(), ContainerError> {
        if !self.plan.waits_for_hooks() {
            return Ok(());
        }
        if !matches!(self.process.hear(&self.plan)?, Heard::AtHooks) {
            return Err(ContainerError::EndedEarly);
        }
        let state = self.record.state_text(ContainerState::Created);
        for (moment, hooks) in ["prestart", "createRuntime"].into_iter().zip(&self.plan.create_runtime) {
            hooks::run(moment, hooks, state.as_bytes())?;
        }
        self.process.say(Word::HooksDone)
    }

    fn await_program(&self, signals: &Signals, warn: &dyn Fn(&str)) -> Result<(), ContainerError> {
        let begun = {
            let _span = info_span!(
                "container.await_exec",
                call = "poll(2), recv(2)",
                why = "the wire to the process closes by itself at its execve: that is how the runtime knows"
            )
            .entered();
            self.process.await_program(&self.plan, signals)?
        };
        crate::spans::executed();
        if begun {
            late_hooks("poststart", &self.record, ContainerState::Running, warn);
        }
        Ok(())
    }
}

fn late_hooks(moment: &'static str, record: &Record, status: ContainerState, warn: &dyn Fn(&str)) {
    let hooks = record.hooks.as_ref().and_then(|all| match moment {
        "poststart" => all.poststart().as_ref(),
        _ => all.poststop().as_ref(),
    });
    if hooks.is_none_or(Vec::is_empty) {
        return;
    }
    let state = record.state_text(status);
    match hooks::plan(hooks) {
        Err(error) => warn(&ContainerError::from(error).to_string()),
        // One by one: a hook that fails doesn't keep the ones behind it from running.
        Ok(plans) => {
            for error in plans.chunks(1).filter_map(|one| hooks::run(moment, one, state.as_bytes()).err()) {
                warn(&error.to_string());
            }
        }
    }
}

pub(super) fn status(folder: &StateFolder, record: &Record) -> ContainerState {
    record.status(|| folder.start_socket().exists())
}

/// The container's cgroup; nothing where it has none, or none any more.
pub(super) fn open_cgroup(record: &Record) -> Result<Option<Cgroup>, ContainerError> {
    let Some(path) = &record.cgroup else { return Ok(None) };
    match Cgroup::open(&Layout::detect()?, path) {
        Ok(cgroup) => Ok(Some(cgroup)),
        Err(CgroupError::Open { source: Errno::ENOENT, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Lets a paused container's processes go on.
fn let_go(cgroup: Option<&Cgroup>) -> Result<(), ContainerError> {
    match cgroup {
        Some(cgroup) if cgroup.frozen().unwrap_or(false) => Ok(cgroup.thaw()?),
        _ => Ok(()),
    }
}

/// Ends the container's first process, if it runs, and waits for that.
fn end(record: &Record, cgroup: Option<&Cgroup>) -> Result<(), ContainerError> {
    let Some(init) = record.init else { return Ok(()) };
    let Some(pidfd) = init.open() else { return Ok(()) };
    match pidfd_signal(&pidfd, Signal::SIGKILL as i32) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(source) => {
            return Err(ContainerError::System { attempt: "kill", on: format!("process {}", init.pid), source });
        }
    }
    let_go(cgroup)?;
    match wait_end(&pidfd, 10_000) {
        Ok(true) => Ok(()),
        _ => Err(ContainerError::Unkillable { pid: init.pid }),
    }
}
