//! What the trials of snapshots share: the guest program, machines that are talked to, and a folder that goes with them.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use isolab_vmm::api::{Answer, Request, ask};
use libtest_mimic::Failed;
use tempfile::TempDir;

use crate::needs::Done;

/// No trial waits longer for anything: this machine may be busy, but not that busy.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where this run's programs, snapshots and sockets are.
static FOLDER: OnceLock<TempDir> = OnceLock::new();
/// The guest.
static TELLER: OnceLock<PathBuf> = OnceLock::new();

pub(crate) fn folder() -> &'static Path {
    FOLDER.get_or_init(|| TempDir::with_prefix("isolab-snapshot-").expect("a folder for the trials")).path()
}

/// Removes the folder: `exit` drops nothing.
pub(crate) fn clean_up() {
    if let Some(folder) = FOLDER.get() {
        let _ = fs::remove_dir_all(folder.path());
    }
}

/// A place that nobody else uses.
pub(crate) fn place(name: &str) -> PathBuf {
    folder().join(name)
}

/// The guest program, built once.
pub(crate) fn teller() -> &'static Path {
    TELLER.get_or_init(|| {
        let (source, program) = (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/teller.c"), place("teller"));
        let built = Command::new("gcc").args(["-static", "-O1", "-o"]).arg(&program).arg(source).output();
        let built = built.expect("gcc runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        program
    })
}

/// `isolab-vm WORDS`.
pub(crate) fn isolab_vm<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(words: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-vm"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command that must succeed; returns what it printed.
pub(crate) fn done(mut command: Command) -> Result<String, Failed> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(told(&output).into())
}

/// Runs a command that must fail with status 125 and all of `parts` in its error.
pub(crate) fn refused(mut command: Command, parts: &[&str]) -> Done {
    let output = command.output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let as_expected = output.status.code() == Some(125)
        && errors.starts_with("error: ")
        && parts.iter().all(|part| errors.contains(part));
    if as_expected { Ok(()) } else { Err(format!("expected {parts:?}\n{}", told(&output)).into()) }
}

fn told(output: &Output) -> String {
    let mut text = format!("{}", output.status);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let _ = write!(text, "\n--- out\n{out}--- errors\n{err}");
    text
}

/// A machine that is talked to; gone with this value.
pub(crate) struct Live {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Live {
    /// Starts it.
    pub(crate) fn start(mut command: Command) -> Result<Self, Failed> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        let input = child.stdin.take();
        let (sender, lines) = channel();
        // Ends with the machine's output.
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Self { child, input, lines })
    }

    /// A new machine with the teller in it, once it is ready, and its control socket.
    pub(crate) fn teller(name: &str, options: &[&str]) -> Result<(Self, PathBuf), Failed> {
        let socket = place(&format!("{name}.sock"));
        let mut command = isolab_vm(["run", "--api"]);
        command.arg(&socket).args(options).arg("--app").arg(teller()).args(["--", name]);
        let mut live = Self::start(command)?;
        live.expect(&format!("ISOLAB-READY {name}"))?;
        Ok((live, socket))
    }

    /// A machine that goes on from a snapshot.
    pub(crate) fn restored(snapshot: &Path, options: &[&str]) -> Result<Self, Failed> {
        let mut command = isolab_vm(["restore"]);
        command.arg(snapshot).args(options);
        Self::start(command)
    }

    /// Sends a line.
    pub(crate) fn say(&mut self, line: &str) -> Done {
        let input = self.input.as_mut().ok_or("its input is closed")?;
        Ok(writeln!(input, "{line}")?)
    }

    /// The next line that comes within this time.
    pub(crate) fn hears(&mut self, within: Duration) -> Option<String> {
        self.lines.recv_timeout(within).ok()
    }

    /// Sends a line, and returns the next that comes.
    pub(crate) fn asks(&mut self, line: &str) -> Result<String, Failed> {
        self.say(line)?;
        let answer = self.hears(PATIENCE);
        Ok(answer.ok_or_else(|| format!("no answer to {line:?}: {}", self.why()))?)
    }

    /// Fails where the next line is another.
    pub(crate) fn expect(&mut self, line: &str) -> Done {
        match self.hears(PATIENCE) {
            Some(heard) if heard == line => Ok(()),
            Some(heard) => Err(format!("expected {line:?}, heard {heard:?}").into()),
            None => Err(format!("expected {line:?}, heard nothing: {}", self.why()).into()),
        }
    }

    /// Sends a line and fails where the next is not this one.
    pub(crate) fn answers(&mut self, line: &str, answer: &str) -> Done {
        self.say(line)?;
        self.expect(answer)
    }

    /// It has nothing more to read.
    pub(crate) fn close(&mut self) {
        self.input = None;
    }

    /// Waits for its end; returns its status.
    pub(crate) fn ends(&mut self) -> Result<Option<i32>, Failed> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err("it does not end".into())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said on standard error, once it is gone.
    fn why(&mut self) -> String {
        let _ = self.child.kill();
        let mut text = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut errors, &mut text);
        }
        text
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes a snapshot of the machine at `socket`.
pub(crate) fn snapshot(socket: &Path, to: &Path) -> Result<u64, Failed> {
    match ask(socket, &Request::Snapshot { to: to.to_owned(), diff: false })? {
        Answer::Snapshot { bytes, .. } => Ok(bytes),
        Answer::Status(status) => Err(format!("{status:?} is no snapshot").into()),
    }
}
