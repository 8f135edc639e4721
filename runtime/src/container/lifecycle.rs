//! A container's life: created, started, ended, deleted (OCI runtime specification, runtime.md).
//!
//! Everything that is made is owned by a value that undoes it when dropped. So whatever step fails, no process, mount,
//! cgroup or file stays behind; what a killed runtime leaves is known by [`Runtime::prune`].

use std::error::Error;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use oci_spec::runtime::ContainerState;
use tracing::info_span;

use super::bundle::Bundle;
use super::cgroup::{Cgroup, CgroupError, Layout};
use super::channel::{Heard, Word};
use super::control::let_go;
use super::error::ContainerError;
use super::hooks::{self, late_hooks, run_poststart};
use super::id::ContainerId;
use super::intel_rdt::RdtGroup;
use super::limits::Limits;
use super::plan::{Plan, Start};
use super::relay::relay;
use super::shared_tree::{Mounted, SharedTree};
use super::signals::Signals;
use super::spawn::InitProcess;
use super::start;
use super::state::{ProcessId, Record, StateError, StateFolder, States};
use super::sys::process::{Ending, pidfd_signal, wait_end};
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

/// What is left of a container whose first process has ended: all that the kernel and this runtime kept for it. Dropped, it
/// goes as well, but nobody hears what failed.
pub struct Remains<'a> {
    runtime: &'a Runtime,
    cgroup: Option<Cgroup>,
    folder: StateFolder,
    record: Record,
    ended: Ended,
    /// Held back until nothing is left: none shall end this process before.
    _signals: Signals,
}

impl Remains<'_> {
    /// Takes it out of the world.
    pub fn clear(self) -> Result<Ended, ContainerError> {
        let Self { runtime, cgroup, folder, record, ended, _signals } = self;
        runtime.remove(folder, cgroup, &record)?;
        Ok(ended)
    }
}

/// A container that is being made. Its fields are dropped, and so undone, in this order.
struct Making {
    process: InitProcess,
    mounted: Mounted,
    rdt: Option<RdtGroup>,
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
        let record = Record { shared_tree: SharedTree::of(bundle)?, ..Record::new(id, bundle, limits.path()) };
        let folder = self.states.reserve(id, &record)?; //               2. a name that nobody else has
        folder.keep_config(&bundle.text)?; //                            (which other processes may join later)
        let start = when.prepare(&folder)?;
        let plan = Plan::new(bundle, &limits, &record, start, mask, &mut warnings)?; // 3. all decisions, nothing done yet
        self.warn_of(&warnings);
        let cgroup = limits.make()?; //                                  4. the limits, before anything can exceed them
        let mounted = Mounted::new(record.shared_tree.as_ref());
        let process = InitProcess::new(&plan, cgroup.as_ref())?; //      5. the process, in namespaces of its own
        let mut making = Making { process, mounted, rdt: None, cgroup, folder, record, plan };
        making.furnish(between)?; //                                     6. what only an outsider can give it
        making.write_down()?; //                                         7. other commands can find it
        match making.run_create_hooks() {
            Ok(()) => Ok(making), //                                     8. others may add to it
            Err(error) => Err(self.abandon(making, error)),
        }
    }

    /// Undoes a container that failed once there was one to add to, and hands the reason on. Whatever its hooks have added
    /// so far, those of its end take away: its life goes on at the last two steps (runtime.md, "Lifecycle", 3 to 9).
    fn abandon(&self, making: Making, error: ContainerError) -> ContainerError {
        let record = making.record.clone();
        drop(making);
        late_hooks("poststop", &record, ContainerState::Stopped, &*self.warn);
        error
    }

    /// Creates a container, lets it run, waits for its end and removes it.
    ///
    /// Signals that come meanwhile are sent on to the container. It dies with the calling process.
    pub fn run(&self, id: &ContainerId, bundle: &Bundle) -> Result<Ending, ContainerError> {
        let ended = self.run_to_end(id, bundle, &mut |_| Ok(()))?.clear()?;
        Ok(ended.ending)
    }

    /// As [`Runtime::run`], with what the caller does to the container before its program begins. What is left at its end is
    /// the caller's to clear.
    pub fn run_to_end(
        &self,
        id: &ContainerId,
        bundle: &Bundle,
        between: Between<'_>,
    ) -> Result<Remains<'_>, ContainerError> {
        if bundle.nothing_to_run {
            return Err(ContainerError::NothingToRun { attempt: "run", id: id.clone() });
        }
        let signals = Signals::collect().map_err(ContainerError::system("collect", "signals"))?;
        let mut container = self.make(id, bundle, When::AtOnce, signals.before(), between)?;
        let ending = match container.live(&signals, bundle, &*self.warn) {
            Ok(ending) => ending,
            Err(error) => return Err(self.abandon(container, error)),
        };
        let Making { cgroup, folder, record, .. } = container;
        let out_of_memory = cgroup.as_ref().is_some_and(Cgroup::ran_out_of_memory);
        let ended = Ended { ending, out_of_memory };
        Ok(Remains { runtime: self, cgroup, folder, record, ended, _signals: signals })
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
        if let Err(error) = container.await_ready() {
            return Err(self.abandon(container, error));
        }
        // From here on no runtime answers for the container. First it is written so, then the process may outlive us.
        container.record.owner = None;
        container.folder.write(&container.record)?;
        container.process.say(Word::Released)?;
        container.process.hear(&container.plan)?;
        bundle.handed.tell_pid(container.process.pid())?;
        let Making { process, mounted, rdt, cgroup, folder, .. } = container;
        let pid = process.release();
        mounted.keep();
        if let Some(rdt) = rdt {
            rdt.keep();
        }
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
        if record.nothing_to_run {
            return Err(ContainerError::NothingToRun { attempt: "start", id: id.clone() });
        }
        start::tell(&folder)?;
        run_poststart(&record, &*self.warn).or_else(|error| {
            end(&record, open_cgroup(&record)?.as_ref())?;
            Err(error)
        })
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

    /// What is known of containers.
    pub(super) fn states(&self) -> &States {
        &self.states
    }

    /// Takes the container out of the world; its first process has ended.
    pub(super) fn remove(
        &self,
        folder: StateFolder,
        cgroup: Option<Cgroup>,
        record: &Record,
    ) -> Result<(), ContainerError> {
        if let Some(cgroup) = cgroup {
            if !record.own_pids {
                // Without a PID namespace the end of the first process is not the end of the others.
                cgroup.kill()?;
            }
            cgroup.destroy()?;
        }
        if let Some(rdt) = &record.rdt {
            rdt.leave()?;
        }
        if let Some(tree) = &record.shared_tree {
            tree.clear()?;
        }
        {
            let _span = info_span!(
                "container.forget",
                call = "unlink(2), rmdir(2)",
                why = "the name is free again, and nothing of the container is left"
            )
            .entered();
            ContainerError::fault("container.forget")?;
            folder.remove()?;
        }
        late_hooks("poststop", record, ContainerState::Stopped, &*self.warn);
        Ok(())
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
    fn furnish(&mut self, between: Between<'_>) -> Result<(), ContainerError> {
        self.rdt = self.plan.rdt.as_ref().map(|rdt| rdt.enter(self.process.pid())).transpose()?;
        self.record.rdt = self.rdt.as_ref().and_then(RdtGroup::record);
        self.process.furnish(&self.plan, between)
    }

    /// Writes which process it is: other commands know it by that, and `prune` if this one is killed.
    fn write_down(&mut self) -> Result<(), ContainerError> {
        let _span = info_span!(
            "container.record",
            call = "write(2), rename(2)",
            why = "a file says which process the container is, so that other commands need no daemon to ask"
        )
        .entered();
        ContainerError::fault("container.record")?;
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

    /// Waits until the program begins, and until it ends.
    fn live(&mut self, signals: &Signals, bundle: &Bundle, warn: &dyn Fn(&str)) -> Result<Ending, ContainerError> {
        self.await_program(signals, warn)?;
        bundle.handed.tell_pid(self.process.pid())?;
        let far = self.plan.terminal.as_ref().map(TerminalPlan::receive).transpose()?.flatten();
        let _span = info_span!(
            "container.run",
            call = "poll(pidfd)",
            why = "the program runs; the runtime only waits, for its end or for a signal to send on"
        )
        .entered();
        ContainerError::fault("container.run")?;
        if let Some(far) = far {
            relay(far, self.process.pidfd(), signals)?;
        }
        self.process.await_end(signals)
    }

    fn await_program(&self, signals: &Signals, warn: &dyn Fn(&str)) -> Result<(), ContainerError> {
        let begun = {
            let _span = info_span!(
                "container.await_exec",
                call = "poll(2), recv(2)",
                why = "the wire to the process closes by itself at its execve: that is how the runtime knows"
            )
            .entered();
            ContainerError::fault("container.await_exec")?;
            self.process.await_program(&self.plan, signals)?
        };
        crate::spans::executed();
        if begun { run_poststart(&self.record, warn) } else { Ok(()) }
    }

    fn await_ready(&self) -> Result<(), ContainerError> {
        let heard = self.process.hear(&self.plan)?;
        if matches!(heard, Heard::Ready) { Ok(()) } else { Err(ContainerError::EndedEarly) }
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

/// Ends the container's first process, if it runs, and waits for that.
pub(super) fn end(record: &Record, cgroup: Option<&Cgroup>) -> Result<(), ContainerError> {
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
