//! The root file system: what is there, what is covered, and what stays untouched.

use std::fs;
use std::os::unix::fs::symlink;

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::lab::{Lab, has, same, text};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];
const OVERLAY: [&str; 3] = ["root", "busybox", "overlay"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("mounts_appear_in_order_with_their_options", &NEEDS, mounts),
        trial("a_bind_shows_the_hosts_files_and_keeps_them_if_read_only", &NEEDS, binds),
        trial("masked_paths_show_nothing", &NEEDS, masked),
        trial("read_only_paths_can_be_read_but_not_written", &NEEDS, readonly_paths),
        trial("a_read_only_root_cannot_be_written", &NEEDS, readonly_root),
        trial("the_default_devices_and_links_are_there", &NEEDS, devices),
        trial("a_device_that_is_asked_for_is_made", &NEEDS, asked_device),
        trial("nothing_of_the_hosts_tree_is_left", &NEEDS, host_is_gone),
        trial("writes_to_an_overlay_never_reach_its_lower_folders", &OVERLAY, overlay),
        trial("an_overlays_upper_folder_keeps_the_changes", &OVERLAY, overlay_upper),
        trial("changes_that_nobody_needs_are_not_synced", &OVERLAY, overlay_volatile),
        trial("a_lower_folder_may_have_a_colon_in_its_name", &OVERLAY, overlay_colon),
        trial("the_cgroup_mount_shows_the_containers_own_part", &["root", "busybox", "cgroup"], cgroup_mount),
    ]
}

/// The line of mountinfo about one mount point.
fn line<'a>(mounts: &'a str, point: &str) -> Result<&'a str, Failed> {
    let found = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(point));
    found.ok_or_else(|| format!("{point} is not in {mounts}").into())
}

fn mounts() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /proc/self/mountinfo; ls -d /made/deep/down");
    lab.set(
        "/mounts/-",
        json!({ "destination": "/made/deep/down", "type": "tmpfs", "source": "mine",
        "options": ["nosuid", "nodev", "noexec", "ro", "size=64k", "noatime"] }),
    );
    let output = lab.output()?;
    for part in ["ro,nosuid,nodev,noexec,noatime", "- tmpfs mine", "size=64k"] {
        has(line(&output, "/made/deep/down")?, part)?;
    }
    has(line(&output, "/sys")?, "ro,nosuid,nodev,noexec")?;
    has(line(&output, "/dev/pts")?, "- devpts devpts rw,gid=5,mode=620,ptmxmode=666")?;
    lab.is_clean()
}

fn binds() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /host/a /file; echo no > /host/a; echo yes > /open/b; ls -d /host/sub/x");
    fs::create_dir_all(lab.path("given/sub/x"))?;
    fs::write(lab.path("given/a"), "hello\n")?;
    let source = lab.path("given");
    lab.set(
        "/mounts/-",
        json!({ "destination": "/host", "type": "bind", "source": source, "options": ["rbind", "ro"] }),
    );
    lab.set("/mounts/-", json!({ "destination": "/file", "source": source.join("a"), "options": ["bind"] }));
    // A relative source is seen from the bundle.
    lab.set("/mounts/-", json!({ "destination": "/open", "source": "given", "options": ["bind", "rw"] }));
    let output = lab.run();
    same(text(&output.stdout).as_str(), "hello\nhello\n/host/sub/x\n")?;
    has(&text(&output.stderr), "Read-only file system")?;
    same(fs::read_to_string(lab.path("given/a"))?.as_str(), "hello\n")?;
    same(fs::read_to_string(lab.path("given/b"))?.as_str(), "yes\n")?;
    lab.is_clean()
}

fn masked() -> Result<(), Failed> {
    let lab = Lab::new("cat /proc/kcore /proc/keys | head -c 1; ls -A /sys/firmware /proc/scsi; echo end");
    fs::create_dir_all(lab.root().join("secret"))?;
    let output = text(&lab.run().stdout);
    let said: Vec<&str> = output.lines().filter(|line| !line.is_empty() && !line.ends_with(':')).collect();
    same(said, vec!["end"])
}

fn readonly_paths() -> Result<(), Failed> {
    let output = Lab::new("cat /proc/sys/kernel/ostype; echo x > /proc/sys/kernel/shmmax").run();
    same(text(&output.stdout).as_str(), "Linux\n")?;
    has(&text(&output.stderr), "Read-only file system")
}

fn readonly_root() -> Result<(), Failed> {
    let mut lab = Lab::new("touch /x; touch /dev/shm/y && echo free");
    lab.set("/root/readonly", json!(true));
    let output = lab.run();
    has(&text(&output.stderr), "Read-only file system")?;
    same(text(&output.stdout).as_str(), "free\n")?;
    same(lab.root().join("x").exists(), false)
}

fn devices() -> Result<(), Failed> {
    let lab = Lab::new(
        "cd /dev; for d in null zero full random urandom tty; do stat -c '%n %t:%T %a %F' $d; done; \
         for l in fd stdin stdout stderr ptmx; do echo $l $(readlink $l); done; echo gone > null; head -c 2 zero | grep -c .",
    );
    let output = text(&lab.run().stdout);
    for (name, number) in
        [("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0")]
    {
        has(&output, &format!("{name} {number} 666 character special file\n"))?;
    }
    for link in [
        "fd /proc/self/fd\n",
        "stdin /proc/self/fd/0\n",
        "stdout /proc/self/fd/1\n",
        "stderr /proc/self/fd/2\n",
        "ptmx pts/ptmx\n",
    ] {
        has(&output, link)?;
    }
    Ok(())
}

fn asked_device() -> Result<(), Failed> {
    let mut lab = Lab::new("stat -c '%t:%T %a %u:%g' /dev/fuse /dev/in/deep");
    lab.set(
        "/linux/devices",
        json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 1, "gid": 2 },
               { "path": "/dev/in/deep", "type": "p", "fileMode": 0o600 }]),
    );
    same(lab.output()?.as_str(), "a:e5 640 1:2\n0:0 600 0:0\n")
}

fn host_is_gone() -> Result<(), Failed> {
    let lab = Lab::new("cat /proc/self/mountinfo; ls /..");
    let output = lab.output()?;
    let points: Vec<&str> =
        output.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| point.starts_with('/')).collect();
    let known = ["/", "/proc", "/sys", "/dev"];
    let strange: Vec<&&str> = points
        .iter()
        .filter(|point| {
            !known.iter().any(|top| **point == *top || (*top != "/" && point.starts_with(&format!("{top}/"))))
        })
        .collect();
    same(strange, Vec::new())?;
    has(&output, "bin\n")?;
    lab.is_clean()
}

/// Moves busybox to a lower folder, so that the root is an empty place for the overlay.
fn lay_over(lab: &mut Lab, lower: &str, escaped: &str) -> Result<(), Failed> {
    fs::rename(lab.root(), lab.path(lower))?;
    fs::create_dir(lab.root())?;
    let above = lab.path("above");
    fs::create_dir(&above)?;
    fs::write(above.join("word"), "above\n")?;
    fs::write(lab.path(lower).join("word"), "below\n")?;
    let below = lab.bundle().join(escaped).display().to_string();
    lab.set("/annotations", json!({ "org.isolab.overlay.lower": format!("{}:{below}", above.display()) }));
    Ok(())
}

fn overlay() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /word; echo new > /word; cat /word; touch /extra; stat -c %a /");
    lay_over(&mut lab, "below", "below")?;
    same(lab.output()?.as_str(), "above\nnew\n755\n")?;
    same(fs::read_to_string(lab.path("above/word"))?.as_str(), "above\n")?;
    same(lab.path("below/extra").exists(), false)?;
    same(fs::read_dir(lab.root())?.count(), 0)?;
    same(lab.output()?.as_str(), "above\nnew\n755\n")?;
    lab.is_clean()
}

fn write_above(lab: &mut Lab) -> Result<(), Failed> {
    lay_over(lab, "below", "below")?;
    for name in ["upper", "work"] {
        fs::create_dir(lab.path(name))?;
        let path = lab.path(name);
        lab.set(&format!("/annotations/org.isolab.overlay.{name}"), json!(path));
    }
    Ok(())
}

fn overlay_volatile() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /proc/self/mountinfo");
    write_above(&mut lab)?;
    same(line(&lab.output()?, "/")?.contains("volatile"), false)?;
    lab.set("/annotations/org.isolab.overlay.volatile", json!("true"));
    has(line(&lab.output()?, "/")?, "volatile")?;
    lab.is_clean()
}

fn overlay_upper() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /kept; echo kept > /kept");
    write_above(&mut lab)?;
    lab.run();
    same(lab.output()?.as_str(), "kept\n")?;
    same(fs::read_to_string(lab.path("upper/kept"))?.as_str(), "kept\n")?;
    lab.is_clean()
}

fn overlay_colon() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /only-below");
    lay_over(&mut lab, "be:low", r"be\:low")?;
    fs::write(lab.path("be:low/only-below"), "there\n")?;
    symlink("bin", lab.path("above/link"))?;
    same(lab.output()?.as_str(), "there\n")
}

fn cgroup_mount() -> Result<(), Failed> {
    // A hierarchy of version 1 has a folder of its own; version 2 is the whole mount.
    let mut lab = Lab::new("cd /sys/fs/cgroup; test -e pids.max || cd pids; cat pids.max; echo 1 > pids.max");
    lab.set("/linux/resources", json!({ "pids": { "limit": 77 } }));
    let cgroup = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"] });
    lab.set("/mounts/-", cgroup);
    let output = lab.run();
    same(text(&output.stdout).as_str(), "77\n")?;
    has(&text(&output.stderr), "Read-only file system")?;
    lab.set("/linux/namespaces", json!([{ "type": "mount" }, { "type": "pid" }]));
    same(text(&lab.run().stdout).as_str(), "77\n")?;
    lab.is_clean()
}
