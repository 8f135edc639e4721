//! What a trial needs of the host, and what becomes of it where that is missing.

use std::env;
use std::fs;
use std::path::Path;

use libtest_mimic::{Failed, Trial};

pub(crate) type Done = Result<(), Failed>;

/// A trial that is ignored where one of its needs is missing, with the reason shown, and fails there if `ISOLAB_REQUIRE` names it.
pub(crate) fn trial(name: &str, needs: &[&str], run: fn() -> Done) -> Trial {
    let missing: Vec<&str> = needs.iter().copied().filter(|need| !is_here(need)).collect();
    if missing.is_empty() {
        return Trial::test(name, run);
    }
    let required = env::var("ISOLAB_REQUIRE").unwrap_or_default();
    let forgiven = !required.split(',').any(|need| missing.contains(&need.trim()));
    let reason = format!("needs {}", missing.join(", "));
    let complaint = format!("{reason}, which this host has not");
    Trial::test(name, move || Err(complaint.into())).with_kind(reason).with_ignored_flag(forgiven)
}

fn is_here(need: &str) -> bool {
    match need {
        "root" => is_root(),
        "cgroup" => is_root() && Path::new("/sys/fs/cgroup").is_dir(),
        "kvm" => fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok(),
        "ksm" => Path::new("/sys/kernel/mm/ksm/run").exists(),
        // The emulator, and a kernel or a way to get one.
        "testbed" => ["qemu-system-x86_64", "busybox", "apt-get", "dpkg"].into_iter().all(on_path),
        program => on_path(program),
    }
}

/// Root that may mount: in a container it often may not.
fn is_root() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default();
    nix::unistd::geteuid().is_root() && effective >> CAP_SYS_ADMIN & 1 == 1
}

fn on_path(program: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).is_file())
}

pub(crate) fn ensure(holds: bool, otherwise: impl Into<String>) -> Done {
    if holds { Ok(()) } else { Err(otherwise.into().into()) }
}
