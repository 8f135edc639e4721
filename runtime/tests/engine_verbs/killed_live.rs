//! Verbs of a container that runs, killed in the middle: it runs on, or is where the verb was to bring it; nothing that was
//! begun in it is left half made, nothing that it printed is lost, and saying the verb again does what it is for.

use std::fs;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::killed::{Moment, kill_at, nothing_left};
use super::lab::{Lab, NEEDS, has, same, until};
use super::needs::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("an_exec_killed_at_any_moment_leaves_no_process_behind", &NEEDS, exec),
        trial("listening_commands_killed_at_any_moment_take_nothing_from_a_container", &NEEDS, listeners),
        trial("a_stop_or_restart_killed_at_any_moment_can_be_said_again", &NEEDS, stops),
        trial("a_container_whose_stop_was_killed_is_not_taken_for_stopped", &NEEDS, not_stopped),
        trial("a_pause_killed_at_any_moment_can_be_said_again", &NEEDS, pauses),
    ]
}

/// Kills a verb at each of its steps, and after some times, and looks each time at what is left.
fn kill_each(
    lab: &Lab,
    words: &[&str],
    steps: &[&'static str],
    look: &dyn Fn() -> Result<(), Failed>,
) -> Result<(), Failed> {
    let times = [3, 15, 40].map(|time| Moment::After(Duration::from_millis(time)));
    for moment in steps.iter().map(|step| Moment::Step(step)).chain(times) {
        let told = |error: Failed| format!("{words:?} at {moment:?}: {}", error.message().unwrap_or_default());
        kill_at(lab, words, moment).map_err(told)?;
        nothing_left(lab).and_then(|()| look()).map_err(told)?;
    }
    Ok(())
}

fn state(lab: &Lab, name: &str) -> Result<String, Failed> {
    let all = lab.ctr(&["ps", "-a", "--filter", &format!("name={name}"), "--format", "{{.State}}"])?;
    Ok(all.trim().to_owned())
}

fn exec() -> Result<(), Failed> {
    let lab = Lab::new()?;
    // A process whose command was killed is a child of the container's first one, which has to reap it then.
    lab.sleeper("box", &["--init"])?;
    let others = || -> Result<usize, Failed> {
        let all = lab.ctr(&["top", "box"])?;
        Ok(all.lines().skip(1).filter(|line| !line.ends_with("sleep 1000")).count())
    };
    let steps = ["engine.find", "container.join", "container.await_exec", "process.exec"];
    // Its process is gone with the command, whose child it is.
    kill_each(&lab, &["exec", "box", "sleep", "500"], &steps, &|| {
        until("the process of exec is gone", || Ok(others()? == 0))?;
        same(&lab.ctr(&["exec", "box", "echo", "ok"])?, "ok\n")
    })?;
    // One that was to go on by itself does, or never was: what is there is the program, and not ours in its place.
    kill_each(&lab, &["exec", "-d", "box", "sleep", "500"], &steps[..3], &|| {
        until("what is there is the program", || {
            let all = lab.ctr(&["top", "box"])?;
            Ok(all.lines().skip(1).all(|line| line.ends_with("sleep 1000") || line.ends_with("sleep 500")))
        })?;
        until("it was ended", || {
            // It may have begun only now: it needs the command no more.
            let all = lab.ctr(&["top", "box"])?;
            for line in all.lines().filter(|line| line.ends_with("sleep 500")) {
                let pid = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
                // It may be gone meanwhile; what ended is reaped a little later.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            Ok(others()? == 0)
        })
    })?;
    same(&state(&lab, "box")?, "running")
}

fn listeners() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let stop = lab.path("stop");
    fs::create_dir(&stop)?;
    let shared = format!("{}:/stop", stop.display());
    // It counts, a line a moment, until it is told to end.
    let count = "i=0; while ! test -e /stop/now; do i=$((i+1)); echo $i; busybox usleep 5000; done; exit 7";
    lab.ctr(&["run", "-d", "-i", "--name", "box", "-v", &shared, "sample:1", "sh", "-c", count])?;
    let goes_on = || {
        let before = lab.ctr(&["logs", "--tail", "1", "box"])?;
        until("it counts on", || Ok(lab.ctr(&["logs", "--tail", "1", "box"])? != before))?;
        same(&state(&lab, "box")?, "running")
    };
    let verbs: [(&[&str], &[&'static str]); 5] = [
        (&["attach", "box"], &["engine.find"]),
        (&["logs", "-f", "box"], &["engine.find"]),
        (&["wait", "box"], &["engine.find", "engine.wait"]),
        (&["stats", "box"], &["engine.count"]),
        (&["events"], &[]),
    ];
    for (words, steps) in verbs {
        kill_each(&lab, words, steps, &goes_on)?;
    }
    fs::write(stop.join("now"), "")?;
    same(&lab.ctr(&["wait", "box"])?, "7\n")?;
    let printed = lab.ctr(&["logs", "box"])?;
    let whole = printed.lines().zip(1..).all(|(line, number)| line == number.to_string());
    if whole { Ok(()) } else { Err(format!("something is missing in {printed}").into()) }
}

fn stops() -> Result<(), Failed> {
    let lab = Lab::new()?;
    // It heeds what asks it to end, at once.
    let script = "trap 'exit 3' TERM; while true; do busybox usleep 5000; done";
    for keeper in [&[][..], &["--log-driver", "none"]] {
        let words = [&["run", "-d", "--name", "box"], keeper, &["sample:1", "sh", "-c", script]].concat();
        lab.ctr(&words)?;
        let stopped = || {
            lab.ctr(&["stop", "box"])?;
            same(&state(&lab, "box")?, "exited")?;
            lab.ctr(&["start", "box"])?;
            same(&state(&lab, "box")?, "running")
        };
        kill_each(&lab, &["stop", "box"], &["engine.lock", "engine.signal"], &stopped)?;
        kill_each(&lab, &["kill", "box"], &["engine.lock", "engine.signal"], &stopped)?;
        let restarted = || {
            lab.ctr(&["restart", "box"])?;
            same(&state(&lab, "box")?, "running")?;
            same(&lab.ctr(&["exec", "box", "echo", "ok"])?, "ok\n")
        };
        let steps = ["engine.lock", "engine.signal", "engine.start", "container.record", "engine.prepare"];
        kill_each(&lab, &["restart", "box"], &steps, &restarted)?;
        lab.ctr(&["rm", "-f", "box"])?;
    }
    Ok(())
}

fn not_stopped() -> Result<(), Failed> {
    let lab = Lab::new()?;
    // It ends when asked, and when somebody puts a file there.
    let script = "rm -f /now; trap 'exit 3' TERM; while ! test -e /now; do busybox usleep 5000; done; exit 4";
    lab.ctr(&["run", "-d", "--name", "box", "--restart", "always", "sample:1", "sh", "-c", script])?;
    let restarts = || lab.ctr(&["inspect", "--format", "{{.RestartCount}} {{.State.Status}}", "box"]);
    // Before the signal: it runs on, and is started again as before when it ends by itself.
    for (number, verb) in [(1, "stop"), (2, "kill")] {
        kill_at(&lab, &[verb, "box"], Moment::Step("engine.signal"))?;
        lab.ctr(&["exec", "box", "touch", "/now"])?;
        until("it runs again", || Ok(restarts()? == format!("{number} running\n")))?;
    }
    // After the signal: nobody could note that its end was wanted, so it runs again.
    kill_at(&lab, &["stop", "box"], Moment::Step("engine.stopped"))?;
    until("it runs again", || Ok(restarts()? == "3 running\n"))?;
    lab.ctr(&["stop", "box"])?;
    nothing_left(&lab)?;
    same(&restarts()?, "3 exited\n")
}

fn pauses() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.sleeper("box", &[])?;
    let goes_on = || {
        if state(&lab, "box")? == "paused" {
            lab.ctr(&["unpause", "box"])?;
        }
        same(&state(&lab, "box")?, "running")?;
        same(&lab.ctr(&["exec", "box", "echo", "ok"])?, "ok\n")
    };
    let steps = ["engine.pause", "engine.lock", "container.pause"];
    kill_each(&lab, &["pause", "box"], &steps, &|| {
        goes_on()?;
        lab.ctr(&["pause", "box"])?;
        goes_on()
    })?;
    lab.ctr(&["pause", "box"])?;
    kill_each(&lab, &["unpause", "box"], &["engine.unpause", "engine.lock", "container.resume"], &|| {
        goes_on()?;
        lab.ctr(&["pause", "box"]).map(drop)
    })?;
    // What is held still can be ended as well.
    lab.ctr(&["stop", "-t", "1", "box"])?;
    has(&lab.ctr(&["ps", "-a"])?, "Exited")
}
