//! Machines whose programs wait: they have nothing in KVM meanwhile, and nobody can tell.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::machines::{Live, isolab_vm, place, snapshot};
use crate::needs::{Done, trial};

const NEEDS: &[&str] = &["kvm", "gcc"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_program_that_waits_has_no_processor_and_goes_on_as_it_was", NEEDS, goes_on),
        trial("a_resting_machine_is_saved_and_its_snapshot_goes_on", NEEDS, is_saved),
        trial("a_resting_machine_ends_by_a_signal_or_in_time", NEEDS, ends),
        trial("clones_that_wait_rest_as_processes_and_as_threads", NEEDS, clones_rest),
    ]
}

/// How many virtual processors a process has.
fn processors(pid: u32) -> Result<usize, Failed> {
    let mut found = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One may be closed in between.
        let leads = fs::read_link(entry?.path()).unwrap_or_default();
        found += usize::from(leads.to_string_lossy().starts_with("anon_inode:kvm-vcpu"));
    }
    Ok(found)
}

fn until_it_has(pid: u32, number: usize) -> Done {
    let since = Instant::now();
    while processors(pid)? != number {
        if since.elapsed() > Duration::from_secs(20) {
            return Err(format!("{} processors, expected {number}", processors(pid)?).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn goes_on() -> Done {
    let (mut machine, _) = Live::teller("rests", &[])?;
    machine.answers("count", "count 1 0.5")?;
    let random = machine.asks("at-random")?;
    for turn in 2..5 {
        until_it_has(machine.pid(), 0)?;
        // Memory, vector registers and the bases of segments are as they were.
        machine.answers("count", &format!("count {turn} {:.1}", f64::from(turn) / 2.0))?;
        assert_eq!(machine.asks("at-random")?, random, "it is no other machine");
    }
    until_it_has(machine.pid(), 0)?;
    // With much memory it would have to find too much again: it waits as it is.
    machine.answers("touch 32", "touched 32")?;
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(processors(machine.pid())?, 1);
    machine.answers("count", "count 5 2.5")
}

fn is_saved() -> Done {
    let (mut machine, socket) = Live::teller("rests-saved", &[])?;
    machine.answers("count", "count 1 0.5")?;
    until_it_has(machine.pid(), 0)?;
    let at = place("rests-snapshot");
    snapshot(&socket, &at)?;
    machine.answers("count", "count 2 1.0")?;
    let mut restored = Live::restored(&at, &[])?;
    until_it_has(restored.pid(), 0)?;
    restored.answers("count", "count 2 1.0")
}

fn ends() -> Done {
    let (mut machine, _) = Live::teller("rests-ends", &[])?;
    until_it_has(machine.pid(), 0)?;
    kill(Pid::from_raw(i32::try_from(machine.pid())?), Signal::SIGTERM)?;
    assert_eq!(machine.ends()?, Some(143));
    let (mut machine, _) = Live::teller("rests-in-time", &["--timeout", "2"])?;
    until_it_has(machine.pid(), 0)?;
    assert_eq!(machine.ends()?, Some(125), "its time is up");
    let (mut machine, _) = Live::teller("rests-closed", &[])?;
    until_it_has(machine.pid(), 0)?;
    machine.close();
    assert_eq!(machine.ends()?, Some(0), "there is nothing more to read");
    Ok(())
}

fn clones_rest() -> Done {
    let (machine, socket) = Live::teller("rests-served", &[])?;
    let at = place("rests-served-snapshot");
    snapshot(&socket, &at)?;
    drop(machine);
    for options in [&[][..], &["--in-process"]] {
        let listens = place("rests-server");
        let mut command = isolab_vm(["serve", "--dir"]);
        command.arg(&at).arg("--socket").arg(&listens).args(options);
        let mut server = Live::start(command)?;
        server.expect(&format!("serving {}", listens.display()))?;
        let mut clones = [clone_of(&listens)?, clone_of(&listens)?];
        for clone in &mut clones {
            clone.answers("count", "count 1 0.5")?;
        }
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid()))?;
        let homes: Vec<u32> = children.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        for home in homes.into_iter().chain([server.pid()]) {
            until_it_has(home, 0)?;
        }
        for clone in &mut clones {
            clone.answers("count", "count 2 1.0")?;
        }
        drop(clones);
        kill(Pid::from_raw(i32::try_from(server.pid())?), Signal::SIGTERM)?;
        assert_eq!(server.ends()?, Some(143));
    }
    Ok(())
}

fn clone_of(listens: &Path) -> Result<Live, Failed> {
    let mut command = isolab_vm(["restore", "--server"]);
    command.arg(listens);
    Live::start(command)
}
