//! Interfaces of the host that become the container's (OCI runtime specification, config-linux.md, "Network Devices").

use std::os::fd::AsRawFd;
use std::path::PathBuf;

use nix::sched::CloneFlags;
use nix::unistd::Pid;
use oci_spec::runtime::{Linux, LinuxNamespaceType};

use super::bundle::{Refusal, refuse};
use super::error::ContainerError;
use super::namespaces::Namespaces;
use crate::network::{Namespace, give_away};

/// The longest name that the kernel has room for (linux/if.h).
const LONGEST: usize = 15;

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetDevice {
    /// Its name on the host.
    name: String,
    /// Its name in the container.
    wanted: String,
}

/// Reads the wishes, in the order of their names.
pub(crate) fn plan(linux: &Linux) -> Result<Vec<NetDevice>, Refusal> {
    let Some(asked) = linux.net_devices() else { return Ok(Vec::new()) };
    let network = linux.namespaces().iter().flatten().any(|one| one.typ() == LinuxNamespaceType::Network);
    if !asked.is_empty() && !network {
        return refuse("linux.netDevices", "set, but there is no network namespace to move them to");
    }
    let mut devices = Vec::with_capacity(asked.len());
    for (name, device) in asked {
        let wanted = device.name().as_ref().filter(|name| !name.is_empty()).unwrap_or(name);
        for name in [name, wanted] {
            if !is_name(name) {
                return refuse("linux.netDevices", format!("{name:?} can be no interface's name"));
            }
        }
        devices.push(NetDevice { name: name.clone(), wanted: wanted.clone() });
    }
    devices.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(devices)
}

/// What the kernel takes for a name (`dev_valid_name`).
fn is_name(name: &str) -> bool {
    let forbidden = |letter: char| matches!(letter, '/' | ':' | '\0') || letter.is_whitespace();
    (1..=LONGEST).contains(&name.len()) && name != "." && name != ".." && !name.contains(forbidden)
}

/// Moves them into the network namespace of the container, whose first process is `pid`.
pub(crate) fn give(devices: &[NetDevice], namespaces: &Namespaces, pid: Pid) -> Result<(), ContainerError> {
    if devices.is_empty() {
        return Ok(());
    }
    let kind = CloneFlags::CLONE_NEWNET;
    let joined = namespaces.joined.iter().find(|join| join.kind == kind);
    let path = match joined {
        // The process may not have entered it yet.
        Some(join) => format!("/proc/self/fd/{}", join.file.as_raw_fd()),
        None => format!("/proc/{pid}/ns/net"),
    };
    let there = Namespace::open(&PathBuf::from(path))?;
    devices.iter().try_for_each(|device| Ok(give_away(&device.name, &device.wanted, &there)?))
}

#[cfg(test)]
mod tests {
    use super::{NetDevice, plan};
    use oci_spec::runtime::Linux;

    fn planned(text: &str) -> Option<Vec<NetDevice>> {
        plan(&serde_json::from_str::<Linux>(text).expect("the type takes it")).ok()
    }

    #[test]
    fn a_device_keeps_its_name_unless_another_is_given() {
        let with =
            |devices: &str| planned(&format!(r#"{{"namespaces":[{{"type":"network"}}],"netDevices":{devices}}}"#));
        let device = |name: &str, wanted: &str| NetDevice { name: name.to_owned(), wanted: wanted.to_owned() };
        let two = with(r#"{"eth1":{"name":"inner%d"},"eth0":{}}"#);
        assert_eq!(two, Some(vec![device("eth0", "eth0"), device("eth1", "inner%d")]));
        for wrong in [r#"{"a/b":{}}"#, r#"{"eth0":{"name":"a name"}}"#, r#"{"":{}}"#, r#"{"a-name-of-16-let":{}}"#] {
            assert_eq!(with(wrong), None, "{wrong}");
        }
        assert_eq!(planned(r#"{"namespaces":[],"netDevices":{"eth0":{}}}"#), None);
    }
}
