//! Containers: everything that the Linux kernel does for one, and nothing about images.
//!
//! A container is an ordinary process that was made with views of its own of the system (namespaces), limits of its own
//! (a cgroup), a file system of its own (a root), and fewer rights (capabilities, seccomp). This module takes a bundle, as
//! the OCI runtime specification describes it, to a running process and back.
//!
//! Where to begin: [`Runtime`] is the life of a container in numbered steps. `init` is the same story from the inside:
//! what the container's first process does with itself. Each other file is one mechanism:
//!
//! | file | mechanism | specification |
//! |---|---|---|
//! | `bundle`, `statements`, `plan` | reading `config.json`; deciding everything before anything is done | bundle.md, config.md |
//! | `namespaces`, `subids`, `shared_tree` | new, joined and inherited namespaces; user and group maps; clocks | config-linux.md, "Namespaces", "User namespace mappings", "Offset for Time Namespace" |
//! | `rootfs`, `overlay`, `inside` | the root file system, assembled by descriptor | config.md, "Root"; config-linux.md, "Rootfs Mount Propagation" |
//! | `mounts`, `outside_binds`, `outside_overlay`, `copy_up`, `cgroup_mount` | what is mounted in it | config.md, "Mounts"; config-linux.md, "Default Filesystems" |
//! | `covers` | what of it is masked or read-only | config-linux.md, "Masked Paths", "Readonly Paths" |
//! | `devices` | /dev | config-linux.md, "Devices", "Default Devices" |
//! | `network`, `net_devices` | the loopback interface; interfaces of the host that become its own | config-linux.md, "Network Devices" |
//! | `cgroup`, `limits` | what it may use | config-linux.md, "Control groups", "Unified" |
//! | `intel_rdt` | its part of the processor's cache | config-linux.md, "IntelRdt" |
//! | `sysctl` | kernel parameters | config-linux.md, "Sysctl" |
//! | `process`, `home`, `capabilities` | who it is and what it may do | config.md, "Process", "User" |
//! | `treatment` | scheduler, I/O priority, memory policy, personality | config.md, "Linux Process"; config-linux.md, "Memory Policy", "Personality" |
//! | `labels` | AppArmor and SELinux | config.md, "Linux Process"; config-linux.md, "Mount Label" |
//! | `seccomp`, `listener` | which system calls it may make | config-linux.md, "Seccomp", "The Container Process State" |
//! | `terminal`, `relay`, `handed` | a terminal of the container's own, and what else a caller hands in | config.md, "Process" (`terminal`) |
//! | `hooks` | other people's programs | config.md, "POSIX-platform Hooks" |
//! | `spawn`, `channel`, `start`, `signals` | making the process and talking to it | runtime.md, "Lifecycle" |
//! | `state`, `replace`, `overview` | what is known between commands, and told | runtime.md, "State", "Query State" |
//! | `control`, `watch`, `isolation` | looking at a container and changing it while it is there | runtime.md, "Kill"; (runc's command line) |
//! | `features`, `template` | what this runtime can; a configuration to begin with | features.md, features-linux.md |
//! | `exec`, `join` | another process in a container that runs | (runc's command line) |
//! | `checkpoint`, `restore`, `criu` | onto the disk and back | (runc's command line) |
//! | `shield` | the host's own command, out of the container's reach | (CVE-2019-5736) |

mod bundle;
mod capabilities;
pub mod cgroup;
mod cgroup_mount;
mod channel;
mod checkpoint;
mod clock;
mod control;
mod copy_up;
mod covers;
mod criu;
mod devices;
mod error;
mod exec;
mod features;
mod handed;
mod home;
mod hooks;
mod id;
mod init;
mod inside;
mod intel_rdt;
mod isolation;
mod join;
mod labels;
mod lifecycle;
mod limits;
mod listener;
mod mountinfo;
mod mounts;
#[cfg(test)]
mod mutations;
mod namespaces;
mod net_devices;
mod network;
mod outside_binds;
mod outside_overlay;
mod overlay;
mod overview;
mod place;
mod plan;
mod process;
mod pseudo_file;
mod rehearse;
mod relay;
mod replace;
mod report;
mod restore;
mod rootfs;
pub mod seccomp;
mod shared_tree;
mod shield;
mod signals;
mod spawn;
mod start;
mod state;
mod statements;
mod subids;
mod sys;
mod sysctl;
mod treatment;

#[cfg(feature = "fault")]
pub(crate) use sys::clone::exit_now as exit_at_once;
mod template;
mod terminal;
mod watch;

pub(crate) use outside_overlay::become_root_of;
pub(crate) use replace::replace;
pub(crate) use signals::Signals;
pub(crate) use sys::process::{ending_of, inheritable, pidfd_open, pidfd_signal, reap};
pub(crate) use sys::terminal::{Settings, Size, receive_descriptor, set_settings, set_size, settings, size};

pub use bundle::{Bundle, BundleError, OVERLAY_IDMAP, OVERLAY_LOWER, OVERLAY_UPPER, OVERLAY_VOLATILE, OVERLAY_WORK};
pub use checkpoint::Checkpoint;
pub use clock::{rfc3339, since_epoch};
pub use criu::{CheckpointError, CriuOptions, ManageCgroups};
pub use error::ContainerError;
pub use exec::{Exec, ExecError, User};
pub use features::features;
pub use handed::{Handed, HandedError};
pub use hooks::{HookError, Outcome};
pub use id::{ContainerId, IdError};
pub use intel_rdt::{RdtError, RdtRecord};
pub use isolation::{Isolation, MountView, NamespaceView, Owner, SeccompView};
pub use labels::LabelError;
pub use lifecycle::{Between, Ended, Remains, Runtime};
pub use namespaces::NamespaceError;
pub use overview::{Overview, Status};
pub use place::{default_root, parse_signal};
pub use rehearse::rehearse;
pub use restore::Restore;
pub use shield::{ShieldError, shield};
pub use state::{ProcessId, Record, StateError};
pub use subids::SubidError;
pub use sys::process::Ending;
pub use template::{TemplateError, write_template};
pub use terminal::TerminalError;
pub use watch::ContainerEvent;
