//! Namespaces: the container's own, somebody else's, or the host's.

use std::fs;

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::lab::{Lab, has, same};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("each_namespace_asked_for_is_new", &NEEDS, each_is_new),
        trial("a_namespace_that_is_not_listed_is_the_hosts", &NEEDS, unlisted_is_shared),
        trial("a_namespace_can_be_joined_by_its_path", &NEEDS, joined),
        trial("the_program_is_process_one_and_sees_only_its_own", &NEEDS, process_one),
        trial("the_hostname_is_the_containers_own", &NEEDS, hostname),
        trial("a_new_network_has_loopback_up_and_nothing_else", &NEEDS, loopback),
        trial("root_of_a_user_namespace_is_somebody_else_outside", &NEEDS, user_namespace),
        trial("a_time_namespace_has_its_clocks_moved", &NEEDS, time_namespace),
        trial("a_kernel_parameter_holds_inside_only", &NEEDS, sysctl),
    ]
}

const KINDS: [(&str, &str); 6] =
    [("pid", "pid"), ("mount", "mnt"), ("uts", "uts"), ("ipc", "ipc"), ("network", "net"), ("cgroup", "cgroup")];

fn links() -> String {
    KINDS.map(|(_, file)| format!("readlink /proc/self/ns/{file}")).join("; ")
}

fn hosts(file: &str) -> Result<String, Failed> {
    Ok(fs::read_link(format!("/proc/self/ns/{file}"))?.display().to_string())
}

fn each_is_new() -> Result<(), Failed> {
    let lab = Lab::new(&links());
    let output = lab.output()?;
    for ((kind, file), inside) in KINDS.iter().zip(output.lines()) {
        if inside == hosts(file)? || !inside.starts_with(file) {
            return Err(format!("{kind}: {inside}").into());
        }
    }
    same(output.lines().count(), KINDS.len())?;
    lab.is_clean()
}

fn unlisted_is_shared() -> Result<(), Failed> {
    let mut lab = Lab::new(&links());
    lab.set("/linux/namespaces", json!([{ "type": "mount" }, { "type": "pid" }]));
    let output = lab.output()?;
    for file in ["uts", "ipc", "net", "cgroup"] {
        has(&output, &hosts(file)?)?;
    }
    lab.is_clean()
}

fn joined() -> Result<(), Failed> {
    let host = Lab::new("sleep 60");
    same(host.oci(&["create", &host.id]).status.code(), Some(0))?;
    let state: serde_json::Value = serde_json::from_slice(&host.oci(&["state", &host.id]).stdout)?;
    let pid = &state["pid"];
    let mut guest = Lab::new(&links());
    let path = |file: &str| format!("/proc/{pid}/ns/{file}");
    guest.set(
        "/linux/namespaces",
        json!([{ "type": "mount" }, { "type": "pid", "path": path("pid") }, { "type": "uts", "path": path("uts") },
               { "type": "ipc", "path": path("ipc") }, { "type": "network", "path": path("net") }]),
    );
    let output = guest.output()?;
    for file in ["pid", "uts", "ipc", "net"] {
        has(&output, &fs::read_link(path(file))?.display().to_string())?;
    }
    guest.is_clean()?;
    guest.set("/linux/namespaces", json!([{ "type": "mount" }, { "type": "uts", "path": "/proc/none/ns/uts" }]));
    has(&super::lab::text(&guest.run().stderr), "cannot open the uts namespace /proc/none/ns/uts")
}

fn process_one() -> Result<(), Failed> {
    let lab = Lab::new("echo $$; ls /proc | grep -c '^[0-9]'");
    // The shell, ls and grep.
    same(lab.output()?.as_str(), "1\n3\n")?;
    lab.is_clean()
}

fn hostname() -> Result<(), Failed> {
    let before = nix::unistd::gethostname()?;
    let mut lab = Lab::new("hostname; cat /proc/sys/kernel/domainname");
    lab.set("/hostname", json!("vessel")).set("/domainname", json!("sea"));
    same(lab.output()?.as_str(), "vessel\nsea\n")?;
    same(nix::unistd::gethostname()?, before)
}

fn loopback() -> Result<(), Failed> {
    let output = Lab::new("ip addr; ls /sys/class/net").output()?;
    has(&output, "127.0.0.1/8")?;
    same(output.lines().last(), Some("lo"))
}

fn user_namespace() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /proc/self/uid_map; id -u; id -g; touch /tmp/mine; echo up > /tmp/up; sleep 60");
    let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 1000 }]);
    lab.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    lab.set("/linux/namespaces/-", json!({ "type": "user" }));
    for path in [lab.root(), lab.root().join("tmp")] {
        std::os::unix::fs::chown(path, Some(200_000), Some(200_000))?;
    }
    let mut child = lab.spawn()?;
    same(lab.oci(&["kill", &lab.id, "KILL"]).status.code(), Some(0))?;
    same(child.wait()?.code(), Some(137))?;
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(lab.root().join("tmp/mine"))?);
    same(owner, 200_000)?;
    lab.is_clean()
}

fn time_namespace() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /proc/uptime");
    lab.set("/linux/timeOffsets", json!({ "boottime": { "secs": 1_000_000_000, "nanosecs": 0 } }));
    lab.set("/linux/namespaces/-", json!({ "type": "time" }));
    let uptime: f64 = lab.output()?.split(' ').next().unwrap_or_default().parse()?;
    if uptime < 1_000_000_000.0 { Err(format!("up for {uptime} s only").into()) } else { Ok(()) }
}

fn sysctl() -> Result<(), Failed> {
    let file = "/proc/sys/net/ipv4/ip_forward";
    let before = fs::read_to_string(file)?;
    let other = if before.trim() == "1" { "0" } else { "1" };
    let mut lab = Lab::new(&format!("cat {file}"));
    lab.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": other }));
    same(lab.output()?.trim(), other)?;
    same(fs::read_to_string(file)?, before)
}
