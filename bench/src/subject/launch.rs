//! One start on the clock: t0, READY, the order to exit, gone.
//!
//! Between t0 and t1 the harness makes two calls only: it starts the program, and it waits in poll(2) for the pipe that the
//! payload writes to. Everything else (pipes, strings, folders) is made before, everything that is read is read after.

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use isolab_reports::model::{Phase, Timing};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;

use super::child::{Child, Ending, Ready, Used};
use super::errand;
use super::gate::Gate;
use super::peers::MountedRoot;
use super::timeline::{self, Span};
use super::{Lab, Nonce};
use crate::clock;

/// How long a start may take to be ready, and as long again to be gone. Hundreds of times what a subject without a kernel
/// of its own needs; only what hangs meets it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The descriptor that an engine finds its `--timeline` under.
pub(crate) const TIMELINE: &str = "3";

/// A subject that says more than this before READY says something else than READY.
const SAID_MAX: usize = 64 << 10;

/// How long what a subject owned may outlive its last process.
const LINGER: Duration = Duration::from_secs(2);

/// Everything that one start needs, decided before the clock runs.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program's file.
    pub(crate) program: PathBuf,
    /// Its arguments, without its name.
    pub(crate) arguments: Vec<OsString>,
    /// Its working directory, inside the scratch folder: by that a cleaner knows whose it was.
    pub(crate) folder: PathBuf,
    /// The line that proves the start.
    pub(crate) token: Vec<u8>,
    /// What it knew before it was started: then it is asked for that, and `token` is the answer.
    pub(crate) remembers: Option<Remembered>,
    /// How it ends.
    pub(crate) farewell: Farewell,
    /// What exists while it lives and must be gone after it: control groups, a state folder.
    pub(crate) owned: Vec<PathBuf>,
    /// Whether it tells its steps on descriptor 3.
    pub(crate) tells: bool,
    /// Where a command that leaves its instance alone writes the instance's process id; none where it stays with it.
    pub(crate) detached: Option<PathBuf>,
    /// What removes the rest of a start that failed, and a detached instance that has ended.
    pub(crate) undo: Option<Vec<OsString>>,
    /// What was made for this start alone.
    pub(crate) litter: Option<PathBuf>,
    /// A peer's root file system that nobody else has; unmounted when the last copy of this value goes.
    #[expect(dead_code, reason = "it is kept for what its end does")]
    pub(super) root: Option<Arc<MountedRoot>>,
    /// How long it may take to be ready, and as long again to be gone.
    pub(crate) patience: Duration,
}

/// What a subject brings along from the one that it is a copy of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// The nonce that its original was told.
    pub(crate) nonce: Nonce,
    /// What it is asked, a line: `nonce` of who has the original's memory.
    pub(crate) question: &'static str,
}

/// How a subject is brought to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// By the order `exit` on its standard input.
    Order,
    /// By itself, right after READY.
    Itself,
}

/// A proved start.
#[derive(Clone, Debug)]
pub struct Started {
    /// Its figures.
    pub timing: Timing,
    /// The steps that it told, for what they say of themselves.
    pub spans: Vec<Span>,
}

/// A start, an instant before t0.
pub(crate) struct Poised {
    pub(super) ready: Ready,
    pub(super) order: File,
    pub(super) answer: File,
    pub(super) complaints: File,
    steps: Option<File>,
    pub(super) launch: Launch,
}

/// The harness' ends of what a subject is connected to.
pub(super) struct Ends {
    pub(super) order: File,
    pub(super) answer: File,
    pub(super) complaints: File,
}

impl Launch {
    /// Makes pipes and strings.
    pub(crate) fn poise(self) -> Result<Poised, String> {
        self.try_poise().map_err(|error| format!("the harness cannot prepare the start: {error}"))
    }

    fn try_poise(self) -> io::Result<Poised> {
        let (given, Ends { order, answer, complaints }) = self.connections()?;
        let steps = self.tells.then(|| memory("timeline")).transpose()?;
        let mut descriptors = Vec::from(given);
        if let Some(steps) = &steps {
            descriptors.push(steps.try_clone()?.into());
        }
        let ready = Ready::new(&self.program, &self.arguments, &environment(), &self.folder, descriptors)?;
        Ok(Poised { ready, order, answer, complaints, steps, launch: self })
    }

    /// What the subject gets as its descriptors 0, 1 and 2, and the harness' ends of them.
    pub(super) fn connections(&self) -> io::Result<([OwnedFd; 3], Ends)> {
        let (stdin, order) = io::pipe()?;
        let (answer, stdout) = io::pipe()?;
        // A file in memory, not a pipe: it holds all that is written, so nobody ever waits for the harness to read.
        let complaints = memory("stderr")?;
        let given = [stdin.into(), stdout.into(), complaints.try_clone()?.into()];
        let (mut order, answer): (File, File) = (OwnedFd::from(order).into(), OwnedFd::from(answer).into());
        if let Some(remembered) = &self.remembers {
            // The question waits in the pipe: that it has to be asked is no part of the start.
            order.write_all(remembered.question.as_bytes())?;
        }
        Ok((given, Ends { order, answer, complaints }))
    }
}

/// A file in memory, closed over execve(2) but for the copy that a child is given.
fn memory(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?))
}

/// The same few variables for every subject of every run: the size of a user's environment is copied at each execve.
fn environment() -> Vec<CString> {
    const NAMES: [&str; 3] = ["PATH", "HOME", "XDG_RUNTIME_DIR"];
    let variable = |name: &str| {
        let mut text = OsString::from(format!("{name}="));
        text.push(std::env::var_os(name)?);
        CString::new(text.into_encoded_bytes()).ok()
    };
    NAMES.into_iter().filter_map(variable).collect()
}

impl Poised {
    /// Starts it, alone or behind a gate, and sees it to its end. The error says in words why it does not count; nothing of
    /// it is left then either.
    pub(crate) fn go(self, gate: Option<&Gate>) -> Result<Started, String> {
        let Self { ready, order, mut answer, complaints, steps, launch } = self;
        let zero = gate.map_or_else(clock::now, Gate::pass);
        let child = match ready.spawn() {
            Ok(child) => child,
            Err(error) => {
                launch.clear(true);
                return Err(format!("{} cannot be started: {error}", launch.program.display()));
            }
        };
        let spawned = clock::now();
        let heard = hear(&mut answer, &launch.token, launch.patience);
        let outcome = match heard {
            Ok(ready) => Running { child, order, zero, spawned, ready }.finish(&launch),
            Err(silence) => Err(silence.end(child, launch.patience)),
        };
        let started = outcome.and_then(|timing| tell(timing, steps, zero));
        launch.clear(started.is_err());
        started.map_err(|reason| explained(reason, complaints))
    }
}

/// A subject that was ready.
struct Running {
    child: Child,
    order: File,
    zero: u64,
    spawned: u64,
    ready: u64,
}

impl Running {
    /// From READY to gone.
    fn finish(mut self, launch: &Launch) -> Result<Timing, String> {
        let cannot = |what: &'static str| move |error: io::Error| format!("the harness cannot {what}: {error}");
        let peak = peak_rss(self.child.pid());
        let end = self.child.open().map_err(cannot("open the process"))?;
        let ordered = match launch.farewell {
            Farewell::Order => {
                let now = clock::now();
                // It may have ended in the meantime; then its status tells.
                let _ = self.order.write_all(b"exit\n");
                now
            }
            Farewell::Itself => self.ready,
        };
        if !readable_within(&end, launch.patience).map_err(cannot("wait for the end"))? {
            self.child.kill();
            return Err(format!("did not end within {} s of READY", launch.patience.as_secs()));
        }
        let (ending, used) = self.child.wait().map_err(cannot("wait for the end"))?;
        let mut gone = clock::now();
        if ending != Ending::Status(0) {
            return Err(format!("{ending} after READY"));
        }
        if let Some(left) = launch.left() {
            launch.await_gone().map_err(|()| format!("left behind: {}", left.display()))?;
            gone = clock::now();
        }
        let Used { user_ns, system_ns, peak_rss_bytes } = used;
        Ok(Timing {
            ready_ns: self.ready - self.zero,
            teardown_ns: gone - ordered,
            phases: vec![whole(self.spawned.min(self.ready) - self.zero)],
            peak_rss_bytes: peak.unwrap_or(peak_rss_bytes),
            user_ns,
            system_ns,
        })
    }
}

/// What the harness knows of a subject that tells nothing: when its program had replaced the harness' own.
fn whole(duration_ns: u64) -> Phase {
    Phase { name: timeline::SPAWN.0.into(), start_ns: 0, duration_ns, depth: 0, pid: 0 }
}

/// The largest resident set of the process' program, in bytes; none once it has ended.
///
/// Not `ru_maxrss`: the kernel keeps that over execve(2), so it is never below what the *harness* had resident when it
/// started the program. `VmHWM` belongs to the program's own memory.
fn peak_rss(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Why there was no READY, or no answer.
pub(super) enum Silence {
    /// Nothing more can come: all who could write have closed the pipe.
    Closed,
    Hung,
    Babble,
    Broken(io::Error),
}

impl Silence {
    /// Ends the subject, whatever it does, and says what happened.
    pub(super) fn end(self, child: Child, patience: Duration) -> String {
        // A program that closed its output will mostly end by itself, and how it ends is the better reason.
        let by_itself = matches!(self, Self::Closed)
            && child.open().is_ok_and(|end| readable_within(&end, LINGER).is_ok_and(|ended| ended));
        if !by_itself {
            child.kill();
        }
        let ending = child.wait();
        match self {
            Self::Closed if by_itself => {
                ending.map_or_else(|error| error.to_string(), |(ending, _)| format!("{ending} before READY"))
            }
            other => other.reason(patience),
        }
    }

    /// What happened, of a subject that is ended in another way.
    pub(super) fn reason(self, patience: Duration) -> String {
        match self {
            Self::Closed => "closed its output before READY".to_owned(),
            Self::Hung => format!("not ready within {} s", patience.as_secs()),
            Self::Babble => format!("wrote {SAID_MAX} bytes without READY and its nonce"),
            Self::Broken(error) => format!("the harness cannot read what it says: {error}"),
        }
    }
}

/// Reads until the token is complete; returns the instant.
pub(super) fn hear(answer: &mut File, token: &[u8], patience: Duration) -> Result<u64, Silence> {
    let mut said: Vec<u8> = Vec::with_capacity(4096);
    let mut part = [0_u8; 4096];
    let deadline = clock::now() + patience.as_nanos() as u64;
    loop {
        let left = Duration::from_nanos(deadline.saturating_sub(clock::now()));
        if !readable_within(answer, left).map_err(Silence::Broken)? {
            return Err(Silence::Hung);
        }
        let count = match answer.read(&mut part) {
            Ok(0) => return Err(Silence::Closed),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Silence::Broken(error)),
        };
        let now = clock::now();
        said.extend(part.iter().take(count));
        if said.windows(token.len()).any(|window| window == token) {
            return Ok(now);
        }
        if said.len() > SAID_MAX {
            return Err(Silence::Babble);
        }
    }
}

/// Waits in poll(2) until there is something to read, or the other end is closed; false after `patience`.
pub(crate) fn readable_within(descriptor: &impl AsFd, patience: Duration) -> io::Result<bool> {
    let deadline = clock::now() + patience.as_nanos() as u64;
    loop {
        // Rounded up: poll(2) counts milliseconds, and a rest of 0 would be no waiting at all.
        let left = Duration::from_nanos(deadline.saturating_sub(clock::now())).as_millis() + 1;
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut set = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
        match poll(&mut set, timeout) {
            Ok(0) if clock::now() >= deadline => return Ok(false),
            // A signal to the harness (Ctrl-C) ends the run after this start, not within it.
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Replaces the harness' one phase by the steps that the subject told, where it tells any.
fn tell(mut timing: Timing, steps: Option<File>, zero: u64) -> Result<Started, String> {
    let Some(mut steps) = steps else { return Ok(Started { timing, spans: Vec::new() }) };
    let mut text = String::new();
    let read = steps.rewind().and_then(|()| steps.read_to_string(&mut text));
    read.map_err(|error| format!("its timeline cannot be read: {error}"))?;
    let spans = timeline::parse(&text).map_err(|error| format!("its timeline cannot be understood: {error}"))?;
    if !spans.is_empty() {
        timing.phases = timeline::phases(&spans, zero, zero + timing.ready_ns);
    }
    Ok(Started { timing, spans })
}

/// The reason, and what the subject itself said of it.
pub(super) fn explained(reason: String, mut complaints: File) -> String {
    const ENOUGH: u64 = 4096;
    let mut said = Vec::new();
    let _ = complaints.rewind().and_then(|()| complaints.take(ENOUGH).read_to_end(&mut said));
    let said = String::from_utf8_lossy(&said);
    match said.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => format!("{reason}: {}", line.chars().take(300).collect::<String>()),
        None => reason,
    }
}

impl Launch {
    /// A start of a command that stays with its instance, ends when it is told to, and leaves nothing.
    pub(crate) fn new(lab: &Lab, program: &Path, arguments: Vec<OsString>, token: Vec<u8>) -> Self {
        Self {
            program: program.to_owned(),
            arguments,
            folder: lab.scratch().path().to_owned(),
            token,
            remembers: None,
            farewell: Farewell::Order,
            owned: Vec::new(),
            tells: false,
            detached: None,
            undo: None,
            litter: None,
            root: None,
            patience: PATIENCE,
        }
    }

    /// The first thing of the subject's that is still there.
    pub(super) fn left(&self) -> Option<&PathBuf> {
        self.owned.iter().find(|path| path.symlink_metadata().is_ok())
    }

    pub(super) fn await_gone(&self) -> Result<(), ()> {
        let deadline = clock::now() + LINGER.as_nanos() as u64;
        while self.left().is_some() {
            if clock::now() >= deadline {
                return Err(());
            }
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Removes what was made for this start; after a failure also what the subject may have left.
    pub(super) fn clear(&self, failed: bool) {
        if failed {
            let parts = self.undo.as_deref().and_then(<[OsString]>::split_first);
            if let Some((program, arguments)) = parts {
                // What even this leaves has its owner in its name, and `doctor --clean` removes it. A subject that hung once
                // may hang again.
                let _ = errand::run_within(self.patience, Path::new(program), arguments, &self.folder);
            }
        }
        if let Some(litter) = &self.litter {
            let _ = fs::remove_dir_all(litter);
        }
    }
}
