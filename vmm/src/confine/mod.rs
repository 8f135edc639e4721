//! The monitor's own walls.
//!
//! A guest that finds a mistake in a device has the monitor's thread, and with it whatever the monitor may do. So the monitor
//! gives away what it does not need, once the machine stands and before the first instruction of the guest: its
//! capabilities, the way to any new right (`no_new_privs`), and every system call that serves no guest. The kernel keeps to
//! that whoever asks later, and nobody can take it back. A call that is not in the table ([`table`]) kills the monitor.
//!
//! One table stands for all threads of a monitor: those of processors and of devices do each other's work (a guest that
//! sets up a device has it start a thread), and they share all memory, so that a wall between them would be a line on the floor.

mod table;

use std::collections::BTreeMap;
use std::io;
use std::thread::JoinHandle;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use tracing::info_span;

use table::{Call, Only, TABLE, Who};

/// What the monitor has to do from here on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "any of them can be true beside any other: it is no hidden state")]
pub struct Duties {
    /// There are threads of processors and devices: an operating system's machine.
    pub threads: bool,
    /// It may be asked to save its machine (`--api`, `--snapshot-at`), or write down in the end which pages it has touched
    /// (`--recorded`): it makes folders and files.
    pub saves: bool,
    /// It hands out clones.
    pub serves: bool,
    /// They are processes, which it makes.
    pub forks: bool,
}

/// Why it could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Its capabilities stay.
    #[error("cannot give up the monitor's capabilities")]
    Capabilities(#[source] io::Error),
    /// The filter can't be made of the table.
    #[error("cannot make a filter of the table of system calls")]
    Filter(#[from] seccompiler::BackendError),
    /// The kernel does not take it.
    #[error("cannot confine the monitor to the system calls that it needs")]
    Apply(#[from] seccompiler::Error),
}

/// What confines monitors with the same duties: made once, by whoever starts many.
#[derive(Debug)]
pub struct Walls(BpfProgram);

impl Walls {
    /// Makes them of the table.
    pub fn of(duties: Duties) -> Result<Self, ConfineError> {
        Ok(Self(program(duties)?))
    }

    /// Confines this process for the rest of its life: all threads that there are, and those that will be.
    ///
    /// Capabilities belong to threads. This gives up those of the calling one, from which later threads have theirs; one that may
    /// be there already gives up its own ([`spawn`]).
    pub fn put_up(&self) -> Result<(), ConfineError> {
        let _span = info_span!(
            "monitor.confine",
            call = "capset(2), prctl(PR_SET_NO_NEW_PRIVS), seccomp(2)",
            why = "a guest that breaks out of its machine has what the monitor has: from here on no capability, and only the \
                   system calls that serve guests"
        )
        .entered();
        share_one_arena();
        drop_capabilities().map_err(ConfineError::Capabilities)?;
        self.close_in()
    }

    /// What stands between a process with these duties and its child with those: each call that only the first makes. It is short,
    /// so the kernel has little to do with it. A clone that put up all of its walls itself was seen to take 0.44 ms longer than one
    /// without any, and one within its server's 0.27 (medians of 150, in turn).
    pub(crate) fn within(outer: Duties, inner: Duties) -> Result<Self, ConfineError> {
        let given_up =
            |call: &&Call| !TABLE.iter().any(|other| other.number == call.number && serves(inner, other.who));
        let calls = TABLE.iter().filter(|call| serves(outer, call.who)).filter(given_up);
        let rules = calls.map(|call| (call.number, Vec::new())).collect();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, TargetArch::x86_64)?;
        Ok(Self(filter.try_into()?))
    }

    /// Puts them up within others that stand, and by which all else is given up.
    pub(crate) fn close_in(&self) -> Result<(), ConfineError> {
        Ok(seccompiler::apply_filter_all_threads(&self.0)?)
    }
}

/// Makes the walls and puts them up.
pub fn confine(duties: Duties) -> Result<(), ConfineError> {
    Walls::of(duties)?.put_up()
}

/// Has all later threads take their memory from where there is some already.
///
/// The C library gives each new thread a heap of its own, up to so many for each processor; and once the ninth thread asks, it
/// counts the processors, by opening a file of sysfs (glibc, `arena_get2`). A monitor's threads ask seldom enough to take turns,
/// and each heap less is memory that no guest pays for.
fn share_one_arena() {
    // mallopt(3). It fails only for a value that makes no sense.
    // SAFETY: it sets a number.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Starts a thread that has no capability, also where it is there before the monitor gives its own away: what needs them is
/// open by then.
pub(crate) fn spawn<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name).spawn(move || {
        let _ = drop_capabilities(); // it can't fail: giving up is always allowed
        work()
    })
}

/// Gives up all capabilities of the calling thread (capabilities(7)): effective, permitted and inheritable.
fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: 64 bits in two halves.
    const VERSION: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION, 0]; // 0: the calling thread
    let none = [0_u32; 6];
    // SAFETY: both point to values of the size that this version has, and live over the call.
    match unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a monitor with these duties makes such a call.
fn serves(duties: Duties, who: Who) -> bool {
    match who {
        Who::Everybody => true,
        Who::Threads => duties.threads,
        Who::Saves => duties.saves,
        Who::Spawns => duties.threads || duties.saves || duties.serves,
        Who::Files => duties.threads || duties.saves,
        Who::Meets => duties.threads || duties.serves,
        Who::Forks => duties.forks,
    }
}

/// The filter, as instructions of the kernel's.
fn program(duties: Duties) -> Result<BpfProgram, ConfineError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for Call { number, only, .. } in TABLE.iter().filter(|call| serves(duties, call.who)) {
        let rules = rules.entry(*number).or_default();
        if let Some(only) = only {
            rules.push(rule(*only)?);
        }
    }
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}

fn rule(only: Only) -> Result<SeccompRule, ConfineError> {
    let Only { argument, mask, value } = only;
    let operator = SeccompCmpOp::MaskedEq(mask);
    Ok(SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_monitor_has_a_filter_that_the_kernel_takes_for_one() {
        for bits in 0..16 {
            let is_set = |bit: u32| bits >> bit & 1 != 0;
            let duties = Duties { threads: is_set(0), saves: is_set(1), serves: is_set(2), forks: is_set(3) };
            let program = program(duties).unwrap();
            // BPF_MAXINSNS
            assert!((10..4096).contains(&program.len()), "{}", program.len());
        }
    }

    #[test]
    fn each_call_says_why_and_none_is_there_twice_with_and_without_a_condition() {
        for call in TABLE {
            assert!(call.why.len() >= "the same".len(), "{}", call.number);
            let same = TABLE.iter().filter(|other| other.number == call.number);
            let (bound, free): (Vec<_>, Vec<_>) = same.partition(|other| other.only.is_some());
            // Without a condition a call is allowed whatever its arguments: a condition beside it would be forgotten.
            assert!(bound.is_empty() || free.is_empty(), "{}", call.number);
            assert!(free.len() <= 1, "{}", call.number);
        }
    }

    #[test]
    fn no_monitor_may_start_a_program_or_make_code() {
        for forbidden in [libc::SYS_execve, libc::SYS_execveat, libc::SYS_ptrace, libc::SYS_mount, libc::SYS_bpf] {
            assert!(TABLE.iter().all(|call| call.number != forbidden), "{forbidden}");
        }
        let maps = TABLE.iter().filter(|call| [libc::SYS_mmap, libc::SYS_mprotect].contains(&call.number));
        for call in maps {
            assert_eq!(call.only.map(|only| (only.argument, only.mask, only.value)), Some((2, 4, 0)));
        }
    }
}
