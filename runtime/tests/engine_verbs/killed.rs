//! Verbs that are killed in the middle: what they work on is as it was or as it shall be, nothing is left half made, and
//! saying them again does what they are for.
//!
//! A command is killed at the entry of a step, where it has steps of its own, and after some times besides.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use super::lab::{Lab, NEEDS, has, same, succeed};
use super::needs::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_verb_of_volumes_killed_at_any_moment_can_be_said_again", &NEEDS, volumes),
        trial("a_verb_of_containers_killed_at_any_moment_can_be_said_again", &NEEDS, containers),
        trial("a_verb_of_images_killed_at_any_moment_can_be_said_again", &NEEDS, images),
    ]
}

/// When a command is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    Step(&'static str),
    After(Duration),
}

/// A verb, and what belongs to its trial.
struct Verb<'a> {
    words: &'a [&'a str],
    /// Its steps.
    steps: &'a [&'static str],
    /// What has to be there before.
    before: &'a dyn Fn() -> Result<(), Failed>,
    /// Holds once it was done, and takes back what it did.
    after: &'a dyn Fn() -> Result<(), Failed>,
}

fn kill_everywhere(lab: &Lab, verb: &Verb) -> Result<(), Failed> {
    let times = [2, 9, 25].map(|time| Moment::After(Duration::from_millis(time)));
    let steps = verb.steps.iter().map(|step| Moment::Step(step));
    for moment in steps.chain(times) {
        (verb.before)()?;
        kill_at(lab, verb.words, moment)?;
        let told = |error: Failed| format!("{:?} at {moment:?}: {}", verb.words, error.message().unwrap_or_default());
        is_whole(lab).map_err(told)?;
        // It may have been done just in time; then it is refused now, and done all the same.
        let again = lab.run(verb.words)?;
        (verb.after)().map_err(|error| format!("{}{}", told(error), String::from_utf8_lossy(&again.stderr)))?;
    }
    Ok(())
}

pub(crate) fn kill_at(lab: &Lab, words: &[&str], moment: Moment) -> Result<(), Failed> {
    let mut command = lab.command(words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    match moment {
        Moment::Step(step) => {
            let ended = command.env("ISOLAB_FAULT", format!("{step}:kill")).status()?;
            if ended.success() { Err(format!("{words:?} has no step {step}").into()) } else { Ok(()) }
        }
        Moment::After(time) => {
            let mut child = command.spawn()?;
            sleep(time);
            child.kill()?;
            child.wait()?;
            Ok(())
        }
    }
}

/// Nothing is half made, once the remnants were removed.
fn is_whole(lab: &Lab) -> Result<(), Failed> {
    nothing_left(lab)?;
    // A container that was held still goes on.
    same(&lab.ctr(&["ps", "-q", "--filter", "status=paused"])?, "")
}

/// No remnant stays where they were removed.
pub(crate) fn nothing_left(lab: &Lab) -> Result<(), Failed> {
    lab.ctr(&["prune"])?;
    lab.ctr(&["volume", "prune"])?;
    lab.ctr(&["fsck"])?;
    let store = lab.text("store");
    let left = succeed(&Command::new("find").args([store.as_str(), "-name", ".tmp-*"]).output()?)?;
    same(&left, "")
}

fn volumes() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let done = |words: &[&str]| lab.ctr(words).map(drop);
    let page = || same(&lab.sh(&["-v", "data:/srv/site"], "cat /srv/site/page")?, "page\n");
    kill_everywhere(
        &lab,
        &Verb {
            words: &["volume", "create", "data"],
            steps: &["engine.volume", "volume.create"],
            before: &|| Ok(()),
            after: &|| page().and_then(|()| done(&["volume", "rm", "data"])),
        },
    )?;
    // A volume that is filled from the image as the container is made is filled, or is not there.
    kill_everywhere(
        &lab,
        &Verb {
            words: &["create", "--name", "box", "-v", "data:/srv/site", "sample:1", "true"],
            steps: &["volume.create", "volume.copy_up", "engine.reserve", "engine.prepare"],
            before: &|| Ok(()),
            after: &|| {
                page()?;
                done(&["rm", "box"])?;
                done(&["volume", "rm", "data"])
            },
        },
    )?;
    let absent = || has(&lab.refused(&["volume", "inspect", "data"])?, "there is no volume data");
    for (words, step) in
        [(["volume", "rm", "data"], "engine.volume_remove"), (["volume", "prune", "--all"], "engine.volume_prune")]
    {
        let before = || {
            done(&["volume", "create", "data"])?;
            page()
        };
        kill_everywhere(&lab, &Verb { words: &words, steps: &[step], before: &before, after: &absent })?;
    }
    Ok(())
}

fn containers() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let done = |words: &[&str]| lab.ctr(words).map(drop);
    let noise: Vec<u8> = (0..3_000_000_u32).map(|byte| ((byte.wrapping_mul(2_654_435_761)) >> 13) as u8).collect();
    fs::write(lab.path("file"), &noise)?;
    lab.sleeper("box", &[])?;
    let (file, copied) = (lab.text("file"), lab.text("copied"));
    done(&["cp", &file, "box:/srv/kept"])?;
    // The container has run all the while.
    let runs = || same(&lab.ctr(&["ps", "--filter", "name=box", "--format", "{{.State}}"])?, "running\n");
    let equal = |path: &str| {
        let same = fs::read(path)? == noise;
        if same { Ok(()) } else { Err(Failed::from(format!("{path} is not what was copied"))) }
    };
    let nothing = || Ok(());
    let in_again = || {
        done(&["cp", "box:/tmp/file", &copied])?;
        equal(&copied)?;
        fs::remove_file(&copied)?;
        done(&["exec", "box", "rm", "/tmp/file"])?;
        runs()
    };
    let words = ["cp", &file, "box:/tmp/file"];
    kill_everywhere(&lab, &Verb { words: &words, steps: &["engine.copy"], before: &nothing, after: &in_again })?;
    let out_again = || equal(&copied).and_then(|()| Ok(fs::remove_file(&copied)?));
    let words = ["cp", "box:/srv/kept", &copied];
    kill_everywhere(&lab, &Verb { words: &words, steps: &["engine.copy"], before: &nothing, after: &out_again })?;
    // An export is whole or not there: an older one of that name stays until then.
    let archive = lab.text("export.tar");
    let listed = || succeed(&Command::new("tar").args(["-tf", &archive]).output()?).map(|text| text.lines().count());
    done(&["export", "-o", &archive, "box"])?;
    let count = listed()?;
    let complete = || same(&listed()?.to_string(), &count.to_string());
    let words = ["export", "-o", &archive, "box"];
    kill_everywhere(&lab, &Verb { words: &words, steps: &["engine.find"], before: &complete, after: &complete })?;
    let page = |image: &str| same(&lab.ctr(&["run", "--rm", image, "cat", "/srv/site/page"])?, "page\n");
    let committed = || {
        page("made:1")?;
        runs()?;
        done(&["rmi", "made:1"])
    };
    let words = ["commit", "box", "made:1"];
    let steps = ["engine.commit", "engine.lock", "engine.still"];
    kill_everywhere(&lab, &Verb { words: &words, steps: &steps, before: &nothing, after: &committed })?;
    let renamed = || {
        runs()
            .or_else(|_| same(&lab.ctr(&["ps", "--filter", "name=crate", "--format", "{{.State}}"])?, "running\n"))?;
        done(&["rename", "crate", "box"])?;
        has(&lab.refused(&["inspect", "crate"])?, "crate")
    };
    let words = ["rename", "box", "crate"];
    kill_everywhere(
        &lab,
        &Verb { words: &words, steps: &["engine.rename", "engine.lock"], before: &nothing, after: &renamed },
    )?;
    let limited = || {
        same(&lab.ctr(&["inspect", "-f", "{{.HostConfig.PidsLimit}}", "box"])?, "77\n")?;
        done(&["update", "--pids-limit", "50", "box"])?;
        runs()
    };
    let words = ["update", "--pids-limit", "77", "box"];
    kill_everywhere(
        &lab,
        &Verb { words: &words, steps: &["engine.update", "engine.lock"], before: &nothing, after: &limited },
    )?;
    for full in [&[][..], &["--full"]] {
        let words = [&["clone"], full, &["box", "twin"]].concat();
        let steps = ["engine.clone", "engine.lock", "engine.still", "engine.reserve", "engine.prepare"];
        let cloned = || {
            done(&["start", "twin"])?;
            done(&["exec", "twin", "test", "-s", "/srv/kept"])?;
            done(&["rm", "-f", "twin"])?;
            runs()
        };
        kill_everywhere(&lab, &Verb { words: &words, steps: &steps, before: &nothing, after: &cloned })?;
    }
    Ok(())
}

fn images() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let done = |words: &[&str]| lab.ctr(words).map(drop);
    let archive = lab.text("root.tar");
    // The other image has the same layer: it must stay.
    let stays = || same(&lab.sh(&[], "cat /srv/site/page")?, "page\n");
    done(&["import", &archive, "-c", "ENV a=b", "other:1"])?;
    let gone = || {
        has(&lab.refused(&["image", "inspect", "other:1"])?, "other:1")?;
        stays()
    };
    let there = || done(&["import", &archive, "-c", "ENV a=b", "other:1"]);
    kill_everywhere(&lab, &Verb { words: &["rmi", "other:1"], steps: &[], before: &there, after: &gone })?;
    let pruned = || {
        gone()?;
        there()?;
        lab.ctr(&["run", "--rm", "other:1", "echo", "ok"]).map(drop)
    };
    lab.ctr(&["create", "--name", "keeps", "sample:1", "true"])?;
    kill_everywhere(&lab, &Verb { words: &["image", "prune", "-a", "-f"], steps: &[], before: &there, after: &pruned })
}
