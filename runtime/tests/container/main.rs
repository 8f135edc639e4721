//! What a container must be, seen from inside and from the host: `isolab-oci` with a real kernel, busybox as its root.
//!
//! A trial whose need is missing here is shown as ignored, with the need in its name; where `ISOLAB_REQUIRE` lists the
//! need, it runs and fails instead.

mod apparmor;
mod attacks;
mod checkpoint;
mod checks;
mod config_attacks;
mod config_hooks;
mod config_mounts;
mod config_namespaces;
mod config_process;
mod config_seccomp;
mod exec;
mod failures;
mod faults;
mod host_binary;
mod lab;
mod lifecycle;
mod namespaces;
mod needs;
mod net_devices;
mod peers;
mod process;
mod rootfs;
mod rootless;
mod terminal;
mod verbs;

use libtest_mimic::Arguments;

fn main() {
    // Inside a container this program is the attacker.
    if std::env::args().next().is_some_and(|name| name.ends_with(host_binary::WATCHER)) {
        return host_binary::watch();
    }
    let arguments = Arguments::from_args();
    let groups = [
        namespaces::trials(),
        rootfs::trials(),
        process::trials(),
        exec::trials(),
        host_binary::trials(),
        lifecycle::trials(),
        failures::trials(),
        faults::trials(),
        attacks::trials(),
        config_process::trials(),
        apparmor::trials(),
        config_attacks::trials(),
        config_hooks::trials(),
        config_mounts::trials(),
        config_namespaces::trials(),
        config_seccomp::trials(),
        rootless::trials(),
        terminal::trials(),
        peers::trials(),
        verbs::trials(),
        net_devices::trials(),
        checkpoint::trials(),
    ];
    libtest_mimic::run(&arguments, groups.into_iter().flatten().collect()).exit();
}
