//! Talking to containers: typed input, terminals, keys that leave, other processes.

use std::io::Write;
use std::process::Stdio;

use libtest_mimic::{Failed, Trial};

use super::lab::{CTR, Lab, has, same, succeed, until};
use super::needs;

type Test = fn() -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let all: [(&str, Test); 5] = [
        ("what_is_typed_reaches_a_container_that_asked_for_it", typed),
        ("who_attaches_hears_and_is_heard_and_sends_signals_on", attached),
        ("exec_runs_as_asked_and_ends_with_the_programs_status", exec),
        ("exec_lets_a_program_run_in_the_background", background),
        ("a_foreground_container_gets_the_signals_of_its_command", relayed),
    ];
    let needs = ["root", "overlay", "busybox", "cgroup"];
    let mut trials: Vec<Trial> = all.into_iter().map(|(name, test)| needs::trial(name, &needs, test)).collect();
    let with_terminal = [&needs[..], &["script"]].concat();
    trials.push(needs::trial("a_terminal_is_left_by_keys_and_found_again", &with_terminal, terminal));
    trials
}

fn typed() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.name("cat");
    for flags in [&["--rm"][..], &["--name", &name]] {
        let arguments = [&["run", "-i"], flags, &["bb", "cat"]].concat();
        let mut child = lab.command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child.stdin.take().ok_or("no input")?.write_all(b"one\ntwo\n")?;
        let output = child.wait_with_output()?;
        same(&succeed(&output)?.0, &"one\ntwo\n".to_owned())?;
    }
    // Without -i there is nothing to read.
    same(&lab.out(&["run", "--rm", "bb", "cat"])?, &String::new())
}

fn attached() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let script =
        "trap 'echo signal; exit 8' TERM; while read line; do echo got $line; done; while :; do sleep 0.05; done";
    let name = lab.detached("att", &["-i"], &["sh", "-c", script])?;
    let mut child = lab.command(&["attach", &name]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().ok_or("no input")?;
    input.write_all(b"a\nb\n")?;
    until("it heard", || Ok(lab.out(&["logs", &name])?.contains("got b")))?;
    drop(input);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM)?;
    let output = child.wait_with_output()?;
    same(&output.status.code(), &Some(8))?;
    same(&String::from_utf8_lossy(&output.stdout).into_owned(), &"got a\ngot b\nsignal\n".to_owned())
}

fn exec() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.detached("exec", &["-e", "of=run"], &[])?;
    let out = |arguments: &[&str]| lab.out(&[&["exec"], arguments].concat());
    same(&out(&[&name, "sh", "-c", "echo $of; pwd; id -u"])?, &"run\n/\n0\n".to_owned())?;
    let flags = ["-e", "of=exec", "-w", "/srv", "-u", "web"];
    let told =
        out(&[&flags[..], &[&name, "sh", "-c", "echo $of $HOME; pwd; id -u; grep CapEff /proc/self/status"]].concat())?;
    same(&told, &"exec /srv\n/srv\n33\nCapEff:\t0000000000000000\n".to_owned())?;
    let codes = [("true", 0), ("false", 1), ("missing", 127), ("/etc/passwd", 126)];
    for (program, expected) in codes {
        same(&(program, lab.run(&["exec", &name, program])?.status.code()), &(program, Some(expected)))?;
    }
    same(&lab.run(&["exec", &name, "sh", "-c", "kill -9 $$"])?.status.code(), &Some(137))?;
    same(&lab.run(&["exec", "-u", "nobody", &name, "true"])?.status.success(), &false)?;
    let mut child = lab.command(&["exec", "-i", &name, "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no input")?.write_all(b"typed")?;
    same(&succeed(&child.wait_with_output()?)?.0, &"typed".to_owned())?;
    lab.out(&["stop", "-t", "0", &name])?;
    let refused = lab.run(&["exec", &name, "true"])?;
    has(&String::from_utf8_lossy(&refused.stderr), "it is exited")
}

fn background() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.detached("bg", &[], &[])?;
    lab.out(&["exec", "-d", &name, "sh", "-c", "sleep 0.2; echo done > /done; sleep 50"])?;
    until("it was done", || Ok(lab.run(&["exec", &name, "cat", "/done"])?.status.success()))?;
    has(&lab.out(&["top", &name])?, "sleep 50")
}

fn relayed() -> Result<(), Failed> {
    let lab = Lab::new()?;
    for (at, flags) in [&["--rm"][..], &[]].into_iter().enumerate() {
        let name = lab.name(&format!("fg{at}"));
        let script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done";
        let arguments = [&["run", "--name", &name], flags, &["bb", "sh", "-c", script]].concat();
        let mut child = lab.command(&arguments).stdout(Stdio::piped()).spawn()?;
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().ok_or("no output")?, &mut ready)?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGINT)?;
        let output = child.wait_with_output()?;
        let told = (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned());
        same(&told, &(Some(5), "caught\n".to_owned()))?;
    }
    Ok(())
}

/// A terminal of the trial's own, made by script(1): a shell is started in it, left, attached to again and ended.
fn terminal() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let (name, root) = (lab.name("tty"), lab.root().display().to_string());
    let on_terminal = |arguments: &str, steps: &[(&str, &str)]| -> Result<String, Failed> {
        let line = format!("stty rows 31 cols 97; {CTR} --root {root} {arguments}");
        let file = lab.folder(&name).map_or_else(|_| lab.root().join(format!("{name}.typed")), |it| it.join("typed"));
        let mut command = std::process::Command::new("script");
        // A bridge is the host's, and would stay.
        command.env("ISOLAB_NETWORK", "none");
        command.args(["-q", "-e", "-f", "-c", &line]).arg(&file).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::null()).spawn()?;
        let mut input = child.stdin.take().ok_or("no input")?;
        let seen =
            || std::fs::read(&file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        for (wanted, typed) in steps {
            until(wanted, || Ok(seen().contains(wanted)))?;
            input.write_all(typed.as_bytes())?;
        }
        child.wait()?;
        let told = seen();
        std::fs::remove_file(&file)?;
        Ok(told)
    };
    let first = format!("run -it --name {name} bb sh");
    let steps = [("# ", "stty size; tty; echo A$((1+1))B\n"), ("A2B", "\x10\x11")];
    let told = on_terminal(&first, &steps)?;
    has(&told, "31 97")?;
    has(&told, "/dev/pts/0")?;
    same(&lab.status(&name)?, &"running".to_owned())?;
    let told = on_terminal(&format!("attach {name}"), &[("", "echo C$((2+2))D\n"), ("C4D", "exit 6\n")])?;
    has(&told, "C4D")?;
    until("it ended", || Ok(lab.status(&name)? == "exited"))?;
    same(&lab.inspect(&name, "/State/ExitCode")?, &serde_json::json!(6))
}
