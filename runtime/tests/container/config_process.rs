//! `config.json` about the process: what the kernel is told of it, and what is refused before there is one.

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::lab::{Lab, has, same, text};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_scheduler_is_the_one_asked_for", &NEEDS, scheduler),
        trial("a_scheduler_that_the_kernel_refuses_is_named", &NEEDS, wrong_scheduler),
        trial("the_io_priority_is_the_one_asked_for", &NEEDS, io_priority),
        trial("a_32_bit_personality_shows_a_32_bit_machine", &NEEDS, personality),
        trial("memory_comes_from_the_nodes_asked_for", &["root", "busybox", "numa"], memory_policy),
        trial("a_label_without_its_security_module_is_refused", &["root", "busybox", "no-lsm"], labels),
        trial("a_mount_label_without_selinux_is_told_of", &["root", "busybox", "no-lsm"], mount_label),
        trial("statements_of_the_specification_hold", &NEEDS, statements),
        trial("what_is_set_in_a_joined_namespace_is_not_set_on_the_host", &NEEDS, joined_host),
        trial("what_the_specification_does_not_know_is_passed_over", &NEEDS, unknown),
        trial("inheritable_capabilities_are_empty_unless_asked_for", &NEEDS, inheritable),
    ]
}

/// Field `number` of `/proc/self/stat`, counted from 1 as proc(5) does; the program is busybox's awk itself.
fn stat_field(lab: &mut Lab, number: u32) -> Result<String, Failed> {
    let program = format!("{{ print ${number} }}");
    lab.set("/process/args", json!(["/bin/busybox", "awk", program, "/proc/self/stat"]));
    Ok(lab.output()?.trim().to_owned())
}

fn scheduler() -> Result<(), Failed> {
    for (asked, nice, policy) in [
        (json!({ "policy": "SCHED_BATCH", "nice": 7 }), "7", "3"),
        (json!({ "policy": "SCHED_OTHER", "nice": -5 }), "-5", "0"),
        (json!({ "policy": "SCHED_IDLE", "flags": ["SCHED_RESET_ON_FORK"] }), "0", "5"),
    ] {
        let mut lab = Lab::new("");
        lab.set("/process/scheduler", asked);
        same((stat_field(&mut lab, 19)?, stat_field(&mut lab, 41)?), (nice.to_owned(), policy.to_owned()))?;
        lab.is_clean()?;
    }
    Ok(())
}

fn wrong_scheduler() -> Result<(), Failed> {
    let mut lab = Lab::new("true");
    lab.set("/process/scheduler", json!({ "policy": "SCHED_OTHER", "priority": 50 }));
    let output = lab.run();
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "cannot set process.scheduler")?;
    lab.is_clean()
}

fn io_priority() -> Result<(), Failed> {
    for (class, level, expected) in [("IOPRIO_CLASS_BE", 6, "best-effort: prio 6\n"), ("IOPRIO_CLASS_IDLE", 0, "idle")]
    {
        let mut lab = Lab::new("busybox ionice");
        lab.set("/process/ioPriority", json!({ "class": class, "priority": level }));
        has(&lab.output()?, expected)?;
    }
    let mut lab = Lab::new("true");
    lab.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_RT", "priority": 8 }));
    has(&text(&lab.run().stderr), "process.ioPriority.priority: 8, but only 0 to 7 exist")
}

fn personality() -> Result<(), Failed> {
    let mut lab = Lab::new("busybox uname -m; cat /proc/self/personality");
    lab.set("/linux/personality", json!({ "domain": "LINUX32" }));
    same(lab.output()?.as_str(), "i686\n00000008\n")?;
    lab.set("/linux/personality", json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] }));
    has(&text(&lab.run().stderr), "linux.personality.flags")
}

fn memory_policy() -> Result<(), Failed> {
    let mut lab = Lab::new("head -n 1 /proc/self/numa_maps");
    lab.set("/linux/memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }));
    has(&lab.output()?, " bind=static:0")?;
    lab.set("/linux/memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "0-x" }));
    has(&text(&lab.run().stderr), "linux.memoryPolicy.nodes")
}

fn labels() -> Result<(), Failed> {
    for (field, value, expected) in [
        ("apparmorProfile", "strict", "this kernel has no AppArmor"),
        ("selinuxLabel", "system_u:system_r:svirt_lxc_net_t:s0", "this kernel has no SELinux"),
    ] {
        let mut lab = Lab::new("touch /tmp/ran");
        lab.set(&format!("/process/{field}"), json!(value));
        let output = lab.run();
        same(output.status.code(), Some(1))?;
        has(&text(&output.stderr), expected)?;
        has(&text(&output.stderr), "hint: ")?;
        same(lab.root().join("tmp/ran").exists(), false)?;
        // An empty label is no label.
        lab.set(&format!("/process/{field}"), json!(""));
        lab.output()?;
    }
    Ok(())
}

fn mount_label() -> Result<(), Failed> {
    let mut lab = Lab::new("echo up");
    lab.set("/linux/mountLabel", json!("system_u:object_r:svirt_sandbox_file_t:s0"));
    let output = lab.run();
    same(text(&output.stdout).as_str(), "up\n")?;
    same(text(&output.stderr).as_str(), "warning: linux.mountLabel is left out: this kernel has no SELinux\n")
}

fn statements() -> Result<(), Failed> {
    let limit = json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 });
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    let hook = |hook: Value| json!({ "poststop": [hook] });
    for (pointer, value, expected) in [
        ("/process/rlimits", json!([limit, limit]), "process.rlimits: RLIMIT_CORE is listed twice"),
        ("/annotations", json!({ "": "x" }), "annotations: one has an empty name"),
        ("/hooks", hook(json!({ "path": "true" })), "hooks.poststop[0].path: true, but it must be an absolute path"),
        ("/hooks", hook(json!({ "path": "/bin/true", "timeout": 0 })), "hooks.poststop[0].timeout"),
        ("/hooks", hook(json!({ "path": "/bin/true", "timeout": -1 })), "hooks.poststop[0].timeout"),
        (
            "/mounts/-",
            json!({ "destination": "/x", "source": "/tmp", "options": ["bind"], "uidMappings": map.clone() }),
            "uidMappings and gidMappings must be given together",
        ),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "a" }]), "linux.devices[0].type"),
        ("/linux/devices", json!([{ "path": "dev/x", "type": "p" }]), "linux.devices[0].path"),
        ("/linux/intelRdt", json!({ "closID": "x" }), "linux.intelRdt"),
        ("/linux/sysctl", json!({ "vm.swappiness": "1" }), "belongs to the whole host"),
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/ociVersion", json!("one"), "ociVersion"),
        ("/ociVersion", json!("1.0"), "ociVersion"),
        (
            "/linux/maskedPaths",
            json!(["proc/keys"]),
            "linux.maskedPaths: \"proc/keys\", but it must be an absolute path",
        ),
        ("/linux/readonlyPaths", json!(["proc"]), "linux.readonlyPaths"),
        ("/linux/namespaces/-", json!({ "type": "time", "path": "ns" }), "must be an absolute path"),
        ("/linux/gidMappings", map, "linux.gidMappings: set, but there is no user namespace"),
        ("/linux/resources", json!({ "rdma": { "mlx5_1": {} } }), "linux.resources.rdma.mlx5_1"),
    ] {
        let mut lab = Lab::new("touch /tmp/ran");
        lab.set(pointer, value);
        let output = lab.run();
        same((expected, output.status.code()), (expected, Some(1)))?;
        has(&text(&output.stderr), expected)?;
        same(lab.root().join("tmp/ran").exists(), false)?;
        lab.is_clean()?;
    }
    Ok(())
}

fn joined_host() -> Result<(), Failed> {
    let own = |file: &str| json!(format!("/proc/{}/ns/{file}", std::process::id()));
    let name = nix::unistd::gethostname()?;
    for (kind, file, pointer, value) in [
        ("uts", "uts", "/hostname", json!("pirate")),
        ("uts", "uts", "/linux/sysctl", json!({ "kernel.domainname": "pirate" })),
        ("network", "net", "/linux/sysctl", json!({ "net.ipv4.ip_forward": "0" })),
        ("ipc", "ipc", "/linux/sysctl", json!({ "kernel.shm_rmid_forced": "1" })),
    ] {
        let mut lab = Lab::new("true");
        lab.set("/linux/namespaces", json!([{ "type": "mount" }, { "type": kind, "path": own(file) }]));
        lab.set(pointer, value);
        let output = lab.run();
        same((pointer, output.status.code()), (pointer, Some(1)))?;
        has(&text(&output.stderr), "is the host's, and it would change the host")?;
    }
    same(nix::unistd::gethostname()?, name)
}

fn unknown() -> Result<(), Failed> {
    let mut lab = Lab::new("echo up");
    lab.set("/ociVersion", json!("1.99.0-dev"));
    for pointer in ["/future", "/process/future", "/linux/future", "/root/future"] {
        lab.set(pointer, json!({ "of": ["the", "specification"] }));
    }
    same(lab.output()?.as_str(), "up\n")?;
    lab.set("/process/capabilities/bounding", json!(["CAP_KILL", "CAP_TELEPORT"]));
    let output = lab.run();
    same(text(&output.stdout).as_str(), "up\n")?;
    has(&text(&output.stderr), "warning: capability CAP_TELEPORT is unknown and is left out")
}

fn inheritable() -> Result<(), Failed> {
    has(&Lab::new("cat /proc/self/status").output()?, "CapInh:\t0000000000000000\n")
}
