//! Killed at any moment: no machine and no finished snapshot is lost, and nothing is left behind.

use std::fs;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::machines::Live;
use crate::named::Root;
use crate::needs::{Done, trial};

const NEEDS: &[&str] = &["kvm", "gcc"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_kill_while_a_snapshot_is_taken_loses_nothing", NEEDS, || killed("taken", Victim::Machine)),
        trial("a_kill_of_who_asks_for_a_snapshot_loses_nothing", NEEDS, || killed("asked", Victim::Caller)),
        trial("a_kill_while_clones_are_made_and_removed_loses_nothing", NEEDS, killed_clones),
    ]
}

/// Who is killed.
#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Machine,
    Caller,
}

/// The moments, as far as one can choose them: from at once to after all is done.
fn moments() -> impl Iterator<Item = Duration> {
    (0..10).map(|turn: u64| Duration::from_micros(turn * turn * 137 + turn * 911))
}

fn kill_hard(pid: u32) -> Done {
    Ok(kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?)
}

fn killed(name: &str, victim: Victim) -> Done {
    let root = Root::new(name);
    root.create("web")?;
    let mut machine = root.start("web")?;
    machine.expect("ISOLAB-READY web")?;
    machine.answers("touch 16", "touched 16")?;
    root.does("snapshot web first")?;
    root.does("stop web")?;
    root.does("rollback web first")?;
    for (turn, moment) in moments().enumerate() {
        let mut machine = root.start("web")?;
        machine.answers("nonce", "nonce web")?;
        let mut caller = root.vm(&["snapshot", "web", &format!("turn-{turn}")]).spawn()?;
        std::thread::sleep(moment);
        match victim {
            Victim::Machine => kill_hard(machine.pid())?,
            Victim::Caller => kill_hard(caller.id())?,
        }
        caller.wait()?;
        drop(machine);
        // Every snapshot that is listed is whole.
        let listed = root.does("snapshots web")?;
        for snapshot in listed.lines().filter_map(|line| line.split_whitespace().next()) {
            let path = root.machine("web").join("snapshots").join(snapshot);
            let mut restored = Live::restored(&path, &[])?;
            restored.answers("nonce", "nonce web")?;
        }
        assert!(listed.starts_with("first"), "{listed}");
    }
    // The next that comes by removes what the killed have left.
    let mut machine = root.start("web")?;
    machine.answers("nonce", "nonce web")?;
    root.does("snapshot web last")?;
    let snapshots = root.machine("web").join("snapshots");
    for entry in fs::read_dir(&snapshots)? {
        let name = entry?.file_name();
        assert!(!name.as_encoded_bytes().starts_with(b"."), "{} is left", name.display());
    }
    Ok(())
}

fn killed_clones() -> Done {
    let root = Root::new("clones-killed");
    root.create("web")?;
    let mut machine = root.start("web")?;
    machine.expect("ISOLAB-READY web")?;
    root.does("snapshot web base")?;
    drop(machine);
    for (turn, moment) in moments().enumerate() {
        let kind = if turn % 2 == 0 { "--full" } else { "--linked" };
        let mut maker = root.vm(&["clone", kind, "--count", "20", "web@base", &format!("c{turn}")]).spawn()?;
        std::thread::sleep(moment);
        kill_hard(maker.id())?;
        maker.wait()?;
        // Each that is there is whole.
        let here = format!("c{turn}-1");
        if root.machine(&here).exists() {
            root.start(&here)?.answers("nonce", "nonce web")?;
            let mut remover = root.vm(&["rm", &here]).spawn()?;
            std::thread::sleep(moment / 4);
            let _ = kill_hard(remover.id());
            remover.wait()?;
        }
        root.does("ls")?;
    }
    root.start("web")?.expect("ISOLAB-READY web")?;
    let since = Instant::now();
    root.does("clone web@base last")?;
    assert!(since.elapsed() < Duration::from_secs(20));
    for entry in fs::read_dir(root.0.join("vm"))? {
        let name = entry?.file_name();
        let kept = name == ".lock" || !name.as_encoded_bytes().starts_with(b".");
        assert!(kept, "{} is left", name.display());
    }
    Ok(())
}
