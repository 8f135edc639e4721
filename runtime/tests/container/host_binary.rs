//! The host's own command, which no container may change or look into (CVE-2019-5736, CVE-2016-9962).
//!
//! The attacker is this test program itself, as the container's first process: it looks at every other process, as fast as
//! it can, holds on to each executable that is not the container's, and in the end tries to write to what it holds.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use nix::sys::stat::Mode;
use serde_json::json;

use super::lab::{Lab, OCI, same, wait_for};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];
/// The name by which this program is the attacker.
pub(crate) const WATCHER: &str = "watcher";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_process_that_joins_cannot_be_looked_into", &NEEDS, hidden),
        trial("the_hosts_command_cannot_be_written_through_a_process_that_joins", &NEEDS, joining),
        trial("the_hosts_command_cannot_be_written_by_making_it_the_program", &NEEDS, own_interpreter),
        trial("an_ordinary_users_own_command_runs_from_a_sealed_copy", &["root", "busybox", "userns"], sealed),
        trial("a_first_process_that_is_the_hosts_command_gains_nothing", &NEEDS, entrypoint),
    ]
}

/// What the attacker does; it tells what it has seen when `/tmp/stop` is there.
pub(crate) fn watch() {
    let (mut seen, mut held) = (BTreeSet::new(), Vec::new());
    let own = std::process::id().to_string();
    File::create("/tmp/up").expect("a sign of life");
    while !Path::new("/tmp/stop").exists() {
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = process.file_name().to_string_lossy().into_owned();
            if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let Ok(executable) = fs::read_link(process.path().join("exe")) else { continue };
            if executable.ends_with("busybox") || executable.ends_with(WATCHER) {
                continue;
            }
            seen.insert(format!("exe {}", executable.display()));
            if let (true, Ok(file)) = (held.len() < 64, File::open(process.path().join("exe"))) {
                // It may have become the container's own program between the two looks.
                let link = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
                held.extend((link.ok() == Some(executable)).then_some(file));
            }
            for open in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
                seen.extend(fs::read_link(open.path()).map(|link| format!("fd {}", link.display())));
            }
        }
    }
    for file in held {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        seen.insert(match OpenOptions::new().write(true).open(path) {
            Ok(_) => "open for writing".to_owned(),
            Err(error) => format!("not writable: {error}"),
        });
    }
    for line in seen {
        println!("{line}");
    }
}

/// A lab whose container is the attacker, with a command of its own to attack: should that succeed, no other trial shall
/// have to run what is left.
struct Attack {
    lab: Lab,
    command: std::path::PathBuf,
    before: Vec<u8>,
}

impl Attack {
    fn new(capabilities: &[&str]) -> Result<Self, Failed> {
        let mut lab = Lab::new("");
        let command = lab.path("isolab-oci");
        fs::copy(OCI, &command)?;
        let own = std::env::current_exe()?;
        let place = format!("/bin/{WATCHER}");
        lab.set("/mounts/-", json!({ "destination": place, "type": "bind", "source": own, "options": ["bind", "ro"] }));
        lab.set("/process/args", json!([place]));
        for set in ["bounding", "effective", "permitted"] {
            lab.set(&format!("/process/capabilities/{set}"), json!(capabilities));
        }
        let before = fs::read(&command)?;
        Ok(Self { lab, command, before })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.lab.command(&[]); // writes the configuration
        let mut command = Command::new(&self.command);
        command
            .arg("--root")
            .arg(self.lab.states())
            .args(arguments)
            .current_dir(self.lab.bundle())
            .stdin(Stdio::null());
        command
    }

    /// Runs the attacker beside `victim`; returns what it has seen.
    fn run(&self, victim: impl Fn() -> Result<(), Failed>) -> Result<String, Failed> {
        // Detached: the file of a command that runs is busy for every writer, and would look well guarded.
        let told = self.lab.path("told");
        let mut attacker = self.command(&["run", "--detach", &self.lab.id]);
        same(attacker.stdout(File::create(&told)?).status()?.code(), Some(0))?;
        wait_for("the attacker", || self.lab.root().join("tmp/up").exists())?;
        victim()?;
        fs::write(self.lab.root().join("tmp/stop"), "")?;
        // By the other file: as above.
        wait_for("its end", || self.lab.oci(&["delete", &self.lab.id]).status.success())?;
        // Not a long assertion's text: the file is a program.
        same(fs::read(&self.command)? == self.before, true)?;
        self.lab.is_clean()?;
        Ok(fs::read_to_string(told)?)
    }

    fn exec(&self) -> Result<(), Failed> {
        same(self.command(&["exec", &self.lab.id, "true"]).status()?.code(), Some(0))
    }
}

fn hidden() -> Result<(), Failed> {
    let attack = Attack::new(&["CAP_KILL", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"])?;
    let seen = attack.run(|| (0..40).try_for_each(|_| attack.exec()))?;
    same(seen.as_str(), "")
}

fn joining() -> Result<(), Failed> {
    // With this capability over the host everything can be looked into; and still not be written.
    let attack = Attack::new(&["CAP_KILL", "CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE"])?;
    let seen = attack.run(|| (0..40).try_for_each(|_| attack.exec()))?;
    let told = |part: &str| seen.lines().filter(|line| line.starts_with(part)).collect::<Vec<_>>();
    same(told("exe "), vec!["exe /isolab-oci"])?;
    same(told("open "), Vec::<&str>::new())?;
    same(told("not writable"), vec!["not writable: Read-only file system (os error 30)"])
}

fn own_interpreter() -> Result<(), Failed> {
    let attack = Attack::new(&["CAP_KILL", "CAP_DAC_OVERRIDE"])?;
    let tmp = attack.lab.root().join("tmp");
    fs::write(tmp.join("entry"), "#!/proc/self/exe --root\n")?;
    make_executable(&tmp.join("entry"))?;
    // The command, started in there with arguments of the image's choice, waits for a configuration that never comes.
    fs::create_dir(tmp.join("bundle"))?;
    nix::unistd::mkfifo(&tmp.join("bundle/config.json"), Mode::S_IRWXU)?;
    let seen = attack.run(|| {
        let arguments = ["exec", &attack.lab.id, "/tmp/entry", "run", "--bundle", "/tmp/bundle", "x"];
        let mut victim = attack.command(&arguments).spawn()?;
        // Nobody can write to a pipe that nobody reads (fifo(7)): now it is in there, for as long as this stays open.
        let fifo = tmp.join("bundle/config.json");
        let open = || OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&fifo).ok();
        let mut pipe = None;
        wait_for("the victim", || {
            pipe = open();
            pipe.is_some()
        })?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        same(victim.try_wait()?, None)?;
        victim.kill()?;
        victim.wait()?;
        let processes = || attack.lab.traces().iter().filter(|line| line.starts_with("process ")).count();
        wait_for("the victim's end", || processes() == 1)
    })?;
    same(seen.contains("exe /isolab-oci\n"), true)?;
    same(seen.contains("open for writing"), false)?;
    same(seen.contains("not writable: Read-only file system"), true)
}

fn entrypoint() -> Result<(), Failed> {
    let mut attack = Attack::new(&["CAP_KILL"])?;
    fs::write(attack.lab.root().join("tmp/entry"), "#!/proc/self/exe\n")?;
    make_executable(&attack.lab.root().join("tmp/entry"))?;
    std::os::unix::fs::symlink("/proc/self/exe", attack.lab.root().join("tmp/link"))?;
    for program in ["/tmp/entry", "/tmp/link", "/proc/self/exe"] {
        attack.lab.set("/process/args", json!([program]));
        let output = attack.command(&["run", &attack.lab.id]).output()?;
        // It runs, in there, and has nothing to do.
        same((program, output.status.code()), (program, Some(2)))?;
        same(fs::read(&attack.command)? == attack.before, true)?;
        attack.lab.is_clean()?;
    }
    Ok(())
}

fn sealed() -> Result<(), Failed> {
    const USER: u32 = 54_321;
    for (owner, expected) in [(USER, "/memfd:isolab-oci (deleted)"), (0, "isolab-oci")] {
        let lab = Lab::new("touch /tmp/up; sleep 60");
        let own = lab.path("isolab-oci");
        fs::copy(OCI, &own)?;
        chown(&own, Some(owner), Some(owner))?;
        for path in [lab.bundle().to_owned(), lab.root(), lab.root().join("tmp"), lab.root().join("dev")] {
            chown(path, Some(USER), Some(USER))?;
        }
        lab.command(&[]); // writes the configuration
        let mut command = Command::new(&own);
        command.arg("--root").arg(lab.states()).args(["run", &lab.id]).current_dir(lab.bundle());
        command.stdin(Stdio::null()).stderr(Stdio::null()).uid(USER).gid(USER);
        let mut started = command.spawn();
        // Another trial's command, between its fork and its execve, still has the copy open for writing (ETXTBSY).
        wait_for("the copy to be nobody's", || {
            let busy = matches!(&started, Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy);
            if busy {
                started = command.spawn();
            }
            !busy
        })?;
        let mut child = started?;
        wait_for("the container to come up", || lab.root().join("tmp/up").exists())?;
        let executable = format!("/proc/{}/exe", child.id());
        same(
            fs::read_link(&executable)?.ends_with(expected) || fs::read_link(&executable)? == Path::new(expected),
            true,
        )?;
        // Where it is the user's, nobody can write to what runs; where it is not, the user cannot.
        let as_user =
            Command::new("sh").args(["-c", &format!("echo x >> {executable}")]).uid(USER).gid(USER).output()?;
        same(as_user.status.success(), false)?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGKILL)?;
        child.wait()?;
        wait_for("the last process", || !lab.traces().iter().any(|line| line.starts_with("process ")))?;
        same(fs::read(&own)? == fs::read(OCI)?, true)?;
    }
    Ok(())
}

fn make_executable(path: &Path) -> std::io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
}
