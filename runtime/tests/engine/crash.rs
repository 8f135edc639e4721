//! Commands that are killed in the middle, and a machine that was: the next one finds its way.

use std::fs;
use std::io::Write;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::lab::{Lab, has, is_alive, same, until};
use super::life::keeper_of;
use super::needs;

type Test = fn() -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let all: [(&str, Test); 7] = [
        ("a_command_killed_at_any_step_leaves_nothing_that_prune_does_not_remove", every_step),
        ("a_container_outlives_who_stood_by_it", keeper_killed),
        ("a_container_of_another_boot_has_ended", reboot),
        ("a_start_that_was_cut_short_can_be_made_again", cut_short),
        ("a_damaged_record_hides_no_other_container_and_can_be_removed", damaged),
        ("on_a_full_disk_each_verb_says_so_and_leaves_nothing", full_disk),
        ("a_killed_foreground_command_takes_its_container_along", foreground),
    ];
    let needs = ["root", "overlay", "busybox", "cgroup"];
    all.into_iter().map(|(name, test)| needs::trial(name, &needs, test)).collect()
}

/// Each step of the engine's own, in each verb that has it.
fn every_step() -> Result<(), Failed> {
    let lab = Lab::apart()?;
    let name = lab.name("x");
    let verbs: [(&[&str], &[&str]); 5] = [
        (&["create", "--name", &name, "bb"], &["engine.create", "engine.reserve", "engine.prepare"]),
        (
            &["run", "--rm", "--name", &name, "bb", "true"],
            &["engine.reserve", "container.record", "engine.end", "engine.remove"],
        ),
        (&["run", "-d", "--name", &name, "bb"], &["engine.start", "container.record"]),
        (&["run", "-d", "--log-driver", "none", "--name", &name, "bb"], &["engine.start", "container.record"]),
        (&["run", "--name", &name, "bb", "true"], &["engine.start", "engine.end"]),
    ];
    for (verb, steps) in verbs {
        for step in steps {
            let killed = lab.command(verb).env("ISOLAB_FAULT", format!("{step}:kill")).output()?;
            same(&(verb, step, killed.status.success()), &(verb, step, false))?;
            // Whatever is left: it can be removed, and the name is free again.
            until("nothing runs of it", || {
                lab.out(&["prune"])?;
                let left = lab.out(&["ps", "-aq"])?;
                let ids: Vec<&str> = left.split_whitespace().collect();
                Ok(ids.is_empty() || lab.run(&[&["rm", "-f"], ids.as_slice()].concat())?.status.success())
            })?;
            lab.out(&["prune"])?;
            clean(&lab)?;
            lab.out(&["create", "--name", &name, "bb"])?;
            lab.out(&["rm", &name])?;
            clean(&lab)?;
        }
    }
    // The removal itself.
    lab.out(&["create", "--name", &name, "bb"])?;
    let killed = lab.command(&["rm", &name]).env("ISOLAB_FAULT", "engine.remove:kill").output()?;
    same(&killed.status.success(), &false)?;
    lab.out(&["rm", &name])?;
    clean(&lab)
}

/// No container, no name, no pin, and no mount.
fn clean(lab: &Lab) -> Result<(), Failed> {
    let children = |folder: &str| -> Result<Vec<String>, Failed> {
        let path = lab.root().join(folder);
        // What nobody has needed yet is not there.
        let entries = if path.exists() { Some(fs::read_dir(path)?) } else { None };
        let entries = entries.into_iter().flatten().flatten();
        Ok(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    };
    let mut left = children("containers")?;
    left.retain(|name| !["names", "names.lock", "users.lock"].contains(&name.as_str()));
    left.extend(children("containers/names")?);
    left.extend(children("pins")?);
    same(&left, &Vec::new())?;
    same(&fs::read_to_string("/proc/mounts")?.contains(&lab.root().display().to_string()), &false)
}

fn keeper_killed() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.detached("kept", &[], &["sleep", "333"])?;
    let (pid, id) = (lab.pid(&name)?, lab.inspect(&name, "/Id")?);
    let keeper = keeper_of(id.as_str().unwrap_or_default()).ok_or("nobody stands by")?;
    kill(Pid::from_raw(keeper), Signal::SIGKILL)?;
    until("it is gone", || Ok(!is_alive(keeper)))?;
    same(&(lab.status(&name)?, is_alive(pid)), &("running".to_owned(), true))?;
    lab.out(&["exec", &name, "true"])?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    until("it ended", || Ok(!is_alive(pid)))?;
    same(&lab.status(&name)?, &"exited".to_owned())?;
    same(&lab.inspect(&name, "/State/ExitCode")?, &json!(null))?;
    lab.out(&["start", &name])?;
    same(&lab.status(&name)?, &"running".to_owned())
}

/// After a boot nothing of what a record says of its processes means anything.
fn reboot() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.detached("old", &["--log-driver", "none"], &[])?;
    let (pid, path) = (lab.pid(&name)?, lab.folder(&name)?.join("container.json"));
    let mut record: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    until("it ended", || Ok(!is_alive(pid)))?;
    // A process that has its number now, in another boot.
    record["life"]["running"]["boot"] = json!("00000000-0000-0000-0000-000000000000");
    record["life"]["running"]["init"]["pid"] = json!(std::process::id());
    fs::write(&path, record.to_string())?;
    has(&lab.out(&["ps", "-a", "--filter", &format!("name={name}")])?, "Exited (?)")?;
    lab.out(&["start", &name])?;
    same(&lab.status(&name)?, &"running".to_owned())
}

/// Of one that goes with its end nothing is written to the disk, and overlayfs would not mount its folders a second time.
fn cut_short() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.name("short");
    lab.out(&["create", "--rm", "--name", &name, "bb", "missing"])?;
    // It could not start, and whoever was to remove it was killed.
    let killed = lab.command(&["start", &name]).env("ISOLAB_FAULT", "engine.remove:kill").output()?;
    same(&killed.status.success(), &false)?;
    same(&lab.status(&name)?, &"created".to_owned())?;
    lab.out(&["cp", &format!("{name}:/bin/busybox"), "-"])?;
    let again = lab.run(&["start", &name])?;
    has(&String::from_utf8_lossy(&again.stderr), "missing")?;
    same(&lab.run(&["inspect", &name])?.status.success(), &false)
}

fn full_disk() -> Result<(), Failed> {
    let lab = Lab::small()?;
    let name = lab.name("before");
    lab.out(&["create", "--name", &name, "bb"])?;
    let filler = lab.root().join("filler");
    let mut file = fs::File::create(&filler)?;
    while file.write_all(&[0; 4096]).is_ok() {}
    let busybox = needs::busybox()?.display().to_string();
    let place = format!("{name}:/srv/copied");
    let verbs: [&[&str]; 7] = [
        &["create", "bb"],
        &["run", "--rm", "bb", "true"],
        &["run", "-d", "bb"],
        &["clone", &name],
        &["commit", &name, "made:1"],
        &["volume", "create", "data"],
        &["cp", &busybox, &place],
    ];
    for verb in verbs {
        let output = lab.run(verb)?;
        same(&(verb, output.status.success()), &(verb, false))?;
        has(&String::from_utf8_lossy(&output.stderr), "No space left on device")?;
    }
    // What was there before is there still, and works as soon as there is place.
    same(&lab.out(&["ps", "-a", "--format", "{{.Names}}"])?, &format!("{name}\n"))?;
    drop(file);
    fs::remove_file(&filler)?;
    lab.out(&["prune"])?;
    same(&lab.out(&["volume", "ls", "-q"])?, &String::new())?;
    lab.out(&["cp", &busybox, &place])?;
    lab.out(&["start", &name])?;
    lab.out(&["exec", &name, "test", "-s", "/srv/copied"])?;
    lab.out(&["rm", "-f", &name])?;
    lab.out(&["fsck"])?;
    same(&lab.out(&["ps", "-aq"])?, &String::new())?;
    // The names and their lock are all that is left.
    same(&fs::read_dir(lab.root().join("containers"))?.count(), &2)?;
    same(&fs::read_dir(lab.root().join("pins"))?.count(), &0)
}

fn foreground() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.name("fg");
    let mut child = lab.command(&["run", "--rm", "--name", &name, "bb"]).spawn()?;
    until("it runs", || Ok(lab.run(&["inspect", &name])?.status.success() && lab.status(&name)? == "running"))?;
    let pid = lab.pid(&name)?;
    child.kill()?;
    child.wait()?;
    until("it ended", || Ok(!is_alive(pid)))?;
    same(&lab.run(&["inspect", &name])?.status.success(), &false)
}

fn damaged() -> Result<(), Failed> {
    let lab = Lab::apart()?;
    let (bad, good) = (lab.detached("bad", &[], &[])?, lab.detached("good", &[], &[])?);
    let (pid, folder) = (lab.pid(&bad)?, lab.folder(&bad)?);
    fs::write(folder.join("container.json"), "{")?;
    let id = folder.file_name().ok_or("no id")?.to_string_lossy().into_owned();
    let listed = lab.out(&["ps", "-a"])?;
    has(&listed, &good)?;
    has(&listed, "Dead")?;
    same(&lab.run(&["start", &id])?.status.success(), &false)?;
    lab.out(&["rm", "-f", &id])?;
    same(&is_alive(pid), &false)?;
    // Its name leads nowhere, and is free.
    let again = lab.detached("bad", &[], &[])?;
    lab.out(&["rm", "-f", &again, &good])?;
    lab.out(&["prune"])?;
    clean(&lab)
}
