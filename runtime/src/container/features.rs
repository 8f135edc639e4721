//! What this runtime can (OCI runtime specification, features.md): for engines that ask before they write a bundle.

use oci_spec::runtime::{Arch, Features, LinuxFeature, LinuxNamespaceType, LinuxSeccompAction};
use serde_json::json;

use super::mounts;

/// The earliest and the latest version of the specification that bundles may be written for.
const VERSIONS: [&str; 2] = ["1.0.0", "1.3.0"];
const HOOKS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
const OPERATORS: [&str; 7] =
    ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];
const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// Where memory comes from (`set_mempolicy(2)`).
const MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_WEIGHTED_INTERLEAVE",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_LOCAL",
];
const MODE_FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// The features, whatever this host offers of them.
pub fn features() -> Features {
    let mut features = Features::default();
    let [first, last] = VERSIONS.map(str::to_owned);
    features.set_oci_version_min(first).set_oci_version_max(last);
    features.set_hooks(Some(HOOKS.map(str::to_owned).into()));
    features.set_mount_options(Some(mounts::known_options()));
    features.set_linux(Some(linux()));
    features
}

fn linux() -> LinuxFeature {
    let mut linux = LinuxFeature::default();
    linux.set_namespaces(Some(vec![
        LinuxNamespaceType::Cgroup,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Time,
        LinuxNamespaceType::User,
        LinuxNamespaceType::Uts,
    ]));
    let mut capabilities: Vec<caps::Capability> = caps::all().into_iter().collect();
    capabilities.sort_by_key(caps::Capability::index);
    linux.set_capabilities(Some(capabilities.iter().map(ToString::to_string).collect()));
    // In the specification's own form: its types have no other way to be filled in few words.
    let part = json!({
        "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true },
        "seccomp": {
            "enabled": true,
            "actions": actions(),
            "operators": OPERATORS,
            "archs": [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
            "knownFlags": FLAGS,
            "supportedFlags": FLAGS,
        },
        "apparmor": { "enabled": true },
        "selinux": { "enabled": true },
        "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
        "memoryPolicy": { "modes": MODES, "flags": MODE_FLAGS },
        "mountExtensions": { "idmap": { "enabled": true } },
        "netDevices": { "enabled": true },
    });
    if let Ok(rest) = serde_json::from_value::<LinuxFeature>(part) {
        linux.set_cgroup(rest.cgroup().clone()).set_seccomp(rest.seccomp().clone());
        linux.set_apparmor(rest.apparmor().clone()).set_selinux(rest.selinux().clone());
        linux.set_intel_rdt(rest.intel_rdt().clone()).set_mount_extensions(rest.mount_extensions().clone());
        linux.set_memory_policy(rest.memory_policy().clone()).set_net_devices(rest.net_devices().clone());
    }
    linux
}

fn actions() -> [LinuxSeccompAction; 9] {
    [
        LinuxSeccompAction::ScmpActAllow,
        LinuxSeccompAction::ScmpActErrno,
        LinuxSeccompAction::ScmpActKill,
        LinuxSeccompAction::ScmpActKillProcess,
        LinuxSeccompAction::ScmpActKillThread,
        LinuxSeccompAction::ScmpActLog,
        LinuxSeccompAction::ScmpActNotify,
        LinuxSeccompAction::ScmpActTrace,
        LinuxSeccompAction::ScmpActTrap,
    ]
}

#[cfg(test)]
mod tests {
    use super::{actions, features};
    use crate::container::seccomp::Filter;

    #[test]
    fn every_part_is_told() {
        let features = features();
        let linux = features.linux().as_ref().expect("it is Linux");
        assert!(linux.cgroup().is_some() && linux.seccomp().is_some() && linux.mount_extensions().is_some());
        assert!(linux.intel_rdt().is_some() && linux.memory_policy().is_some() && linux.net_devices().is_some());
        let capabilities = linux.capabilities().as_deref().unwrap_or_default();
        assert_eq!(capabilities.first().map(String::as_str), Some("CAP_CHOWN"));
        let options = features.mount_options().as_deref().unwrap_or_default();
        assert!(["rbind", "ro", "rro", "rslave", "defaults"].iter().all(|word| options.iter().any(|it| it == word)));
    }

    #[test]
    fn every_action_that_is_told_is_taken() {
        for action in actions() {
            let profile = serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/listener",
                "syscalls": [{ "names": ["mkdir"], "action": action }] });
            let profile = serde_json::from_value(profile).expect("a profile");
            assert!(Filter::compile(&profile).is_ok(), "{action:?}");
        }
    }
}
