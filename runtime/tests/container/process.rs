//! The program: who it is, what it may do, what it is handed, and how its end is told.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::lab::{Lab, has, same, text};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_five_capability_sets_are_as_asked", &NEEDS, capabilities),
        trial("without_capabilities_in_the_bundle_there_are_none", &NEEDS, no_capabilities),
        trial("a_capability_nobody_has_is_warned_of", &NEEDS, unknown_capability),
        trial("no_new_privileges_is_set_if_asked_for", &NEEDS, no_new_privileges),
        trial("seccomp_denies_a_call_with_the_error_asked_for", &NEEDS, seccomp),
        trial("seccomp_holds_also_without_no_new_privileges", &NEEDS, seccomp_privileged),
        trial("user_groups_and_umask_are_as_asked", &NEEDS, user),
        trial("an_ordinary_user_has_only_the_ambient_capabilities", &NEEDS, ambient),
        trial("resource_limits_are_as_asked", &NEEDS, limits),
        trial("the_working_directory_is_made_and_entered", &NEEDS, working_directory),
        trial("the_environment_is_the_bundles_and_a_home", &NEEDS, environment),
        trial("the_home_is_that_of_the_containers_user", &NEEDS, home),
        trial("no_descriptor_of_the_caller_is_handed_in", &NEEDS, descriptors),
        trial("no_signal_is_blocked_and_none_is_ignored", &NEEDS, signal_state),
        trial("an_ordinary_user_can_open_its_pipes_by_name", &NEEDS, pipes),
        trial("the_exit_status_is_the_programs", &NEEDS, status),
        trial("a_death_by_signal_is_128_and_its_number", &NEEDS, death),
        trial("a_signal_to_the_runtime_reaches_the_program", &NEEDS, relayed),
        trial("the_oom_score_is_as_asked", &NEEDS, oom_score),
        trial("memory_and_process_limits_hold", &["root", "busybox", "cgroup"], cgroup_limits),
    ]
}

const SETS: &str = "grep ^Cap /proc/self/status";

fn capabilities() -> Result<(), Failed> {
    let mut lab = Lab::new(SETS);
    let both = ["CAP_CHOWN", "CAP_KILL"];
    lab.set(
        "/process/capabilities",
        json!({ "bounding": both, "permitted": both, "effective": ["CAP_CHOWN"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] }),
    );
    // The shell is root and execs grep: permitted and effective are then the bounding set's, as for any root.
    let output = lab.output()?;
    for line in [
        "CapInh:\t0000000000000020",
        "CapPrm:\t0000000000000021",
        "CapBnd:\t0000000000000021",
        "CapAmb:\t0000000000000020",
    ] {
        has(&output, line)?;
    }
    Ok(())
}

fn no_capabilities() -> Result<(), Failed> {
    let mut lab = Lab::new(SETS);
    lab.set("/process/capabilities", json!(null));
    let output = lab.output()?;
    same(output.lines().filter(|line| line.ends_with("\t0000000000000000")).count(), 5)
}

fn unknown_capability() -> Result<(), Failed> {
    let mut lab = Lab::new(SETS);
    lab.set("/process/capabilities", json!({ "bounding": ["CAP_KILL", "CAP_TIME_TRAVEL"] }));
    let output = lab.run();
    has(&text(&output.stderr), "warning: capability CAP_TIME_TRAVEL is unknown")?;
    has(&text(&output.stdout), "CapBnd:\t0000000000000020")
}

fn no_new_privileges() -> Result<(), Failed> {
    let mut lab = Lab::new("grep NoNewPrivs /proc/self/status");
    same(lab.output()?.as_str(), "NoNewPrivs:\t1\n")?;
    lab.set("/process/noNewPrivileges", json!(false));
    same(lab.output()?.as_str(), "NoNewPrivs:\t0\n")
}

fn filter() -> serde_json::Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }]
    })
}

fn seccomp() -> Result<(), Failed> {
    let mut lab = Lab::new("mkdir /tmp/x; touch /tmp/y; grep Seccomp: /proc/self/status");
    lab.set("/linux/seccomp", filter());
    let output = lab.run();
    has(&text(&output.stderr), "Operation not supported")?;
    same(text(&output.stdout).as_str(), "Seccomp:\t2\n")?;
    same((lab.root().join("tmp/x").exists(), lab.root().join("tmp/y").exists()), (false, true))
}

fn seccomp_privileged() -> Result<(), Failed> {
    let mut lab = Lab::new("mkdir /tmp/x; grep Seccomp: /proc/self/status");
    lab.set("/linux/seccomp", filter()).set("/process/noNewPrivileges", json!(false));
    let output = lab.run();
    has(&text(&output.stderr), "Operation not supported")?;
    same(text(&output.stdout).as_str(), "Seccomp:\t2\n")
}

fn user() -> Result<(), Failed> {
    let mut lab = Lab::new("id -u; id -g; grep ^Groups /proc/self/status; umask");
    lab.set("/process/user", json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o027 }));
    same(lab.output()?.as_str(), "1000\n1001\nGroups:\t5 6 \n0027\n")
}

fn ambient() -> Result<(), Failed> {
    let mut lab = Lab::new(SETS);
    let both = ["CAP_CHOWN", "CAP_KILL"];
    lab.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let sets = json!({ "bounding": both, "permitted": both, "effective": both, "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] });
    lab.set("/process/capabilities", sets);
    let output = lab.output()?;
    for line in ["CapPrm:\t0000000000000020", "CapEff:\t0000000000000020", "CapBnd:\t0000000000000021"] {
        has(&output, line)?;
    }
    Ok(())
}

fn limits() -> Result<(), Failed> {
    let mut lab = Lab::new("grep -E '^Max (open files|core)' /proc/self/limits");
    lab.set(
        "/process/rlimits",
        json!([{ "type": "RLIMIT_NOFILE", "soft": 300, "hard": 400 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]),
    );
    let output = lab.output()?;
    let words: Vec<&str> = output.split_whitespace().collect();
    for part in [["300", "400"], ["0", "0"]] {
        has(&words.join(" "), &part.join(" "))?;
    }
    Ok(())
}

fn working_directory() -> Result<(), Failed> {
    let mut lab = Lab::new("pwd");
    lab.set("/process/cwd", json!("/not/there/yet"));
    same(lab.output()?.as_str(), "/not/there/yet\n")
}

fn environment() -> Result<(), Failed> {
    let mut lab = Lab::new("");
    let variables = ["PATH=/bin", "A=1", "EMPTY=", "A=2", &format!("LAB={}", lab.id)].map(str::to_owned);
    lab.set("/process/env", json!(variables)).set("/process/args", json!(["cat", "/proc/self/environ"]));
    let output = lab.command(&["run", &lab.id]).env("OUTSIDE", "1").output()?;
    same(text(&output.stdout), variables.map(|variable| variable + "\0").concat() + "HOME=/\0")
}

fn home() -> Result<(), Failed> {
    let mut lab = Lab::new("echo $HOME");
    std::fs::create_dir_all(lab.root().join("etc"))?;
    std::fs::write(lab.root().join("etc/passwd"), "root:x:0:0::/root:\nweb:x:33:33::/srv:\n")?;
    same(lab.output()?.as_str(), "/root\n")?;
    lab.set("/process/user", json!({ "uid": 33, "gid": 33 }));
    same(lab.output()?.as_str(), "/srv\n")?;
    lab.set("/process/env", json!(["PATH=/bin", "HOME=/own"]));
    same(lab.output()?.as_str(), "/own\n")?;
    // A list that would never end, or that leads out of the container, is no list.
    lab.set("/process/env", json!(["PATH=/bin"]));
    std::fs::remove_file(lab.root().join("etc/passwd"))?;
    nix::unistd::mkfifo(&lab.root().join("etc/passwd"), nix::sys::stat::Mode::S_IRUSR)?;
    same(lab.output()?.as_str(), "/\n")
}

fn descriptors() -> Result<(), Failed> {
    let lab = Lab::new("cd /proc/self/fd; echo *");
    let leak = File::open("/etc")?;
    let mut command = lab.command(&["run", &lab.id]);
    let number = leak.as_raw_fd();
    // SAFETY: dup2(2) may be called between fork and exec. The copy at 9 is inheritable: a careless caller's.
    unsafe {
        command.pre_exec(move || if libc::dup2(number, 9) < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) });
    }
    // The shell has opened 3 itself, to read the folder.
    same(text(&command.output()?.stdout).as_str(), "0 1 2 3\n")
}

fn signal_state() -> Result<(), Failed> {
    let mut lab = Lab::new("");
    lab.set("/process/args", json!(["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]));
    let mut command = lab.command(&["run", &lab.id]);
    // The kernel's `struct sigaction`: handler, flags, restorer, mask.
    let ignored = [libc::SIG_IGN, 0, 0, 0];
    // SAFETY: system calls may be made between fork and exec. A caller that ignores one, as shells do for what they start
    // in the background; and one that ignores 32, which the C library keeps for itself and so never resets.
    unsafe {
        command.pre_exec(move || {
            for signal in [libc::SIGQUIT, 32, 64] {
                libc::syscall(libc::SYS_rt_sigaction, signal, ignored.as_ptr(), 0_usize, 8_usize);
            }
            Ok(())
        });
    }
    let output = text(&command.output()?.stdout);
    let mask = |name: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        u64::from_str_radix(line.trim(), 16)
    };
    same((mask("SigBlk:")?, mask("SigIgn:")?), (0, 0))
}

fn pipes() -> Result<(), Failed> {
    let mut lab = Lab::new("echo out > /dev/stdout; echo err > /dev/stderr");
    lab.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let output = lab.command(&["run", &lab.id]).output()?;
    same((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("out\n", "err\n"))
}

fn status() -> Result<(), Failed> {
    for code in [0, 1, 7, 255] {
        same(Lab::new(&format!("exit {code}")).run().status.code(), Some(code))?;
    }
    Ok(())
}

fn death() -> Result<(), Failed> {
    // The first process of a PID namespace has no default deaths by its own hand, so it shares the host's here.
    let mut lab = Lab::new("kill -TERM $$; sleep 60");
    lab.set("/linux/namespaces", json!([{ "type": "mount" }]));
    same(lab.run().status.code(), Some(128 + 15))?;
    lab.is_clean()
}

fn relayed() -> Result<(), Failed> {
    for (signal, code) in [(Signal::SIGTERM, 42), (Signal::SIGINT, 43), (Signal::SIGUSR1, 44)] {
        let lab = Lab::new(
            "trap 'exit 42' TERM; trap 'exit 43' INT; trap 'exit 44' USR1; touch /tmp/up; while true; do sleep 0.05; done",
        );
        let mut child = lab.spawn()?;
        kill(Pid::from_raw(child.id() as i32), signal)?;
        same(child.wait()?.code(), Some(code))?;
        lab.is_clean()?;
    }
    Ok(())
}

fn oom_score() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /proc/self/oom_score_adj");
    lab.set("/process/oomScoreAdj", json!(321));
    same(lab.output()?.as_str(), "321\n")
}

fn cgroup_limits() -> Result<(), Failed> {
    let mut lab = Lab::new("for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait");
    lab.set("/linux/resources", json!({ "pids": { "limit": 5 } }));
    has(&text(&lab.run().stderr), "can't fork")?;
    let mut lab = Lab::new("head -c 100000000 /dev/zero > /dev/shm/much; echo survived");
    lab.set("/linux/resources", json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } }));
    let output = lab.run();
    if text(&output.stdout).contains("survived") && lab.root().exists() && output.status.success() {
        // The shell outlived its child: the file must then be cut short by the limit.
        has(&text(&output.stderr), "Killed")?;
    }
    lab.is_clean()
}
