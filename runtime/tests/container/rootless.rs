//! The same for an ordinary user, who has no cgroups here and no rights outside of a user namespace.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::lab::{Lab, has, same, text, wait_for};
use super::needs::trial;

const NEEDS: [&str; 3] = ["root", "busybox", "userns"];
/// Nobody in particular.
const USER: u32 = 54_321;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("an_ordinary_user_runs_a_container_and_is_warned_of_missing_limits", &NEEDS, runs),
        trial("an_ordinary_user_gets_an_overlay_too", &["root", "busybox", "userns", "overlay"], overlay),
        trial("an_ordinary_user_without_a_new_network_sees_the_hosts_sysfs", &NEEDS, host_network),
        trial("a_user_that_is_not_mapped_is_told_so", &NEEDS, unmapped),
        trial("an_ordinary_users_lent_ids_are_mapped_by_those_who_may", &NEEDS, lent),
        trial("an_ordinary_user_without_the_programs_for_lent_ids_is_told_so", &NEEDS, not_lent),
    ]
}

/// Gives the lab to the user. (The test itself is root, so that it can choose which user.)
fn hand_over(lab: &Lab) -> Result<(), Failed> {
    for path in [lab.bundle().to_owned(), lab.root(), lab.root().join("tmp"), lab.root().join("dev")] {
        chown(path, Some(USER), Some(USER))?;
    }
    Ok(())
}

fn as_user(lab: &Lab, command: &mut Command) -> Result<Output, Failed> {
    hand_over(lab)?;
    Ok(command.uid(USER).gid(USER).output()?)
}

fn run(lab: &Lab) -> Result<Output, Failed> {
    as_user(lab, &mut lab.command(&["run", &lab.id]))
}

fn runs() -> Result<(), Failed> {
    let lab = Lab::new(
        "id -u; id -g; cat /proc/self/uid_map /proc/self/setgroups; echo $$; touch /tmp/mine; echo x > /dev/null",
    );
    let output = run(&lab)?;
    let said = text(&output.stdout);
    let words: Vec<&str> = said.split_whitespace().collect();
    same(
        (words, text(&output.stderr)),
        (
            vec!["0", "0", "0", "54321", "1", "deny", "1"],
            "warning: cgroups are not delegated to this user: the container runs without limits\n".to_owned(),
        ),
    )?;
    same(output.status.code(), Some(0))?;
    same(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(lab.root().join("tmp/mine"))?), USER)?;
    lab.is_clean()
}

fn overlay() -> Result<(), Failed> {
    let mut lab = Lab::new("echo changed > /etc/x; rm /bin/yes; cat /etc/x; ls /bin/yes");
    let lower = lab.path("lower");
    std::fs::rename(lab.root(), &lower)?;
    for name in ["", "tmp", "dev"] {
        std::fs::create_dir(lab.root().join(name))?;
    }
    chown(lower.join("etc"), Some(USER), Some(USER))?;
    chown(lower.join("bin"), Some(USER), Some(USER))?;
    lab.set("/annotations", json!({ "org.isolab.overlay.lower": lower }));
    let output = run(&lab)?;
    same(text(&output.stdout).as_str(), "changed\n")?;
    has(&text(&output.stderr), "No such file or directory")?;
    same((lower.join("etc/x").exists(), lower.join("bin/yes").is_symlink()), (false, true))?;
    lab.is_clean()
}

fn host_network() -> Result<(), Failed> {
    let mut lab = Lab::new("ls -d /sys/class/net; touch /sys/x");
    lab.set("/linux/namespaces", json!([{ "type": "mount" }, { "type": "pid" }]));
    let output = run(&lab)?;
    same(text(&output.stdout).as_str(), "/sys/class/net\n")?;
    has(&text(&output.stderr), "Read-only file system")
}

fn unmapped() -> Result<(), Failed> {
    let mut lab = Lab::new("true");
    lab.set("/process/user", json!({ "uid": 5, "gid": 5 }));
    let output = run(&lab)?;
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "hint: the user or group has no number in the user namespace")?;
    lab.is_clean()
}

/// A lab with 100 lent ids above the user's own one.
fn lent_lab(script: &str) -> Lab {
    let mut lab = Lab::new(script);
    let map =
        json!([{ "containerID": 0, "hostID": USER, "size": 1 }, { "containerID": 1, "hostID": 300_000, "size": 100 }]);
    lab.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    lab.set("/linux/namespaces/-", json!({ "type": "user" }));
    lab
}

/// Stands in for the two programs, which are set-user-ID and so can't be brought along: each leaves its words in a file and
/// waits until this trial, which is root, has done what they ask for.
fn stand_ins(lab: &Lab) -> Result<String, Failed> {
    let folder = lab.path("programs");
    std::fs::create_dir(&folder)?;
    chown(&folder, Some(USER), Some(USER))?;
    for name in ["newuidmap", "newgidmap"] {
        let here = folder.join(name).display().to_string();
        let script = format!(
            "#!/bin/sh\necho \"$*\" > {here}.new && mv {here}.new {here}.asked\nuntil test -e {here}.done; do sleep 0.01; done\n"
        );
        std::fs::write(folder.join(name), script)?;
        std::fs::set_permissions(folder.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    Ok(format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default()))
}

fn lent() -> Result<(), Failed> {
    let mut lab = lent_lab("id -u; id -g; grep ^Groups /proc/self/status; cat /proc/self/uid_map; touch /tmp/mine");
    lab.set("/process/user", json!({ "uid": 7, "gid": 8, "additionalGids": [9] }));
    let path = stand_ins(&lab)?;
    hand_over(&lab)?;
    std::fs::set_permissions(lab.root().join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let mut command = lab.command(&["run", &lab.id]);
    let child = command.env("PATH", path).uid(USER).gid(USER).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    for (name, file) in [("newuidmap", "uid_map"), ("newgidmap", "gid_map")] {
        let asked = lab.path("programs").join(format!("{name}.asked"));
        wait_for(name, || asked.exists())?;
        let words = std::fs::read_to_string(asked)?;
        let (pid, ranges) = words.trim().split_once(' ').ok_or("too few words")?;
        same((name, ranges), (name, "0 54321 1 1 300000 100"))?;
        std::fs::write(format!("/proc/{pid}/{file}"), "0 54321 1\n1 300000 100\n")?;
        std::fs::write(lab.path("programs").join(format!("{name}.done")), "")?;
    }
    let output = child.wait_with_output()?;
    same(text(&output.stderr).as_str(), WARNING)?;
    let said = text(&output.stdout);
    let words: Vec<&str> = said.split_whitespace().collect();
    // The map as this container's own reader sees it.
    same(words, vec!["7", "8", "Groups:", "9", "0", "54321", "1", "1", "300000", "100"])?;
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(lab.root().join("tmp/mine"))?);
    same(owner, 300_006)?;
    lab.is_clean()
}

const WARNING: &str = "warning: cgroups are not delegated to this user: the container runs without limits\n";

fn not_lent() -> Result<(), Failed> {
    let lab = lent_lab("touch /tmp/ran");
    let output = as_user(&lab, lab.command(&["run", &lab.id]).env("PATH", lab.path("none")))?;
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "cannot run newuidmap")?;
    has(&text(&output.stderr), "hint: install the package uidmap")?;
    std::fs::create_dir(lab.path("none"))?;
    let refuses = lab.path("none/newuidmap");
    std::fs::write(&refuses, "#!/bin/sh\necho not yours >&2; exit 1\n")?;
    std::fs::set_permissions(&refuses, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let output = as_user(&lab, lab.command(&["run", &lab.id]).env("PATH", lab.path("none")))?;
    has(&text(&output.stderr), "newuidmap does not map the ids \"0 54321 1, 1 300000 100\": not yours")?;
    same(lab.root().join("tmp/ran").exists(), false)?;
    lab.is_clean()
}
