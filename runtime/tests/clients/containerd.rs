//! `ctr run --runc-binary isolab-oci`, with a containerd of the test's own.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use super::needs::trial;
use super::scratch::{OCI, Scratch, end_daemon, has, output, printed, same, text, wait_for};

const NEEDS: [&str; 5] = ["root", "cgroup", "busybox", "containerd", "ctr"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("containerd_runs_pauses_and_kills", &NEEDS, lifecycle)]
}

struct Daemon {
    child: Child,
    scratch: Scratch,
}

impl Daemon {
    fn start() -> Result<Self, Failed> {
        let scratch = Scratch::new()?;
        let settings = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{0}/sock\"\n[ttrpc]\naddress = \"{0}/ttrpc\"\n",
            scratch.text("").trim_end_matches('/')
        );
        fs::write(scratch.path("config.toml"), settings)?;
        let log = fs::File::create(scratch.path("log"))?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(scratch.path("config.toml"));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let daemon = Self { child, scratch };
        wait_for("containerd", || daemon.ctr(&["version"]).output().is_ok_and(|it| it.status.success()))?;
        Ok(daemon)
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.scratch.path("sock")).args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, options: &[&str], id: &str, script: &str) -> Command {
        let mut command = self.ctr(&["run", "--runc-binary", OCI, "--runc-root", &self.scratch.text("runc")]);
        command.args(options).arg("--cgroup").arg(format!("/{}/{id}", self.scratch.cgroup()));
        command.arg("--env").arg("PATH=/bin").arg("--rootfs").arg(self.scratch.path("rootfs"));
        command.args([id, "sh", "-c", script]);
        command
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end_daemon(&mut self.child, Duration::from_secs(5));
    }
}

fn lifecycle() -> Result<(), Failed> {
    let daemon = Daemon::start()?;
    let got = output(&mut daemon.run(&["--rm"], "once", "echo hello; exit 7"))?;
    same((got.status.code(), text(&got.stdout).as_str()), (Some(7), "hello\n"))?;
    printed(&mut daemon.run(&["--detach", "--memory-limit", "67108864"], "long", "sleep 100"))?;
    let tasks = || printed(&mut daemon.ctr(&["tasks", "list"]));
    has(&tasks()?, "RUNNING")?;
    let got =
        output(&mut daemon.ctr(&["tasks", "exec", "--exec-id", "more", "long", "sh", "-c", "echo more; exit 5"]))?;
    same((got.status.code(), text(&got.stdout).as_str()), (Some(5), "more\n"))?;
    printed(&mut daemon.ctr(&["tasks", "pause", "long"]))?;
    has(&tasks()?, "PAUSED")?;
    printed(&mut daemon.ctr(&["tasks", "resume", "long"]))?;
    has(&tasks()?, "RUNNING")?;
    let metrics = printed(&mut daemon.ctr(&["tasks", "metrics", "long"]))?;
    has(&metrics, "67108864")?;
    has(&printed(&mut daemon.ctr(&["tasks", "ps", "long"]))?, "PID")?;
    printed(&mut daemon.ctr(&["tasks", "kill", "--signal", "SIGKILL", "long"]))?;
    wait_for("its end", || tasks().is_ok_and(|tasks| tasks.contains("STOPPED")))?;
    printed(&mut daemon.ctr(&["tasks", "delete", "long"])).or_else(|error| {
        // The status of the task is that of the command: 137 after SIGKILL.
        has(&format!("{error:?}"), "137").map(|()| String::new())
    })?;
    printed(&mut daemon.ctr(&["containers", "delete", "long"])).map(drop)
}
