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
//! | `namespaces`, `subids` | new and joined namespaces, user and group maps | config-linux.md, "Namespaces" |
//! | `rootfs`, `overlay`, `mounts`, `outside_binds`, `copy_up`, `inside` | the root file system, assembled by descriptor | config.md, "Root", "Mounts" |
//! | `devices`, `cgroup_mount` | /dev, /sys/fs/cgroup | config-linux.md, "Default Devices" |
//! | `cgroup`, `limits` | what it may use | config-linux.md, "Control groups" |
//! | `process`, `home`, `treatment`, `labels`, `capabilities`, `seccomp`, `listener` | who it is and what it may do | config.md, "Process" |
//! | `spawn`, `channel`, `start`, `signals` | making the process and talking to it | runtime.md, "Lifecycle" |
//! | `overview`, `control`, `watch`, `isolation` | looking at a container and changing it while it is there | runtime.md, "Operations" |
//! | `features`, `template` | what this runtime can; a configuration to begin with | features.md |
//! | `exec`, `join` | another process in a container that runs | (runc's command line) |
//! | `shield` | the host's own command, out of the container's reach | (CVE-2019-5736) |
//! | `terminal`, `relay`, `handed` | a terminal of the container's own, and what else a caller hands in | config.md, "Process" |
//! | `state`, `hooks` | what is known between commands; other people's programs | runtime.md, "State"; config.md, "Hooks" |

mod bundle;
mod capabilities;
pub mod cgroup;
mod cgroup_mount;
mod channel;
mod clock;
mod control;
mod copy_up;
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
mod isolation;
mod join;
mod labels;
mod lifecycle;
mod limits;
mod listener;
mod mounts;
#[cfg(test)]
mod mutations;
mod namespaces;
mod network;
mod outside_binds;
mod overlay;
mod overview;
mod place;
mod plan;
mod process;
mod pseudo_file;
mod relay;
mod report;
mod rootfs;
pub mod seccomp;
mod shield;
mod signals;
mod spawn;
mod start;
mod state;
mod statements;
mod subids;
mod sys;
mod treatment;

#[cfg(feature = "fault")]
pub(crate) use sys::clone::exit_now as exit_at_once;
mod template;
mod terminal;
mod watch;

pub(crate) use signals::Signals;
pub(crate) use sys::process::{ending_of, pidfd_open, pidfd_signal, reap};
pub(crate) use sys::terminal::{Settings, Size, receive_descriptor, set_settings, set_size, settings, size};

pub use bundle::{Bundle, BundleError, OVERLAY_LOWER, OVERLAY_UPPER, OVERLAY_WORK};
pub use clock::{rfc3339, since_epoch};
pub use error::ContainerError;
pub use exec::{Exec, ExecError, User};
pub use features::features;
pub use handed::{Handed, HandedError};
pub use hooks::{HookError, Outcome};
pub use id::{ContainerId, IdError};
pub use isolation::{Isolation, MountView, NamespaceView, Owner, SeccompView};
pub use labels::LabelError;
pub use lifecycle::{Between, Ended, Runtime};
pub use namespaces::NamespaceError;
pub use overview::{Overview, Status};
pub use place::{default_root, parse_signal};
pub use shield::{ShieldError, shield};
pub use state::{ProcessId, Record, StateError};
pub use subids::SubidError;
pub use sys::process::Ending;
pub use template::{TemplateError, write_template};
pub use terminal::TerminalError;
pub use watch::ContainerEvent;
