//! The small first process of `--init`. The first process of a PID namespace inherits every orphan, and a program that was
//! not written for that never reaps them; signals without a handler don't even reach it. This one starts the program as
//! its child, passes signals on, reaps whatever ends, and ends with the program's status.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::error::{EngineError, io_error};
use crate::image::Temporary;

/// The program that containers get for it, kept below the images' root: a copy of this command, since no container shall
/// see the host's own file (see `container::shield`).
pub(super) fn program(root: &Path) -> Result<PathBuf, EngineError> {
    let own = "/proc/self/exe";
    let found = fs::metadata(own).map_err(io_error("look at", own))?;
    let folder = root.join("init");
    let path = folder.join(format!("{}-{}", found.size(), found.mtime()));
    if !path.exists() {
        fs::create_dir_all(&folder).map_err(io_error("make", &folder))?;
        let temporary = Temporary::name_in(&folder);
        fs::copy(own, temporary.path()).map_err(io_error("make", temporary.path()))?;
        temporary.publish(&path).map_err(io_error("make", &path))?;
    }
    Ok(path)
}

/// Runs a program as its first process would; answers the status to end with.
pub fn init(mut arguments: impl Iterator<Item = OsString>) -> u8 {
    let words = |word: &OsString| word != "--";
    let program = arguments.by_ref().find(words).unwrap_or_default();
    let signals = SigSet::all();
    // Before the child is made: none of its signals may be missed.
    if signals.thread_block().is_err() {
        return 125;
    }
    let mut command = Command::new(&program);
    command.args(arguments);
    // SAFETY: one system call, which neither allocates nor locks. The program begins with no signal blocked.
    unsafe { command.pre_exec(move || Ok(signals.thread_unblock()?)) };
    let child = match command.spawn() {
        Ok(child) => Pid::from_raw(child.id() as i32),
        Err(error) => {
            eprintln!("error: exec: {}: {error}", program.display());
            return if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        }
    };
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap_all(child) {
                    return code;
                }
            }
            // A terminal's job control stops this process's group with the program's: it must not stop itself.
            Ok(signal) => drop(kill(child, signal)),
            Err(_) => {}
        }
    }
}

/// Reaps whatever has ended; the program's status where it was among them.
fn reap_all(child: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => code = Some(status as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => code = Some(128 + signal as u8),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return code,
            Err(errno) if errno != Errno::EINTR => return code,
            _ => {}
        }
    }
}
