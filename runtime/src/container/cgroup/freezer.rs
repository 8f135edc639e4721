//! Stop, continue, kill: what can be done to all processes of a cgroup at once.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill as signal};

use super::CgroupError;
use super::folder::Folder;
use super::layout::Version;
use super::stats::keyed;

/// How long processes may take to stop: one that waits for a disk stops only when the disk has answered.
const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_micros(200);
const NAME: &str = "freezer";

/// What freezes: v1's `freezer` hierarchy where there is one, else v2, where every cgroup can.
fn home(folders: &[Folder]) -> Result<&Folder, CgroupError> {
    let v1 = folders.iter().find(|folder| folder.has(NAME));
    let found = v1.or_else(|| folders.iter().find(|folder| folder.version == Version::V2));
    found.ok_or_else(|| CgroupError::NoController { controller: NAME.to_owned(), asked: "freezer.state".to_owned() })
}

pub(super) fn freeze(folders: &[Folder]) -> Result<(), CgroupError> {
    let folder = home(folders)?;
    until(folder, "freeze", true).inspect_err(|_| {
        // Half a container stopped helps nobody. That it could not be stopped is told; this is the way back.
        drop(order(folder, false));
    })
}

pub(super) fn thaw(folders: &[Folder]) -> Result<(), CgroupError> {
    until(home(folders)?, "thaw", false)
}

pub(super) fn frozen(folders: &[Folder]) -> Result<bool, CgroupError> {
    is_frozen(home(folders)?)
}

fn order(folder: &Folder, frozen: bool) -> Result<(), CgroupError> {
    match folder.version {
        Version::V1 => folder.write("freezer.state", if frozen { "FROZEN" } else { "THAWED" }),
        Version::V2 => folder.write("cgroup.freeze", if frozen { "1" } else { "0" }),
    }
}

fn is_frozen(folder: &Folder) -> Result<bool, CgroupError> {
    match folder.version {
        // The last word: a folder that poses keeps all that were written. FREEZING means: not yet.
        Version::V1 => Ok(folder.read("freezer.state")?.lines().last() == Some("FROZEN")),
        Version::V2 => Ok(keyed(&folder.read("cgroup.events")?, "frozen") == Some(1)),
    }
}

fn until(folder: &Folder, attempt: &'static str, frozen: bool) -> Result<(), CgroupError> {
    let begin = Instant::now();
    loop {
        // v1 has to be told again: a process that was being made at the first order may have escaped it.
        order(folder, frozen)?;
        if is_frozen(folder)? == frozen {
            return Ok(());
        }
        if begin.elapsed() > PATIENCE {
            return Err(CgroupError::Timeout { attempt, path: folder.path.clone(), seconds: PATIENCE.as_secs() });
        }
        sleep(STEP);
    }
}

/// Kills every process: v2 does it in one write (Linux 5.14); otherwise they are stopped first, so that none can fork
/// in the meantime and no process id can change its owner between the list and the signal.
pub(super) fn kill(leading: &Folder, folders: &[Folder]) -> Result<(), CgroupError> {
    match leading.write("cgroup.kill", "1") {
        Err(CgroupError::Write { source: Errno::ENOENT, .. }) => {}
        Ok(()) => {
            // A v1 freezer knows nothing of that: what it holds would die only once let go.
            return if folders.iter().any(|folder| folder.has(NAME)) { thaw(folders) } else { Ok(()) };
        }
        Err(error) => return Err(error),
    }
    // Without a freezer the list is read again until it is empty; a fork bomb would win, but there is no other way.
    let stopped = freeze(folders).is_ok();
    let begin = Instant::now();
    loop {
        let pids = leading.all_pids()?;
        for pid in &pids {
            match signal(*pid, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(source) => {
                    return Err(CgroupError::Write {
                        file: leading.path.join("cgroup.procs"),
                        value: format!("SIGKILL to {pid}"),
                        source,
                    });
                }
            }
        }
        if stopped || pids.is_empty() {
            break;
        }
        if begin.elapsed() > PATIENCE {
            return Err(CgroupError::Timeout {
                attempt: "end",
                path: leading.path.clone(),
                seconds: PATIENCE.as_secs(),
            });
        }
        sleep(STEP);
    }
    if stopped { thaw(folders) } else { Ok(()) }
}
