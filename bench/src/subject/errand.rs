//! A command that is run to its end and timed: a snapshot, a clone, a commit.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::held::open;
use super::launch::readable_within;
use crate::clock;

/// How long an errand may take. Copying a gibibyte takes seconds; only what hangs meets it.
const PATIENCE: Duration = Duration::from_mins(1);

/// Runs a command in `folder`; how long that took, in nanoseconds. The error says in words why it was not done.
pub(crate) fn run(program: &Path, arguments: &[impl AsRef<OsStr>], folder: &Path) -> Result<u64, String> {
    run_within(PATIENCE, program, arguments, folder)
}

/// The same, for no longer than `patience`.
pub(super) fn run_within(
    patience: Duration,
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    folder: &Path,
) -> Result<u64, String> {
    timed(patience, Command::new(program).args(arguments).current_dir(folder))
}

/// Runs a command of anybody's, and times it from before its start until it is reaped. One that hangs is killed with all that it has
/// started, and counts as failed.
pub fn timed(patience: Duration, command: &mut Command) -> Result<u64, String> {
    let program = command.get_program().to_owned();
    let cannot = |error: std::io::Error| format!("{} cannot be run: {error}", program.display());
    let complaints = memfd_create("stderr", MFdFlags::MFD_CLOEXEC).map_err(|errno| cannot(errno.into()))?;
    let mut complaints = File::from(complaints);
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    command.stderr(complaints.try_clone().map_err(cannot)?);
    let begun = clock::now();
    let mut child = command.spawn().map_err(cannot)?;
    let ended = open(child.id() as i32).and_then(|end| readable_within(&end, patience));
    if !matches!(ended, Ok(true)) {
        // Its group has its number, which nobody else gets before it is reaped.
        let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    }
    let status = child.wait().map_err(cannot)?;
    let took = clock::now() - begun;
    if !matches!(ended, Ok(true)) {
        return Err(format!("did not end within {} s", patience.as_secs()));
    }
    if status.success() {
        return Ok(took);
    }
    let mut said = String::new();
    let _ = complaints.rewind().and_then(|()| complaints.read_to_string(&mut said));
    Err(format!("{status}: {}", said.lines().next().unwrap_or("it says nothing")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errand_that_fails_says_why() {
        let run = |words: &[&str]| run(Path::new("/bin/sh"), words, Path::new("/"));
        assert!(run(&["-c", "exit 0"]).is_ok_and(|took| took > 0));
        let reason = run(&["-c", "echo no room >&2; exit 3"]).unwrap_err();
        assert!(reason.contains("exit status: 3") && reason.ends_with("no room"), "{reason}");
        let hangs = run_within(Duration::from_secs(1), Path::new("/bin/sh"), &["-c", "exec sleep 100"], Path::new("/"));
        assert_eq!(hangs, Err("did not end within 1 s".to_owned()));
    }
}
