//! The process that stands by a container: it keeps what is printed, lets people talk to it, sees its end, and starts it
//! again where that is wanted.
//!
//! It is one process with two forms, each the other's `execve`. The heavy one, here, has the whole engine in it and lives
//! for milliseconds: it starts the container as its child, or takes back what an ended one leaves. Between the two it is
//! the light one ([`super::monitor`]), which only waits, in some hundred kilobytes. The container's process stays a child
//! through that, since a process keeps its children when it becomes another program.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::unistd::{Gid, Pid, Uid, chdir, fchown, pipe2, setsid};
use serde::{Deserialize, Serialize};

use super::error::{EngineError, io_error};
use super::log_file::LogFile;
use super::record::{Record, State, log_path};
use super::streams::{Streams, null};
use super::wire::{Wire, let_in, listen_at};
use super::wishes::{Log, Restart};
use super::{Engine, Locked};
use crate::container::{Handed, ProcessId, Size, pidfd_open, receive_descriptor, set_size};

/// The first wait before a container is started again, and the longest; each is twice the one before. docker's.
const FIRST_WAIT: u64 = 100;
const LONGEST_WAIT: u64 = 60_000;
/// A container that ran so long begins with the first wait again.
const LONG_RUN: Duration = Duration::from_secs(10);

/// Why a container was not started, for the command that waits.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    message: String,
    code: u8,
    hint: Option<String>,
}

/// What the container's process prints to, or what holds its terminal; and what it reads.
#[derive(Debug, Default)]
struct Ends {
    output: Option<OwnedFd>,
    error: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    input: Option<OwnedFd>,
}

impl Engine {
    /// Where a container's keeper lets people in.
    pub(super) fn door(&self, id: &str) -> PathBuf {
        self.run.join("attach").join(id)
    }

    /// Starts a container with a keeper. Answers the connection to it, over which everything printed comes.
    pub(super) fn start_kept(
        &self,
        record: &Record,
        window: Option<Size>,
        images: Option<&Path>,
    ) -> Result<Wire, EngineError> {
        let failed = |source: io::Error| EngineError::Keeper { attempt: "start", name: record.name.clone(), source };
        let (ours, theirs) = Wire::pair().map_err(|errno| failed(errno.into()))?;
        // Before the container begins: a program may look how large its window is as the first thing it does.
        tell_size(&ours, window);
        let mut command = self.own_command();
        command.arg("keep").args(images.iter().flat_map(|images| ["--images".as_ref(), images.as_os_str()]));
        command.arg(&record.id).stdin(Stdio::from(theirs.into_inner())).stdout(Stdio::null());
        let mut child = command.spawn().map_err(failed)?;
        // The command keeps the other end in it until it is gone; then the end of the keeper would not be seen.
        drop(command);
        match ours.hear().map_err(|errno| failed(errno.into()))? {
            Some(message) if message.kind == b'S' => Ok(ours),
            Some(message) => {
                // It has said all that it had to say.
                let _ = child.wait();
                let told = serde_json::from_slice::<Told>(&message.bytes);
                let told = told.map_err(|source| EngineError::Record { path: self.folder(record), source })?;
                Err(EngineError::Told { message: told.message, code: told.code, hint: told.hint })
            }
            None => Err(failed(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// This command again, for another verb of the same root.
    pub(super) fn own_command(&self) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg("--root").arg(self.store.root());
        if self.explains {
            command.arg("--explain");
        }
        command
    }

    /// Starts a container, or brings it back, and stands by. Standard input is the connection to the command that wants it
    /// started. Returns only where that failed: with the reason, where whoever waits could not be told.
    pub fn keep(&self, id: &str, images: Option<&Path>, started: impl FnOnce()) -> Result<(), EngineError> {
        let failed = |source: io::Error| EngineError::Keeper { attempt: "be", name: id.to_owned(), source };
        let wire = Wire::of(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
        let began = (|| {
            // A session of its own: neither a terminal's Ctrl-C nor its end is meant for it.
            setsid().map_err(|errno| failed(errno.into()))?;
            chdir("/").map_err(|errno| failed(errno.into()))?;
            let mut locked = self.lock(id)?;
            match self.state(&locked.record)? {
                State::Created | State::Exited => {}
                state => return Err(super::control::unfit("start", &locked.record, state)),
            }
            locked.record.life.restarts = 0;
            match self.begin(&mut locked, &wire, images) {
                Ok(ends) => Ok((locked, ends)),
                Err(error) => Err(self.never_started(&locked, error)),
            }
        })();
        match began {
            Ok((locked, ends)) => {
                started();
                // Whoever waits may have gone; the container runs all the same.
                let _ = wire.say(b'S', pid_of(&locked.record).to_string().as_bytes());
                Err(self.stand_by(locked, ends, vec![wire]))
            }
            Err(error) => {
                let told = Told { message: crate::chain(&error), code: error.code(), hint: error.hint() };
                let said = wire.say(b'F', &serde_json::to_vec(&told).unwrap_or_default());
                said.map_err(|_| error)
            }
        }
    }

    /// Takes back what an ended container leaves, and starts it again where that is wanted. `guests` are those who are still
    /// connected. Returns when there is nothing to stand by for any more.
    pub fn keep_on(&self, id: &str, code: i32, guests: Vec<OwnedFd>) -> Result<(), EngineError> {
        let guests: Vec<Wire> = guests.into_iter().map(Wire::of).collect();
        let mut locked = self.shelf.lock(id)?;
        let out_of_memory = self.runtime.ran_out_of_memory(&id.parse()?).unwrap_or(false);
        let life = &locked.record.life;
        let again = !life.stopped && locked.record.wishes.restart.wants(Some(code), life.restarts);
        self.finish(&mut locked, Some(code), out_of_memory)?;
        if !again || locked.record.wishes.remove {
            let _ = fs::remove_file(self.door(id));
            drop(locked);
            for guest in &guests {
                // Who has gone does not want to know.
                let _ = guest.try_say(b'x', code.to_string().as_bytes());
            }
            return Ok(());
        }
        let wait = next_wait(&mut locked.record);
        locked.record.life.restarting = ProcessId::of(Pid::this());
        locked.write()?;
        drop(locked);
        sleep(wait);
        let mut locked = self.shelf.lock(id)?;
        if locked.record.life.stopped || locked.record.wishes.restart == Restart::No {
            locked.record.life.restarting = None;
            return locked.write();
        }
        locked.record.life.restarts += 1;
        let (mute, _other) = Wire::pair().map_err(|errno| io_error("make", "a pair of sockets")(errno.into()))?;
        let ends = self.begin(&mut locked, guests.first().unwrap_or(&mute), None)?;
        Err(self.stand_by(locked, ends, guests))
    }

    /// Starts the container as a child of this process, or brings it back.
    fn begin(&self, locked: &mut Locked, wire: &Wire, images: Option<&Path>) -> Result<Ends, EngineError> {
        let failed = |errno: nix::errno::Errno| io_error("make", "pipes for the container")(errno.into());
        let (terminal, interactive) = (locked.record.wishes.terminal, locked.record.wishes.interactive);
        let silent = locked.record.wishes.log == Log::None && !interactive;
        let keeper = ProcessId::of(Pid::this());
        let empty = null()?;
        if terminal && images.is_none() {
            let (console, path) = self.console(&locked.record.id)?;
            let handed = Handed { console_socket: Some(path.clone()), ..Handed::default() };
            let streams = Streams::silence()?;
            let mut far = None;
            let launched = self.launch_with(locked, handed, keeper, &mut || {
                let taken = let_in(&console).and_then(|wire| receive_descriptor(&wire));
                let taken = taken.map_err(|errno| io_error("receive", "the container's terminal")(errno.into()))?;
                hear_size(wire, &taken);
                far = Some(taken);
                Ok(())
            });
            drop(streams);
            let _ = fs::remove_file(path);
            launched?;
            return Ok(Ends { terminal: far, ..Ends::default() });
        }
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(failed);
        let (input, typed) =
            if interactive { pipe().map(|(read, write)| (read, Some(write)))? } else { (empty.into(), None) };
        let streams;
        let mut ends = Ends { input: typed, ..Ends::default() };
        if silent {
            let empty = null()?;
            streams = Streams::replace(input.as_fd(), empty.as_fd(), empty.as_fd());
        } else {
            let ((output, printed), (error, complained)) = (pipe()?, pipe()?);
            streams = Streams::replace(input.as_fd(), printed.as_fd(), complained.as_fd());
            // A program opens these by name, as /dev/stdout, and what is the host's root's would not let it.
            if let Some(first) = locked.record.wishes.users.root() {
                for pipe in [&printed, &complained] {
                    fchown(pipe, Some(Uid::from_raw(first)), Some(Gid::from_raw(first))).map_err(failed)?;
                }
            }
            (ends.output, ends.error) = (Some(output), Some(error));
        }
        let streams = streams.map_err(io_error("replace", "the standard streams"))?;
        // Its own ends, or the pipes would never come to an end.
        drop(input);
        let launched = self.launch(locked, keeper, images);
        drop(streams);
        launched.map(|_| ends)
    }

    /// Becomes the light form. Returns only why that failed.
    fn stand_by(&self, locked: Locked, ends: Ends, guests: Vec<Wire>) -> EngineError {
        let name = locked.record.name.clone();
        let stood = (|| -> io::Result<io::Error> {
            let mut arguments: Vec<std::ffi::OsString> = vec!["monitor".into(), self.store.root().into()];
            arguments.push(locked.record.id.clone().into());
            let mut pass = |letter: &str, descriptor: OwnedFd| -> io::Result<()> {
                fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
                arguments.push(format!("{letter}{}", std::os::fd::IntoRawFd::into_raw_fd(descriptor)).into());
                Ok(())
            };
            let running = locked.record.life.running.as_ref();
            let init = running.and_then(|running| running.init.open()).or_else(|| {
                // It may have ended already; it is not reaped, so its number is still its own.
                pidfd_open(Pid::from_raw(pid_of(&locked.record))).ok()
            });
            pass("p", init.ok_or(io::ErrorKind::NotFound)?)?;
            pass("d", listen_at(&self.make_door(&locked.record.id)?)?)?;
            if locked.record.wishes.log == Log::Json {
                pass("l", LogFile::open(&log_path(locked.folder()))?.into())?;
            }
            for (letter, end) in [("o", ends.output), ("e", ends.error), ("t", ends.terminal), ("i", ends.input)] {
                if let Some(end) = end {
                    pass(letter, end)?;
                }
            }
            for guest in guests {
                pass("g", guest.into_inner())?;
            }
            if let Some(check) = locked.record.healthcheck() {
                let or = |time: u64, usual: u64| if time == 0 { usual } else { time };
                let interval = or(check.interval, super::health::INTERVAL);
                let soon = or(check.start_interval, super::health::START_INTERVAL);
                arguments.push(format!("h{interval},{},{soon}", check.start_period).into());
            }
            if let Some(rotation) = locked.record.wishes.rotation {
                arguments.push(format!("r{},{}", rotation.size, rotation.files).into());
            }
            let null = File::options().read(true).write(true).open("/dev/null")?;
            let mut command = Command::new("/proc/self/exe");
            command.arg0("isolab-ctr").args(arguments).stdin(null.try_clone()?).stdout(null.try_clone()?).stderr(null);
            drop(locked);
            Ok(command.exec())
        })();
        let source = stood.unwrap_or_else(|error| error);
        EngineError::Keeper { attempt: "become", name, source }
    }

    /// The same, in a folder that is there.
    pub(super) fn make_door(&self, id: &str) -> io::Result<PathBuf> {
        let door = self.door(id);
        DirBuilder::new().recursive(true).mode(0o700).create(door.parent().unwrap_or(&self.run))?;
        Ok(door)
    }

    /// A socket that the container's terminal is sent to.
    fn console(&self, id: &str) -> Result<(OwnedFd, PathBuf), EngineError> {
        let path = self.make_door(&format!("{id}.tty")).map_err(io_error("make", &self.run))?;
        let made = (|| {
            let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            let _ = fs::remove_file(&path);
            bind(socket.as_raw_fd(), &UnixAddr::new(&path)?)?;
            listen(&socket, Backlog::new(1)?)?;
            Ok(socket)
        })();
        let socket = made.map_err(|errno: nix::errno::Errno| io_error("listen at", &path)(errno.into()))?;
        Ok((socket, path))
    }
}

fn pid_of(record: &Record) -> i32 {
    record.life.running.as_ref().map_or(0, |running| running.init.pid)
}

/// How long to wait before the container is started again, and twice as long the next time.
fn next_wait(record: &mut Record) -> Duration {
    let life = &mut record.life;
    let ran = life.finished.zip(life.started).map(|(end, begin)| Duration::from_nanos(end.saturating_sub(begin)));
    let wait = if ran.is_some_and(|ran| ran >= LONG_RUN) { FIRST_WAIT } else { life.wait.max(FIRST_WAIT) };
    life.wait = (wait * 2).min(LONGEST_WAIT);
    Duration::from_millis(wait)
}

/// Tells the size of one's window.
pub(super) fn tell_size(wire: &Wire, size: Option<Size>) {
    if let Some(size) = size {
        let [rows, columns] = [size.rows.to_le_bytes(), size.columns.to_le_bytes()];
        // A window of a wrong size is better than none.
        let _ = wire.say(b'w', &[rows, columns].concat());
    }
}

/// The size in a message.
pub(super) fn read_size(bytes: &[u8]) -> Option<Size> {
    let [rows, more_rows, columns, more_columns] = *bytes else { return None };
    let number = |low, high| u16::from_le_bytes([low, high]);
    Some(Size { rows: number(rows, more_rows), columns: number(columns, more_columns) })
}

/// Sets the terminal's size to that which was told already, if one was.
fn hear_size(wire: &Wire, terminal: &OwnedFd) {
    let heard = wire.try_hear().ok().flatten().filter(|message| message.kind == b'w');
    if let Some(size) = heard.and_then(|message| read_size(&message.bytes)) {
        let _ = set_size(terminal, size);
    }
}
