//! Machines with names: their snapshots, their clones, and what is refused.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::answers;
use crate::machines::{Live, done, isolab_vm, place, refused, teller};
use crate::needs::{Done, trial};

const NEEDS: &[&str] = &["kvm", "gcc"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_machine_goes_back_to_either_of_two_branches", NEEDS, two_branches),
        trial("a_machine_that_runs_by_itself_reads_and_prints_in_its_folder", NEEDS, by_itself),
        trial("linked_clones_diverge_and_each_is_somebody", NEEDS, linked_clones),
        trial("a_full_clone_needs_its_parent_no_more", NEEDS, a_full_clone),
        trial("what_somebody_needs_is_not_removed", NEEDS, what_is_needed),
        trial("what_cannot_be_done_to_a_named_machine_is_refused", NEEDS, what_is_refused),
    ]
}

/// A folder of machines; whatever still runs there ends with this value.
pub(crate) struct Root(pub(crate) PathBuf);

impl Root {
    pub(crate) fn new(name: &str) -> Self {
        Self(place(name))
    }

    /// `isolab-vm --root ROOT WORDS`.
    pub(crate) fn vm<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = isolab_vm(["--root"]);
        command.arg(&self.0).args(words);
        command
    }

    /// The same, which must succeed.
    pub(crate) fn does(&self, line: &str) -> Result<String, Failed> {
        done(self.vm(&line.split(' ').collect::<Vec<_>>()))
    }

    /// The same, which must fail with these words.
    pub(crate) fn refuses(&self, line: &str, parts: &[&str]) -> Done {
        refused(self.vm(&line.split(' ').collect::<Vec<_>>()), parts)
    }

    /// Keeps a machine with the teller in it.
    pub(crate) fn create(&self, name: &str) -> Done {
        let mut command = self.vm(&["create", name, "--memory", "32", "--app"]);
        command.arg(teller()).args(["--", name]);
        done(command).map(|_| ())
    }

    /// Starts a machine in the foreground.
    pub(crate) fn start(&self, name: &str) -> Result<Live, Failed> {
        Live::start(self.vm(&["start", name]))
    }

    /// Waits until a machine that was just started can be asked.
    pub(crate) fn until_it_answers(&self, name: &str) -> Done {
        answers::once_at(&self.machine(name).join("socket"))
    }

    fn inspect(&self, name: &str) -> Result<Value, Failed> {
        Ok(serde_json::from_str(&self.does(&format!("inspect {name}"))?)?)
    }

    pub(crate) fn machine(&self, name: &str) -> PathBuf {
        self.0.join("vm").join(name)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let Ok(list) = self.does("ls --json") else { return };
        let entries: Vec<Value> = serde_json::from_str(&list).unwrap_or_default();
        for entry in entries.iter().filter(|entry| entry["state"] != "stopped") {
            let _ = self.does(&format!("stop {}", entry["name"].as_str().unwrap_or_default()));
        }
    }
}

fn two_branches() -> Done {
    let root = Root::new("branches");
    root.create("tree")?;
    let mut machine = root.start("tree")?;
    machine.expect("ISOLAB-READY tree")?;
    machine.answers("count", "count 1 0.5")?;
    root.does("snapshot tree root")?;
    machine.answers("count", "count 2 1.0")?;
    root.does("snapshot tree left")?;
    root.does("stop tree")?;
    assert_eq!(machine.ends()?, Some(143));

    root.does("rollback tree root")?;
    let mut machine = root.start("tree")?;
    for turn in 2..5 {
        machine.answers("count", &format!("count {turn} {:.1}", f64::from(turn) / 2.0))?;
    }
    root.does("snapshot tree right")?;
    drop(machine); // by SIGKILL: what is finished stays
    let tree = root.does("snapshots tree")?;
    let shape: Vec<&str> =
        tree.lines().map(|line| line.split("  ").find(|part| !part.is_empty()).unwrap_or("")).collect();
    assert_eq!(shape, ["root", "left", "right"], "{tree}");
    assert!(tree.contains("\n  left") && tree.contains("\n  right") && tree.trim_end().ends_with("<- here"), "{tree}");

    for (branch, next) in [("left", 3), ("right", 5), ("left", 3), ("root", 2)] {
        root.does(&format!("rollback tree {branch}"))?;
        let mut machine = root.start("tree")?;
        machine.answers("count", &format!("count {next} {:.1}", f64::from(next) / 2.0))?;
        machine.say("exit 4")?;
        assert_eq!(machine.ends()?, Some(4));
    }
    root.does("rollback tree --boot")?;
    let mut machine = root.start("tree")?;
    machine.expect("ISOLAB-READY tree")?;
    machine.answers("count", "count 1 0.5")?;
    drop(machine);
    // The one in the middle goes; what came of it stays whole.
    root.does("rm-snapshot tree root")?;
    root.does("rollback tree right")?;
    root.start("tree")?.answers("count", "count 5 2.5")
}

fn wait_for(path: &Path, text: &str) -> Done {
    let since = std::time::Instant::now();
    while since.elapsed() < std::time::Duration::from_secs(30) {
        if fs::read_to_string(path).is_ok_and(|found| found.contains(text)) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Err(format!("{text:?} is not in {}: {:?}", path.display(), fs::read_to_string(path)).into())
}

fn by_itself() -> Done {
    let root = Root::new("itself");
    root.create("alone")?;
    root.does("start --detach alone")?;
    let (console, input) = (root.machine("alone").join("console.log"), root.machine("alone").join("console.in"));
    wait_for(&console, "ISOLAB-READY alone\n")?;
    fs::write(&input, "count\n")?;
    wait_for(&console, "count 1 0.5\n")?;
    let list = root.does("ls")?;
    assert!(list.lines().any(|line| line.starts_with("alone  running  32 MiB")), "{list}");
    root.does("pause alone")?;
    assert!(root.does("ls")?.contains("alone  paused"));
    root.does("resume alone")?;
    root.does("stop alone")?;
    assert!(root.does("ls")?.contains("alone  stopped"));
    Ok(())
}

fn linked_clones() -> Done {
    let root = Root::new("linked");
    root.create("parent")?;
    let mut parent = root.start("parent")?;
    parent.expect("ISOLAB-READY parent")?;
    parent.answers("count", "count 1 0.5")?;
    root.does("snapshot parent base")?;
    let memory = root.machine("parent").join("snapshots/base/memory");
    let before = fs::read(&memory)?;
    root.does("clone parent@base child --count 20")?;
    let mut machines = Vec::new();
    for number in 1..=20 {
        machines.push(root.start(&format!("child-{number}"))?);
    }
    // Each goes its own way from the same place, and the parent its.
    let mut seen = BTreeSet::new();
    for (steps, machine) in machines.iter_mut().enumerate() {
        for step in 0..=steps % 5 {
            let turn = u32::try_from(step)? + 2;
            machine.answers("count", &format!("count {turn} {:.1}", f64::from(turn) / 2.0))?;
        }
        for what in ["random", "at-random", "generation"] {
            assert!(seen.insert(machine.asks(what)?));
        }
    }
    parent.answers("count", "count 2 1.0")?;
    drop(machines);
    assert!(fs::read(&memory)? == before, "a clone wrote to its parent's snapshot");
    let mut identities = BTreeSet::new();
    for name in (1..=20).map(|number| format!("child-{number}")).chain(["parent".to_owned()]) {
        let identity = root.inspect(&name)?["identity"].clone();
        for field in ["uuid", "mac", "cid"] {
            assert!(identities.insert(format!("{field} {}", identity[field])), "{name} has another's {field}");
        }
    }
    Ok(())
}

fn a_full_clone() -> Done {
    let root = Root::new("full");
    root.create("parent")?;
    let mut parent = root.start("parent")?;
    parent.expect("ISOLAB-READY parent")?;
    parent.answers("touch 4", "touched 4")?;
    root.does("snapshot parent base")?;
    root.does("stop parent")?;
    root.does("clone --full parent child")?;
    let blocks = |name: &str| -> Result<u64, Failed> {
        use std::os::unix::fs::MetadataExt;
        Ok(fs::metadata(root.machine(name).join("snapshots/base/memory"))?.blocks() * 512)
    };
    assert!(blocks("child")? <= blocks("parent")? + 65536, "the holes were kept");
    root.does("rm parent")?;
    let mut child = root.start("child")?;
    child.answers("nonce", "nonce parent")?;
    root.does("snapshot child next")?;
    let tree = root.does("snapshots child")?;
    assert!(tree.starts_with("base") && tree.contains("\n  next"), "{tree}");
    Ok(())
}

fn what_is_needed() -> Done {
    let root = Root::new("needed");
    root.create("parent")?;
    let mut parent = root.start("parent")?;
    parent.expect("ISOLAB-READY parent")?;
    for snapshot in ["one", "two", "three"] {
        root.does(&format!("snapshot parent {snapshot}"))?;
    }
    root.does("stop parent")?;
    root.does("clone parent@one child")?;
    root.refuses("rm-snapshot parent one", &["cannot remove the snapshot parent@one", "child is a linked clone of"])?;
    root.refuses("rm parent", &["cannot remove the machine parent", "child is a linked clone of parent@one"])?;
    root.does("rollback parent two")?;
    root.refuses("rm-snapshot parent two", &["the machine parent starts from it"])?;
    // Somebody goes on from it who is not kept here.
    let mut stranger = Live::restored(&root.machine("parent").join("snapshots/three"), &[])?;
    stranger.answers("nonce", "nonce parent")?;
    root.refuses("rm-snapshot parent three", &["a machine that runs shows its memory"])?;
    drop(stranger);
    root.does("rm-snapshot parent three")?;
    root.does("rm child")?;
    root.does("rm-snapshot parent one")?;
    root.does("rm parent")?;
    assert_eq!(root.does("ls")?.lines().count(), 1);
    Ok(())
}

fn what_is_refused() -> Done {
    let root = Root::new("refused");
    root.create("web")?;
    root.refuses("start nobody", &["there is no machine nobody", "hint: `isolab-vm ls`"])?;
    root.refuses("snapshot web one", &["the machine web does not run", "hint: start it first"])?;
    root.refuses("stop web", &["the machine web does not run"])?;
    root.refuses("clone web copy", &["the machine web has no snapshot", "hint: take one"])?;
    root.refuses("clone web@one copy", &["the machine web has no snapshot one"])?;
    root.refuses("rollback web one", &["the machine web has no snapshot one"])?;
    root.refuses("create web --bare counter", &["there is a machine web already"])?;
    root.refuses("create other --bare dancer", &["there is no built-in guest \"dancer\""])?;
    root.refuses("create other --app /nowhere", &["cannot open the program /nowhere"])?;
    let usage = root.vm(&["create", "../up", "--bare", "counter"]).output()?;
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("is no name"));

    let mut machine = root.start("web")?;
    machine.expect("ISOLAB-READY web")?;
    root.refuses("start web", &["the machine web runs", "hint: stop it first"])?;
    root.refuses("rm web", &["the machine web runs"])?;
    root.does("snapshot web one")?;
    root.refuses("snapshot web one", &["the machine web has a snapshot one already"])?;
    root.refuses("rollback web one", &["the machine web runs"])?;
    root.does("clone web copy")?;
    root.refuses("clone web copy", &["there is a machine copy already"])?;
    drop(machine);

    // Files that somebody else has had a hand in.
    let record = root.machine("copy").join("machine.json");
    let text = fs::read_to_string(&record)?;
    fs::write(&record, text.replace("\"memory\"", "\"mammary\""))?;
    root.refuses("start copy", &["cannot use", "copy/machine.json", "mammary"])?;
    fs::write(&record, text.replace("\"id\": \"", "\"id\": \"f00d"))?;
    root.refuses("start copy", &["web@one is another snapshot now"])?;
    fs::write(&record, &text)?;
    let state = root.machine("web").join("snapshots/one/state");
    let bytes = fs::read(&state)?;
    fs::remove_file(&state)?;
    fs::write(&state, &bytes[..bytes.len() / 2])?;
    root.refuses("start copy", &["cannot use the state in", "one/state", "length: "])
}
