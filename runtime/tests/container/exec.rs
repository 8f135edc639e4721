//! Another process in a container that runs: where it is, who it is, and what becomes of it.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Output;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::lab::{Lab, has, same, text, wait_for};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];
const RUNNING: &str = "touch /tmp/up; sleep 60";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("exec_is_in_every_namespace_and_cgroup_of_the_container", &NEEDS, joined),
        trial("exec_hands_its_status_through", &NEEDS, status),
        trial("exec_is_as_the_first_process_unless_asked_otherwise", &NEEDS, inherits),
        trial("exec_options_may_stand_on_either_side_of_the_name", &NEEDS, options),
        trial("exec_has_no_inheritable_capability", &NEEDS, capabilities),
        trial("exec_is_filtered_and_limited_as_the_container", &NEEDS, restricted),
        trial("exec_by_a_process_file_is_what_the_file_says", &NEEDS, process_file),
        trial("exec_takes_no_user_that_is_not_a_number", &NEEDS, bad_user),
        trial("exec_in_a_container_that_does_not_run_is_refused", &NEEDS, not_running),
        trial("exec_tells_each_of_its_steps", &NEEDS, explained),
        trial("exec_in_a_paused_container_is_refused", &["root", "busybox", "cgroup1"], paused),
        trial("exec_of_a_missing_program_says_so", &NEEDS, missing_program),
        trial("exec_detached_returns_at_once_and_writes_the_pid_file", &NEEDS, detached),
        trial("in_the_foreground_too_the_number_is_written_once_the_program_runs", &NEEDS, numbered),
        trial("exec_passes_signals_on_and_dies_with_the_command", &NEEDS, signals),
        trial("exec_gets_no_descriptor_but_those_asked_for", &NEEDS, descriptors),
        trial("exec_cannot_begin_outside_of_the_container", &NEEDS, working_directory),
        trial("exec_follows_the_configuration_of_the_creation", &NEEDS, kept_configuration),
        trial("exec_works_for_an_ordinary_user", &["root", "busybox", "userns"], rootless),
        trial("exec_works_in_a_user_namespace_with_a_terminal_and_groups", &NEEDS, user_namespace),
        trial("fifty_processes_that_join_at_once_all_end", &NEEDS, many),
        trial("run_detached_returns_and_leaves_the_container", &NEEDS, run_detached),
        trial("run_hands_over_descriptors_and_listening_sockets", &NEEDS, run_descriptors),
        trial("a_program_has_a_keyring_of_its_own_unless_asked_otherwise", &["root", "busybox", "keys"], keyring),
        trial("without_pivot_root_the_hosts_tree_is_out_of_sight_too", &NEEDS, no_pivot),
        trial("exec_runs_on_the_processors_it_is_given", &NEEDS, affinity),
        trial("exec_goes_into_a_group_inside_of_the_containers", &["root", "busybox", "cgroup"], inner_cgroup),
    ]
}

/// A container that runs; deleted with the lab.
fn running(lab: &Lab) -> Result<(), Failed> {
    let output = lab.oci(&["run", "--detach", &lab.id]);
    same((output.status.code(), text(&output.stderr)), (Some(0), String::new()))?;
    wait_for("the container to come up", || lab.root().join("tmp/up").exists())
}

fn exec(lab: &Lab, arguments: &[&str]) -> Output {
    lab.oci(&[["exec"].as_slice(), arguments].concat())
}

/// What `sh -c script` prints in the container.
fn said(lab: &Lab, script: &str) -> Result<String, Failed> {
    let output = exec(lab, &[&lab.id, "sh", "-c", script]);
    same((output.status.code(), text(&output.stderr)), (Some(0), String::new()))?;
    Ok(text(&output.stdout))
}

fn joined() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    let links = "cd /proc/$P/ns; for n in mnt pid net ipc uts cgroup user; do readlink $n; done";
    let [first, other] = ["1", "self"].map(|process| said(&lab, &links.replace("$P", process)));
    same(other?, first?)?;
    let [first, other] = ["1", "self"].map(|process| said(&lab, &format!("cat /proc/{process}/cgroup")));
    let other = other?;
    same(&other, &first?)?;
    // Seen from its cgroup namespace, every hierarchy's top is the container's own cgroup.
    same(other.lines().filter(|line| !line.ends_with(":/")).count(), 0)?;
    lab.oci(&["delete", "--force", &lab.id]);
    lab.is_clean()
}

fn status() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)] {
        same((script, exec(&lab, &[&lab.id, "sh", "-c", script]).status.code()), (script, Some(code)))?;
    }
    Ok(())
}

fn inherits() -> Result<(), Failed> {
    let mut lab = Lab::new(RUNNING);
    lab.set("/process/user", json!({ "uid": 0, "gid": 7, "additionalGids": [8], "umask": 0o027 }));
    lab.set("/process/cwd", json!("/etc")).set("/process/oomScoreAdj", json!(123));
    running(&lab)?;
    let output =
        said(&lab, "id -u; id -g; pwd; umask; cat /proc/self/oom_score_adj; echo $LAB; grep NoNew /proc/self/status")?;
    same(output, format!("0\n7\n/etc\n0027\n123\n{}\nNoNewPrivs:\t1\n", lab.id))
}

fn options() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    let script = "id -u; id -g; pwd; echo $A; grep ^Groups /proc/self/status";
    let asked = ["--user", "1000:1001", "--cwd", "/tmp", "-e", "A=1", "--additional-gids", "5"];
    let program = ["sh", "-c", script];
    let id = [lab.id.as_str()];
    for arguments in [[asked.as_slice(), &id, &program].concat(), [id.as_slice(), &asked, &program].concat()] {
        same(text(&exec(&lab, &arguments).stdout).as_str(), "1000\n1001\n/tmp\n1\nGroups:\t5 \n")?;
    }
    // What follows the program's name is the program's.
    same(text(&exec(&lab, &[&lab.id, "echo", "-e", "--user", "x"]).stdout).as_str(), "--user x\n")
}

fn capabilities() -> Result<(), Failed> {
    let mut lab = Lab::new(RUNNING);
    lab.set("/process/noNewPrivileges", json!(false));
    running(&lab)?;
    let sets = ["grep", "-E", "^Cap|NoNew", "/proc/self/status"];
    let plain = text(&exec(&lab, &[[lab.id.as_str()].as_slice(), &sets].concat()).stdout);
    for line in
        ["CapInh:\t0000000000000000", "CapPrm:\t0000000000000023", "CapAmb:\t0000000000000000", "NoNewPrivs:\t0"]
    {
        has(&plain, line)?;
    }
    let more = ["--cap", "CAP_NET_BIND_SERVICE", "-c", "fowner", "--no-new-privs", &lab.id];
    let more = text(&exec(&lab, &[more.as_slice(), &sets].concat()).stdout);
    for line in
        ["CapInh:\t0000000000000000", "CapPrm:\t000000000000042b", "CapBnd:\t000000000000042b", "NoNewPrivs:\t1"]
    {
        has(&more, line)?;
    }
    // An ordinary user's program has none of them.
    let user = text(&exec(&lab, &[["-u", "1000", &lab.id].as_slice(), &sets].concat()).stdout);
    for line in ["CapInh:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000"] {
        has(&user, line)?;
    }
    has(&text(&exec(&lab, &["--cap", "CAP_FLY", &lab.id, "true"]).stderr), "there is no capability \"CAP_FLY\"")
}

fn restricted() -> Result<(), Failed> {
    for no_new_privileges in [true, false] {
        let mut lab = Lab::new(RUNNING);
        lab.set("/process/noNewPrivileges", json!(no_new_privileges));
        lab.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 300, "hard": 400 }]));
        lab.set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }]
            }),
        );
        running(&lab)?;
        let output = exec(&lab, &[&lab.id, "sh", "-c", "mkdir /tmp/x; ulimit -n; grep Seccomp: /proc/self/status"]);
        has(&text(&output.stderr), "Operation not supported")?;
        same(text(&output.stdout).as_str(), "300\nSeccomp:\t2\n")?;
    }
    Ok(())
}

fn process_file() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    let process = json!({
        "user": { "uid": 5, "gid": 6 }, "args": ["sh", "-c", "id -u; id -g; pwd; env; grep CapBnd /proc/self/status; busybox ionice"],
        "env": ["PATH=/bin", "ONLY=this"], "cwd": "/tmp", "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 6 },
        "capabilities": { "bounding": ["CAP_KILL", "CAP_FLY"] }
    });
    fs::write(lab.path("process.json"), process.to_string())?;
    let output = exec(&lab, &["--process", "process.json", &lab.id]);
    let said = text(&output.stdout);
    for part in ["5\n6\n/tmp\n", "ONLY=this\n", "CapBnd:\t0000000000000020\n", "best-effort: prio 6\n"] {
        has(&said, part)?;
    }
    same(said.contains("LAB="), false)?;
    has(&text(&output.stderr), "warning: capability CAP_FLY is unknown")?;
    let output = exec(&lab, &["-p", "process.json", &lab.id, "true"]);
    has(&text(&output.stderr), "no program can be named beside it")?;
    for (field, value) in [("args", json!([])), ("cwd", json!("tmp"))] {
        let mut wrong = process.clone();
        wrong[field] = value;
        fs::write(lab.path("process.json"), wrong.to_string())?;
        let output = exec(&lab, &["-p", "process.json", &lab.id]);
        same(output.status.code(), Some(1))?;
        has(&text(&output.stderr), &format!("process.{field}"))?;
    }
    Ok(())
}

fn bad_user() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    for user in ["1000abc", "root", "1:", "-1"] {
        let output = exec(&lab, &[&format!("--user={user}"), &lab.id, "id"]);
        same((user, output.status.success(), text(&output.stdout).as_str()), (user, false, ""))?;
        has(&text(&output.stderr), "is no user")?;
    }
    Ok(())
}

fn not_running() -> Result<(), Failed> {
    let lab = Lab::new("true");
    lab.oci(&["create", &lab.id]);
    let refusal = text(&exec(&lab, &[&lab.id, "true"]).stderr);
    has(&refusal, "cannot execute in container")?;
    has(&refusal, "hint: let it run first")?;
    lab.oci(&["start", &lab.id]);
    let state = || serde_json::from_slice::<Value>(&lab.oci(&["state", &lab.id]).stdout);
    wait_for("its end", || state().is_ok_and(|now| now["status"] == "stopped"))?;
    let output = exec(&lab, &[&lab.id, "true"]);
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "it is stopped")?;
    has(&text(&exec(&lab, &["nobody", "true"]).stderr), "container nobody does not exist")
}

fn explained() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    let output = lab.oci(&["--explain", "exec", &lab.id, "echo", "said"]);
    same(text(&output.stdout).as_str(), "said\n")?;
    for step in ["exec.clone3", "cgroup.attach", "container.join", "[setns(pidfd)]", "process.exec", "[execve(2)]"] {
        has(&text(&output.stderr), step)?;
    }
    Ok(())
}

fn paused() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    let traces = lab.traces();
    let freezer = traces.iter().filter_map(|line| line.strip_prefix("cgroup ")).find(|path| path.contains("freezer"));
    let file = format!("{}/freezer.state", freezer.ok_or("no freezer cgroup")?);
    fs::write(&file, "FROZEN")?;
    let output = exec(&lab, &[&lab.id, "true"]);
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "it is paused")?;
    // Whoever may wait does so, and goes on with the others.
    let mut waiting = lab.command(&["exec", "--ignore-paused", &lab.id, "sh", "-c", "exit 9"]).spawn()?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    same(waiting.try_wait()?, None)?;
    fs::write(&file, "THAWED")?;
    same(waiting.wait()?.code(), Some(9))
}

fn missing_program() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    fs::write(lab.root().join("tmp/plain"), "not for execution")?;
    for (program, words) in [
        ("none-such", "executable file not found in $PATH"),
        ("/none/such", "no such file or directory"),
        ("/tmp/plain", "permission denied"),
    ] {
        for how in [["exec", "--pid-file=other"].as_slice(), &["exec", "-d", "--pid-file=other"]] {
            let output = lab.oci(&[how, &[&lab.id, program]].concat());
            same((program, output.status.code()), (program, Some(1)))?;
            has(&text(&output.stderr), words)?;
            same(lab.path("other").exists(), false)?;
        }
    }
    has(&text(&exec(&lab, &[&lab.id]).stderr), "no program is named")
}

fn detached() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    let output = exec(&lab, &["--detach", "--pid-file", "other", &lab.id, "sleep", "50"]);
    same((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""))?;
    let pid = fs::read_to_string(lab.path("other"))?;
    same(fs::read_to_string(format!("/proc/{pid}/cmdline"))?.as_str(), "sleep\x0050\0")?;
    lab.oci(&["delete", "--force", &lab.id]);
    lab.is_clean()
}

fn numbered() -> Result<(), Failed> {
    let lasting = Lab::new(RUNNING);
    running(&lasting)?;
    let short = Lab::new("sleep 0.3");
    for (lab, verb, program) in [(&short, "run", [].as_slice()), (&lasting, "exec", &["sleep", "0.3"])] {
        let mut child = lab.command(&[&[verb, "--pid-file", "number", &lab.id], program].concat()).spawn()?;
        wait_for("the file", || lab.path("number").exists())?;
        let number = fs::read_to_string(lab.path("number"))?;
        has(&fs::read_to_string(format!("/proc/{number}/cmdline"))?, "sleep")?;
        same(child.wait()?.code(), Some(0))?;
    }
    Ok(())
}

fn signals() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    let script = "trap 'exit 42' TERM; touch /tmp/other; while true; do sleep 0.05; done";
    for (signal, code) in [(Signal::SIGTERM, Some(42)), (Signal::SIGKILL, None)] {
        let mut child = lab.command(&["exec", &lab.id, "sh", "-c", script]).spawn()?;
        wait_for("the other process", || lab.root().join("tmp/other").exists())?;
        kill(Pid::from_raw(child.id() as i32), signal)?;
        same(child.wait()?.code(), code)?;
        wait_for("its end", || said(&lab, "ps").is_ok_and(|list| !list.contains("trap")))?;
        fs::remove_file(lab.root().join("tmp/other"))?;
    }
    Ok(())
}

fn descriptors() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    let leak = File::open("/etc")?;
    let number = leak.as_raw_fd();
    let list = |arguments: &[&str]| {
        let program = [lab.id.as_str(), "sh", "-c", "cd /proc/self/fd; echo *"];
        let mut command = lab.command(&[["exec"].as_slice(), arguments, &program].concat());
        // SAFETY: dup2(2) may be called between fork and exec. The copies are inheritable: a careless caller's.
        unsafe {
            command.pre_exec(move || {
                let copied = [(number, 9), (9, 3), (9, 4)].into_iter().all(|(from, to)| libc::dup2(from, to) == to);
                if copied { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        command.output()
    };
    // The shell opens one itself, to read the folder: the lowest that is free.
    same(text(&list(&[])?.stdout).as_str(), "0 1 2 3\n")?;
    same(text(&list(&["--preserve-fds", "2"])?.stdout).as_str(), "0 1 2 3 4 5\n")?;
    let output = list(&["--preserve-fds", "3"])?;
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "cannot hand over descriptor 5")
}

fn working_directory() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    for number in 3..20 {
        let output = exec(&lab, &["--cwd", &format!("/proc/self/fd/{number}"), &lab.id, "ls"]);
        same((number, output.status.code()), (number, Some(1)))?;
        same(text(&output.stdout).as_str(), "")?;
    }
    has(&text(&exec(&lab, &["--cwd", "/none", &lab.id, "ls"]).stderr), "cannot enter /none")
}

fn kept_configuration() -> Result<(), Failed> {
    let mut lab = Lab::new(RUNNING);
    running(&lab)?;
    lab.set("/process/cwd", json!("/tmp")).set("/process/env", json!(["PATH=/bin", "LATER=1"]));
    same(said(&lab, "pwd; echo $LATER")?.as_str(), "/\n\n")
}

fn rootless() -> Result<(), Failed> {
    const USER: u32 = 54_321;
    let lab = Lab::new(RUNNING);
    for path in [lab.bundle().to_owned(), lab.root(), lab.root().join("tmp"), lab.root().join("dev")] {
        std::os::unix::fs::chown(path, Some(USER), Some(USER))?;
    }
    let as_user = |arguments: &[&str]| lab.command(arguments).uid(USER).gid(USER).output();
    let mut first = lab.command(&["run", &lab.id]).uid(USER).gid(USER).stderr(std::process::Stdio::null()).spawn()?;
    wait_for("the container to come up", || lab.root().join("tmp/up").exists())?;
    let output = as_user(&["exec", &lab.id, "sh", "-c", "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user"])?;
    let said = text(&output.stdout);
    let words: Vec<&str> = said.split_whitespace().collect();
    same(text(&output.stderr).as_str(), "")?;
    same(words.get(..4), Some(["0", "0", "54321", "1"].as_slice()))?;
    let own = fs::read_link("/proc/self/ns/user")?.display().to_string();
    same(words.last().is_some_and(|inside| *inside != own), true)?;
    let output = as_user(&["exec", "--user", "5", &lab.id, "id"])?;
    has(&text(&output.stderr), "hint: the user or group has no number in the user namespace")?;
    same(as_user(&["kill", &lab.id, "KILL"])?.status.code(), Some(0))?;
    same(first.wait()?.code(), Some(137))?;
    lab.is_clean()
}

fn user_namespace() -> Result<(), Failed> {
    let mut lab = Lab::new("sleep 60");
    let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    lab.set("/linux/namespaces/-", json!({ "type": "user" }));
    lab.set("/linux/uidMappings", ids.clone()).set("/linux/gidMappings", ids);
    let output = lab.oci(&["run", "--detach", &lab.id]);
    same((output.status.code(), text(&output.stderr)), (Some(0), String::new()))?;
    same(said(&lab, "id -u; cat /proc/self/uid_map")?.split_whitespace().collect(), vec!["0", "0", "100000", "1000"])?;
    let script = "id -u; stat -c %u:%g /dev/pts/0; grep ^Groups /proc/self/status";
    let output = exec(&lab, &["--tty", "--user", "5:6", "-g", "7", &lab.id, "sh", "-c", script]);
    same(text(&output.stdout).as_str(), "5\r\n5:5\r\nGroups:\t7 \r\n")
}

fn many() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    for _ in 0..5 {
        let start = || lab.command(&["exec", &lab.id, "sh", "-c", "exit 4"]).spawn();
        let all = (0..10).map(|_| start()).collect::<Result<Vec<_>, _>>()?;
        for mut child in all {
            same(child.wait()?.code(), Some(4))?;
        }
    }
    same(said(&lab, "ps | grep -c [e]xit.4; true")?.as_str(), "0\n")?;
    lab.oci(&["delete", "--force", &lab.id]);
    lab.is_clean()
}

fn run_detached() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    let output = lab.oci(&["run", "-d", "--pid-file", "pid", &lab.id]);
    same((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""))?;
    let state: Value = serde_json::from_slice(&lab.oci(&["state", &lab.id]).stdout)?;
    same(
        (state["status"].as_str(), state["pid"].to_string()),
        (Some("running"), fs::read_to_string(lab.path("pid"))?),
    )?;
    lab.oci(&["delete", "--force", &lab.id]);
    lab.is_clean()?;
    // What cannot run leaves nothing, and a file that cannot be written takes the container with it.
    let mut lab = Lab::new(RUNNING);
    let output = lab.oci(&["run", "-d", "--pid-file", "none/pid", &lab.id]);
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "cannot write the process id to none/pid")?;
    lab.is_clean()?;
    lab.set("/process/args", json!(["none-such"]));
    same(lab.oci(&["run", "-d", &lab.id]).status.code(), Some(1))?;
    lab.is_clean()
}

fn run_descriptors() -> Result<(), Failed> {
    let lab = Lab::new("echo $LISTEN_FDS $LISTEN_PID; cd /proc/self/fd; echo *");
    let leak = File::open("/etc")?;
    let number = leak.as_raw_fd();
    let mut command = lab.command(&["run", "--preserve-fds=1", &lab.id]);
    // The shell's own number is the runtime's: exec keeps it.
    let script = format!("export LISTEN_FDS=1 LISTEN_PID=$$; exec {} \"$@\"", super::lab::OCI);
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    command = std::process::Command::new("/bin/sh");
    command.args(["-c", &script, "sh"]).args(arguments).current_dir(lab.bundle());
    // SAFETY: dup2(2) may be called between fork and exec.
    unsafe {
        command.pre_exec(move || {
            let copied = [(number, 9), (9, 3), (9, 4)].into_iter().all(|(from, to)| libc::dup2(from, to) == to);
            if copied { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let output = command.output()?;
    same((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("1 1\n0 1 2 3 4 5\n", ""))
}

/// A program that leads a session of keys with one in it would do for every caller, but not every host has keyctl(1): here
/// the test thread itself is the caller.
fn keyring() -> Result<(), Failed> {
    // SAFETY: a number and a null pointer, then strings with their lengths.
    let made = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>());
        let (kind, name) = (c"user".as_ptr(), c"isolab-trial".as_ptr());
        libc::syscall(libc::SYS_add_key, kind, name, c"secret".as_ptr(), 6_usize, libc::KEY_SPEC_SESSION_KEYRING)
    };
    same(made > 0, true)?;
    for (options, keys) in [([].as_slice(), 0), (&["--no-new-keyring"], 1)] {
        let mut lab = Lab::new("sleep 60");
        // Not root: its own keys are listed for a user, whether it holds them or not.
        lab.set("/linux/maskedPaths", json!([])).set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
        let output = lab.oci(&[&["run", "-d"], options, &[&lab.id]].concat());
        same((output.status.code(), text(&output.stderr)), (Some(0), String::new()))?;
        let other = said(&lab, "grep -c isolab-trial /proc/keys; true")?;
        same((options, other), (options, format!("{keys}\n")))?;
        lab.oci(&["delete", "--force", &lab.id]);
        let mut lab = Lab::new("grep -c isolab-trial /proc/keys; true");
        lab.set("/linux/maskedPaths", json!([])).set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
        same(text(&lab.oci(&[&["run"], options, &[&lab.id]].concat()).stdout), format!("{keys}\n"))?;
    }
    Ok(())
}

fn no_pivot() -> Result<(), Failed> {
    let mut lab = Lab::new("ls /; cat /proc/self/mountinfo; cd /..; pwd; ls -d /../tmp");
    lab.set("/root/readonly", json!(true));
    let output = lab.oci(&["run", "--no-pivot", &lab.id]);
    same(text(&output.stderr).as_str(), "")?;
    let said = text(&output.stdout);
    has(&said, "bin\ndev\netc\nproc\nsys\ntmp\n")?;
    has(&said, "\n/\n/../tmp\n")?;
    // Of the file systems beneath, only those that the container mounts have a place here.
    let points = said.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| *point == "/proc");
    same(points.count(), 1)?;
    ok_created(&lab)?;
    lab.is_clean()
}

fn ok_created(lab: &Lab) -> Result<(), Failed> {
    for arguments in [&["create", "--no-pivot", &lab.id][..], &["delete", "--force", &lab.id]] {
        same(text(&lab.oci(arguments).stderr).as_str(), "")?;
    }
    Ok(())
}

fn affinity() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    let own = fs::read_to_string("/proc/self/status")?;
    let allowed = own.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    let last = allowed.trim().rsplit(['-', ',']).next().unwrap_or_default();
    let process = json!({ "user": { "uid": 0, "gid": 0 }, "args": ["grep", "Cpus_allowed_list", "/proc/self/status"],
        "env": ["PATH=/bin"], "cwd": "/", "execCPUAffinity": { "initial": "0", "final": last } });
    fs::write(lab.path("process.json"), process.to_string())?;
    let output = exec(&lab, &["--process", "process.json", &lab.id]);
    same((text(&output.stderr), text(&output.stdout)), (String::new(), format!("Cpus_allowed_list:\t{last}\n")))?;
    let mut wrong = process;
    wrong["execCPUAffinity"]["final"] = json!("0-x");
    fs::write(lab.path("process.json"), wrong.to_string())?;
    same(exec(&lab, &["--process", "process.json", &lab.id]).status.code(), Some(1))
}

fn inner_cgroup() -> Result<(), Failed> {
    let lab = Lab::new(RUNNING);
    running(&lab)?;
    let pid = fs::read_to_string(lab.states().join("oci").join(&lab.id).join("state.json"))?;
    let pid = serde_json::from_str::<Value>(&pid)?["init"]["pid"].to_string();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let of = |marker: &str| groups.lines().find_map(|line| line.split_once(marker)).map(|(_, path)| path.to_owned());
    let (option, marker, folder) = match of(":pids:") {
        Some(path) => ("pids:/inner", ":pids:/inner", format!("/sys/fs/cgroup/pids{path}/inner")),
        None => ("inner", "0::/inner", format!("/sys/fs/cgroup{}/inner", of("0::").unwrap_or_default())),
    };
    let ask = |option: &str| exec(&lab, &["--cgroup", option, &lab.id, "cat", "/proc/self/cgroup"]);
    has(&text(&ask(option).stderr), "inner")?;
    fs::create_dir(&folder)?;
    has(&text(&ask(option).stdout), marker)?;
    for wrong in ["../..", "", ":x"] {
        has(&text(&ask(wrong).stderr), "is no cgroup inside of the container's")?;
    }
    lab.oci(&["delete", "--force", &lab.id]);
    lab.is_clean()
}
