//! Configurations and images that try to reach the host through what `config.json` asks for.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::lab::{Lab, has, same, text};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_mount_point_that_turns_into_a_link_leads_nowhere", &NEEDS, racing_link),
        trial("a_release_agent_cannot_be_set", &["root", "busybox", "cgroup1"], release_agent),
        trial("a_kernel_parameter_is_not_written_to_what_the_image_has_at_proc", &NEEDS, forged_parameters),
        trial("dots_in_a_path_do_not_leave_the_root", &NEEDS, dots),
        trial("a_device_is_not_made_behind_a_link", &NEEDS, linked_device),
        trial("what_a_configuration_opens_is_closed_to_the_program", &NEEDS, descriptors),
        trial("a_tmpfs_takes_no_file_of_the_hosts", &NEEDS, copied_link),
    ]
}

/// CVE-2021-30465, CVE-2024-45310: between the look and the mount, the folder becomes a link.
fn racing_link() -> Result<(), Failed> {
    let mut lab = Lab::new("true");
    let outside = lab.path("outside");
    fs::create_dir(&outside)?;
    let (place, spare) = (lab.root().join("place"), lab.root().join("spare"));
    fs::create_dir(&place)?;
    symlink(&outside, &spare)?;
    for number in 0..8 {
        lab.set("/mounts/-", json!({ "destination": format!("/place/{number}/deep"), "type": "tmpfs", "source": "t" }));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let swaps = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut swaps = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                let swapped = nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, &place, nix::fcntl::AT_FDCWD, &spare, flags);
                swaps += u32::from(swapped.is_ok());
            }
            swaps
        })
    };
    for _ in 0..40 {
        // It works or it doesn't: what counts is where.
        lab.run();
    }
    stop.store(true, Ordering::Relaxed);
    let swaps = swaps.join().map_err(|_| "the swapping thread panicked")?;
    same((swaps > 100, fs::read_dir(&outside)?.count()), (true, 0))?;
    lab.is_clean()
}

/// CVE-2022-0492: a hierarchy of version 1 runs a program of the host's when a cgroup becomes empty.
fn release_agent() -> Result<(), Failed> {
    let mut lab = Lab::new(
        "mkdir /tmp/c; mount -t cgroup -o pids none /tmp/c && echo mounted; cd /sys/fs/cgroup/pids; \
         echo /evil > release_agent && echo set; echo 1 > notify_on_release && echo notified; true",
    );
    let cgroup = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"] });
    lab.set("/mounts/-", cgroup);
    let output = lab.run();
    same(text(&output.stdout).as_str(), "")?;
    has(&text(&output.stderr), "mount: permission denied")?;
    // Nor from a user namespace made inside, where it would have every right: the root there is not the host's.
    let lab = Lab::new("busybox unshare -Urm busybox mount -t cgroup -o pids none /tmp && echo mounted; true");
    same(text(&lab.run().stdout).as_str(), "")?;
    lab.is_clean()
}

/// CVE-2025-52881: the image has files of its own at /proc, and links among them.
fn forged_parameters() -> Result<(), Failed> {
    let mut lab = Lab::new("mkdir /real; mount -t proc proc /real; cat /real/sys/net/ipv4/ip_forward");
    let admin = json!(["CAP_SYS_ADMIN"]);
    lab.set("/process/capabilities", json!({ "bounding": admin, "permitted": admin, "effective": admin }));
    lab.unmount("/proc");
    lab.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    let target = lab.path("target");
    fs::write(&target, "untouched\n")?;
    let forged = lab.root().join("proc/sys/net/ipv4");
    fs::create_dir_all(&forged)?;
    symlink(&target, forged.join("ip_forward"))?;
    fs::create_dir_all(lab.root().join("proc/self/attr"))?;
    symlink(&target, lab.root().join("proc/self/timens_offsets"))?;
    let host = fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?;
    let other = if host.trim() == "1" { "0" } else { "1" };
    lab.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": other }));
    lab.set("/linux/namespaces/-", json!({ "type": "time" }));
    lab.set("/linux/timeOffsets", json!({ "monotonic": { "secs": 5 } })).set("/process/oomScoreAdj", json!(77));
    same(lab.output()?.trim(), other)?;
    same(fs::read_to_string(&target)?.as_str(), "untouched\n")?;
    same(fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?, host)?;
    lab.is_clean()
}

fn dots() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /escape/here /masked; stat -c %F /made; touch /tmp/x");
    fs::write(lab.path("masked"), "the host's\n")?;
    fs::write(lab.root().join("masked"), "the image's\n")?;
    fs::write(lab.path("given"), "given\n")?;
    let up = "../".repeat(30);
    let source = lab.path("given");
    lab.set(
        "/mounts/-",
        json!({ "destination": format!("/x/{up}escape/here"), "source": source, "options": ["bind"] }),
    );
    lab.set("/linux/maskedPaths", json!([format!("/{up}masked")]));
    lab.set("/linux/readonlyPaths", json!([format!("/tmp/{up}tmp")]));
    lab.set("/linux/devices", json!([{ "path": format!("/dev/{up}made"), "type": "p" }]));
    let output = lab.run();
    same((text(&output.stdout).as_str(), text(&output.stderr).contains("error:")), ("given\nfifo\n", false))
        .map_err(|_| text(&output.stderr))?;
    has(&text(&output.stderr), "Read-only file system")?;
    same((lab.path("escape").exists(), lab.path("made").exists()), (false, false))?;
    same(std::path::Path::new("/escape").exists() || std::path::Path::new("/made").exists(), false)?;
    same(fs::read_to_string(lab.path("masked"))?.as_str(), "the host's\n")?;
    lab.is_clean()
}

fn linked_device() -> Result<(), Failed> {
    let mut lab = Lab::new("true");
    let outside = lab.path("outside");
    fs::create_dir(&outside)?;
    symlink(&outside, lab.root().join("away"))?;
    symlink(outside.join("node"), lab.root().join("node"))?;
    for path in ["/away/node", "/node"] {
        lab.set("/linux/devices", json!([{ "path": path, "type": "c", "major": 1, "minor": 3 }]));
        lab.run();
        same((path, fs::read_dir(&outside)?.count()), (path, 0))?;
    }
    lab.is_clean()
}

/// CVE-2024-21626, with all that makes the runtime open something.
fn descriptors() -> Result<(), Failed> {
    let mut lab = Lab::new("cd /proc/self/fd; echo *");
    let hook = json!([{ "path": "/bin/true" }]);
    lab.set("/hooks", json!({ "createRuntime": hook, "createContainer": hook, "poststart": hook }));
    let source = lab.bundle().to_owned();
    lab.set("/mounts/-", json!({ "destination": "/shared", "source": source, "options": ["bind", "shared"] }));
    lab.set("/mounts/-", json!({ "destination": "/data", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"] }));
    lab.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW" }));
    lab.set("/linux/sysctl", json!({ "kernel.msgmax": "9000" }));
    lab.set("/linux/namespaces/-", json!({ "type": "time" }));
    let network = format!("/proc/{}/ns/net", std::process::id());
    lab.config["linux"]["namespaces"][4] = json!({ "type": "network", "path": network });
    // The shell has opened 3 itself, to read the folder.
    same(lab.output()?.as_str(), "0 1 2 3\n")?;
    lab.is_clean()
}

/// A link of the image's is copied as a link, and a destination that is one leads nowhere but into the root.
fn copied_link() -> Result<(), Failed> {
    let mut lab = Lab::new("readlink /data/link; ls /data /away");
    let outside = lab.path("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("secret"), "secret\n")?;
    fs::create_dir(lab.root().join("data"))?;
    symlink(&outside, lab.root().join("data/link"))?;
    symlink(&outside, lab.root().join("away"))?;
    for destination in ["/data", "/away"] {
        let tmpfs = json!({ "destination": destination, "type": "tmpfs", "source": "t", "options": ["tmpcopyup"] });
        lab.set("/mounts/-", tmpfs);
        let said = text(&lab.run().stdout);
        same((said.contains("secret"), fs::read_dir(&outside)?.count()), (false, 1))?;
        if destination == "/data" {
            has(&said, &format!("{}\n", outside.display()))?;
        }
        lab.is_clean()?;
    }
    Ok(())
}
