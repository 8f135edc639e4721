//! The testbed, from outside: what a user who types the command gets.
//!
//! A boot takes seconds, so what one machine can show at once is shown by one machine.

mod needs;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use isolab_reports::model::Host;
use libtest_mimic::{Arguments, Failed};
use tempfile::TempDir;

use needs::{Done, ensure, trial};

const BENCH: &str = env!("CARGO_BIN_EXE_isolab-bench");

fn main() {
    let arguments = Arguments::from_args();
    let trials = vec![
        trial("the_exit_status_is_handed_back", &["testbed"], the_exit_status_is_handed_back),
        trial("both_outputs_arrive_apart_and_whole", &["testbed"], both_outputs_arrive_apart_and_whole),
        trial("files_in_out_come_back_as_they_were", &["testbed"], files_in_out_come_back_as_they_were),
        trial("every_controller_of_cgroup_v2_is_there", &["testbed"], every_controller_is_there),
        trial("its_kvm_is_kvm_amd_and_its_clock_is_told_to_be_emulated", &["testbed"], its_kvm_is_kvm_amd),
        trial("the_root_can_be_pivoted_as_container_runtimes_do", &["testbed"], the_root_can_be_pivoted),
        trial("a_dynamic_program_brings_its_libraries", &["testbed"], a_dynamic_program_brings_its_libraries),
        trial("the_command_starts_within_15_s", &["testbed"], the_command_starts_soon),
        trial("a_command_that_is_missing_is_named", &["testbed"], a_command_that_is_missing_is_named),
        trial("a_kernel_that_panics_shows_its_console", &["testbed"], a_kernel_that_panics_shows_its_console),
        trial("a_killed_command_leaves_no_emulator", &["testbed"], a_killed_command_leaves_no_emulator),
        trial("a_machine_ends_with_its_time", &["testbed"], a_machine_ends_with_its_time),
        trial("without_the_emulator_its_package_is_named", &[], without_the_emulator_its_package_is_named),
        trial("what_is_no_kernel_is_refused", &[], what_is_no_kernel_is_refused),
        trial("what_cannot_be_forwarded_is_refused", &[], what_cannot_be_forwarded_is_refused),
    ];
    // One machine at a time: each takes all of a small host.
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials).exit();
}

fn testbed(options: &[&str], command: &[&str]) -> Command {
    let mut testbed = Command::new(BENCH);
    // It would have cargo build the engines, which no trial here looks at.
    testbed.env_remove("CARGO");
    testbed.arg("testbed").args(options).arg("--").args(command).stdin(Stdio::null());
    testbed
}

/// What one machine was asked to do, and what came of it.
struct Session {
    output: Output,
    folder: TempDir,
    took: Duration,
}

const SCRIPT: &str = r"
    echo to stdout; echo to stderr >&2; seq 100000
    cat /sys/fs/cgroup/cgroup.controllers > $OUT/controllers
    cat /sys/fs/cgroup/cgroup.subtree_control > $OUT/handed-down
    isolab-bench doctor --json > $OUT/host.json
    mkdir -p $OUT/a/b; echo text > $OUT/a/b/file; chmod 750 $OUT/a/b/file; ln -s b/file $OUT/a/link
    unshare -m sh -c '
        mkdir /tmp/new; mount --bind / /tmp/new; cd /tmp/new; pivot_root . tmp && echo pivoted' > $OUT/pivot 2>&1
    dynamic --version > $OUT/dynamic 2>&1
    cut -d' ' -f1 /proc/uptime > $OUT/uptime
    sleep 1000 &
    exit 42
";

/// The machine that most trials look at, booted once.
static SESSION: LazyLock<Result<Session, String>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let out = folder.path().join("out").display().to_string();
    let options = ["--out", &out, "--forward", "/usr/bin/md5sum=dynamic", "--timeout", "3m"];
    let started = Instant::now();
    let output = testbed(&options, &["sh", "-c", SCRIPT]).output().map_err(|error| error.to_string())?;
    Ok(Session { output, folder, took: started.elapsed() })
});

impl Session {
    fn get() -> Result<&'static Self, Failed> {
        SESSION.as_ref().map_err(|error| Failed::from(error.clone()))
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }

    fn text(&self, name: &str) -> Result<String, Failed> {
        let errors = String::from_utf8_lossy(&self.output.stderr);
        fs::read_to_string(self.out(name)).map_err(|error| format!("{name}: {error}; it said: {errors}").into())
    }
}

fn the_exit_status_is_handed_back() -> Done {
    let output = &Session::get()?.output;
    ensure(output.status.code() == Some(42), format!("{output:?}"))
}

fn both_outputs_arrive_apart_and_whole() -> Done {
    let output = &Session::get()?.output;
    let expected: String =
        (1..=100_000).fold("to stdout\n".to_owned(), |text, number| text + &number.to_string() + "\n");
    ensure(output.stdout == expected.as_bytes(), format!("{} bytes of output", output.stdout.len()))?;
    ensure(output.stderr == b"to stderr\n", String::from_utf8_lossy(&output.stderr))
}

fn files_in_out_come_back_as_they_were() -> Done {
    let session = Session::get()?;
    ensure(session.text("a/b/file")? == "text\n", "content")?;
    ensure(fs::metadata(session.out("a/b/file"))?.permissions().mode() & 0o777 == 0o750, "permissions")?;
    ensure(fs::read_link(session.out("a/link"))? == Path::new("b/file"), "link")
}

fn every_controller_is_there() -> Done {
    let session = Session::get()?;
    let handed_down = session.text("handed-down")?;
    for controller in ["cpu", "memory", "io", "pids", "cpuset"] {
        ensure(handed_down.split_whitespace().any(|name| name == controller), format!("{controller}: {handed_down}"))?;
    }
    ensure(session.text("controllers")? == handed_down, "a controller is not handed down")
}

fn its_kvm_is_kvm_amd() -> Done {
    let host: Host = serde_json::from_str(&Session::get()?.text("host.json")?)?;
    ensure(host.emulated, "the host record does not say that it is emulated")?;
    ensure(host.kvm_driver.as_deref() == Some("kvm_amd"), format!("{:?}", host.kvm_driver))
}

fn the_root_can_be_pivoted() -> Done {
    let said = Session::get()?.text("pivot")?;
    ensure(said == "pivoted\n", said)
}

fn a_dynamic_program_brings_its_libraries() -> Done {
    let said = Session::get()?.text("dynamic")?;
    ensure(said.starts_with("md5sum "), said)
}

fn the_command_starts_soon() -> Done {
    let session = Session::get()?;
    // Upper bounds: the uptime when nearly all was done, and what the emulator needed before the kernel's clock ran.
    let uptime: f64 = session.text("uptime")?.trim().parse()?;
    ensure(uptime < 60.0, format!("{uptime} s of uptime"))?;
    let started = Instant::now();
    let output = testbed(&["--timeout", "1m"], &["true"]).output()?;
    ensure(output.status.success(), String::from_utf8_lossy(&output.stderr))?;
    let took = started.elapsed();
    ensure(
        took < Duration::from_secs(15),
        format!("{took:?} from start to end, {:?} for the long script", session.took),
    )
}

fn a_command_that_is_missing_is_named() -> Done {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    let output = testbed(&["--out", &out.display().to_string()], &["no-such-command"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.code() == Some(127), format!("{output:?}"))?;
    ensure(said.contains("cannot run no-such-command") && said.contains("--forward"), said.to_string())?;
    ensure(!out.exists(), "a folder was made for no files")
}

fn a_kernel_that_panics_shows_its_console() -> Done {
    let output = testbed(&["--timeout", "2m"], &["sh", "-c", "echo c > /proc/sysrq-trigger"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.code() == Some(1), format!("{output:?}"))?;
    ensure(said.contains("ended before the command did") && said.contains("Kernel panic"), said.to_string())
}

fn a_killed_command_leaves_no_emulator() -> Done {
    let mut testbed = testbed(&[], &["sleep", "600"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let pid = testbed.id();
    let children = format!("/proc/{pid}/task/{pid}/children");
    let emulator = within(Duration::from_secs(30), || {
        let list = fs::read_to_string(&children).unwrap_or_default();
        list.split_whitespace().map(str::to_owned).find(|child| name_of(child).starts_with("qemu-system"))
    });
    testbed.kill()?;
    testbed.wait()?;
    let emulator = emulator.ok_or("the emulator never started")?;
    let gone = within(Duration::from_secs(10), || (!name_of(&emulator).starts_with("qemu-system")).then_some(()));
    ensure(gone.is_some(), format!("the emulator, process {emulator}, is still there"))
}

/// The name of a process' program; empty where there is no such process.
fn name_of(pid: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

fn within<T>(time: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + time;
    loop {
        match look() {
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            found => return found,
        }
    }
}

fn a_machine_ends_with_its_time() -> Done {
    let output = testbed(&["--timeout", "1s"], &["sleep", "600"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.code() == Some(1), format!("{output:?}"))?;
    ensure(said.contains("within 1 s"), said.to_string())
}

fn without_the_emulator_its_package_is_named() -> Done {
    let kernel = tempfile::NamedTempFile::new()?;
    // As an uncompressed kernel begins: it is not looked into further before the emulator is looked for.
    fs::write(kernel.path(), b"\x7fELF")?;
    let path = kernel.path().display().to_string();
    let output = testbed(&["--kernel", &path], &["true"]).env("PATH", "/no such folder").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure(!output.status.success() && said.contains("apt install qemu-system-x86"), said.to_string())
}

fn what_is_no_kernel_is_refused() -> Done {
    let output = testbed(&["--kernel", "/etc/passwd"], &["true"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure(!output.status.success() && said.contains("/etc/passwd is no Linux kernel"), said.to_string())
}

fn what_cannot_be_forwarded_is_refused() -> Done {
    let kernel = tempfile::NamedTempFile::new()?;
    fs::write(kernel.path(), b"\x7fELF")?;
    let path = kernel.path().display().to_string();
    for (forward, complaint) in [
        ("/no such file", "cannot take in /no such file"),
        ("/etc/passwd=/proc/x", "not a path in the machine"),
        ("/etc/passwd=/etc/passwd", "two files are to be /etc/passwd"),
    ] {
        let output = testbed(&["--kernel", &path, "--forward", forward], &["true"]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure(!output.status.success() && said.contains(complaint), said.to_string())?;
    }
    Ok(())
}
