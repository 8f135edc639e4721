//! The same bundle under another runtime: what the program sees must be the same.

use std::process::Command;

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::lab::{Lab, same, text};
use super::needs::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("a_program_sees_the_same_under_runc", &["root", "busybox", "cgroup", "runc"], same_as_runc)]
}

/// Everything a program could tell its runtime by, except times and numbers that differ at each start, and the signals it
/// is born ignoring: runc hands on what its own caller ignores (`no_signal_is_blocked_and_none_is_ignored` is ours).
const LOOK: &str = "
    id; pwd; umask; hostname; env | grep -v ^HOME=; cat /proc/self/uid_map;
    cd /dev; for f in *; do test $f = core || test $f = console || stat -c '%n %F %a %t:%T %u:%g' $f; done; cd /;
    grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|SigBlk)' /proc/self/status;
    grep -E 'open files|core' /proc/self/limits;
    cat /proc/self/mounts | grep -vE ' (/|/proc/keys|/proc/kcore|/proc/scsi|/sys/firmware) ' | cut -d' ' -f2-4 | sed 's/,inode64//; s/,size=[0-9]*k,nr_inodes=[0-9]*//' | sort;
    cat /proc/self/cgroup; ls -A /sys/firmware /proc/scsi; cat /proc/keys; ls /proc/self/fd; ip addr;
    echo x > /proc/sys/kernel/shmmax; touch /tmp/x && rm /tmp/x; mkdir /tmp/denied; exit 9";

fn same_as_runc() -> Result<(), Failed> {
    let mut lab = Lab::new(LOOK);
    for name in ["cut", "sed", "sort", "rm"] {
        std::os::unix::fs::symlink("busybox", lab.root().join("bin").join(name))?;
    }
    lab.set("/hostname", json!("twin"));
    lab.set("/process/user", json!({ "uid": 0, "gid": 0, "additionalGids": [10, 20] }));
    lab.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024 }]));
    lab.set("/mounts/-", json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] }));
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }] });
    lab.set("/linux/seccomp", filter);
    lab.set("/linux/resources", json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 64 } }));
    let ours = lab.run();
    let root = lab.path("runc");
    let theirs =
        Command::new("runc").arg("--root").arg(root).args(["run", &lab.id]).current_dir(lab.bundle()).output()?;
    same(text(&ours.stdout), text(&theirs.stdout))?;
    same(text(&ours.stderr), text(&theirs.stderr))?;
    same((ours.status.code(), theirs.status.code()), (Some(9), Some(9)))?;
    lab.is_clean()
}
