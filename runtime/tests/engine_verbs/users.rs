//! `--userns auto`: a container whose users are nobody in particular to the host, on the files that all containers share.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::lab::{Lab, NEEDS, has, same};
use super::needs::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("users_of_its_own_see_the_images_files_as_all_others_do", &NEEDS, image),
        trial("a_volume_serves_containers_with_users_of_their_own_and_without", &NEEDS, volumes),
        trial("root_of_a_container_with_users_of_its_own_is_nobody_to_the_host", &NEEDS, nobody),
        trial("what_cannot_be_had_with_users_of_its_own_is_refused", &NEEDS, refused),
    ]
}

const OWN: [&str; 2] = ["--userns", "auto"];

/// The first number of a container's range.
fn first(lab: &Lab, name: &str) -> Result<u32, Failed> {
    let map = lab.ctr(&["exec", name, "cat", "/proc/self/uid_map"])?;
    let numbers: Vec<u32> = map.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [0, first, 65_536] = numbers.as_slice() else { return Err(format!("a map of {map:?}").into()) };
    Ok(*first)
}

fn image() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let look = "id -u; stat -c %u:%g:%a /srv/site/page /etc/conf /etc/hosts /bin/busybox; cat /srv/site/page";
    let expected = "0\n33:33:640\n0:0:644\n0:0:644\n0:0:755\npage\n";
    same(&lab.sh(&[], look)?, expected)?;
    same(&lab.sh(&OWN, look)?, expected)?;
    // Who it is inside, and what it may give away there.
    same(&lab.sh(&[&OWN[..], &["-u", "33:33"]].concat(), "id -u; cat /srv/site/page")?, "33\npage\n")?;
    // What it writes is on the disk as any container's, so it can be read, committed and cloned as any other.
    let script = "mkdir /made; echo new > /made/file; chown 33:33 /made/file; chown 5:6 /srv/site/page; sleep 1000";
    lab.ctr(&[&["run", "-d", "--name", "box"], &OWN[..], &["sample:1", "sh", "-c", script]].concat())?;
    super::lab::until("it has written", || Ok(lab.ctr(&["diff", "box"])?.contains("/srv/site/page")))?;
    lab.ctr(&["commit", "box", "made:1"])?;
    let made = "stat -c %u:%g /made /made/file /srv/site/page";
    let expected = "0:0\n33:33\n5:6\n";
    same(&lab.ctr(&["run", "--rm", "made:1", "sh", "-c", made])?, expected)?;
    same(&lab.ctr(&[&["run", "--rm"], &OWN[..], &["made:1", "sh", "-c", made]].concat())?, expected)?;
    lab.ctr(&["clone", "box", "twin"])?;
    lab.ctr(&["start", "twin"])?;
    same(&lab.ctr(&["exec", "twin", "sh", "-c", made])?, expected)?;
    // No two have the same numbers.
    let (one, other) = (first(&lab, "box")?, first(&lab, "twin")?);
    if one.abs_diff(other) < 65_536 || one < 65_536 {
        return Err(format!("ranges at {one} and {other}").into());
    }
    // Its files are copied as any container's, out of it and into it, whether it runs or not.
    let copied = lab.text("copied");
    for _ in 0..2 {
        lab.ctr(&["cp", "box:/made/file", &copied])?;
        same(&fs::read_to_string(&copied)?, "new\n")?;
        same(&fs::metadata(&copied)?.uid().to_string(), "0")?;
        lab.ctr(&["cp", "-a", "box:/made", &lab.text("")])?;
        same(&fs::metadata(lab.path("made/file"))?.uid().to_string(), "33")?;
        lab.ctr(&["cp", &copied, "box:/etc/plain"])?;
        lab.ctr(&["cp", "-a", &lab.text("made"), "box:/srv"])?;
        lab.ctr(&["start", "box"])?;
        let look = "stat -c %u:%g /etc/plain /srv/made /srv/made/file; cat /srv/made/file; rm -r /srv/made /etc/plain";
        same(&lab.ctr(&["exec", "box", "sh", "-c", look])?, "0:0\n0:0\n33:33\nnew\n")?;
        lab.ctr(&["stop", "-t", "0", "box"])?;
        fs::remove_dir_all(lab.path("made"))?;
    }
    Ok(())
}

fn volumes() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let volume = ["-v", "data:/srv/site"];
    let owners = "stat -c %u:%g /srv/site /srv/site/page";
    // It begins with what the image has there, with the image's owners.
    same(&lab.sh(&[&OWN[..], &volume].concat(), owners)?, "33:33\n33:33\n")?;
    lab.sh(&[&OWN[..], &volume].concat(), "echo one > /srv/site/own; chown 7:8 /srv/site/own")?;
    same(&lab.sh(&volume, "stat -c %u:%g /srv/site/own; rm /srv/site/own; echo two > /srv/site/host")?, "7:8\n")?;
    same(&lab.sh(&[&OWN[..], &volume].concat(), "stat -c %u:%g /srv/site/host; cat /srv/site/host")?, "0:0\ntwo\n")?;
    // With the log of a process that opens it by name, and with a small first process.
    let words = [&["run", "--name", "loud", "--init"], &OWN[..], &["sample:1", "sh", "-c", "echo said > /dev/stdout"]];
    lab.ctr(&words.concat())?;
    same(&lab.ctr(&["logs", "loud"])?, "said\n")
}

fn nobody() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let folder = lab.path("given");
    fs::create_dir(&folder)?;
    fs::write(folder.join("secret"), "secret")?;
    fs::set_permissions(folder.join("secret"), fs::Permissions::from_mode(0o600))?;
    let given = format!("{}:/given", folder.display());
    let words = [&["run", "-d", "--name", "box", "-v", &given], &OWN[..], &["sample:1", "sleep", "1000"]];
    lab.ctr(&words.concat())?;
    let root = first(&lab, "box")?;
    let all: Value = serde_json::from_str(&lab.ctr(&["inspect", "box"])?)?;
    let pid = all.pointer("/0/State/Pid").and_then(Value::as_i64).ok_or("no pid")?;
    same(&fs::metadata(format!("/proc/{pid}"))?.uid().to_string(), &root.to_string())?;
    same(all.pointer("/0/HostConfig/UsernsMode").and_then(Value::as_str).unwrap_or_default(), "auto")?;
    // A file of the host's root belongs to nobody in there, and can neither be read, nor given away, nor removed.
    let tries = "stat -c %u /given/secret; cat /given/secret; chown 0 /given/secret; rm -f /given/secret; true";
    let seen = lab.ctr(&["exec", "box", "sh", "-c", tries])?;
    same(&seen, "65534\n")?;
    same(&fs::read_to_string(folder.join("secret"))?, "secret")?;
    // What is given to its own number is its own.
    chown(&folder, Some(root + 33), Some(root + 33))?;
    lab.ctr(&["exec", "-u", "33:33", "box", "sh", "-c", "echo mine > /given/mine"])?;
    same(&fs::metadata(folder.join("mine"))?.uid().to_string(), &(root + 33).to_string())?;
    // The kernel keeps to it also where the container's root has every power in there.
    let mounts = lab.run(&["exec", "box", "sh", "-c", "kill -0 1 && ! echo x > /proc/sysrq-trigger"])?;
    if mounts.status.success() { Ok(()) } else { Err("it could write to /proc/sysrq-trigger".into()) }
}

fn refused() -> Result<(), Failed> {
    let lab = Lab::new()?;
    for flags in [&["--privileged"][..], &["--pid", "host"], &["--network", "host"], &["--ipc", "host"]] {
        let words = [&["run", "--rm"], &OWN[..], flags, &["sample:1", "true"]].concat();
        has(&lab.refused(&words)?, flags[0])?;
    }
    has(&lab.refused(&["run", "--rm", "--userns", "keep-id", "sample:1", "true"])?, "host or auto")?;
    same(&lab.ctr(&["ps", "-aq"])?, "")
}
