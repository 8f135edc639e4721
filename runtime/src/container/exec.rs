//! Another process in a container that runs: what it shall be, and the steps to it as the runtime takes them.
//!
//! What the process does itself is told in [`super::join`].

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use oci_spec::runtime::{Capability, ContainerState, LinuxCapabilities, Process};

use super::bundle;
use super::capabilities::CapabilityPlan;
use super::cgroup::{Cgroup, CgroupError, Hierarchy, Layout};
use super::error::ContainerError;
use super::handed::Handed;
use super::id::ContainerId;
use super::join::{JoinPlan, begin};
use super::labels::Labels;
use super::lifecycle::{Runtime, status};
use super::plan::{confined, held};
use super::relay::relay;
use super::seccomp::Profile;
use super::signals::{Signals, learn_ignored};
use super::state::Record;
use super::sys::process::Ending;
use super::sys::scheduling::NodeMask;
use super::terminal::TerminalPlan;
use super::treatment::nodes;

/// A user, and a group where one was named: `1000` or `1000:100`, in numbers. Names are the image's and are not looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: Option<u32>,
}

/// What another process shall be. What is not said is as for the container's first one.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line, and none implies another")]
pub struct Exec {
    /// A file with the whole process (config.md, "Process"), instead of all that follows.
    pub process_file: Option<PathBuf>,
    /// The same without a file.
    pub process: Option<serde_json::Value>,
    /// The program and its arguments.
    pub arguments: Vec<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Who it is.
    pub user: Option<User>,
    /// Groups it is in besides.
    pub additional_gids: Vec<u32>,
    /// Where it begins.
    pub cwd: Option<PathBuf>,
    /// Variables that are added to its environment, or changed there.
    pub env: Vec<String>,
    /// Capabilities it has besides.
    pub capabilities: Vec<String>,
    /// Whether it may gain no privilege, also where the first one may.
    pub no_new_privileges: bool,
    /// Whether it may outlive the command.
    pub detach: bool,
    /// Whether it may wait for a paused container to go on.
    pub ignore_paused: bool,
    /// Groups inside of the container's cgroup that it is put into: `PATH`, or `CONTROLLER:PATH` for one v1 hierarchy.
    pub cgroups: Vec<String>,
    /// What the caller hands over.
    pub handed: Handed,
}

/// Why there can be no other process.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The container is paused.
    #[error("cannot execute in container {0}: it is paused")]
    Paused(ContainerId),
    /// There is nothing to run.
    #[error("no program is named")]
    NoProgram,
    /// A program and a file that names one.
    #[error("a process file says what to run: no program can be named beside it")]
    TwoPrograms,
    /// A word that names no capability.
    #[error("there is no capability {0:?}")]
    Capability(String),
    /// A word that is no user.
    #[error("{0:?} is no user: a number is wanted, or two with a colon between")]
    User(String),
    /// A word that is no group inside of the container's.
    #[error("{0:?} is no cgroup inside of the container's: PATH is wanted, or CONTROLLER:PATH")]
    Cgroup(String),
    /// A group that nobody has made.
    #[error("there is no cgroup {0:?} inside of the container's")]
    MissingCgroup(String),
    /// A group of a container that has none.
    #[error("the container has no cgroup, and so none inside of that")]
    NoCgroup,
    /// The container was made by a runtime that kept no configuration.
    #[error("the configuration that container {0} was made with is not known any more")]
    NoConfiguration(ContainerId),
}

impl FromStr for User {
    type Err = ExecError;

    fn from_str(text: &str) -> Result<Self, ExecError> {
        let refused = || ExecError::User(text.to_owned());
        // Digits and nothing else: `+5` is a number to Rust, and `1000abc` was one to others.
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if digits { text.parse().map_err(|_| refused()) } else { Err(refused()) }
        };
        match text.split_once(':') {
            None => Ok(Self { uid: number(text)?, gid: None }),
            Some((user, group)) => Ok(Self { uid: number(user)?, gid: Some(number(group)?) }),
        }
    }
}

impl Runtime {
    /// Runs another process in a running container. Waits for its end, or, where it is detached, until it has become its
    /// program: then there is no ending to tell of yet.
    pub fn exec(&self, id: &ContainerId, asked: &Exec) -> Result<Option<Ending>, ContainerError> {
        let (folder, record) = self.find(id)?;
        match status(&folder, &record) {
            ContainerState::Running => {} //                                      1. there is something to join
            status => return Err(ContainerError::Status { attempt: "execute in", id: id.clone(), status }),
        }
        let cgroup = asked.cgroup(&record)?;
        if !asked.ignore_paused && cgroup.as_ref().is_some_and(|cgroup| matches!(cgroup.frozen(), Ok(true))) {
            return Err(ExecError::Paused(id.clone()).into());
        }
        let config = folder.read_config()?.ok_or_else(|| ExecError::NoConfiguration(id.clone()))?;
        let signals = if asked.detach { None } else { Some(collect()?) };
        let mask = match &signals {
            Some(signals) => signals.before(),
            None => SigSet::thread_get_mask().map_err(ContainerError::system("read", "the signal mask"))?,
        };
        let mut warnings = Vec::new();
        let plan = asked.plan(id, &record, &config, mask, &mut warnings)?; //     2. all decisions, nothing done yet
        self.warn_of(&warnings);
        let mut process = begin(&plan, cgroup.as_ref())?; //                      3. it joins, and becomes its program
        asked.handed.tell_pid(process.pid())?; //                                 4. whoever waits for its number has it
        let Some(signals) = signals else {
            process.release();
            return Ok(None);
        };
        if let Some(far) = plan.terminal.as_ref().map(TerminalPlan::receive).transpose()?.flatten() {
            relay(far, process.pidfd(), &signals)?;
        }
        process.await_end(&signals).map(Some) //                                  5. its end, or a signal to send on
    }
}

fn collect() -> Result<Signals, ContainerError> {
    Signals::collect().map_err(ContainerError::system("collect", "signals"))
}

impl Exec {
    /// The container's cgroup, or the groups inside of it that are asked for.
    fn cgroup(&self, record: &Record) -> Result<Option<Cgroup>, ContainerError> {
        let Some(base) = &record.cgroup else {
            return if self.cgroups.is_empty() { Ok(None) } else { Err(ExecError::NoCgroup.into()) };
        };
        let asked = self.cgroups.iter().map(|text| inner_group(text)).collect::<Result<Vec<_>, _>>()?;
        let layout = Layout::detect()?;
        let inner = |hierarchy: &Hierarchy| {
            let names = |name: &str| hierarchy.controllers().iter().any(|other| other == name);
            let own = asked.iter().rev().find(|(controller, _)| controller.is_none_or(names));
            own.map(|(_, path)| base.join(path))
        };
        for (text, (controller, _)) in self.cgroups.iter().zip(&asked) {
            let named = |hierarchy: &&Hierarchy| {
                controller.is_none_or(|name| hierarchy.controllers().iter().any(|other| other == name))
            };
            let mut paths = layout
                .hierarchies()
                .iter()
                .filter(named)
                .filter_map(|hierarchy| Some((hierarchy, inner(hierarchy)?)))
                .peekable();
            let somewhere = paths.peek().is_some();
            let everywhere =
                paths.all(|(hierarchy, path)| hierarchy.directory(&path).is_ok_and(|folder| folder.is_dir()));
            if !(somewhere && everywhere) {
                return Err(ExecError::MissingCgroup(text.clone()).into());
            }
        }
        let below = |hierarchy: &Hierarchy| inner(hierarchy).unwrap_or_else(|| base.clone());
        match Cgroup::open_below(&layout, below) {
            Ok(cgroup) => Ok(Some(cgroup)),
            Err(CgroupError::Open { source: Errno::ENOENT, .. }) if asked.is_empty() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn plan(
        &self,
        id: &ContainerId,
        record: &Record,
        config: &[u8],
        mask: SigSet,
        warnings: &mut Vec<String>,
    ) -> Result<JoinPlan, ContainerError> {
        let spec = bundle::read_kept(&record.bundle, config)?;
        let given = match (&self.process_file, &self.process) {
            (Some(path), _) => Some(bundle::read_process(path)?),
            (None, Some(process)) => Some(bundle::process_of(process, Path::new("the process"))?),
            (None, None) => None,
        };
        let process = match (given, spec.process()) {
            (Some(_), _) if !self.arguments.is_empty() => return Err(ExecError::TwoPrograms.into()),
            (Some((mut process, more)), _) => {
                warnings.extend(more);
                if self.terminal {
                    process.set_terminal(Some(true));
                }
                process
            }
            (None, Some(first)) => self.changed(first)?,
            (None, None) => return Err(ExecError::NoConfiguration(id.clone()).into()),
        };
        learn_ignored();
        bundle::check_exec(&process)?;
        let init = record.init.and_then(|init| Some((init.open()?, init.pid)));
        let Some((init, pid)) = init else {
            let status = ContainerState::Stopped;
            return Err(ContainerError::Status { attempt: "execute in", id: id.clone(), status });
        };
        let namespaces = foreign_namespaces(pid);
        let foreign_user = namespaces.contains(CloneFlags::CLONE_NEWUSER);
        let denied = foreign_user
            && std::fs::read_to_string(format!("/proc/{pid}/setgroups")).is_ok_and(|text| text.trim() == "deny");
        let capabilities = CapabilityPlan::new(process.capabilities().as_ref(), held(foreign_user)?, warnings);
        let linux = spec.linux().as_ref();
        let profile = Profile::of(&spec);
        let treatment = bundle::treat_exec(&process, linux)?;
        let affinity = Affinity::of(&process);
        let labels = Labels::plan(&process)?;
        let console = self.handed.console_socket.as_deref();
        let terminal = TerminalPlan::new(&process, console, !self.detach)?;
        let oom_score = process.oom_score_adj().map(|score| score.to_string());
        let process = confined(&process, capabilities, profile, !denied, record)?;
        Ok(JoinPlan {
            init,
            init_pid: pid,
            namespaces,
            // In a tree of others the namespace's root is theirs, not the container's.
            root: record.shared_tree.is_some().then(|| root_of(pid)).transpose()?,
            terminal,
            oom_score,
            process,
            treatment,
            affinity,
            labels,
            session_keyring: record.session_keyring,
            first_closed: self.handed.first_closed(),
            dies_with_runtime: !self.detach,
            mask,
        })
    }

    /// The container's first process, with other words for what was asked otherwise.
    fn changed(&self, first: &Process) -> Result<Process, ExecError> {
        if self.arguments.is_empty() {
            return Err(ExecError::NoProgram);
        }
        let mut process = first.clone();
        process.set_args(Some(self.arguments.clone())).set_terminal(Some(self.terminal));
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.clone());
        }
        let mut env = process.env().clone().unwrap_or_default();
        for variable in &self.env {
            // A program that finds a variable twice may take either.
            let name = variable.split('=').next().unwrap_or_default();
            env.retain(|other| other.split('=').next() != Some(name));
            env.push(variable.clone());
        }
        process.set_env(Some(env));
        let user = process.user_mut();
        if let Some(asked) = self.user {
            user.set_uid(asked.uid);
            user.set_gid(asked.gid.unwrap_or(user.gid()));
        }
        if !self.additional_gids.is_empty() {
            let groups = user.additional_gids().iter().flatten().chain(&self.additional_gids).copied().collect();
            user.set_additional_gids(Some(groups));
        }
        if self.no_new_privileges {
            process.set_no_new_privileges(Some(true));
        }
        if !self.capabilities.is_empty() {
            process.set_capabilities(Some(self.more_capabilities(first.capabilities().as_ref())?));
        }
        Ok(process)
    }

    /// Added to what may be had, and not to what is inherited: an ordinary user's program must not gain by it.
    fn more_capabilities(&self, first: Option<&LinuxCapabilities>) -> Result<LinuxCapabilities, ExecError> {
        let mut more = Vec::new();
        for name in &self.capabilities {
            let upper = name.to_ascii_uppercase();
            let known = Capability::from_str(upper.strip_prefix("CAP_").unwrap_or(&upper));
            more.push(known.map_err(|_| ExecError::Capability(name.clone()))?);
        }
        // The type's own default would be a few capabilities that nobody asked for.
        let mut sets = first.cloned().unwrap_or_else(|| serde_json::from_str("{}").unwrap_or_default());
        let with = |set: &Option<_>| Some(Iterator::chain(set.iter().flatten(), &more).copied().collect());
        let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        Ok(sets)
    }
}

/// `cpu:/inner` or `/inner`: of which hierarchy, and where below the container's own group.
fn inner_group(text: &str) -> Result<(Option<&str>, PathBuf), ExecError> {
    let (controller, path) = match text.split_once(':') {
        Some((controller, path)) => (Some(controller), path),
        None => (None, text),
    };
    let mut inner = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => inner.push(name),
            Component::RootDir | Component::CurDir => {}
            // Above it there may be anybody's.
            _ => return Err(ExecError::Cgroup(text.to_owned())),
        }
    }
    if path.is_empty() || controller == Some("") {
        Err(ExecError::Cgroup(text.to_owned()))
    } else {
        Ok((controller, inner))
    }
}

/// Which processors the process may run on: before it is in the container's cgroup, and after (OCI runtime specification,
/// config.md, "Linux Process", `execCPUAffinity`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Affinity {
    pub(crate) first: Option<NodeMask>,
    pub(crate) last: Option<NodeMask>,
}

impl Affinity {
    fn of(process: &Process) -> Self {
        // What can be no list has been refused with the rest of the file.
        let list = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).and_then(nodes);
        let asked = process.exec_cpu_affinity().as_ref();
        Self {
            first: asked.and_then(|asked| list(asked.initial())),
            last: asked.and_then(|asked| list(asked.cpu_affinity_final())),
        }
    }
}

/// The root of a process.
fn root_of(pid: i32) -> Result<OwnedFd, ContainerError> {
    let path = format!("/proc/{pid}/root");
    let opened = nix::fcntl::open(path.as_str(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    opened.map_err(|source| ContainerError::System { attempt: "open", on: path, source })
}

/// The namespaces of a process that are not our own: only those need to be joined, and only those may be by an ordinary
/// user, who has no right over the host's.
fn foreign_namespaces(pid: i32) -> CloneFlags {
    const KINDS: [(&str, i32); 8] = [
        ("user", libc::CLONE_NEWUSER),
        ("mnt", libc::CLONE_NEWNS),
        ("pid", libc::CLONE_NEWPID),
        ("net", libc::CLONE_NEWNET),
        ("ipc", libc::CLONE_NEWIPC),
        ("uts", libc::CLONE_NEWUTS),
        ("cgroup", libc::CLONE_NEWCGROUP),
        ("time", libc::CLONE_NEWTIME),
    ];
    let link = |of: &str, name: &str| std::fs::read_link(format!("/proc/{of}/ns/{name}")).ok();
    let of = pid.to_string();
    let foreign = KINDS.into_iter().filter(|(name, _)| link("self", name) != link(&of, name));
    foreign.fold(CloneFlags::empty(), |all, (_, flag)| all | CloneFlags::from_bits_retain(flag))
}

#[cfg(test)]
mod tests {
    use super::{Exec, User, inner_group};
    use oci_spec::runtime::Process;

    #[test]
    fn a_user_is_a_number_or_two_and_nothing_else() {
        assert_eq!("1000".parse::<User>().ok(), Some(User { uid: 1000, gid: None }));
        assert_eq!("0:5".parse::<User>().ok(), Some(User { uid: 0, gid: Some(5) }));
        for text in ["1000abc", "", ":", "1:", ":1", "-1", "+1", "1:2:3", "root", "4294967296", " 1"] {
            assert!(text.parse::<User>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_group_inside_stays_inside() {
        let group = |text: &str| inner_group(text).ok().map(|(of, path)| (of.map(str::to_owned), path));
        assert_eq!(group("/a/b"), Some((None, "a/b".into())));
        assert_eq!(group("cpu:x"), Some((Some("cpu".to_owned()), "x".into())));
        for wrong in ["", "..", "a/../b", ":x", "cpu:"] {
            assert_eq!(group(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_variable_is_changed_and_not_doubled() {
        let first: Process =
            serde_json::from_str(r#"{"user":{},"cwd":"/","env":["A=1","AB=2","C"]}"#).expect("a process");
        let env = ["A=3", "D=4"].map(str::to_owned).to_vec();
        let asked = Exec { arguments: vec!["x".to_owned()], env, ..Exec::default() };
        let process = asked.changed(&first).expect("it can be had");
        assert_eq!(process.env().as_deref(), Some(["AB=2", "C", "A=3", "D=4"].map(str::to_owned).as_slice()));
    }
}
