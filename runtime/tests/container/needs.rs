//! What a trial needs of the host.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

/// A trial that is ignored where one of its needs is missing and not required.
pub(crate) fn trial(name: &str, needs: &[&str], test: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    let required = std::env::var("ISOLAB_REQUIRE").unwrap_or_default();
    let missing: Vec<&str> = needs.iter().copied().filter(|need| !is_here(need)).collect();
    let forgiven = missing.iter().all(|need| !required.split(',').any(|other| other == *need));
    let ignored = forgiven && !missing.is_empty();
    let kind = if ignored { format!("needs {}", missing.join(", ")) } else { String::new() };
    Trial::test(name, test).with_kind(kind).with_ignored_flag(ignored)
}

fn is_here(need: &str) -> bool {
    match need {
        "root" => nix::unistd::geteuid().is_root(),
        "cgroup" => nix::unistd::geteuid().is_root() && Path::new("/sys/fs/cgroup").is_dir(),
        // A hierarchy of version 1 that can hold processes still: newer hosts have only version 2.
        "cgroup1" => fs::read_to_string("/proc/mounts").is_ok_and(|mounts| mounts.contains(" cgroup ")),
        "keys" => Path::new("/proc/keys").exists(),
        "loop" => Path::new("/dev/loop-control").exists(),
        "overlay" => fs::read_to_string("/proc/filesystems").is_ok_and(|known| known.contains("overlay")),
        // A kernel that knows of memory on nodes, even if it is only one.
        "numa" => Path::new("/proc/self/numa_maps").exists(),
        // Linux 6.3; before, only file systems on disks could show other ids.
        "idmapped-tmpfs" => nix::sys::utsname::uname().is_ok_and(|name| {
            let release = name.release().to_string_lossy().into_owned();
            let mut numbers =
                release.split(|letter: char| !letter.is_ascii_digit()).map(|text| text.parse().unwrap_or(0));
            (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 3)
        }),
        // One that knows this kernel: each new kernel wants a new one.
        "criu" => on_path("criu")
            .is_some_and(|criu| Command::new(criu).arg("check").output().is_ok_and(|it| it.status.success())),
        // Profiles are loaded through securityfs.
        "apparmor" => Path::new("/sys/kernel/security/apparmor/profiles").exists(),
        "no-lsm" => !Path::new("/sys/fs/selinux/enforce").exists() && !Path::new("/sys/module/apparmor").exists(),
        "userns" => {
            let mut probe = Command::new("unshare");
            probe.args(["--user", "true"]).stderr(Stdio::null());
            if nix::unistd::geteuid().is_root() {
                probe.uid(65534).gid(65534);
            }
            probe.status().is_ok_and(|status| status.success())
        }
        "busybox" => busybox().is_ok(),
        program => on_path(program).is_some(),
    }
}

/// The busybox that the images of trials are made of.
pub(crate) fn busybox() -> Result<PathBuf, Failed> {
    on_path("busybox").ok_or_else(|| "the trial needs busybox".into())
}

/// The path of a program.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}
