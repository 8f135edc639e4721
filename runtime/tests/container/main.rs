//! What a container must be, seen from inside and from the host: `isolab-oci` with a real kernel, busybox as its root.
//!
//! A trial whose need is missing here is shown as ignored, with the need in its name; where `ISOLAB_REQUIRE` lists the
//! need, it runs and fails instead.

mod attacks;
mod config_attacks;
mod config_hooks;
mod config_mounts;
mod config_namespaces;
mod config_process;
mod config_seccomp;
mod failures;
mod faults;
mod lab;
mod lifecycle;
mod namespaces;
mod needs;
mod peers;
mod process;
mod rootfs;
mod rootless;

use libtest_mimic::Arguments;

fn main() {
    let arguments = Arguments::from_args();
    let groups = [
        namespaces::trials(),
        rootfs::trials(),
        process::trials(),
        lifecycle::trials(),
        failures::trials(),
        faults::trials(),
        attacks::trials(),
        config_process::trials(),
        config_attacks::trials(),
        config_hooks::trials(),
        config_mounts::trials(),
        config_namespaces::trials(),
        config_seccomp::trials(),
        rootless::trials(),
        peers::trials(),
    ];
    libtest_mimic::run(&arguments, groups.into_iter().flatten().collect()).exit();
}
