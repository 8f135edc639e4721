//! Who owns what the lab leaves on disk: a process, named by its pid and the tick at which it started.
//!
//! A pid alone is no name: the kernel hands it out again once its process is gone. Pid and start time together are
//! unique until the next boot, and both are in `/proc/PID/stat` for whoever asks whether the owner still lives.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::read;

/// A process that may have died since: written `<pid>-<start>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks after boot (proc(5), `/proc/PID/stat`, field 22).
    pub start: u64,
}

impl Owner {
    /// This process; none where `/proc` is not mounted.
    pub fn me() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// The process that has this pid now; none where there is none.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = read::text(format!("/proc/{pid}/stat"))?;
        Some(Self { pid, start: start_time(&stat)? })
    }

    /// Whether it still runs. A zombie does not: nothing of it will ever touch a file again.
    pub fn alive(self) -> bool {
        read::text(format!("/proc/{}/stat", self.pid))
            .is_some_and(|stat| start_time(&stat) == Some(self.start) && !is_zombie(&stat))
    }

    /// Where the bench that this process is keeps everything it makes, below the runtime root.
    pub fn scratch(self, runtime_root: &Path) -> PathBuf {
        runtime_root.join("bench").join(self.to_string())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.pid, self.start)
    }
}

/// A name that is no `<pid>-<start>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an owner: expected PID-START, both decimal numbers")]
pub struct NotAnOwner;

impl FromStr for Owner {
    type Err = NotAnOwner;

    fn from_str(text: &str) -> Result<Self, NotAnOwner> {
        let (pid, start) = text.split_once('-').ok_or(NotAnOwner)?;
        let owner = Self { pid: pid.parse().map_err(|_| NotAnOwner)?, start: start.parse().map_err(|_| NotAnOwner)? };
        // Exactly as written: `+1-07` is somebody else's file.
        if owner.pid > 0 && owner.to_string() == text { Ok(owner) } else { Err(NotAnOwner) }
    }
}

/// Field 22 of `/proc/PID/stat`.
fn start_time(stat: &str) -> Option<u64> {
    fields_after_name(stat)?.nth(19)?.parse().ok()
}

fn is_zombie(stat: &str) -> bool {
    fields_after_name(stat).and_then(|mut fields| fields.next()).is_some_and(|state| state == "Z" || state == "X")
}

/// The fields from the third on. The second is the command's name in parentheses and may itself hold blanks and
/// parentheses, so it ends at the *last* one.
fn fields_after_name(stat: &str) -> Option<impl Iterator<Item = &str>> {
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_survives_being_written_and_read() {
        let owner = Owner { pid: 4211, start: 99_123 };
        assert_eq!(owner.to_string(), "4211-99123");
        assert_eq!("4211-99123".parse(), Ok(owner));
    }

    #[test]
    fn other_names_are_not_owners() {
        for name in ["", "4211", "a-b", "4211-", "-4211", "+4-7", "04-7", "4-7-9", "0-7", "4294967296-1", "../1-2"] {
            assert_eq!(name.parse::<Owner>(), Err(NotAnOwner), "{name}");
        }
    }

    #[test]
    fn a_command_named_like_a_stat_line_fools_nobody() {
        let stat = "77 (a) R 1 (b c) S 1 77 77 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 31337 0 0";
        assert_eq!(start_time(stat), Some(31_337));
        assert!(!is_zombie(stat));
        assert!(is_zombie("77 (x) Z 1 77 77 0"));
    }

    #[test]
    fn this_process_lives_and_one_with_its_pid_but_another_start_does_not() {
        let me = Owner::me().unwrap();
        assert!(me.alive());
        assert!(!Owner { start: me.start + 1, ..me }.alive());
    }
}
