//! `docker run --runtime isolab`, with a dockerd that knows the runtime by that name.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use super::needs::trial;
use super::scratch::{FILES, IMAGE, OCI, Scratch, end_daemon, has, output, printed, reading, same, text, wait_for};

const NEEDS: [&str; 5] = ["root", "cgroup", "busybox", "docker", "dockerd"];

/// `script` runs a command at a terminal.
const TERMINAL: [&str; 6] = ["root", "cgroup", "busybox", "docker", "dockerd", "script"];

/// The daemon that all trials share; the first of them starts it.
static DAEMON: Mutex<Option<Daemon>> = Mutex::new(None);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("docker_shows_output_and_status", &NEEDS, run),
        trial("docker_limits_are_in_force", &NEEDS, limits),
        trial("docker_takes_rights_away", &NEEDS, rights),
        trial("docker_pauses_updates_counts_and_kills", &NEEDS, lifecycle),
        trial("docker_executes_more_programs", &NEEDS, execute),
        trial("docker_gives_a_terminal_of_the_right_size", &TERMINAL, terminal),
        trial("docker_starts_again_what_failed", &NEEDS, restart),
        trial("docker_and_we_load_each_other_s_images", &NEEDS, exchange),
    ]
}

struct Daemon {
    child: Child,
    scratch: Scratch,
}

impl Daemon {
    fn start() -> Result<Self, Failed> {
        let scratch = Scratch::new()?;
        let log = File::create(scratch.path("log"))?;
        let mut command = Command::new("dockerd");
        command.args(["--bridge=none", "--iptables=false", "--default-ulimit", FILES, "--storage-driver=vfs"]);
        command.arg("--add-runtime").arg(format!("isolab={OCI}"));
        command.arg("--host").arg(format!("unix://{}", scratch.text("docker.sock")));
        command.arg("--cgroup-parent").arg(format!("/{}", scratch.cgroup()));
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(option).arg(scratch.path(name));
        }
        // A client's settings of the user who runs the test are no business of the daemon's.
        command.arg("--config-file").arg(scratch.path("daemon.json"));
        std::fs::write(scratch.path("daemon.json"), "{}")?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let daemon = Self { child, scratch };
        let up = wait_for("dockerd", || daemon.docker(&["version"]).output().is_ok_and(|it| it.status.success()));
        if up.is_err() {
            let log = std::fs::read_to_string(daemon.scratch.path("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            return Err(format!("dockerd does not come up: {tail:#?}").into());
        }
        let image = daemon.scratch.text("image.tar");
        printed(&mut daemon.docker(&["import", "--change", "ENV PATH=/bin", &image, IMAGE]))?;
        Ok(daemon)
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(format!("unix://{}", self.scratch.text("docker.sock"))).args(arguments);
        command.env("DOCKER_CONFIG", self.scratch.path("client")).env_remove("DOCKER_HOST").stdin(Stdio::null());
        command
    }

    /// `docker run` with this runtime and no network, which the daemon has none of.
    fn run(&self, options: &[&str], script: &str) -> Command {
        let mut command = self.docker(&["run", "--runtime", "isolab", "--network", "none"]);
        command.args(options).args([IMAGE, "sh", "-c", script]);
        command
    }

    /// One value of what docker knows about a container.
    fn inspect(&self, id: &str, field: &str) -> Result<String, Failed> {
        printed(&mut self.docker(&["inspect", "--format", &format!("{{{{{field}}}}}"), id]))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end_daemon(&mut self.child, Duration::from_secs(15));
        // Whatever it left behind ends with the scratch folder.
    }
}

/// Ends the daemon, if any trial has started it.
pub(crate) fn end() {
    drop(DAEMON.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
}

/// Has the daemon for itself: what one trial does is not in another's way.
fn with_daemon(test: impl FnOnce(&Daemon) -> Result<(), Failed>) -> Result<(), Failed> {
    let mut daemon = DAEMON.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if daemon.is_none() {
        *daemon = Some(Daemon::start()?);
    }
    let Some(daemon) = daemon.as_ref() else { return Err("no daemon".into()) };
    test(daemon)
}

fn run() -> Result<(), Failed> {
    with_daemon(|daemon| {
        let got = output(&mut daemon.run(&["--rm", "--env", "WORD=hello"], "echo $WORD; echo oops >&2; exit 7"))?;
        same((got.status.code(), text(&got.stdout), text(&got.stderr)), (Some(7), "hello\n".into(), "oops\n".into()))?;
        let got =
            output(&mut daemon.docker(&["run", "--rm", "--runtime=isolab", "--network=none", IMAGE, "none-such"]))?;
        same(got.status.code(), Some(127))?;
        has(&text(&got.stderr), "executable file not found in $PATH")?;
        let got = output(&mut daemon.docker(&["run", "--rm", "--runtime=isolab", "--network=none", IMAGE, "/etc"]))?;
        same(got.status.code(), Some(126))
    })
}

fn exchange() -> Result<(), Failed> {
    with_daemon(|daemon| {
        let ctr = |store: &str, arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-ctr"));
            printed(command.arg("--root").arg(daemon.scratch.path(store)).args(arguments))
        };
        let (theirs, ours) = (daemon.scratch.text("docker.tar"), daemon.scratch.text("isolab.tar"));
        printed(&mut daemon.docker(&["save", "--output", &theirs, IMAGE]))?;
        same(ctr("images", &["load", "--input", &theirs])?, format!("Loaded image: {IMAGE}"))?;
        let id = printed(&mut daemon.docker(&["images", "--quiet", "--no-trunc", IMAGE]))?;
        same(ctr("images", &["images", "--quiet", "--no-trunc"])?, id)?;
        printed(ctr_import(daemon).args(["--cmd", "echo hello"]))?;
        ctr("images", &["save", "--output", &ours, "imported:1"])?;
        printed(&mut daemon.docker(&["load", "--input", &ours]))?;
        let said = printed(&mut daemon.docker(&["run", "--rm", "--runtime=isolab", "--network=none", "imported:1"]))?;
        same(said.as_str(), "hello")
    })
}

/// The root file system of the trials as an image of ours.
fn ctr_import(daemon: &Daemon) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-ctr"));
    command.arg("--root").arg(daemon.scratch.path("images")).arg("import");
    command.arg(daemon.scratch.path("image.tar")).arg("imported:1");
    command
}

fn limits() -> Result<(), Failed> {
    with_daemon(|daemon| {
        let script = [
            reading("memory/memory.limit_in_bytes", "memory.max"),
            reading("pids/pids.max", "pids.max"),
            reading("cpu/cpu.cfs_quota_us", "cpu.max"),
        ];
        let options = ["--rm", "--memory", "64m", "--pids-limit", "20", "--cpus", "0.5"];
        let said = printed(&mut daemon.run(&options, &script.join("; ")))?;
        let lines: Vec<&str> = said.lines().collect();
        same(lines.get(..2), Some(&["67108864", "20"][..]))?;
        same(lines.get(2).and_then(|line| line.split(' ').next()), Some("50000"))
    })
}

fn rights() -> Result<(), Failed> {
    with_daemon(|daemon| {
        let script = "touch /x 2>/dev/null || echo read-only; id -u; grep CapEff /proc/self/status";
        let options = ["--rm", "--read-only", "--user", "1234", "--security-opt", "no-new-privileges"];
        same(printed(&mut daemon.run(&options, script))?.as_str(), "read-only\n1234\nCapEff:\t0000000000000000")?;
        let script = "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status";
        let said = printed(&mut daemon.run(&["--rm", "--cap-drop", "ALL", "--cap-add", "KILL"], script))?;
        same(said.as_str(), "CapBnd:\t0000000000000020\nNoNewPrivs:\t0\nSeccomp:\t2")
    })
}

fn lifecycle() -> Result<(), Failed> {
    with_daemon(|daemon| {
        let id = printed(&mut daemon.run(&["-d", "--memory", "64m", "--memory-swap", "64m"], "sleep 100"))?;
        same(daemon.inspect(&id, ".State.Status")?.as_str(), "running")?;
        has(&printed(&mut daemon.docker(&["top", &id]))?, "sleep 100")?;
        let format = "{{.MemUsage}} {{.PIDs}}";
        let counted = printed(&mut daemon.docker(&["stats", "--no-stream", "--format", format, &id]))?;
        has(&counted, "/ 64MiB")?;
        printed(&mut daemon.docker(&["pause", &id]))?;
        same(daemon.inspect(&id, ".State.Status")?.as_str(), "paused")?;
        printed(&mut daemon.docker(&["unpause", &id]))?;
        printed(&mut daemon.docker(&["update", "--memory", "48m", "--memory-swap", "48m", "--pids-limit", "9", &id]))?;
        let counted = printed(&mut daemon.docker(&["stats", "--no-stream", "--format", format, &id]))?;
        has(&counted, "/ 48MiB")?;
        printed(&mut daemon.docker(&["kill", &id]))?;
        same(printed(&mut daemon.docker(&["wait", &id]))?.as_str(), "137")?;
        printed(&mut daemon.docker(&["start", &id]))?;
        same(daemon.inspect(&id, ".State.Status")?.as_str(), "running")?;
        printed(&mut daemon.docker(&["rm", "--force", &id])).map(drop)
    })
}

fn restart() -> Result<(), Failed> {
    with_daemon(|daemon| {
        let id = printed(&mut daemon.run(&["-d", "--restart", "on-failure:2"], "echo begun; exit 3"))?;
        wait_for("the last try", || {
            let now = daemon.inspect(&id, ".RestartCount}} {{.State.Status}} {{.State.ExitCode");
            now.is_ok_and(|now| now == "2 exited 3")
        })?;
        same(printed(&mut daemon.docker(&["logs", &id]))?.as_str(), "begun\nbegun\nbegun")?;
        printed(&mut daemon.docker(&["rm", &id])).map(drop)
    })
}

fn execute() -> Result<(), Failed> {
    with_daemon(|daemon| {
        let id = printed(&mut daemon.run(&["-d", "--env", "WORD=hello", "--cap-drop", "ALL"], "sleep 100"))?;
        let script = "echo $WORD $MORE; id -u; pwd; grep -E 'CapBnd|Seccomp:' /proc/self/status; exit 5";
        let options = ["exec", "--user", "1234", "--workdir", "/tmp", "--env", "MORE=more", &id, "sh", "-c", script];
        let got = output(&mut daemon.docker(&options))?;
        let expected = "hello more\n1234\n/tmp\nCapBnd:\t0000000000000000\nSeccomp:\t2\n";
        same((text(&got.stderr).as_str(), text(&got.stdout).as_str()), ("", expected))?;
        same(got.status.code(), Some(5))?;
        let got = output(&mut daemon.docker(&["exec", &id, "none-such"]))?;
        same(got.status.code().is_some_and(|code| code == 126 || code == 127), true)?;
        has(&(text(&got.stderr) + &text(&got.stdout)), "executable file not found in $PATH")?;
        printed(&mut daemon.docker(&["exec", "--detach", &id, "touch", "/tmp/made"]))?;
        wait_for("the detached program", || {
            output(&mut daemon.docker(&["exec", &id, "cat", "/tmp/made"])).is_ok_and(|got| got.status.success())
        })?;
        printed(&mut daemon.docker(&["rm", "--force", &id])).map(drop)
    })
}

fn terminal() -> Result<(), Failed> {
    with_daemon(|daemon| {
        // The client tells the size once the container runs, so the program waits a moment for it.
        let program = "sleep 1; busybox stty size; busybox tty";
        let at_terminal = |command: &Command| {
            let words = [command.get_program()].into_iter().chain(command.get_args());
            let words: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
            let mut script = Command::new("script");
            script.args(["-qec", &format!("stty rows 33 cols 99; {}", words.join(" ")), "/dev/null"]);
            script.env("DOCKER_CONFIG", daemon.scratch.path("client")).stdin(Stdio::null());
            script
        };
        let said = printed(&mut at_terminal(&daemon.run(&["--rm", "-it"], program)))?;
        has(&said, "33 99")?;
        has(&said, "/dev/pts/0")?;
        let id = printed(&mut daemon.run(&["-d"], "sleep 100"))?;
        let said = printed(&mut at_terminal(&daemon.docker(&["exec", "-it", &id, "sh", "-c", program])))?;
        has(&said, "33 99")?;
        has(&said, "/dev/pts/0")?;
        printed(&mut daemon.docker(&["rm", "--force", &id])).map(drop)
    })
}
