//! A template in memory, and clones of it on request.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect};
use nix::unistd::Pid;

use crate::machines::{Live, isolab_vm, place, refused, snapshot};
use crate::needs::{Done, trial};
use crate::walls;

const NEEDS: &[&str] = &["kvm", "gcc"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_server_hands_out_clones_that_diverge", NEEDS, || clones_diverge("served", &[])),
        trial("clones_that_are_threads_diverge_too", NEEDS, || clones_diverge("served-threads", &["--in-process"])),
        trial("a_clone_that_is_a_thread_ends_alone_or_with_its_server", NEEDS, threads_end),
        trial("two_hundred_clones_live_in_one_process", NEEDS, two_hundred_threads),
        trial("a_clone_ends_with_who_asked_and_with_the_server", NEEDS, a_clone_ends),
        trial("a_served_snapshot_is_in_use_and_its_removal_hurts_no_clone", NEEDS, in_use),
        trial("who_asks_a_server_for_nonsense_gets_no_machine", NEEDS, nonsense),
        trial("two_hundred_clones_live_at_once", NEEDS, two_hundred),
    ]
}

/// A server of a machine that has counted to two.
fn served(name: &str) -> Result<(Live, PathBuf, PathBuf), Failed> {
    served_with(name, &[])
}

pub(crate) fn served_with(name: &str, options: &[&str]) -> Result<(Live, PathBuf, PathBuf), Failed> {
    let (mut machine, socket) = Live::teller(name, &[])?;
    machine.answers("count", "count 1 0.5")?;
    machine.answers("count", "count 2 1.0")?;
    let (at, listens) = (place(&format!("{name}-snapshot")), place(&format!("{name}-server")));
    snapshot(&socket, &at)?;
    let mut command = isolab_vm(["serve", "--dir"]);
    command.arg(&at).arg("--socket").arg(&listens).args(options);
    let mut server = Live::start(command)?;
    server.expect(&format!("serving {}", listens.display()))?;
    Ok((server, at, listens))
}

pub(crate) fn clone_of(listens: &Path, options: &[&str]) -> Result<Live, Failed> {
    let mut command = isolab_vm(["restore", "--server"]);
    command.arg(listens).args(options);
    Live::start(command)
}

pub(crate) fn end(server: &Live, signal: Signal) -> Done {
    Ok(kill(Pid::from_raw(i32::try_from(server.pid())?), signal)?)
}

/// The processes that a process has made and that are still there.
pub(crate) fn children(pid: u32) -> Result<Vec<u32>, Failed> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

/// Waits until `there` says yes.
fn until(what: &str, mut there: impl FnMut() -> bool) -> Done {
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(20) {
        if there() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(format!("not within 20 s: {what}").into())
}

fn clones_diverge(name: &str, options: &[&str]) -> Done {
    let (mut server, _, listens) = served_with(name, options)?;
    let mut clones = [clone_of(&listens, &[])?, clone_of(&listens, &[])?, clone_of(&listens, &[])?];
    let mut seen = BTreeSet::new();
    for (steps, clone) in clones.iter_mut().enumerate() {
        for turn in 3..=(3 + u32::try_from(steps)?) {
            clone.answers("count", &format!("count {turn} {:.1}", f64::from(turn) / 2.0))?;
        }
        for what in ["random", "at-random", "generation"] {
            assert!(seen.insert(clone.asks(what)?), "two clones have one {what}");
        }
        clone.answers("touch 4", "touched 4")?;
        clone.say("exit 5")?;
        assert_eq!(clone.ends()?, Some(5), "the status is handed through");
    }
    // Time is up for one; the server goes on.
    let mut late = clone_of(&listens, &["--timeout", "0.2"])?;
    assert_eq!(late.ends()?, Some(125));
    clone_of(&listens, &[])?.answers("count", "count 3 1.5")?;
    end(&server, Signal::SIGTERM)?;
    assert_eq!(server.ends()?, Some(143));
    assert!(!listens.exists());
    Ok(())
}

fn a_clone_ends() -> Done {
    let (mut server, _, listens) = served("ends")?;
    let mut clone = clone_of(&listens, &[])?;
    clone.answers("nonce", "nonce ends")?;
    let [child] = children(server.pid())?[..] else { return Err("one clone is one process".into()) };
    drop(clone); // by SIGKILL
    let gone = |pid: u32| !Path::new(&format!("/proc/{pid}")).exists();
    until("the clone ends with who asked for it", || gone(child))?;
    let mut clone = clone_of(&listens, &[])?;
    clone.answers("nonce", "nonce ends")?;
    let [child] = children(server.pid())?[..] else { return Err("one clone is one process".into()) };
    end(&server, Signal::SIGKILL)?;
    assert_eq!(server.ends()?, None);
    until("the clone ends with its server", || gone(child))?;
    assert_eq!(clone.ends()?, Some(125));
    // What a killed server leaves is a name at which nobody listens.
    refused(restore_from(&listens), &["cannot reach the server at", "Connection refused"])
}

/// How many threads a process has. Those that KVM has beside a machine come and go with it when that rests.
fn threads(pid: u32) -> Result<usize, Failed> {
    Ok(walls::threads(pid)?.len())
}

fn threads_end() -> Done {
    let (mut server, _, listens) = served_with("threads", &["--in-process"])?;
    let alone = threads(server.pid())?;
    let mut stays = clone_of(&listens, &[])?;
    stays.answers("nonce", "nonce threads")?;
    let with_one = threads(server.pid())?;
    assert!(with_one > alone && children(server.pid())?.is_empty(), "a clone is no process");
    // Whatever it does when who asked for it is gone: waits for input, sleeps, computes.
    for does in ["", "sleep 60000", "spin 100000000000"] {
        let mut clone = clone_of(&listens, &[])?;
        clone.answers("count", "count 3 1.5")?;
        if !does.is_empty() {
            clone.say(does)?;
        }
        assert!(threads(server.pid())? > with_one);
        drop(clone); // by SIGKILL
        until("the clone ends with who asked for it", || threads(server.pid()).is_ok_and(|left| left == with_one))?;
    }
    // One that dies of its own fault takes nobody along.
    let mut dies = clone_of(&listens, &[])?;
    dies.say("crash")?;
    assert_eq!(dies.ends()?, Some(139));
    stays.answers("count", "count 3 1.5")?;
    // What ends the server ends all, and each hears of it.
    end(&server, Signal::SIGTERM)?;
    assert_eq!(server.ends()?, Some(143));
    assert_eq!(stays.ends()?, Some(125));
    assert!(!listens.exists());
    Ok(())
}

fn two_hundred_threads() -> Done {
    let (server, _, listens) = served_with("many-threads", &["--in-process"])?;
    let alone = threads(server.pid())?;
    let mut clones = (0..200).map(|_| clone_of(&listens, &[])).collect::<Result<Vec<_>, _>>()?;
    for clone in &mut clones {
        clone.answers("count", "count 3 1.5")?;
    }
    assert!(threads(server.pid())? >= alone + 200);
    drop(clones);
    until("all clones end", || threads(server.pid()).is_ok_and(|left| left == alone))
}

fn restore_from(listens: &Path) -> std::process::Command {
    let mut command = isolab_vm(["restore", "--server"]);
    command.arg(listens);
    command
}

fn in_use() -> Done {
    let (server, at, listens) = served("used")?;
    assert!(isolab_vmm::snapshot::Snapshot::is_in_use(&at)?);
    let mut before = clone_of(&listens, &[])?;
    before.answers("nonce", "nonce used")?;
    // Somebody who does not ask removes it, or writes nonsense to it: the template is the server's own.
    let memory = at.join("memory");
    fs::set_permissions(&memory, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    fs::File::options().write(true).open(&memory)?.set_len(0)?;
    fs::remove_dir_all(&at)?;
    // And that is sealed: even who gets at it, as root can, writes nothing to it.
    let mut files = fs::read_dir(format!("/proc/{}/fd", server.pid()))?.flatten().map(|entry| entry.path());
    let template =
        files.find(|file| fs::read_link(file).is_ok_and(|to| to.ends_with("memfd:isolab-template (deleted)")));
    let template = fs::File::options().write(true).open(template.ok_or("no template")?)?;
    for done in [nix::unistd::write(&template, b"x").map(drop), nix::unistd::ftruncate(&template, 0)] {
        assert_eq!(done, Err(nix::errno::Errno::EPERM));
    }
    before.answers("touch 8", "touched 8")?;
    before.answers("count", "count 3 1.5")?;
    clone_of(&listens, &[])?.answers("count", "count 3 1.5")
}

fn nonsense() -> Done {
    let (_server, _, listens) = served("nonsense")?;
    // A socket of another kind.
    let error = UnixStream::connect(&listens).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPROTOTYPE));
    // A server of another kind.
    let (_machine, socket) = Live::teller("other-kind", &[])?;
    refused(restore_from(&socket), &["cannot reach the server at", "wrong type for socket"])?;
    // Nobody.
    refused(restore_from(&place("nobody")), &["cannot reach the server at", "No such file"])?;
    // The right kind, and no request in it.
    let caller = nix::sys::socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(caller.as_raw_fd(), &UnixAddr::new(&listens)?)?;
    nix::unistd::write(&caller, b"hello")?;
    let mut answer = [0; 99];
    let length = nix::unistd::read(&caller, &mut answer)?;
    assert!(String::from_utf8_lossy(&answer[..length]).contains("it is no request"));
    clone_of(&listens, &[])?.answers("nonce", "nonce nonsense")
}

fn two_hundred() -> Done {
    let (server, _, listens) = served("hundreds")?;
    let mut clones = Vec::new();
    for _ in 0..200 {
        clones.push(clone_of(&listens, &[])?);
    }
    for clone in &mut clones {
        clone.answers("count", "count 3 1.5")?;
    }
    assert_eq!(children(server.pid())?.len(), 200);
    // What each has of its own, beyond what all share, in its guest's memory.
    for child in children(server.pid())?.into_iter().step_by(50) {
        let own = own_guest_memory(child)?;
        assert!(own <= 40, "{own} KiB of guest memory are the clone's own");
    }
    drop(clones);
    until("all clones end", || children(server.pid()).is_ok_and(|left| left.is_empty()))
}

/// How many KiB of the template that a process maps it has written to.
fn own_guest_memory(pid: u32) -> Result<u64, Failed> {
    let mut text = String::new();
    fs::File::open(format!("/proc/{pid}/smaps"))?.read_to_string(&mut text)?;
    let mapping = text.split_once("memfd:isolab-template").ok_or("the template is not mapped")?.1;
    let line = mapping.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).ok_or("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
