//! The same for an ordinary user, who has no cgroups here and no rights outside of a user namespace.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::lab::{Lab, has, same, text};
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
