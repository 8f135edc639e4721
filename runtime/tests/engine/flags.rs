//! Each flag of `run`, seen from inside the container.

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::lab::{Lab, has, same};
use super::needs;

type Test = fn() -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let all: [(&str, Test); 6] = [
        ("flags_are_seen_from_inside", seen),
        ("rights_are_given_and_taken", rights),
        ("limits_hold", limits),
        ("namespaces_are_shared_where_that_is_asked", sharing),
        ("a_small_first_process_reaps_orphans", orphans),
        ("what_makes_no_sense_is_refused_with_dockers_status", refused),
    ];
    let needs = ["root", "overlay", "busybox", "cgroup"];
    all.into_iter().map(|(name, test)| needs::trial(name, &needs, test)).collect()
}

/// Flags, a line for the shell, what it has to print.
type Row<'a> = (&'a [&'a str], &'a str, &'a str);

fn check(lab: &Lab, table: &[Row<'_>]) -> Result<(), Failed> {
    for (flags, line, expected) in table {
        let output = lab.run(&[&["run", "--rm"], *flags, &["bb", "sh", "-c", line]].concat())?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        same(&(flags, told.trim_end()), &(flags, *expected))?;
    }
    Ok(())
}

fn seen() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let folder = tempfile::tempdir()?;
    let (file, cid) = (folder.path().join("env"), folder.path().join("cid"));
    let labels = folder.path().join("labels");
    std::fs::write(&labels, "# told\na=file\nb=file\n")?;
    let labels = labels.display().to_string();
    std::fs::write(&file, "# told\nfrom=file\n")?;
    let (file, cid) = (file.display().to_string(), cid.display().to_string());
    let table: [Row<'_>; 18] = [
        (&["-e", "a=1", "--env-file", &file], "echo $a $from $of", "1 file image"),
        (&["-w", "/srv"], "pwd", "/srv"),
        (&[], "grep ' / / ' /proc/self/mountinfo | grep -c volatile", "1"),
        (&["-u", "web"], "id -u; echo $HOME", "33\n/srv"),
        (&["-h", "me"], "hostname; cat /etc/hostname", "me\nme"),
        (&["--read-only"], "touch /x 2>/dev/null || echo no", "no"),
        (
            &["--read-only", "--tmpfs", "/tmp:size=1m,mode=700"],
            "touch /tmp/x && stat -c %a /tmp && df -k /tmp | tail -1 | awk '{print $2}'",
            "700\n1024",
        ),
        (&["--shm-size", "2m"], "df -k /dev/shm | tail -1 | awk '{print $2}'", "2048"),
        (&["--ulimit", "nofile=100:200"], "ulimit -n; ulimit -Hn", "100\n200"),
        (&["--sysctl", "kernel.msgmax=4000"], "cat /proc/sys/kernel/msgmax", "4000"),
        (
            &["--device", "/dev/null:/dev/nothing:rw"],
            "echo x > /dev/nothing && test -c /dev/nothing && echo yes",
            "yes",
        ),
        (&["--entrypoint", "", "--cidfile", &cid], "echo plain", "plain"),
        (&["--oom-score-adj", "300"], "cat /proc/self/oom_score_adj", "300"),
        (&["--label", "x=y"], "true", ""),
        (&["--group-add", "web", "--group-add", "1234"], "id -G", "0 33 1234"),
        (&["--domainname", "example"], "cat /proc/sys/kernel/domainname", "example"),
        (&["--cgroupns", "host"], "grep -q isolab /proc/self/cgroup && echo seen", "seen"),
        (&["--device-cgroup-rule", "c 10:229 rwm"], "mknod /fuse c 10 229 && (: <> /fuse) && echo open", "open"),
    ];
    check(&lab, &table)?;
    same(&std::fs::read_to_string(&cid)?.len(), &64)?;
    let name = lab.name("noted");
    let flags = ["--label-file", &labels, "--label", "a=line", "--annotation", "org.example.note=x"];
    lab.out(&[&["create", "--name", &name], &flags[..], &["bb"]].concat())?;
    let noted = lab.inspect(&name, "/Config/Labels")?;
    same(&(&noted["a"], &noted["b"]), &(&json!("line"), &json!("file")))?;
    let bundle = std::fs::read_to_string(lab.folder(&name)?.join("config.json"))?;
    has(&bundle, "\"org.example.note\":\"x\"")?;
    // What is kept is written to the disk, too.
    same(&bundle.contains("volatile"), &false)?;
    // Of both streams, only the one that is asked for.
    let line = ["bb", "sh", "-c", "echo out; echo err >&2"];
    let heard = lab.run(&[&["run", "--rm", "-a", "stderr"], &line[..]].concat())?;
    same(
        &(String::from_utf8_lossy(&heard.stdout).as_ref(), String::from_utf8_lossy(&heard.stderr).as_ref()),
        &("", "err\n"),
    )?;
    let again = lab.run(&["run", "--rm", "--cidfile", &cid, "bb", "true"])?;
    same(&again.status.success(), &false)
}

fn rights() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let folder = tempfile::tempdir()?;
    let profile = folder.path().join("profile.json");
    let rules = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{ "architecture": "SCMP_ARCH_X86_64", "subArchitectures": [] }],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }],
    });
    std::fs::write(&profile, rules.to_string())?;
    let option = format!("seccomp={}", profile.display());
    let bits = "grep CapBnd /proc/self/status | awk '{print $2}'";
    let table: [Row<'_>; 8] = [
        (&[], bits, "00000000a80425fb"),
        (&["--cap-drop", "ALL", "--cap-add", "chown"], bits, "0000000000000001"),
        (&["--cap-add", "NET_ADMIN", "--cap-drop", "kill"], bits, "00000000a80435db"),
        (&[], "grep Seccomp: /proc/self/status | awk '{print $2}'", "2"),
        (&["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status | awk '{print $2}'", "0"),
        (&["--security-opt", &option], "mkdir /x 2>/dev/null || echo no", "no"),
        (&["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status | awk '{print $2}'", "1"),
        (
            &["--privileged"],
            "grep Seccomp: /proc/self/status | awk '{print $2}'; test -w /proc/sys/kernel && echo all",
            "0\nall",
        ),
    ];
    check(&lab, &table)
}

fn limits() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.name("hog");
    let hog = lab.run(&[
        "run",
        "--name",
        &name,
        "-m",
        "16m",
        "--memory-swap",
        "16m",
        "bb",
        "sh",
        "-c",
        "x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo $?",
    ])?;
    same(&(hog.status.success(), lab.inspect(&name, "/State/OOMKilled")?), &(false, json!(true)))?;
    let forks = "i=0; while [ $i -lt 30 ]; do sleep 1 & i=$((i+1)); done; wait";
    let bombed = lab.run(&["run", "--rm", "--pids-limit", "8", "bb", "sh", "-c", forks])?;
    has(&String::from_utf8_lossy(&bombed.stderr), "can't fork")?;
    let table: [Row<'_>; 3] = [
        (&["--cpuset-cpus", "0"], "grep Cpus_allowed_list /proc/self/status | awk '{print $2}'", "0"),
        (
            &["--cpus", "0.5"],
            "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || awk '{print $1}' /sys/fs/cgroup/cpu.max",
            "50000",
        ),
        (
            &["--cpu-quota", "20000", "--cpu-period", "80000"],
            "cat /sys/fs/cgroup/cpu.max 2>/dev/null \
             || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us | xargs",
            "20000 80000",
        ),
    ];
    check(&lab, &table)?;
    // Below what the kernel takes.
    same(&lab.run(&["run", "--rm", "--cpus", "0.001", "bb", "true"])?.status.code(), &Some(125))
}

fn sharing() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.detached("first", &["-h", "first"], &["sleep", "654"])?;
    let of = |flag: &str| format!("{flag}=container:{name}");
    has(&lab.out(&["run", "--rm", &of("--pid"), "bb", "ps"])?, "sleep 654")?;
    same(&lab.out(&["run", "--rm", &of("--uts"), "bb", "hostname"])?, &"first\n".to_owned())?;
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).map(|it| it.display().to_string());
    for kind in ["pid", "ipc", "uts"] {
        let link = format!("/proc/self/ns/{kind}");
        let told = lab.out(&["run", "--rm", &format!("--{kind}=host"), "bb", "readlink", &link])?;
        same(&told.trim_end(), &own(kind)?.as_str())?;
    }
    let theirs = std::fs::read_link(format!("/proc/{}/ns/ipc", lab.pid(&name)?))?.display().to_string();
    let told = lab.out(&["run", "--rm", &of("--ipc"), "bb", "readlink", "/proc/self/ns/ipc"])?;
    same(&told.trim_end(), &theirs.as_str())?;
    lab.out(&["stop", "-t", "0", &name])?;
    let refused = lab.run(&["run", "--rm", &of("--pid"), "bb", "true"])?;
    has(&String::from_utf8_lossy(&refused.stderr), "it is exited")
}

fn orphans() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let script = "sh -c 'sleep 0.1 & exit 0'; sleep 0.5; ps -o stat,args | grep -c '^Z'";
    let told = lab.run(&["run", "--rm", "--init", "bb", "sh", "-c", script])?;
    same(&String::from_utf8_lossy(&told.stdout).trim().to_owned(), &"0".to_owned())?;
    // The program is not the first process, so a signal without a handler ends it.
    let name = lab.detached("init", &["--init"], &["sleep", "100"])?;
    lab.out(&["stop", &name])?;
    same(&lab.inspect(&name, "/State/ExitCode")?, &json!(143))
}

fn refused() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let table: [(&[&str], &str); 15] = [
        (&["--restart", "sometimes"], "sometimes"),
        (&["-m", "much"], "much"),
        (&["-m", "1k"], "at least 512k"),
        (&["--cap-add", "FLY"], "FLY"),
        (&["--name", "a/b"], "a/b"),
        (&["--device", "/dev/none-such"], "/dev/none-such"),
        (&["--rm", "--restart", "always"], "not started again"),
        (&["--security-opt", "apparmor=x"], "apparmor"),
        (&["--gpus", "all"], "--device hands"),
        (&["--userns", "keep-id"], "isolab-oci maps users"),
        (&["--log-opt", "max-file=3"], "max-size"),
        (&["--log-opt", "tag=x"], "max-size"),
        (&["--cpus", "1", "--cpu-quota", "1000"], "one of the two"),
        (&["--device-read-bps", "/dev/null:1m"], "a disk"),
        (&["--cgroupns", "container:x"], "host or private"),
    ];
    for (flags, told) in table {
        let output = lab.run(&[&["run"], flags, &["bb", "true"]].concat())?;
        same(&(flags, output.status.code()), &(flags, Some(125)))?;
        has(&String::from_utf8_lossy(&output.stderr), told)?;
    }
    // What only the runtime refuses leaves no container behind either, in the foreground or not.
    for kind in [&["--rm"][..], &["-d", "--rm"]] {
        for (flags, told) in [(["-w", "srv"], "absolute"), (["--sysctl", "vm.swappiness=1"], "the whole host")] {
            let name = lab.name("refused");
            let output = lab.run(&[&["run", "--name", &name], kind, &flags[..], &["bb", "true"]].concat())?;
            same(&(flags, output.status.code()), &(flags, Some(125)))?;
            has(&String::from_utf8_lossy(&output.stderr), told)?;
            same(&lab.out(&["ps", "-aq", "--filter", &format!("name={name}")])?, &String::new())?;
        }
    }
    Ok(())
}
