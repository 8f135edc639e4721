//! Snapshots of what changed: how large they are, what they stand on, and that each is the machine as it was.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use isolab_vmm::api::{Answer, Request, ask};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::machines::{Live, isolab_vm, place, refused, snapshot};
use crate::named::Root;
use crate::needs::{Done, trial};

const NEEDS: &[&str] = &["kvm", "gcc"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_snapshot_of_changes_is_small_and_the_machine_as_it_was", NEEDS, small_and_whole),
        trial(
            "a_machine_that_was_restored_saves_what_it_changed",
            &["kvm", "gcc", "userfaultfd"],
            of_a_restored_machine,
        ),
        trial("each_seventeenth_snapshot_of_changes_is_whole", NEEDS, a_pile),
        trial("what_changes_stand_on_stays_and_what_travels_stands_alone", &["kvm", "gcc", "root"], named),
        trial("changes_without_what_they_stand_on_are_refused", NEEDS, without_its_base),
    ]
}

fn diff(socket: &Path, to: &Path) -> Result<u64, Failed> {
    match ask(socket, &Request::Snapshot { to: to.to_owned(), diff: true })? {
        Answer::Snapshot { bytes, .. } => Ok(bytes),
        Answer::Status(status) => Err(format!("{status:?} is no snapshot").into()),
    }
}

fn on_disk(snapshot: &Path) -> Result<u64, Failed> {
    Ok(fs::metadata(snapshot.join("memory"))?.blocks() * 512)
}

/// What a state says that it stands on.
fn below(snapshot: &Path) -> Result<Value, Failed> {
    let bytes = fs::read(snapshot.join("state"))?;
    let state: Value = serde_json::from_slice(bytes.get(48..).ok_or("no state")?)?;
    Ok(state["below"].clone())
}

fn small_and_whole() -> Done {
    let (mut machine, socket) = Live::teller("changes", &[])?;
    machine.answers("touch 16", "touched 16")?;
    machine.answers("count", "count 1 0.5")?;
    let at = ["changes-0", "changes-1", "changes-2"].map(place);
    let whole = diff(&socket, &at[0])?;
    assert!(whole > 16 << 20 && below(&at[0])?.is_null(), "the first has nothing to stand on");
    for (turn, place) in (2..).zip(&at[1..]) {
        machine.answers("count", &format!("count {turn} {:.1}", f64::from(turn) / 2.0))?;
        let bytes = diff(&socket, place)?;
        assert!(bytes > 0 && bytes < 1 << 20, "{bytes} bytes have changed");
        assert!(on_disk(place)? < 1 << 20);
    }
    assert_eq!(below(&at[2])?["folder"], "../changes-1");
    // Each is the machine of its moment, and all of it.
    for loading in ["--lazy", "--eager", "--recorded"] {
        for (turn, at) in (2..).zip(&at) {
            let mut restored = Live::restored(at, &[loading])?;
            restored.answers("count", &format!("count {turn} {:.1}", f64::from(turn) / 2.0))?;
            restored.answers("nonce", "nonce changes")?;
            restored.answers("touch 16", "touched 16")?;
        }
    }
    // One that is not of changes does not stand between: what changes next is counted from the last that was.
    let between = snapshot(&socket, &place("changes-whole"))?;
    assert!(between >= whole, "{between} of {whole} bytes");
    diff(&socket, &place("changes-3"))?;
    assert_eq!(below(&place("changes-3"))?["folder"], "../changes-2");
    machine.answers("count", "count 4 2.0")
}

fn of_a_restored_machine() -> Done {
    let (mut first, socket) = Live::teller("since", &[])?;
    first.answers("touch 16", "touched 16")?;
    let base = place("since-base");
    let whole = snapshot(&socket, &base)?;
    for loading in ["lazy", "eager", "recorded"] {
        let socket = place(&format!("since-{loading}.sock"));
        let api = socket.to_str().ok_or("no text")?;
        let mut machine = Live::restored(&base, &[&format!("--{loading}"), "--api", api])?;
        machine.answers("count", "count 1 0.5")?;
        let at = place(&format!("since-{loading}"));
        let bytes = diff(&socket, &at)?;
        assert_eq!(below(&at)?["folder"], "../since-base");
        // Eagerly all has been read, and nothing tells that from written; it is no less right.
        let most = if loading == "eager" { 2 * whole } else { whole / 4 };
        assert!(bytes < most, "{loading}: {bytes} of {whole} bytes");
        let mut restored = Live::restored(&at, &[])?;
        restored.answers("count", "count 2 1.0")?;
        restored.answers("nonce", "nonce since")?;
    }
    Ok(())
}

fn a_pile() -> Done {
    let (mut machine, socket) = Live::teller("pile", &["--memory", "16"])?;
    let mut stood = Vec::new();
    for turn in 1..=18 {
        machine.answers("count", &format!("count {turn} {:.1}", f64::from(turn) / 2.0))?;
        diff(&socket, &place(&format!("pile-{turn}")))?;
        stood.push(!below(&place(&format!("pile-{turn}")))?.is_null());
    }
    let whole: Vec<usize> = (1..).zip(&stood).filter(|(_, stands)| !**stands).map(|(turn, _)| turn).collect();
    assert_eq!(whole, [1, 17]);
    for turn in [16, 18] {
        let next = turn + 1;
        let mut restored = Live::restored(&place(&format!("pile-{turn}")), &[])?;
        restored.answers("count", &format!("count {next} {:.1}", f64::from(next) / 2.0))?;
    }
    Ok(())
}

fn named() -> Done {
    let root = Root::new("changes-named");
    root.create("web")?;
    let mut machine = root.start("web")?;
    machine.expect("ISOLAB-READY web")?;
    for (turn, name) in ["one", "two"].into_iter().enumerate() {
        machine.answers("count", &format!("count {} {:.1}", turn + 1, (turn + 1) as f64 / 2.0))?;
        root.does(&format!("snapshot web {name} --diff"))?;
    }
    let tree = root.does("snapshots web")?;
    assert!(tree.lines().nth(1).is_some_and(|line| line.contains("KiB of changes")), "{tree}");
    root.refuses("rm-snapshot web one", &["the snapshot web@two stands on it"])?;
    // A machine that started from a snapshot counts from there; and a folder of machines can be moved.
    root.does("stop web")?;
    root.does("rollback web two")?;
    let mut machine = root.start("web")?;
    machine.answers("count", "count 3 1.5")?;
    root.does("snapshot web three --diff")?;
    drop(machine);
    root.does("clone --full web@three alone")?;
    root.does("clone --linked web@three linked")?;
    let mut layout = root.vm(&["export", "web@three"]);
    layout.arg(place("changes-layout"));
    crate::machines::done(layout)?;
    let mut import = root.vm(&["import"]);
    import.arg(place("changes-layout")).arg("come");
    crate::machines::done(import)?;
    for name in ["alone", "linked", "come"] {
        root.start(name)?.answers("count", "count 4 2.0")?;
    }
    root.refuses("rm web", &["linked"])?;
    root.does("rm linked")?;
    root.does("rm-snapshot web three")?;
    let moved = Root::new("changes-moved");
    fs::rename(&root.0, &moved.0)?;
    moved.start("web")?.answers("count", "count 3 1.5")?;
    moved.does("rm web")?;
    for name in ["alone", "come"] {
        moved.start(name)?.answers("count", "count 4 2.0")?;
    }
    Ok(())
}

fn without_its_base() -> Done {
    let (mut machine, socket) = Live::teller("baseless", &[])?;
    let folder = place("baseless");
    fs::create_dir(&folder)?;
    let at = ["one", "two", "other"].map(|name| folder.join(name));
    diff(&socket, &at[0])?;
    machine.answers("count", "count 1 0.5")?;
    diff(&socket, &at[1])?;
    snapshot(&socket, &at[2])?;
    let restore = |at: &Path| {
        let mut command = isolab_vm(["restore"]);
        command.arg(at);
        command
    };
    let (one, aside) = (at[0].clone(), folder.join("aside"));
    fs::rename(&one, &aside)?;
    refused(restore(&at[1]), &["which has only the changes since another", "baseless/two/../one"])?;
    fs::rename(&at[2], &one)?;
    refused(restore(&at[1]), &["is another snapshot than", "hint:"])?;
    fs::rename(&one, &at[2])?;
    fs::rename(&aside, &one)?;
    // Where what it would stand on is gone, the next is whole.
    fs::remove_dir_all(&at[1])?;
    diff(&socket, &folder.join("three"))?;
    assert!(below(&folder.join("three"))?.is_null());
    Live::restored(&folder.join("three"), &[])?.answers("count", "count 2 1.0")?;
    machine.answers("count", "count 2 1.0")
}
