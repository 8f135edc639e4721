//! An engine's folder: its data, its sockets, the files of its image. Dropped, everything that names it is gone: processes,
//! mounts, cgroups, files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use libtest_mimic::Failed;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::checks::wait_within;
pub(crate) use super::checks::{has, same, text};
use super::needs::busybox;

/// The runtime under test.
pub(crate) const OCI: &str = env!("CARGO_BIN_EXE_isolab-oci");
/// The name of the image.
pub(crate) const IMAGE: &str = "busybox:trial";
/// What a process without `CAP_SYS_RESOURCE` may have at most in some places, instead of the engines' own defaults.
pub(crate) const FILES: &str = "nofile=1024:1024";

const APPLETS: [&str; 9] = ["sh", "cat", "echo", "id", "sleep", "true", "touch", "grep", "head"];

/// The cgroup that podman makes for its monitors, whatever parent its containers are given, and leaves.
const PODMANS: &str = "libpod_parent";

/// The folder.
pub(crate) struct Scratch {
    folder: TempDir,
}

impl Scratch {
    /// A folder with a root file system in it, and the same as an archive.
    pub(crate) fn new() -> Result<Self, Failed> {
        let scratch = Self { folder: tempfile::Builder::new().prefix("isolab-client-").tempdir()? };
        fs::set_permissions(scratch.folder.path(), fs::Permissions::from_mode(0o755))?;
        let root = scratch.path("rootfs");
        for name in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
            fs::create_dir_all(root.join(name))?;
        }
        fs::copy(busybox()?, root.join("bin/busybox"))?;
        for name in APPLETS {
            symlink("busybox", root.join("bin").join(name))?;
        }
        let mut archive = tar::Builder::new(fs::File::create(scratch.path("image.tar"))?);
        archive.follow_symlinks(false);
        archive.append_dir_all(".", &root)?;
        archive.finish()?;
        Ok(scratch)
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A cgroup parent of this folder's own.
    pub(crate) fn cgroup(&self) -> String {
        self.folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The processes whose command line names the folder.
    fn processes(&self) -> Vec<Pid> {
        let name = self.folder.path().display().to_string();
        let names = |pid: &Pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&name)
        };
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.map(Pid::from_raw).filter(names).collect()
    }

    /// The processes in the folder's cgroups: containers.
    fn contained(&self) -> Vec<Pid> {
        let read = |folder: &PathBuf| fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        let texts: Vec<String> = self.cgroups().iter().map(read).collect();
        texts.iter().flat_map(|text| text.lines()).filter_map(|line| Some(Pid::from_raw(line.parse().ok()?))).collect()
    }

    /// The cgroup parent and all below it, in every hierarchy; the deepest first.
    fn cgroups(&self) -> Vec<PathBuf> {
        Self::cgroups_named(&self.cgroup())
    }

    fn cgroups_named(name: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(folder) = folders.pop() {
            if folder.iter().any(|part| part == name) {
                found.push(folder.clone());
            }
            let below = fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(below.filter(|one| one.file_type().is_ok_and(|kind| kind.is_dir())).map(|one| one.path()));
        }
        found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        found
    }

    /// What a file says in the cgroup, below this folder's, whose name has the container's id in it.
    pub(crate) fn limit(&self, id: &str, v1: &str, v2: &str) -> Result<String, Failed> {
        let ours = self.cgroups().into_iter().filter(|folder| folder.display().to_string().contains(id));
        let mut values = ours.flat_map(|folder| [v1, v2].map(|name| fs::read_to_string(folder.join(name))));
        let value = values.find_map(Result::ok).ok_or_else(|| format!("no {v1} and no {v2} of {id}"))?;
        Ok(value.trim_end().to_owned())
    }

    fn unmount(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let place = self.folder.path().display().to_string();
        for point in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(point).starts_with(&place) {
                let _ = umount2(point, MntFlags::MNT_DETACH);
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for _ in 0..200 {
            let left: Vec<Pid> = self.processes().into_iter().chain(self.contained()).collect();
            for pid in &left {
                let _ = kill(*pid, Signal::SIGKILL);
            }
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.unmount();
        // Where somebody still is, the kernel refuses: another user's podman keeps its own.
        for cgroup in self.cgroups().into_iter().chain(Self::cgroups_named(PODMANS)) {
            drop(fs::remove_dir(cgroup));
        }
        // The folder itself goes with its `TempDir`, and only now that nothing is mounted in it.
    }
}

/// Runs a command to its end.
pub(crate) fn output(command: &mut Command) -> Result<Output, Failed> {
    command.output().map_err(|error| format!("{command:?}: {error}").into())
}

/// What the command printed; its status must be 0.
pub(crate) fn printed(command: &mut Command) -> Result<String, Failed> {
    let output = output(command)?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}: {}", output.status, text(&output.stderr)).into());
    }
    Ok(text(&output.stdout).trim_end().to_owned())
}

/// Asks until it is so, for half a minute at most.
pub(crate) fn wait_for(what: &str, so: impl FnMut() -> bool) -> Result<(), Failed> {
    wait_within(Duration::from_secs(30), Duration::from_millis(50), what, so)
}

/// Asks a daemon to end, and ends it where it has not within `patience`.
pub(crate) fn end_daemon(daemon: &mut Child, patience: Duration) {
    let _ = kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM);
    let ended = wait_within(patience, Duration::from_millis(50), "the daemon's end", || {
        matches!(daemon.try_wait(), Ok(Some(_)) | Err(_))
    });
    if ended.is_err() {
        drop(daemon.kill());
        drop(daemon.wait());
    }
}

/// Prints a limit from inside a container, whichever version of cgroups it sees.
pub(crate) fn reading(v1: &str, v2: &str) -> String {
    format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}")
}
