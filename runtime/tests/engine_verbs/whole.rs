//! The verbs about all there is, and docker's other names for verbs.

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::lab::{Lab, NEEDS, has, same};
use super::needs::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("what_lies_on_the_disk_is_told_and_cleared", &NEEDS, disk),
        trial("groups_of_verbs_are_other_names_for_them", &NEEDS, groups),
        trial("each_verb_explains_what_it_does", &NEEDS, explained),
    ]
}

fn disk() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.sleeper("busy", &["-v", "kept:/data", "--label", "keep=1"])?;
    lab.ctr(&["run", "--name", "done", "-v", "/other", "sample:1", "sh", "-c", "head -c 3000000 /dev/zero > /big"])?;
    let row = |kind: &str| -> Result<Value, Failed> {
        let all = lab.ctr(&["system", "df", "--format", "json"])?;
        let mut rows = all.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(rows.find(|row| row["Type"] == kind).ok_or("no row")?)
    };
    let told = |row: &Value| ["TotalCount", "Active"].map(|key| row[key].as_str().unwrap_or("").to_owned());
    assert_eq!(told(&row("Images")?), ["1", "1"]);
    let containers = row("Containers")?;
    assert_eq!(told(&containers), ["2", "1"]);
    has(containers["Reclaimable"].as_str().unwrap_or_default(), "3.0")?;
    assert_eq!(told(&row("Local Volumes")?), ["2", "2"]);
    has(&lab.ctr(&["ps", "-as", "--filter", "name=done"])?, "3.00MB (virtual")?;
    has(&lab.ctr(&["system", "df"])?, "RECLAIMABLE")?;
    // What runs stays, and so does what is filtered out.
    same(&lab.ctr(&["container", "prune", "-f", "--filter", "label=keep"])?, "Space reclaimed: 0B\n")?;
    has(&lab.ctr(&["container", "prune", "-f"])?, "Space reclaimed: 3.0")?;
    same(&lab.ctr(&["ps", "-aq", "--filter", "name=done"])?, "")?;
    lab.ctr(&["system", "prune", "-f", "--volumes"])?;
    same(&lab.ctr(&["volume", "ls", "-q"])?, "kept\n")?;
    same(&lab.ctr(&["ps", "--format", "{{.Names}}"])?, "busy\n")?;
    let info: Value = serde_json::from_str(&lab.ctr(&["info", "--format", "json"])?)?;
    assert_eq!([&info["Containers"], &info["ContainersRunning"], &info["Images"]], [1, 1, 1]);
    has(&lab.ctr(&["system", "info"])?, "Storage driver: overlay")?;
    has(&lab.ctr(&["version"])?, env!("CARGO_PKG_VERSION"))
}

fn groups() -> Result<(), Failed> {
    let lab = Lab::new()?;
    same(&lab.ctr(&["container", "run", "--rm", "sample:1", "echo", "said"])?, "said\n")?;
    lab.ctr(&["container", "create", "--name", "one", "sample:1", "true"])?;
    same(&lab.ctr(&["container", "ls", "-a", "--format", "{{.Names}}"])?, "one\n")?;
    same(&lab.ctr(&["container", "ls", "-n", "1", "-q", "--no-trunc"])?, &lab.ctr(&["ps", "-aq", "--no-trunc"])?)?;
    has(&lab.ctr(&["image", "ls"])?, "sample")?;
    has(&lab.ctr(&["container", "run", "--help"])?, "--publish")?;
    has(&lab.ctr(&["container", "--help"])?, "every verb of containers")?;
    lab.ctr(&["container", "rm", "one"])?;
    lab.ctr(&["image", "rm", "sample:1"])?;
    has(&lab.refused(&["container", "fly"])?, "fly")
}

/// Verbs that do something have something to tell: at least one step, with its call and its reason.
fn explained() -> Result<(), Failed> {
    let lab = Lab::new()?;
    std::fs::write(lab.path("file"), "text")?;
    lab.sleeper("box", &["-v", "data:/data"])?;
    let file = lab.text("file");
    let verbs: [&[&str]; 27] = [
        &["run", "--rm", "sample:1", "true"],
        &["create", "--name", "made", "sample:1", "true"],
        &["start", "made"],
        &["wait", "made"],
        &["restart", "-t", "0", "box"],
        &["exec", "box", "true"],
        &["cp", &file, "box:/tmp/file"],
        &["diff", "box"],
        &["pause", "box"],
        &["unpause", "box"],
        &["update", "--pids-limit", "50", "box"],
        &["top", "box"],
        &["stats", "--no-stream", "box"],
        &["logs", "box"],
        &["commit", "box", "made:1"],
        &["export", "-o", &file, "box"],
        &["clone", "box", "twin"],
        &["rename", "twin", "other"],
        &["volume", "create", "more"],
        &["volume", "rm", "more"],
        &["volume", "prune"],
        &["ps"],
        &["inspect", "box"],
        &["kill", "box"],
        &["rm", "-f", "box"],
        &["system", "df"],
        &["prune"],
    ];
    let mut silent = Vec::new();
    for verb in verbs {
        let output = lab.run(&[&["--explain"], verb].concat())?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(format!("{verb:?}: {told}").into());
        }
        // A step's line has the system calls in it: `mkdir(2)`.
        if !told.contains("(2)") {
            silent.push(format!("{verb:?}: {told:?}"));
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
    Ok(())
}
