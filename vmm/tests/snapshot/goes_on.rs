//! What goes on from a snapshot, and what is new in each machine that does.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use isolab_vmm::api::{Answer, Doing, Request, ask};
use libtest_mimic::{Failed, Trial};

use crate::machines::{Live, isolab_vm, place, snapshot, teller};
use crate::needs::{Done, trial};

const NEEDS: &[&str] = &["kvm", "gcc"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_machine_goes_on_where_it_stood_and_so_does_each_restored", NEEDS, each_goes_on),
        trial("a_snapshot_of_a_restored_machine_is_whole", NEEDS, a_snapshot_of_a_restored_machine),
        trial("a_template_is_taken_when_the_program_is_ready", NEEDS, a_template),
        trial("a_paused_machine_says_nothing_until_it_is_resumed", NEEDS, a_paused_machine),
        trial("a_machine_that_is_stopped_ends_and_its_socket_is_gone", NEEDS, a_stopped_machine),
        trial("a_sleep_lasts_as_long_as_it_should_over_a_snapshot", NEEDS, a_sleep),
        trial("what_no_two_machines_may_share_is_new_in_each", NEEDS, what_is_new),
        trial("the_monotonic_clock_goes_on_and_the_day_is_right", NEEDS, the_clocks),
        trial("a_counting_guest_counts_on_from_the_middle", &["kvm"], a_counter),
        trial("memory_that_was_not_touched_takes_no_disk", NEEDS, untouched_memory),
        trial("a_restored_machine_has_all_its_memory", NEEDS, all_its_memory),
        trial("memory_lies_on_both_sides_of_the_devices", NEEDS, both_sides),
        trial(
            "what_the_first_machine_touched_is_there_before_the_next_one_runs",
            &["kvm", "gcc", "userfaultfd"],
            recorded,
        ),
        trial("a_program_that_outgrows_its_first_piece_of_memory_gets_more", NEEDS, outgrows),
    ]
}

fn each_goes_on() -> Done {
    let (mut first, socket) = Live::teller("each", &[])?;
    first.answers("count", "count 1 0.5")?;
    first.answers("count", "count 2 1.0")?;
    let at = place("each-snapshot");
    snapshot(&socket, &at)?; // it waits for input
    let before = fs::read(at.join("memory"))?;
    first.answers("count", "count 3 1.5")?;
    let mut lazy = Live::restored(&at, &["--lazy"])?;
    let mut eager = Live::restored(&at, &["--eager"])?;
    for turn in 3..6 {
        for machine in [&mut lazy, &mut eager] {
            machine.answers("count", &format!("count {turn} {:.1}", f64::from(turn) / 2.0))?;
            machine.answers("nonce", "nonce each")?;
        }
        lazy.answers("touch 8", "touched 8")?;
    }
    first.answers("count", "count 4 2.0")?;
    for mut machine in [first, lazy, eager] {
        machine.say("exit 9")?;
        assert_eq!(machine.ends()?, Some(9));
    }
    assert!(fs::read(at.join("memory"))? == before, "a machine wrote to its snapshot");
    Ok(())
}

fn a_snapshot_of_a_restored_machine() -> Done {
    let (mut first, socket) = Live::teller("again", &[])?;
    first.answers("touch 4", "touched 4")?;
    let one = place("again-1");
    let whole = snapshot(&socket, &one)?;
    for (turn, loading) in ["--lazy", "--eager"].into_iter().enumerate() {
        let socket = place(&format!("again-{turn}.sock"));
        let mut second = Live::restored(&one, &[loading, "--api", socket.to_str().ok_or("no text")?])?;
        second.answers("count", "count 1 0.5")?;
        let two = place(&format!("again-2-{turn}"));
        let bytes = snapshot(&socket, &two)?;
        assert!(bytes >= whole, "{loading}: {bytes} of {whole} bytes");
        let mut third = Live::restored(&two, &[])?;
        third.answers("nonce", "nonce again")?;
        third.answers("count", "count 2 1.0")?;
    }
    Ok(())
}

fn a_template() -> Done {
    let at = place("template");
    let mut command = isolab_vm(["run", "--snapshot-at", "ready", "--snapshot-to"]);
    command.arg(&at).arg("--app").arg(teller()).args(["--", "template"]);
    let mut machine = Live::start(command)?;
    machine.expect("ISOLAB-READY template")?;
    assert_eq!(machine.ends()?, Some(0));
    let mut restored = Live::restored(&at, &[])?;
    restored.answers("nonce", "nonce template")
}

fn state(socket: &std::path::Path, request: &Request) -> Result<Doing, Failed> {
    match ask(socket, request)? {
        Answer::Status(status) => Ok(status.state),
        Answer::Snapshot { .. } => Err("a snapshot was not asked for".into()),
    }
}

fn a_paused_machine() -> Done {
    let (mut machine, socket) = Live::teller("paused", &[])?;
    assert_eq!(state(&socket, &Request::Status)?, Doing::Running);
    for _ in 0..3 {
        assert_eq!(state(&socket, &Request::Pause)?, Doing::Paused);
        machine.say("nonce")?;
        assert_eq!(machine.hears(Duration::from_millis(150)), None, "it stands still");
        assert_eq!(state(&socket, &Request::Status)?, Doing::Paused);
        assert_eq!(state(&socket, &Request::Resume)?, Doing::Running);
        machine.expect("nonce paused")?;
    }
    // While it computes, and makes no system call.
    machine.say("spin 100000000000")?;
    assert_eq!(state(&socket, &Request::Pause)?, Doing::Paused);
    let at = place("paused-snapshot");
    snapshot(&socket, &at)?;
    assert_eq!(state(&socket, &Request::Status)?, Doing::Paused, "it stands as it did");
    // A machine that stands still ends all the same.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(machine.pid() as i32), nix::sys::signal::Signal::SIGTERM)?;
    assert_eq!(machine.ends()?, Some(143));
    Ok(())
}

fn a_stopped_machine() -> Done {
    let (mut machine, socket) = Live::teller("stopped", &[])?;
    let asks = |wish: &str| crate::machines::done(isolab_vm(["ask", socket.to_str().unwrap_or_default(), wish]));
    assert!(asks("status")?.starts_with("{\"state\":\"running\""));
    assert!(asks("pause")?.contains("paused") && asks("resume")?.contains("running"));
    let mode = fs::metadata(&socket)?.mode() & 0o777;
    assert_eq!(mode, 0o600, "nobody else may ask");
    assert_eq!(state(&socket, &Request::Stop)?, Doing::Stopped);
    assert_eq!(machine.ends()?, Some(143));
    assert!(!socket.exists());
    let error = ask(&socket, &Request::Status).unwrap_err().to_string();
    assert!(error.contains("cannot reach the machine"), "{error}");
    Ok(())
}

fn a_sleep() -> Done {
    let (mut machine, socket) = Live::teller("sleep", &[])?;
    machine.say("sleep 1500")?;
    std::thread::sleep(Duration::from_millis(500));
    let at = place("sleep-snapshot");
    snapshot(&socket, &at)?;
    let slept = |line: Option<String>| {
        let line = line.ok_or("it sleeps too long")?;
        line.strip_prefix("slept ").and_then(|ms| ms.parse::<u64>().ok()).ok_or(format!("{line:?} is no time"))
    };
    let first = slept(machine.hears(Duration::from_secs(30)))?;
    assert!((1500..3000).contains(&first), "{first} ms");
    // What goes on from the snapshot sleeps only for what was left, and does not know that a while has passed.
    let since = Instant::now();
    let mut restored = Live::restored(&at, &[])?;
    let second = slept(restored.hears(Duration::from_secs(30)))?;
    assert!((1500..3000).contains(&second), "{second} ms");
    assert!(since.elapsed() > Duration::from_millis(300), "it did not sleep");
    Ok(())
}

fn what_is_new() -> Done {
    let (first, socket) = Live::teller("new", &[])?;
    let at = place("new-snapshot");
    snapshot(&socket, &at)?;
    let mut seen = BTreeSet::new();
    let restored = [Live::restored(&at, &[])?, Live::restored(&at, &["--eager"])?, Live::restored(&at, &[])?];
    for mut machine in std::iter::once(first).chain(restored) {
        machine.answers("nonce", "nonce new")?;
        for what in ["random", "at-random", "generation"] {
            let answer = machine.asks(what)?;
            assert!(answer.starts_with(what) && answer.len() == what.len() + 33, "{answer}");
            assert!(!answer.ends_with(&"0".repeat(32)), "{answer}");
            assert!(seen.insert(answer.clone()), "{answer} is another machine's too");
        }
    }
    Ok(())
}

fn the_clocks() -> Done {
    let (mut first, socket) = Live::teller("clocks", &[])?;
    let clocks = |machine: &mut Live| -> Result<(i64, i64), Failed> {
        let answer = machine.asks("clocks")?;
        let numbers: Vec<i64> = answer.split(' ').skip(1).map(str::parse).collect::<Result<_, _>>()?;
        Ok((numbers[0], numbers[1]))
    };
    let (before, _) = clocks(&mut first)?;
    let at = place("clocks-snapshot");
    snapshot(&socket, &at)?;
    std::thread::sleep(Duration::from_secs(3));
    let mut restored = Live::restored(&at, &[])?;
    let (after, day) = clocks(&mut restored)?;
    let passed = Duration::from_nanos(u64::try_from(after - before)?);
    assert!(passed < Duration::from_millis(2500), "{passed:?} have passed for a machine that was not there");
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
    assert!((now - day).abs() < 2_000_000_000, "the day is wrong by {} ns", now - day);
    Ok(())
}

fn a_counter() -> Done {
    // How far it counts in a second or two depends on whether KVM interprets it.
    let counts = |far: u64, api: &[&str]| {
        let mut command = isolab_vm(["run", "--bare", "counter"]);
        command.args(api).args(["--", &far.to_string()]);
        command
    };
    let since = Instant::now();
    assert_eq!(crate::machines::done(counts(100_000, &[]))?, "100000\n");
    let far = (100_000.0 * 2.0 / since.elapsed().as_secs_f64()) as u64;
    let socket = place("counter.sock");
    let first = Live::start(counts(far, &["--api", socket.to_str().ok_or("no text")?]))?;
    let at = place("counter-snapshot");
    let since = Instant::now();
    while !socket.exists() && since.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(200));
    snapshot(&socket, &at)?;
    for mut machine in [first, Live::restored(&at, &["--lazy"])?, Live::restored(&at, &["--eager"])?] {
        machine.expect(&far.to_string())?;
        assert_eq!(machine.ends()?, Some(0));
    }
    Ok(())
}

fn untouched_memory() -> Done {
    let (_machine, socket) = Live::teller("sparse", &["--memory", "2048"])?;
    let at = place("sparse-snapshot");
    let bytes = snapshot(&socket, &at)?;
    let memory = fs::metadata(at.join("memory"))?;
    assert_eq!(memory.len(), 2048 << 20);
    assert!(memory.blocks() * 512 < 4 << 20 && bytes < 4 << 20, "{} bytes of disk", memory.blocks() * 512);
    Ok(())
}

/// More than fits below the devices, and a piece of it that lies above them.
fn both_sides() -> Done {
    let (mut machine, socket) = Live::teller("both-sides", &["--memory", "8192"])?;
    machine.answers("far 4000", "far 1 2")?;
    machine.answers("touch 8", "touched 8")?;
    let at = place("both-sides");
    assert!(snapshot(&socket, &at)? < 32 << 20);
    machine.answers("far 4000", "far 2 4")?;
    for loading in ["--lazy", "--eager"] {
        let mut restored = Live::restored(&at, &[loading])?;
        restored.answers("far 4000", "far 2 4")?;
        restored.answers("touch 8", "touched 8")?;
    }
    Ok(())
}

/// By userfaultfd: the first machine's pages are written down, the next one's are brought at once; and either is whole.
fn recorded() -> Done {
    let (mut machine, socket) = Live::teller("recorded", &[])?;
    machine.answers("touch 2", "touched 2")?;
    machine.answers("count", "count 1 0.5")?;
    let at = place("recorded");
    snapshot(&socket, &at)?;
    let record = at.join("working-set");
    let mut first = Live::restored(&at, &["--recorded"])?;
    assert!(!record.exists());
    first.answers("count", "count 2 1.0")?;
    first.answers("nonce", "nonce recorded")?;
    first.say("exit")?;
    first.ends()?;
    let text = fs::read_to_string(&record)?;
    let pages =
        |text: &str| -> Option<u64> { text.lines().map(|line| line.split_once(' ')?.1.parse::<u64>().ok()).sum() };
    let count = pages(&text).ok_or("no record")?;
    assert!((5..200).contains(&count), "{count} pages of the 512 and more that it had were needed");
    // The next brings those, and a snapshot of it has all the others too.
    let api = place("recorded-2.sock");
    let mut second = Live::restored(&at, &["--recorded", "--api", &api.display().to_string()])?;
    second.answers("count", "count 2 1.0")?;
    let again = place("recorded-again");
    snapshot(&api, &again)?;
    second.answers("count", "count 3 1.5")?;
    Live::restored(&again, &["--eager"])?.answers("count", "count 3 1.5")?;
    assert_eq!(fs::read_to_string(&record)?, text, "the first record stays");
    // A record that makes no sense costs time, and nothing else.
    fs::write(&record, "0 99999999999\n18446744073709551615 1\nnonsense\n7 2\n")?;
    Live::restored(&at, &["--recorded"])?.answers("count", "count 2 1.0")
}

/// More than 64 MiB: a piece of memory is added while the program runs, and more when it goes on.
fn outgrows() -> Done {
    let (mut machine, socket) = Live::teller("outgrows", &["--memory", "1024"])?;
    machine.answers("touch 80", "touched 80")?;
    let at = place("outgrows");
    snapshot(&socket, &at)?;
    let mut restored = Live::restored(&at, &[])?;
    restored.answers("count", "count 1 0.5")?;
    restored.answers("touch 300", "touched 300")?;
    restored.answers("nonce", "nonce outgrows")
}

fn all_its_memory() -> Done {
    let (mut machine, socket) = Live::teller("all", &["--memory", "64"])?;
    machine.answers("touch 40", "touched 40")?;
    let at = place("all-snapshot");
    let bytes = snapshot(&socket, &at)?;
    assert!(bytes >= 40 << 20, "{bytes} bytes");
    // The frames that are left, and no more.
    let mut restored = Live::restored(&at, &[])?;
    restored.answers("touch 10", "touched 10")?;
    restored.say("touch 40")?;
    assert_eq!(restored.ends()?, Some(4));
    Ok(())
}
