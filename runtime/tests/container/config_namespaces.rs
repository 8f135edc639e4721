//! `config.json` about namespaces: which are joined, in which order, and whose the new ones are.

use std::fs;
use std::os::unix::fs::chown;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::lab::{Lab, has, same, text};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("every_namespace_of_a_container_can_be_joined", &NEEDS, all_joined),
        trial("in_a_joined_mount_namespace_the_root_is_the_bundles", &NEEDS, joined_tree),
        trial("a_joined_user_namespace_owns_the_new_ones", &NEEDS, new_in_joined_user),
        trial("a_joined_user_namespace_goes_with_a_joined_pid_namespace", &NEEDS, pid_in_joined_user),
        trial("a_joined_time_namespace_has_its_clocks", &NEEDS, joined_time),
        trial("a_kind_that_is_not_listed_is_inherited", &NEEDS, inherited),
        trial("what_is_mounted_in_an_inherited_tree_goes_with_the_container", &NEEDS, inherited_tree),
        trial("what_is_no_namespace_of_the_kind_is_refused", &NEEDS, wrong_kind),
    ]
}

/// What `ls /` shows in a lab's container.
const FOLDERS: &str = "bin\ndev\netc\nproc\nsys\ntmp\n";

/// A container that waits, in a user namespace where that is asked for.
fn host(user: bool) -> Result<(Lab, String), Failed> {
    host_with(user, &[])
}

/// The same, with more mounts.
fn host_with(user: bool, mounts: &[Value]) -> Result<(Lab, String), Failed> {
    let mut lab = Lab::new("sleep 60");
    for mount in mounts {
        lab.set("/mounts/-", mount.clone());
    }
    if user {
        give_ids(&mut lab)?;
        let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
        lab.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        lab.set("/linux/namespaces/-", json!({ "type": "user" }));
    }
    lab.set("/linux/namespaces/-", json!({ "type": "time" }));
    lab.set("/linux/timeOffsets", json!({ "boottime": { "secs": 1_000_000_000 } }));
    for verb in ["create", "start"] {
        same(text(&lab.oci(&[verb, &lab.id]).stderr).as_str(), "")?;
    }
    let state: Value = serde_json::from_slice(&lab.oci(&["state", &lab.id]).stdout)?;
    let pid = state["pid"].to_string();
    Ok((lab, pid))
}

fn give_ids(lab: &mut Lab) -> Result<(), Failed> {
    for path in [lab.root(), lab.root().join("tmp"), lab.root().join("dev")] {
        chown(path, Some(200_000), Some(200_000))?;
    }
    Ok(())
}

fn joined(pid: &str, kinds: &[(&str, &str)]) -> Vec<Value> {
    kinds.iter().map(|(kind, file)| json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") })).collect()
}

fn links(pid: &str, files: &[&str]) -> Result<String, Failed> {
    let link =
        |file: &&str| fs::read_link(format!("/proc/{pid}/ns/{file}")).map(|link| format!("{}\n", link.display()));
    Ok(files.iter().map(link).collect::<Result<Vec<_>, _>>()?.concat())
}

fn all_joined() -> Result<(), Failed> {
    for user in [false, true] {
        let mut guest = Lab::new("");
        // A root is looked for in the mount namespace that is joined.
        let folder = guest.root();
        let shown = json!({ "destination": folder, "source": folder, "type": "bind", "options": ["bind"] });
        let (host, pid) = host_with(user, &[shown])?;
        let mut kinds = vec![
            ("mount", "mnt"),
            ("pid", "pid"),
            ("uts", "uts"),
            ("ipc", "ipc"),
            ("network", "net"),
            ("cgroup", "cgroup"),
            ("time", "time"),
        ];
        if user {
            // In the middle: it must be entered first all the same.
            kinds.insert(3, ("user", "user"));
            give_ids(&mut guest)?;
        }
        guest.set("/linux/namespaces", Value::Array(joined(&pid, &kinds)));
        let files = ["mnt", "pid", "uts", "ipc", "net", "cgroup", "time"];
        let script: String = files.map(|file| format!("readlink /proc/self/ns/{file};")).concat();
        guest.set("/process/args", json!(["sh", "-c", format!("{script} ls /")]));
        // The other's /proc, and no masks: in a user namespace a new one may not show what the old one hides.
        let proc = json!({ "destination": "/proc", "source": "/proc", "type": "bind", "options": ["rbind"] });
        guest.set("/mounts", json!([proc])).set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
        let mounts = || fs::read_to_string(format!("/proc/{pid}/mountinfo"));
        let before = mounts()?;
        same((user, guest.output()?), (user, format!("{}{FOLDERS}", links(&pid, &files)?)))?;
        // What was mounted for the guest is gone from the other's tree, which stands.
        same(mounts()?, before)?;
        guest.is_clean()?;
        same(host.oci(&["delete", "--force", &host.id]).status.code(), Some(0))?;
        host.is_clean()?;
    }
    Ok(())
}

/// In two commands, with one that joins it; and where the root isn't there, that is said, with the namespace.
fn joined_tree() -> Result<(), Failed> {
    let mut guest = Lab::new("sleep 60");
    let folder = guest.root();
    let shown = json!({ "destination": folder, "source": folder, "type": "bind", "options": ["bind"] });
    let (host, pid) = host_with(false, &[shown])?;
    let (stranger, stranger_pid) = host_with(false, &[])?;
    let mount = |pid: &str| json!([joined(pid, &[("mount", "mnt")])[0], { "type": "pid" }]);
    guest.set("/linux/namespaces", mount(&pid));
    let before = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    for verb in ["create", "start"] {
        same(text(&guest.oci(&[verb, &guest.id]).stderr).as_str(), "")?;
    }
    same(text(&guest.oci(&["exec", &guest.id, "ls", "/"]).stdout).as_str(), FOLDERS)?;
    same(
        text(&host.oci(&["exec", &host.id, "sh", "-c", "ls /; echo still here"]).stdout).contains("still here"),
        true,
    )?;
    same(guest.oci(&["delete", "--force", &guest.id]).status.code(), Some(0))?;
    same(fs::read_to_string(format!("/proc/{pid}/mountinfo"))?, before)?;
    guest.set("/linux/namespaces", mount(&stranger_pid));
    has(&text(&guest.run().stderr), &format!("in the mount namespace /proc/{stranger_pid}/ns/mnt"))?;
    // A namespace that has ended has taken its mounts along.
    guest.set("/linux/namespaces", mount(&pid));
    same(text(&guest.oci(&["create", &guest.id]).stderr).as_str(), "")?;
    same(guest.oci(&["kill", &guest.id, "KILL"]).status.code(), Some(0))?;
    for other in [&host, &stranger] {
        same(other.oci(&["delete", "--force", &other.id]).status.code(), Some(0))?;
    }
    same(text(&guest.oci(&["delete", "--force", &guest.id]).stderr).as_str(), "")?;
    guest.is_clean()
}

/// The runtime specification, config-linux.md: "the container MUST inherit the runtime namespace of that type".
fn inherited() -> Result<(), Failed> {
    let files = ["mnt", "pid", "uts", "ipc", "net", "cgroup", "time", "user"];
    let script: String = files.map(|file| format!("readlink /proc/self/ns/{file};")).concat();
    let mut lab = Lab::new(&format!("{script} ls /"));
    lab.set("/linux/namespaces", json!([]));
    let output = lab.run();
    has(&text(&output.stderr), "no mount namespace")?;
    same(text(&output.stdout), format!("{}{FOLDERS}", links("self", &files)?))?;
    lab.is_clean()
}

/// In two commands, with one that joins, and after a failure on the way.
fn inherited_tree() -> Result<(), Failed> {
    let mut lab = Lab::new("sleep 60");
    lab.set("/linux/namespaces", json!([{ "type": "pid" }]));
    for verb in ["create", "start"] {
        same(lab.oci(&[verb, &lab.id]).status.code(), Some(0))?;
    }
    let mounted = || fs::read_to_string("/proc/self/mounts").map(|all| all.contains(&lab.root().display().to_string()));
    same(mounted()?, true)?;
    let seen = lab.oci(&["exec", &lab.id, "ls", "/"]);
    same(text(&seen.stdout).as_str(), FOLDERS)?;
    same(lab.oci(&["delete", "--force", &lab.id]).status.code(), Some(0))?;
    lab.is_clean()?;
    for (step, fault) in [("process.exec", "error"), ("container.record", "kill")] {
        let failed = lab.command(&["run", &lab.id]).env("ISOLAB_FAULT", format!("{step}:{fault}")).output()?;
        same((step, failed.status.success()), (step, false))?;
        if fault == "kill" {
            same(lab.oci(&["delete", "--force", &lab.id]).status.code(), Some(0))?;
        }
        lab.is_clean()?;
    }
    lab.set("/linux/namespaces/-", json!({ "type": "user" }));
    has(&text(&lab.run().stderr), "a user namespace may mount nothing")
}

fn new_in_joined_user() -> Result<(), Failed> {
    let (host, pid) = host(true)?;
    let mut guest = Lab::new(
        "echo $$; id -u; for n in user net ipc; do readlink /proc/self/ns/$n; done; touch /tmp/mine; echo x > /dev/null; hostname",
    );
    give_ids(&mut guest)?;
    let mut namespaces = joined(&pid, &[("network", "net"), ("ipc", "ipc"), ("user", "user")]);
    namespaces.extend(["mount", "pid", "uts", "cgroup"].map(|kind| json!({ "type": kind })));
    guest.set("/linux/namespaces", Value::Array(namespaces)).set("/hostname", json!("vessel"));
    same(guest.output()?, format!("1\n0\n{}vessel\n", links(&pid, &["user", "net", "ipc"])?))?;
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(guest.root().join("tmp/mine"))?);
    same(owner, 200_000)?;
    // And in two commands, where the number must be right too.
    guest.set("/process/args", json!(["sleep", "60"]));
    same(text(&guest.oci(&["create", "--pid-file", "pid", &guest.id]).stderr).as_str(), "")?;
    same(text(&guest.oci(&["start", &guest.id]).stderr).as_str(), "")?;
    let number = fs::read_to_string(guest.path("pid"))?;
    has(&text(&fs::read(format!("/proc/{number}/environ"))?), &guest.id)?;
    same(guest.oci(&["delete", "--force", &guest.id]).status.code(), Some(0))?;
    guest.is_clean()?;
    drop(host);
    Ok(())
}

fn pid_in_joined_user() -> Result<(), Failed> {
    let (host, pid) = host(true)?;
    let mut guest = Lab::new("readlink /proc/self/ns/pid; ls /proc | grep -c '^[0-9]'; exit 5");
    give_ids(&mut guest)?;
    let mut namespaces = joined(&pid, &[("pid", "pid"), ("user", "user")]);
    namespaces.extend(["mount", "uts", "ipc", "network"].map(|kind| json!({ "type": kind })));
    guest.set("/linux/namespaces", Value::Array(namespaces));
    let output = guest.run();
    same((output.status.code(), text(&output.stderr).as_str()), (Some(5), ""))?;
    // The other's sleep, this shell, ls and grep.
    same(text(&output.stdout), format!("{}4\n", links(&pid, &["pid"])?))?;
    guest.is_clean()?;
    drop(host);
    Ok(())
}

fn joined_time() -> Result<(), Failed> {
    let (host, pid) = host(false)?;
    let mut guest = Lab::new("cat /proc/uptime");
    let mut namespaces = joined(&pid, &[("time", "time")]);
    namespaces.extend(["mount", "pid"].map(|kind| json!({ "type": kind })));
    guest.set("/linux/namespaces", Value::Array(namespaces));
    let uptime: f64 = guest.output()?.split(' ').next().unwrap_or_default().parse()?;
    same(uptime > 1_000_000_000.0, true)?;
    // The clocks of a joined one are set already.
    guest.set("/linux/timeOffsets", json!({ "boottime": { "secs": 5 } }));
    has(&text(&guest.run().stderr), "linux.timeOffsets")?;
    drop(host);
    Ok(())
}

fn wrong_kind() -> Result<(), Failed> {
    let mut guest = Lab::new("true");
    for (kind, path) in [("uts", "/proc/self/ns/net"), ("ipc", "/etc/passwd"), ("pid", "/proc/self/ns/uts")] {
        guest.set("/linux/namespaces", json!([{ "type": "mount" }, { "type": kind, "path": path }]));
        let output = guest.run();
        same((path, output.status.code()), (path, Some(1)))?;
        has(&text(&output.stderr), "error: cannot join the ")?;
        guest.is_clean()?;
    }
    Ok(())
}
