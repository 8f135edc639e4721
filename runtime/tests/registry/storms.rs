//! Bad days: a disk that is full, commands that are killed, many at once. The store and the registry stay whole, and what
//! was there before is there afterwards.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use super::checks::{has, same, text};
use super::lab::{CTR, Lab, done, skopeo};
use super::needs::{busybox, trial};

pub(crate) fn trials() -> Vec<Trial> {
    let peers = ["skopeo", "umoci"];
    vec![
        trial("a_pull_onto_a_full_disk_fails_and_leaves_a_whole_store", &["root", "skopeo", "umoci"], full),
        trial("pulls_and_removals_at_once_leave_a_whole_store", &peers, at_once),
        trial("whatever_verb_is_killed_nothing_is_lost", &["root", "overlay", "busybox", "skopeo", "umoci"], killed),
    ]
}

fn full() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let (host, image) = (lab.serve(&[])?, lab.image()?);
    let name = format!("{host}/app:1");
    done(&mut skopeo(&[&image, &format!("docker://{name}")]))?;
    fs::create_dir(lab.path("small"))?;
    // In a mount namespace of its own, with which the disk is gone, however this ends.
    let script = "mount -t tmpfs -o size=2m none \"$1\" && \
        for size in 2m 4m 6m 32m; do mount -o remount,size=$size \"$1\" && \
        \"$0\" --root \"$1/store\" pull \"$2\" 2>&1; echo \"pull $size: $?\"; \
        \"$0\" --root \"$1/store\" fsck 2>&1; echo \"fsck $size: $?\"; done; \
        \"$0\" --root \"$1/store\" prune && find \"$1/store\" -name '.tmp-*' | sed 's/^/left: /'";
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--propagation", "private", "sh", "-c", script, CTR, &lab.text("small"), &name]);
    let told = done(shell.env("ISOLAB_NETWORK", "none"))?;
    has(&told, "No space left on device")?;
    has(&told, "pull 2m: 1")?;
    has(&told, "pull 32m: 0")?;
    for size in ["2m", "4m", "6m", "32m"] {
        has(&told, &format!("fsck {size}: 0"))?;
    }
    same(told.contains("left: "), false).map_err(|_| told.into())
}

fn at_once() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let (host, image) = (lab.serve(&[])?, lab.image()?);
    let (name, other) = (format!("{host}/app:1"), format!("{host}/other:1"));
    for name in [&name, &other] {
        done(&mut skopeo(&[&image, &format!("docker://{name}")]))?;
    }
    done(&mut lab.ctr("store", &["pull", &other]))?;
    for _ in 0..4 {
        let verbs: [&[&str]; 5] = [&["pull", &name], &["pull", &name], &["rmi", &name], &["pull", &name], &["prune"]];
        let children = verbs.map(|verb| start(&lab, "store", verb));
        for child in children {
            let ended = child?.wait_with_output()?;
            let told = text(&ended.stderr);
            // One that removes may come before there is anything; nothing else may fail.
            same(ended.status.success() || told.contains("no image is called"), true).map_err(|_| told)?;
        }
        has(&done(&mut lab.ctr("store", &["fsck"]))?, "all well")?;
        // Who shares all of its layers is none the worse.
        done(&mut lab.ctr("store", &["history", &other]))?;
    }
    Ok(())
}

fn start(lab: &Lab, store: &str, verb: &[&str]) -> Result<Child, Failed> {
    Ok(lab.ctr(store, verb).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
}

/// Times after which a verb is killed, in milliseconds: the first of its steps, and later ones.
const TIMES: [u64; 6] = [1, 4, 9, 20, 50, 110];

fn killed() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let (host, image) = (lab.serve(&[])?, lab.image()?);
    let name = |repository: &str| format!("{host}/{repository}:1");
    done(&mut skopeo(&[&image, &format!("docker://{}", name("app"))]))?;
    // What must not be lost: an image that shares layers with what is fetched and removed, and one of its own.
    done(&mut lab.ctr("store", &["pull", &name("app")]))?;
    done(&mut lab.ctr("store", &["tag", &name("app"), "kept:1"]))?;
    let mut archive = tar::Builder::new(fs::File::create(lab.path("root.tar"))?);
    archive.append_path_with_name(busybox()?, "bin/busybox")?;
    archive.finish()?;
    let own = done(&mut lab.ctr("store", &["import", "--cmd", "x", &lab.text("root.tar"), "own:1"]))?;
    let container = done(&mut lab.ctr("store", &["create", "own:1", "/bin/busybox", "true"]))?;
    let verbs: [&[&str]; 6] = [
        &["rmi", &name("app")],
        &["pull", &name("app")],
        &["push", &name("app")],
        &["tag", "kept:1", &name("app")],
        &["commit", &container, "made:1"],
        &["prune"],
    ];
    for verb in verbs {
        for milliseconds in TIMES {
            let mut child = start(&lab, "store", verb)?;
            sleep(Duration::from_millis(milliseconds));
            child.kill()?;
            child.wait()?;
            whole(&lab, &own).map_err(|failed| format!("{verb:?} killed after {milliseconds} ms: {failed:?}"))?;
        }
        // And what was begun can be done.
        done(&mut lab.ctr("store", &["tag", "kept:1", &name("app")]))?;
        done(&mut lab.ctr("store", verb))?;
    }
    same(done(Command::new("find").args([lab.text("store").as_str(), "-name", ".tmp-*"]))?.as_str(), "")?;
    // The registry's own verb: it is killed as the others are, and what has a name is still there.
    lab.kill()?;
    for milliseconds in TIMES {
        let mut gc =
            Command::new(CTR).args(["registry", "gc"]).arg(lab.path("registry")).stdout(Stdio::null()).spawn()?;
        sleep(Duration::from_millis(milliseconds));
        gc.kill()?;
        gc.wait()?;
    }
    let host = lab.serve(&[])?;
    done(&mut lab.ctr("empty", &["pull", &format!("{host}/app:1")]))?;
    has(&done(&mut lab.ctr("empty", &["fsck"]))?, "all well")
}

/// The store is whole, and has what it must.
fn whole(lab: &Lab, own: &str) -> Result<(), Failed> {
    has(&done(&mut lab.ctr("store", &["fsck"]))?, "all well")?;
    done(&mut lab.ctr("store", &["history", "kept:1"]))?;
    let id = done(&mut lab.ctr("store", &["inspect", "--format", "{{.Id}}", "own:1"]))?;
    same(id.as_str(), own)
}
