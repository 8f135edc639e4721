//! Subjects that outlived their bench: found by where they stand, ended by a descriptor.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::super::owner::Owner;
use super::super::read;
use super::{Cleaned, Kind};

/// Commands that the bench starts. A shell or an editor that somebody opened in a scratch folder is none of them.
const SUBJECTS: [&str; 9] = [
    "isolab-payload",
    "isolab-oci",
    "isolab-vm",
    "runc",
    "crun",
    "bwrap",
    "firecracker",
    "qemu-system-x86_64",
    "cloud-hypervisor",
];

/// How long a killed process may take to be gone: it may sit in a system call that can't be interrupted.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ends the subjects whose working directory, program or root lies in one of these folders.
pub(super) fn end_inside(folders: &[PathBuf], cleaned: &mut Cleaned) {
    if folders.is_empty() {
        return;
    }
    let within = |path: PathBuf| folders.iter().any(|folder| path.starts_with(folder));
    for pid in all() {
        let Some(process) = Owner::of(pid) else { continue };
        let inside = ["cwd", "exe", "root"].into_iter().any(|link| target(pid, link).is_some_and(within));
        if inside && is_subject(pid) {
            end(process, cleaned);
        }
    }
}

/// Ends one process, whatever it is, and notes it.
pub(super) fn end(process: Owner, cleaned: &mut Cleaned) {
    let name = format!("{} ({})", process.pid, command(process.pid));
    match kill(process) {
        // Gone by itself in the meantime: nobody's merit.
        Ok(false) => {}
        Ok(true) => cleaned.note(Kind::Process, name, Ok::<_, io::Error>(())),
        Err(error) => cleaned.note(Kind::Process, name, Err(error)),
    }
}

/// Every process that `/proc` shows.
fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn target(pid: u32, link: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/{link}")).ok()
}

fn is_subject(pid: u32) -> bool {
    target(pid, "exe").is_some_and(|path| is_subjects_program(&path))
}

/// A program that was replaced or removed since has ` (deleted)` behind its name; runc runs from a copy in memory that
/// is called `/memfd:runc_cloned:/proc/self/exe`.
fn is_subjects_program(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let name = text.strip_suffix(" (deleted)").unwrap_or(&text);
    let name = match name.strip_prefix("/memfd:") {
        Some(copy) => copy.split(['_', ':']).next().unwrap_or_default(),
        None => name.rsplit('/').next().unwrap_or_default(),
    };
    SUBJECTS.contains(&name)
}

fn command(pid: u32) -> String {
    read::text(format!("/proc/{pid}/comm")).unwrap_or_default()
}

/// Kills exactly this process and waits until it is gone; false where it was gone already.
///
/// Through a descriptor (`pidfd_open(2)`): between looking and killing, a pid can pass to somebody else. The descriptor
/// can't, so who it stands for is checked once more after it is open.
fn kill(process: Owner) -> io::Result<bool> {
    let Some(descriptor) = open(process.pid)? else { return Ok(false) };
    if !process.alive() {
        return Ok(false);
    }
    // SAFETY: a descriptor of ours and no pointer but the null one, which stands for "as kill(2) would".
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, descriptor.as_raw_fd(), libc::SIGKILL, std::ptr::null::<()>(), 0)
    };
    if sent != 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ESRCH) { Ok(false) } else { Err(error) };
    }
    let deadline = Instant::now() + PATIENCE;
    while process.alive() {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "killed, but not gone after two seconds"));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(true)
}

/// A descriptor for a process; none where there is no such process.
fn open(pid: u32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: two integers; the result is a new descriptor, or -1.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if descriptor >= 0 {
        // SAFETY: just opened, and nobody else knows of it.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor as i32) }));
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn only_programs_that_the_bench_starts_are_subjects() {
        for path in [
            "/x/target/release/isolab-oci",
            "/usr/bin/runc",
            "/isolab-payload (deleted)",
            "/memfd:runc_cloned:/proc/self/exe (deleted)",
        ] {
            assert!(is_subjects_program(Path::new(path)), "{path}");
        }
        for path in ["/usr/bin/vim", "/bin/sh", "/run/isolab/bench/1-2", "/memfd:other", "", "/"] {
            assert!(!is_subjects_program(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn a_process_is_killed_and_its_successor_is_not() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let process = Owner::of(child.id()).unwrap();
        let stranger = Owner { start: process.start + 1, ..process };
        assert!(!kill(stranger).unwrap());
        assert!(process.alive());
        assert!(kill(process).unwrap());
        assert!(!process.alive());
        child.wait().unwrap();
        assert!(!kill(process).unwrap());
    }
}
