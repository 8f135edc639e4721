//! seccomp: which system calls a container may make.
//!
//! A profile (`linux.seccomp`) names system calls and says what becomes of each. The kernel wants a program in classic
//! BPF instead, and runs it before every call (seccomp(2)). When the filter is installed, the kernel also tries it once
//! with every call number there is, to remember which are always allowed, so the price of a start is about 450 times the
//! length of the way through the program. A list that compares one name after another has a way of up to 400 steps, a
//! balanced tree one of nine: here the profile becomes a [`tree`].
//!
//! How a profile is read, where the specification leaves it open:
//! - The rules that name a call are tried in their order and the first that fits decides; the conditions of one rule
//!   must all hold. If none fits, the default action does.
//! - A name that this machine's architectures don't have is passed over ([`unknown`] tells which): profiles are
//!   written for many kernels and architectures.
//! - The native architecture always belongs to a profile; what comes from one that doesn't is killed, since its call
//!   numbers mean something else.

mod action;
mod census;
mod condition;
mod default;
mod ready;
mod table;
mod tree;

use std::borrow::Cow;
use std::fmt;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSyscall};

pub use census::{Census, census};
pub use default::default_profile;
pub use ready::{DEFAULT, Profile, SECCOMP};

use action::action;
use condition::Rule;
use table::Architecture;
use tree::{Decision, Range, statement};

/// The longest program that the kernel takes (`BPF_MAXINSNS`).
const LENGTH_MAX: usize = 4096;
/// What lies in front of each call's arguments in `struct seccomp_data`: where the program finds the number of the call
/// and the architecture that the number belongs to.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
/// A call number that nobody has: how a debugger says "leave this call out". It gets the default action.
const NO_CALL: u32 = u32::MAX;

/// Why a profile cannot become a filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The profile hands decisions to another process, and does not say to which.
    #[error("linux.seccomp asks for a listener's decisions, but has no listenerPath")]
    Notify,
    /// The listener would be asked before it can answer.
    #[error("linux.seccomp has SCMP_ACT_NOTIFY for {0}, which is needed to reach the listener")]
    NotifyTooEarly(String),
    /// Metadata for a listener that there isn't.
    #[error("linux.seccomp has listenerMetadata, but no listenerPath")]
    Metadata,
    /// An `errnoRet` stands where nothing returns an error.
    #[error("linux.seccomp gives errnoRet {value} to {action:?}, which returns no error")]
    ErrnoWithoutError {
        /// The error number.
        value: u32,
        /// The action.
        action: LinuxSeccompAction,
    },
    /// An `errnoRet` that no call can return.
    #[error("linux.seccomp has errnoRet {value}; the largest is {largest}")]
    Errno {
        /// The error number.
        value: u32,
        /// The largest that the action can return.
        largest: u32,
    },
    /// A condition is about an argument that system calls do not have.
    #[error("linux.seccomp has a condition on argument {index} of {name}; a system call has six, 0 to 5")]
    Argument {
        /// The system call.
        name: String,
        /// The index given.
        index: usize,
    },
    /// The program would be longer than the kernel takes.
    #[error("linux.seccomp makes a program of {0} instructions; the kernel takes {LENGTH_MAX}")]
    TooLong(usize),
}

impl SeccompError {
    /// What to try next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Notify | Self::Metadata => {
                Some("name the listener's socket in listenerPath, or use SCMP_ACT_ERRNO for those calls".to_owned())
            }
            Self::NotifyTooEarly(_) => Some("use another action for it".to_owned()),
            Self::ErrnoWithoutError { .. } => {
                Some("errnoRet belongs to SCMP_ACT_ERRNO and SCMP_ACT_TRACE only".to_owned())
            }
            Self::TooLong(_) => Some("name fewer conditions on arguments, or fewer architectures".to_owned()),
            Self::Errno { .. } | Self::Argument { .. } => None,
        }
    }
}

/// A profile made ready for the kernel.
#[derive(Clone)]
pub struct Filter {
    program: Cow<'static, [libc::sock_filter]>,
    flags: libc::c_ulong,
    notifies: bool,
}

impl Filter {
    /// Compiles a profile. Nothing is installed yet.
    pub fn compile(profile: &LinuxSeccomp) -> Result<Self, SeccompError> {
        let listener = profile.listener_path().is_some();
        if !listener && profile.listener_metadata().is_some() {
            return Err(SeccompError::Metadata);
        }
        let default = action(profile.default_action(), profile.default_errno_ret(), listener)?;
        let rules = rules(profile, listener)?;
        let notifies = notifies(profile)?;
        let mut program = vec![statement(tree::LOAD, ARCHITECTURE_AT)];
        for (audit, tables) in architectures(profile) {
            let mut section = vec![statement(tree::LOAD, NUMBER_AT)];
            section.extend(tree::balanced(&ranges(&tables, &rules, default)));
            program.extend(tree::unless_equal(audit, section.len()));
            program.extend(section);
        }
        program.push(statement(tree::RETURN, action::FOREIGN));
        if program.len() > LENGTH_MAX {
            return Err(SeccompError::TooLong(program.len()));
        }
        Ok(Self { program: Cow::Owned(program), flags: flags(profile, notifies)?, notifies })
    }

    /// Puts the calling thread, and all that it will start, under the filter: one seccomp(2) call, no allocation.
    ///
    /// A filter with a listener is refused here ([`Filter::install_with_listener`]): nobody would answer.
    pub fn install(&self) -> Result<(), Errno> {
        if self.notifies {
            return Err(Errno::ENOTCONN);
        }
        super::sys::seccomp::set_filter(&self.program, self.flags).map(drop)
    }

    /// As [`Filter::install`], and returns the descriptor that calls are answered by (`seccomp_unotify(2)`).
    pub fn install_with_listener(&self) -> Result<OwnedFd, Errno> {
        super::sys::seccomp::set_filter(&self.program, self.flags)?.ok_or(Errno::ENOTCONN)
    }

    /// Whether some calls are for a listener to decide.
    pub fn notifies(&self) -> bool {
        self.notifies
    }

    /// The program as the kernel gets it.
    pub fn instructions(&self) -> &[libc::sock_filter] {
        &self.program
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Filter({} instructions, flags {:#x})", self.program.len(), self.flags)
    }
}

/// The rules, sorted by the name of their call; those of one call in the order in which the profile has them.
fn rules(profile: &LinuxSeccomp, listener: bool) -> Result<Vec<Rule<'_>>, SeccompError> {
    let mut rules = Vec::new();
    for entry in profile.syscalls().iter().flatten() {
        let action = action(entry.action(), entry.errno_ret(), listener)?;
        let conditions = entry.args().as_deref().unwrap_or_default();
        for name in entry.names() {
            if let Some(condition) = conditions.iter().find(|condition| condition.index() >= condition::ARGUMENTS) {
                return Err(SeccompError::Argument { name: name.clone(), index: condition.index() });
            }
            rules.push(Rule { name, conditions, action });
        }
    }
    // A stable sort: it keeps the order among equals.
    rules.sort_by_key(|rule| rule.name);
    Ok(rules)
}

/// The architectures that the profile speaks of: what the kernel calls each, and the tables of calls in it. The kernel
/// sees x32 as x86-64 with a bit set in the number, so those two share a section.
fn architectures(profile: &LinuxSeccomp) -> Vec<(u32, Vec<Architecture>)> {
    let has = |arch| profile.architectures().iter().flatten().any(|other| *other == arch);
    let mut native = vec![Architecture::X86_64];
    if has(Arch::ScmpArchX32) {
        native.push(Architecture::X32);
    }
    let mut architectures = vec![(table::AUDIT_X86_64, native)];
    if has(Arch::ScmpArchX86) {
        architectures.push((table::AUDIT_I386, vec![Architecture::I386]));
    }
    architectures
}

/// All call numbers of an architecture, as ranges about which the same decides.
fn ranges(tables: &[Architecture], rules: &[Rule<'_>], default: u32) -> Vec<Range> {
    let mut numbered: Vec<_> = tables.iter().flat_map(|table| table.numbered(rules)).collect();
    numbered.sort_unstable_by_key(|(number, _)| *number);

    let otherwise = |first: u32| {
        let foreign = first >= table::X32_BIT && first != NO_CALL && tables == [Architecture::X86_64];
        Range { first, decision: Decision::Always(if foreign { action::FOREIGN } else { default }) }
    };
    let mut ranges = vec![otherwise(0)];
    for (number, rules) in numbered {
        ranges.push(Range { first: number, decision: condition::decide(rules, default) });
        ranges.push(otherwise(number + 1));
    }
    if tables == [Architecture::X86_64] {
        ranges.extend([table::X32_BIT, NO_CALL].map(otherwise));
    }
    tree::joined(ranges)
}

/// Whether a listener is asked about some call. Not about those by which it gets to know that it shall be: the process
/// that sends the news is under the filter already.
fn notifies(profile: &LinuxSeccomp) -> Result<bool, SeccompError> {
    let notify = |action| action == LinuxSeccompAction::ScmpActNotify;
    if notify(profile.default_action()) {
        return Err(SeccompError::NotifyTooEarly("every other call".to_owned()));
    }
    let mut names =
        profile.syscalls().iter().flatten().filter(|rule| notify(rule.action())).flat_map(LinuxSyscall::names);
    match names.clone().find(|name| matches!(name.as_str(), "sendmsg" | "close")) {
        Some(name) => Err(SeccompError::NotifyTooEarly(name.clone())),
        None => Ok(names.next().is_some()),
    }
}

fn flags(profile: &LinuxSeccomp, notifies: bool) -> Result<libc::c_ulong, SeccompError> {
    let mut flags = if notifies { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    for flag in profile.flags().iter().flatten() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            // With it alone, a thread that can't follow makes the call return that thread's number, as if it were fine.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => {
                libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH
            }
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            // It is about waiting for a listener, and the kernel refuses it where there is none.
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies => {
                libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
            }
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => return Err(SeccompError::Notify),
        };
    }
    Ok(flags)
}

/// Names in a profile that none of its architectures has on this machine; a filter passes them over.
pub fn unknown(profile: &LinuxSeccomp) -> Vec<&str> {
    let tables: Vec<Architecture> = architectures(profile).into_iter().flat_map(|(_, tables)| tables).collect();
    let names = profile.syscalls().iter().flatten().flat_map(LinuxSyscall::names).map(String::as_str);
    names.filter(|name| tables.iter().all(|table| table.number(name).is_none())).collect()
}

#[cfg(test)]
mod tests;
