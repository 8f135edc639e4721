//! What a trial needs of the host, and what becomes of it where that is missing.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use isolab_vmm::guest::app::App;
use libtest_mimic::{Failed, Trial};

pub(crate) type Done = Result<(), Failed>;

/// A trial that is ignored where one of its needs is missing, with the reason shown, and fails there if `ISOLAB_REQUIRE` names it.
pub(crate) fn trial(name: &str, needs: &[&str], test: impl FnOnce() -> Done + Send + 'static) -> Trial {
    let missing: Vec<&str> = needs.iter().copied().filter(|need| !is_here(need)).collect();
    if missing.is_empty() {
        return Trial::test(name, test);
    }
    let required = std::env::var("ISOLAB_REQUIRE").unwrap_or_default();
    let forgiven = !required.split(',').any(|need| missing.contains(&need.trim()));
    let reason = format!("needs {}", missing.join(", "));
    let complaint = format!("{reason}, which this host has not");
    Trial::test(name, move || Err(complaint.into())).with_kind(reason).with_ignored_flag(forgiven)
}

fn is_here(need: &str) -> bool {
    let opens = |path: &str| File::options().read(true).write(true).open(path).is_ok();
    match need {
        "root" => nix::unistd::geteuid().is_root(),
        "kvm" => opens("/dev/kvm"),
        "closed-kvm" => fs::metadata("/dev/kvm").is_ok_and(|it| it.permissions().mode() & 0o006 == 0),
        "interpreted-kvm" => is_here("kvm") && Path::new("/sys/module/kvm_pvm").exists(),
        "tun" => opens("/dev/net/tun"),
        "userfaultfd" => opens("/dev/userfaultfd"),
        // A kernel, and a KVM that can run one.
        "kernel" => runs_kernels() && named("ISOLAB_TEST_KERNEL") && named("ISOLAB_TEST_MODULES"),
        "small-kernel" => runs_kernels() && named("ISOLAB_TEST_SMALL_KERNEL"),
        "disks" => named("ISOLAB_TEST_ROOT") && named("ISOLAB_TEST_DATA"),
        // A static one: it is put where there are no libraries.
        "busybox" => on_path(need).is_some_and(|file| App::open(&file, &[], &[]).is_ok()),
        program => on_path(program).is_some(),
    }
}

fn runs_kernels() -> bool {
    is_here("kvm") && !is_here("interpreted-kvm")
}

fn named(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|path| Path::new(&path).exists())
}

pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|file| file.is_file())
}
