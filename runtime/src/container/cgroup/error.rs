//! What can go wrong with a cgroup, and what to try then.

use std::path::PathBuf;

use nix::errno::Errno;

/// Why something could not be done to a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// One of the two files in /proc that tell where cgroups are could not be read.
    #[error("cannot read {}", path.display())]
    Detect {
        /// The file.
        path: PathBuf,
        /// What reading it answered.
        source: std::io::Error,
    },
    /// The host has no cgroup file system mounted.
    #[error("no cgroup file system is mounted here")]
    NotMounted,
    /// The path cannot name a cgroup.
    #[error("{path:?} cannot name a cgroup: {reason}")]
    Path {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A cgroup's directory could not be opened.
    #[error("cannot open cgroup {}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// What the kernel answered.
        source: Errno,
    },
    /// A cgroup's directory could not be made.
    #[error("cannot make cgroup {}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// What the kernel answered.
        source: Errno,
    },
    /// A cgroup of that name is there, with processes in it.
    #[error("cgroup {} is in use", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The kernel did not take a value.
    #[error("cannot write {value:?} to {}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// The value.
        value: String,
        /// What the kernel answered.
        source: Errno,
    },
    /// A file of a cgroup could not be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the kernel answered.
        source: Errno,
    },
    /// A file of a cgroup says something that this version does not understand.
    #[error("{} says {text:?}, which is not {expected}", file.display())]
    Understand {
        /// The file.
        file: PathBuf,
        /// Its content, or the line in question.
        text: String,
        /// What was expected there.
        expected: &'static str,
    },
    /// One of several values was refused, and others that had been written could not be taken back.
    #[error("{} changed and could not be changed back", changed.join(", "))]
    Partly {
        /// The files that have new values.
        changed: Vec<String>,
        /// What was refused.
        source: Box<CgroupError>,
    },
    /// A limit was asked for that no mounted controller can keep.
    #[error("{asked} was asked for, and there is no such controller here: {controller}")]
    NoController {
        /// The controller.
        controller: String,
        /// The first file that would have been written.
        asked: String,
    },
    /// A limit was asked for that this version of cgroups has no word for.
    #[error("{field} has no counterpart in cgroup {version}")]
    Unsupported {
        /// The field of `linux.resources`.
        field: String,
        /// `v1` or `v2`.
        version: &'static str,
    },
    /// A limit that makes no sense on any host.
    #[error("{field} is {value}: {reason}")]
    Value {
        /// The field of `linux.resources`.
        field: &'static str,
        /// What it says.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A process could not be moved into the cgroup.
    #[error("cannot attach process {pid} to cgroup {}", path.display())]
    Attach {
        /// The process.
        pid: i32,
        /// The cgroup's directory.
        path: PathBuf,
        /// What the kernel answered.
        source: Errno,
    },
    /// The program that decides about devices was refused.
    #[error("cannot {attempt} the device program of cgroup {}", path.display())]
    DeviceProgram {
        /// `load`, `attach` or `replace`.
        attempt: &'static str,
        /// The cgroup's directory.
        path: PathBuf,
        /// What the kernel answered.
        source: Errno,
    },
    /// The processes did not all stop, continue or end in time.
    #[error("processes in cgroup {} did not {attempt} within {seconds} s", path.display())]
    Timeout {
        /// `freeze`, `thaw` or `end`.
        attempt: &'static str,
        /// The cgroup's directory.
        path: PathBuf,
        /// How long was waited, in seconds.
        seconds: u64,
    },
    /// The cgroup's directory could not be removed.
    #[error("cannot remove cgroup {}", path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// What the kernel answered.
        source: Errno,
    },
}

impl CgroupError {
    /// Whether a file could not be used because its directory was removed meanwhile: ENODEV while it is open, else ENOENT.
    pub(super) fn is_gone(&self) -> bool {
        let (Self::Read { source, .. } | Self::Write { source, .. }) = self else { return false };
        matches!(source, Errno::ENODEV | Errno::ENOENT)
    }

    /// What to try next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Partly { source, .. } => return source.hint(),
            Self::NotMounted => "mount one: mount -t cgroup2 none /sys/fs/cgroup".to_owned(),
            Self::Open { source, .. } if *source == Errno::ENOENT => {
                "there is no such cgroup; was the container deleted?".to_owned()
            }
            Self::Make { source, .. } if denied(*source) => {
                "cgroups are not delegated to this user: run as root, or have a login manager delegate a cgroup"
                    .to_owned()
            }
            Self::InUse { path } => {
                format!("choose another name, or end the processes in {}/cgroup.procs", path.display())
            }
            Self::Write { file, source, .. } if denied(*source) => {
                format!("{} is not writable for this user, or lies outside of what was delegated to it", file.display())
            }
            Self::Write { file, source: Errno::EBUSY, .. } if file.ends_with("cgroup.subtree_control") => {
                "a v2 cgroup that has processes of its own cannot hand controllers down: move them into a child first"
                    .to_owned()
            }
            Self::Write { file, source: Errno::EINVAL | Errno::ERANGE | Errno::EACCES, .. } => {
                format!("the value must be of this kernel's form and within what the parent of {} has", file.display())
            }
            Self::Write { source: Errno::ENOENT, .. } => {
                "this kernel was built without that limit, or its scheduler does not offer it".to_owned()
            }
            Self::Write { source: Errno::EBUSY, .. } => {
                "what is in use already exceeds that limit; raise it, or free some first".to_owned()
            }
            Self::NoController { controller, .. } => format!(
                "mount the {controller} controller, or take the limit out of linux.resources; `isolab-bench doctor` lists what is here"
            ),
            Self::Unsupported { version, .. } => {
                format!("take it out of linux.resources; this host's hierarchy for it is cgroup {version}")
            }
            Self::Attach { source: Errno::ENOSPC, .. } => {
                "cpuset.cpus or cpuset.mems is empty there: a process would have nowhere to run".to_owned()
            }
            Self::Attach { source: Errno::EBUSY | Errno::EOPNOTSUPP, .. } => {
                "a v2 cgroup that hands controllers down cannot have processes of its own: choose a child of it"
                    .to_owned()
            }
            Self::Attach { source, .. } if denied(*source) => {
                "both cgroups, the old and the new one, and what they have in common must be delegated to this user"
                    .to_owned()
            }
            Self::DeviceProgram { source, .. } if denied(*source) => {
                "loading it needs CAP_BPF or CAP_SYS_ADMIN; a container in a user namespace needs no device rules"
                    .to_owned()
            }
            Self::Remove { source: Errno::EBUSY, path } => {
                format!("it still has processes: see {}/cgroup.procs", path.display())
            }
            _ => return None,
        };
        Some(text)
    }
}

fn denied(errno: Errno) -> bool {
    matches!(errno, Errno::EACCES | Errno::EPERM | Errno::EROFS)
}
