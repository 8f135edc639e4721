//! Why a container could not be made, started, ended or found: what was attempted, on what, and what to try next.

use std::error::Error;
use std::ffi::NulError;

use nix::errno::Errno;
use oci_spec::runtime::ContainerState;

use super::bundle::BundleError;
use super::cgroup::CgroupError;
use super::criu::CheckpointError;
use super::exec::ExecError;
use super::handed::HandedError;
use super::hooks::HookError;
use super::id::{ContainerId, IdError};
use super::inside::shown;
use super::intel_rdt::RdtError;
use super::labels::LabelError;
use super::namespaces::NamespaceError;
use super::plan::Plan;
use super::report::{Failure, Step};
use super::seccomp::SeccompError;
use super::state::StateError;
use super::subids::SubidError;
use super::terminal::TerminalError;
use crate::network::NetworkError;

/// Anything that can go wrong with a container.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The namespaces cannot be as asked.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The filter cannot be as asked.
    #[error("cannot compile linux.seccomp")]
    Seccomp(#[from] SeccompError),
    /// A limit cannot be set, or a cgroup not be made or removed.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The ids of an ordinary user's container.
    #[error(transparent)]
    Subid(#[from] SubidError),
    /// A share of the processor's cache.
    #[error(transparent)]
    Rdt(#[from] RdtError),
    /// An interface of the host.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A label.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A hook.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// Another process in a running container.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A container on disk.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A terminal.
    #[error(transparent)]
    Terminal(#[from] TerminalError),
    /// What the caller hands over.
    #[error(transparent)]
    Handed(#[from] HandedError),
    /// A text of the configuration that the kernel cannot be given.
    #[error("config.json has a text that ends before its end")]
    Nul(#[from] NulError),
    /// What the caller did to it before its program began.
    #[error(transparent)]
    Caller(Box<dyn Error + Send + Sync>),
    /// Something the runtime itself did.
    #[error("cannot {attempt} {on}")]
    System {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        on: String,
        /// What the system said.
        source: Errno,
    },
    /// Something the container's first process did.
    #[error("cannot {attempt}{}", detail.as_ref().map(|words| format!(" ({words})")).unwrap_or_default())]
    Init {
        /// What was tried, on what.
        attempt: String,
        /// The kernel's own words, where it had some.
        detail: Option<String>,
        /// What the system said.
        source: Errno,
    },
    /// The program is not in the container's file system. In words that callers of other runtimes look for.
    #[error("exec: {program:?}: {}", if program.contains('/') { "no such file or directory" } else { "executable file not found in $PATH" })]
    ProgramMissing {
        /// The program's name.
        program: String,
    },
    /// The program is there but cannot be executed.
    #[error("exec: {program:?}: permission denied")]
    ProgramDenied {
        /// The program's name.
        program: String,
    },
    /// What was asked for does not fit the container's state. Engines look for the words at the end where they only
    /// wanted to be sure that it has ended.
    #[error(
        "cannot {attempt} container {id}: it is {status}{}",
        if *attempt == "kill" { " (container not running)" } else { "" }
    )]
    Status {
        /// What was asked for.
        attempt: &'static str,
        /// The container.
        id: ContainerId,
        /// Where it is in its life.
        status: ContainerState,
    },
    /// The configuration has no program.
    #[error("cannot {attempt} container {id}: config.json has no process, so there is nothing to run")]
    NothingToRun {
        /// What was asked for.
        attempt: &'static str,
        /// The container.
        id: ContainerId,
    },
    /// It is paused already, or cannot do what was asked for because it is.
    #[error("cannot {attempt} container {id}: it is paused")]
    Paused {
        /// What was asked for.
        attempt: &'static str,
        /// The container.
        id: ContainerId,
    },
    /// It is not paused, so it cannot be resumed.
    #[error("cannot resume container {id}: it is not paused")]
    NotPaused {
        /// The container.
        id: ContainerId,
    },
    /// What was asked for is done to a cgroup, and the container has none.
    #[error("cannot {attempt} container {id}: it has no cgroup")]
    NoCgroup {
        /// What was asked for.
        attempt: &'static str,
        /// The container.
        id: ContainerId,
    },
    /// A word that is no signal.
    #[error("there is no signal {name:?}")]
    Signal {
        /// The word.
        name: String,
    },
    /// A word that is no container id.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The first process ended before it became the program.
    #[error("the container's process ended before it became the program")]
    EndedEarly,
    /// The first process would not end.
    #[error("process {pid} does not end, though it was killed")]
    Unkillable {
        /// Its number.
        pid: i32,
    },
}

impl ContainerError {
    /// For `map_err`: something the runtime itself did.
    pub(crate) fn system(attempt: &'static str, on: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let on = on.into();
        move |source| Self::System { attempt, on, source }
    }

    /// Fails where a test wants the step that has begun to fail.
    pub(crate) fn fault(step: &str) -> Result<(), Self> {
        crate::spans::fault().map_err(Self::system("take the step", step))
    }

    /// What the container's process told, in words; `plan` knows what its numbers mean.
    pub(crate) fn from_init(failure: &Failure, plan: Option<&Plan>) -> Self {
        let program = || {
            let first = plan.and_then(|plan| plan.process.arguments.list().first());
            first.map_or("the program".to_owned(), |name| name.to_string_lossy().into_owned())
        };
        match failure.step {
            Step::ProgramMissing => Self::ProgramMissing { program: program() },
            Step::ProgramDenied => Self::ProgramDenied { program: program() },
            _ => Self::Init {
                attempt: attempt(failure, plan)
                    .unwrap_or_else(|| format!("do step {:?} of the container", failure.step)),
                detail: Some(failure.detail()).filter(|words| !words.is_empty()),
                source: failure.errno,
            },
        }
    }

    /// What to try next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Bundle(BundleError::Read { .. }) => {
                "a bundle is a folder with config.json and a root file system in it"
            }
            Self::Bundle(BundleError::Refused { field, .. }) if field == "root.path" => {
                "root.path is the folder with the container's files, seen from the bundle"
            }
            Self::Cgroup(error) => return error.hint(),
            Self::Seccomp(error) => return error.hint(),
            Self::Subid(error) => return Some(error.hint()),
            Self::Checkpoint(error) => return error.hint(),
            Self::Rdt(error) => return error.hint().map(str::to_owned),
            Self::State(StateError::Exists(id)) => {
                return Some(format!("remove it with: isolab-oci delete --force {id}"));
            }
            Self::State(StateError::Io { .. }) => "choose another state folder with --root",
            Self::Namespace(NamespaceError::NoIds) => "map at least container id 0",
            Self::System { attempt: "make a process in", source: Errno::EPERM, .. } => {
                "new namespaces need CAP_SYS_ADMIN, or a user namespace; see user.max_user_namespaces in sysctl"
            }
            Self::System { attempt: "make a process in", source: Errno::ENOSPC, .. } => {
                "a limit of namespaces is reached; see /proc/sys/user"
            }
            Self::Label(LabelError::NoAppArmor(_) | LabelError::NoSelinux(_)) => {
                "remove the label, or run on a host whose kernel has that security module"
            }
            Self::System { attempt: "map the ids of", source: Errno::EINVAL, .. } => {
                "not every file system can be mounted with other ids; see mount_setattr(2), MOUNT_ATTR_IDMAP"
            }
            Self::System { attempt: "find uidMappings for", .. } => {
                "the option idmap needs uidMappings and gidMappings: of the mount, or of linux"
            }
            Self::Exec(ExecError::Paused(id)) => {
                return Some(format!("let it go on: isolab-oci resume {id}; or wait for that with --ignore-paused"));
            }
            Self::Terminal(TerminalError::NoSocket) => {
                "give --console-socket, or stay in the foreground, or set process.terminal to false"
            }
            Self::Terminal(TerminalError::NotAsked) => "set process.terminal to true, or leave --console-socket away",
            Self::Init { attempt, source: Errno::EDQUOT, .. } if attempt.starts_with("make a session keyring") => {
                "this user has as many keys as it may: see kernel.keys.maxkeys in sysctl; or give --no-new-keyring"
            }
            Self::Init { attempt, .. } if attempt.starts_with("make a terminal") => {
                "a terminal is made from the container's own devpts: mount one at /dev/pts"
            }
            Self::ProgramMissing { .. } => "process.args[0] is looked for inside root.path",
            Self::Init { attempt, source: Errno::EPERM, .. } if attempt.starts_with("set the limit") => {
                "raising a hard limit needs CAP_SYS_RESOURCE; lower process.rlimits"
            }
            Self::Init { attempt, source: Errno::ENOENT, .. } if attempt.starts_with("set the label") => {
                "no such profile is loaded: see aa-status(8), and load one with apparmor_parser(8)"
            }
            Self::Init { attempt, source: Errno::EINVAL, .. } if attempt.starts_with("become user") => {
                "the user or group has no number in the user namespace; map it in linux.uidMappings and gidMappings"
            }
            Self::Init { attempt, source: Errno::EPERM, .. } if attempt.contains("beside what /proc") => {
                "below /proc only descriptions of the machine may be covered, and /proc itself only by a procfs"
            }
            Self::Paused { id, .. } => return Some(format!("let it go on first: isolab-oci resume {id}")),
            Self::NoCgroup { .. } => "have a cgroup delegated to this user, or run as root: limits need one",
            Self::Status { attempt: "execute in", id, status: ContainerState::Created } => {
                return Some(format!("let it run first: isolab-oci start {id}"));
            }
            Self::Status { id, status, attempt: "delete" | "start" } if *status != ContainerState::Stopped => {
                return Some(format!("end it first: isolab-oci kill {id} KILL, or delete it with --force"));
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// What the step is, with what it is done on; nothing where the plan has no such thing.
fn attempt(failure: &Failure, plan: Option<&Plan>) -> Option<String> {
    let index = failure.index as usize;
    let rootfs = || plan.map(|plan| &plan.rootfs);
    let mount = || rootfs()?.mounts.get(index).map(|mount| shown(&mount.destination).to_owned());
    Some(match failure.step {
        Step::Protocol => "agree with the runtime".to_owned(),
        Step::Session => "begin a session".to_owned(),
        Step::Sibling => "make a process in the PID namespace".to_owned(),
        Step::OomScore => "set oomScoreAdj".to_owned(),
        Step::Affinity => "set execCPUAffinity.final".to_owned(),
        Step::IdentityInside => "become root of the user namespace".to_owned(),
        Step::JoinNamespace => format!("join the namespace {:?}", plan?.namespaces.joined.get(index)?.kind),
        Step::TimeNamespace => "set the clocks of the time namespace".to_owned(),
        Step::Propagation => "separate the mounts from the host's".to_owned(),
        Step::RootFolder => "make a mount of root.path".to_owned(),
        Step::OverlayUpper => "make the tmpfs for the container's changes".to_owned(),
        Step::Overlay => "mount the overlay at root.path".to_owned(),
        Step::MountPoint => format!("make the mount point {}", mount()?),
        Step::MountOverProc => format!("mount {} beside what /proc is for", mount()?),
        Step::CopyUp => format!("copy what the image has at {} into its tmpfs", mount()?),
        Step::Mount => format!("mount {}", mount()?),
        Step::Remount => format!("change what is mounted at {}", mount()?),
        Step::Device => format!("make the device {}", shown(&rootfs()?.devices.as_ref()?.get(index)?.path)),
        Step::Link => "make the links of /dev or of the cgroup mount".to_owned(),
        Step::MaskSource => "use the host's /dev/null as a mask".to_owned(),
        Step::Mask => format!("mask {}", shown(rootfs()?.covers.masked.get(index)?)),
        Step::ReadonlyPath => format!("make {} read-only", shown(rootfs()?.covers.readonly.get(index)?)),
        Step::ReadonlyRoot => "make the root read-only".to_owned(),
        Step::Pivot => "enter the root file system".to_owned(),
        Step::RootPropagation => "set linux.rootfsPropagation".to_owned(),
        Step::Hostname => "set the hostname".to_owned(),
        Step::Domainname => "set the domainname".to_owned(),
        Step::Loopback => "bring the loopback interface up".to_owned(),
        Step::Sysctl => format!("set the kernel parameter {}", plan?.sysctl.name(index)?),
        Step::Cgroup => "enter a cgroup".to_owned(),
        Step::CgroupNamespace => "make a cgroup namespace".to_owned(),
        Step::Terminal => "make a terminal with /dev/pts/ptmx".to_owned(),
        Step::TerminalSocket => "send the terminal to the console socket".to_owned(),
        Step::Console => "mount the terminal at /dev/console".to_owned(),
        Step::Keyring => "make a session keyring".to_owned(),
        Step::CloseDescriptors => "close the runtime's descriptors".to_owned(),
        Step::Label => format!("set the label of the program: {}", plan?.labels.name(index)?),
        Step::Scheduler => "set process.scheduler".to_owned(),
        Step::IoPriority => "set process.ioPriority".to_owned(),
        Step::MemoryPolicy => "set linux.memoryPolicy".to_owned(),
        Step::Personality => "set linux.personality".to_owned(),
        Step::Rlimit => format!("set the limit {}", plan?.process.limits.get(index)?.0),
        Step::BoundingSet => format!("drop capability {index} from the bounding set"),
        Step::User => "become user and group of process.user".to_owned(),
        Step::WorkingDirectory => format!("enter process.cwd {}", plan?.process.working_directory.to_string_lossy()),
        Step::WorkingDirectoryOutside => "use process.cwd, which lies outside of the container".to_owned(),
        Step::Capabilities => "set the capabilities".to_owned(),
        Step::NoNewPrivileges => "set no_new_privs".to_owned(),
        Step::SeccompListener => "send the filter's descriptor to linux.seccomp.listenerPath".to_owned(),
        Step::Seccomp => "install the seccomp filter".to_owned(),
        Step::Hook => "run a hook inside the container".to_owned(),
        Step::StartSignal => "wait for start".to_owned(),
        Step::Execute => "execute the program".to_owned(),
        Step::ProgramMissing | Step::ProgramDenied => return None,
    })
}
