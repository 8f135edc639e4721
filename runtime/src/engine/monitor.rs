//! The light form of the keeper: it waits for a container, and that is all. It has no configuration, no engine and no
//! heap to speak of; when there is something to decide it becomes the heavy form again ([`super::keeper`]).

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::keeper::read_size;
use super::log_file::{LogFile, Rotation};
use super::record::log_path;
use super::shelf::Shelf;
use super::wire::{MOST, Wire, let_in};
use crate::container::{Ending, pidfd_signal, reap, rfc3339, set_size, settings, since_epoch};

/// No line of the log is longer: what is longer has several, all but the last without an end of line. docker's.
const LINE: usize = 16 << 10;
/// More guests are not let in.
const GUESTS: usize = 16;
/// How long a guest may take to read the last words of a container that has ended, as long as it reads nothing at all.
const LAST_WORDS: u16 = 10_000;

struct Monitor {
    root: OsString,
    id: OsString,
    init: OwnedFd,
    door: OwnedFd,
    log: Option<LogFile>,
    sources: Vec<Source>,
    /// What the container's program reads, or its terminal, which is among the sources too.
    input: Option<OwnedFd>,
    typed: Vec<u8>,
    guests: Vec<Guest>,
    check: Option<Check>,
}

/// Where something is printed.
struct Source {
    letter: u8,
    from: OwnedFd,
    terminal: bool,
    line: Vec<u8>,
    open: bool,
}

struct Guest {
    wire: Wire,
    /// What it had no room for.
    waiting: Option<(u8, Vec<u8>)>,
    gone: bool,
}

/// The health check.
struct Check {
    interval: Duration,
    /// While the container starts: until when, and the time between two checks till then.
    start: Option<(Instant, Duration)>,
    next: Instant,
    running: Option<Child>,
}

impl Check {
    /// As the heavy form wrote it: the usual interval, the start period, and the interval in that, in nanoseconds.
    fn parse(text: &str) -> Option<Self> {
        let mut times = text.split(',').map(|time| time.parse().ok().map(Duration::from_nanos));
        let (interval, period, soon) = (times.next()??, times.next()??, times.next()??);
        let now = Instant::now();
        let start = (!period.is_zero()).then(|| (now + period, soon));
        let mut check = Self { interval, start, next: now, running: None };
        check.put_off();
        Some(check)
    }

    fn put_off(&mut self) {
        let now = Instant::now();
        let start = self.start.filter(|(until, _)| now < *until);
        self.next = now + start.map_or(self.interval, |(_, soon)| soon.min(self.interval));
    }
}

/// Stands by a container until it ends, and becomes the heavy form then. `arguments` are the images' root, the container's
/// id, and a letter and a number for each descriptor. Returns only what went wrong.
pub fn monitor(arguments: impl Iterator<Item = OsString>) -> std::io::Error {
    match Monitor::new(arguments) {
        Some(mut monitor) => monitor.live(),
        None => std::io::ErrorKind::InvalidInput.into(),
    }
}

/// Descriptors that this process was started with, each named once and by nobody else.
pub fn inherited(numbers: &[RawFd]) -> Vec<OwnedFd> {
    let own = |number: &RawFd| {
        // SAFETY: who starts this program leaves these descriptors open for it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(*number) };
        fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).is_ok().then_some(descriptor)
    };
    numbers.iter().filter(|number| **number > 2).filter_map(own).collect()
}

impl Monitor {
    fn new(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let (root, id) = (arguments.next()?, arguments.next()?);
        let (mut init, mut door, mut log, mut input, mut check, mut rotation) = (None, None, None, None, None, None);
        let (mut sources, mut guests) = (Vec::new(), Vec::new());
        for argument in arguments {
            let (letter, number) = argument.to_str()?.split_at_checked(1)?;
            match letter {
                "h" => check = Some(Check::parse(number)?),
                "r" => rotation = Some(parse_rotation(number)?),
                _ => {}
            }
            if matches!(letter, "h" | "r") {
                continue;
            }
            let descriptor = inherited(&[number.parse().ok()?]).pop()?;
            match letter {
                "p" => init = Some(descriptor),
                "d" => door = Some(descriptor),
                "l" => log = Some(descriptor),
                "i" => input = Some(descriptor),
                "g" => guests.push(Guest { wire: Wire::of(descriptor), waiting: None, gone: false }),
                "o" | "e" | "t" => {
                    fcntl(&descriptor, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).ok()?;
                    let terminal = letter == "t";
                    if terminal {
                        input = Some(descriptor.try_clone().ok()?);
                    }
                    let letter = if letter == "e" { b'e' } else { b'o' };
                    sources.push(Source { letter, from: descriptor, terminal, line: Vec::new(), open: true });
                }
                _ => return None,
            }
        }
        if let Some(input) = &input {
            fcntl(input, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).ok()?;
        }
        let (init, door) = (init?, door?);
        let path = || log_path(&Shelf::below(root.as_ref()).folder_of(&id.to_string_lossy()));
        let log = log.map(|log| LogFile::new(log, path(), rotation));
        Some(Self { root, id, init, door, log, sources, input, typed: Vec::new(), guests, check })
    }

    fn live(&mut self) -> std::io::Error {
        loop {
            let ready = self.wait();
            if ready.came {
                self.let_in();
            }
            self.serve_guests();
            self.pass_on();
            self.show();
            self.look_after_health();
            if ready.ended {
                return self.end();
            }
        }
    }

    /// Whether a guest has to read first: until then nothing more is taken from the container, which waits for it.
    fn is_stalled(&self) -> bool {
        self.guests.iter().any(|guest| guest.waiting.is_some())
    }

    fn wait(&self) -> Ready {
        let stalled = self.is_stalled();
        let mut all = vec![PollFd::new(self.init.as_fd(), PollFlags::POLLIN)];
        let room = self.guests.len() < GUESTS;
        all.push(PollFd::new(self.door.as_fd(), if room { PollFlags::POLLIN } else { PollFlags::empty() }));
        for guest in &self.guests {
            let read = if self.typed.is_empty() { PollFlags::POLLIN } else { PollFlags::empty() };
            let write = if guest.waiting.is_some() { PollFlags::POLLOUT } else { PollFlags::empty() };
            all.push(PollFd::new(guest.wire.as_fd(), read | write));
        }
        if !stalled {
            let open = self.sources.iter().filter(|source| source.open);
            all.extend(open.map(|source| PollFd::new(source.from.as_fd(), PollFlags::POLLIN)));
        }
        if let (Some(input), false) = (&self.input, self.typed.is_empty()) {
            all.push(PollFd::new(input.as_fd(), PollFlags::POLLOUT));
        }
        let patience = self.check.as_ref().map_or(PollTimeout::NONE, |check| {
            // While a check runs its end is looked for; it has a limit of its own.
            let rest = check.next.saturating_duration_since(Instant::now()).as_millis().min(60_000) as u16;
            PollTimeout::from(if check.running.is_some() { 100 } else { rest.saturating_add(1) })
        });
        // Interrupted, everything is looked at and nothing found.
        let _ = poll(&mut all, patience);
        let is_ready = |at: usize| all.get(at).and_then(PollFd::any).unwrap_or(false);
        Ready { ended: is_ready(0), came: is_ready(1) }
    }

    fn let_in(&mut self) {
        while self.guests.len() < GUESTS {
            let Ok(wire) = let_in(&self.door) else { return };
            self.guests.push(Guest { wire, waiting: None, gone: false });
        }
    }

    fn serve_guests(&mut self) {
        for at in 0..self.guests.len() {
            self.retry(at);
            while self.typed.is_empty() {
                let Some(guest) = self.guests.get_mut(at).filter(|guest| !guest.gone) else { break };
                match guest.wire.try_hear() {
                    Ok(Some(message)) => self.obey(message.kind, message.bytes),
                    Err(Errno::EAGAIN) => break,
                    _ => guest.gone = true,
                }
            }
        }
        self.guests.retain(|guest| !guest.gone);
    }

    fn retry(&mut self, at: usize) {
        let Some(guest) = self.guests.get_mut(at) else { return };
        if let Some((kind, bytes)) = guest.waiting.take() {
            guest.say(kind, bytes);
        }
    }

    fn obey(&mut self, kind: u8, bytes: Vec<u8>) {
        let terminal = self.sources.iter().find(|source| source.terminal);
        match (kind, terminal) {
            (b'i', _) if self.input.is_some() => self.typed = bytes,
            // On a terminal the end of what is typed is said by a letter.
            (b'c', Some(terminal)) => self.typed = vec![settings(&terminal.from).map_or(4, |it| it.end_of_file())],
            (b'c', None) => self.input = None,
            (b'w', Some(terminal)) => {
                if let Some(size) = read_size(&bytes) {
                    // A window that cannot be sized harms nobody.
                    let _ = set_size(&terminal.from, size);
                }
            }
            (b'k', _) => {
                let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
                // One that has ended needs no signal.
                let _ = number.map(|number: i32| pidfd_signal(&self.init, number));
            }
            _ => {}
        }
    }

    fn pass_on(&mut self) {
        if self.typed.is_empty() {
            return;
        }
        let Some(input) = &self.input else {
            self.typed.clear();
            return;
        };
        match nix::unistd::write(input, &self.typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => {
                self.typed.clear();
                self.input = None;
            }
        }
    }

    /// Takes what was printed, once from each source. Answers whether there was any.
    fn show(&mut self) -> bool {
        let mut any = false;
        let mut buffer = [0_u8; MOST];
        for at in 0..self.sources.len() {
            if self.is_stalled() {
                break;
            }
            let Some(source) = self.sources.get_mut(at).filter(|source| source.open) else { continue };
            match nix::unistd::read(&source.from, &mut buffer) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                // EIO: nobody holds the terminal's other end any more.
                Ok(0) | Err(_) => source.open = false,
                Ok(count) => {
                    any = true;
                    let bytes = buffer.get(..count).unwrap_or_default();
                    if let Some(log) = &mut self.log {
                        source.note(log, bytes);
                    }
                    let letter = source.letter;
                    for guest in self.guests.iter_mut().filter(|guest| !guest.gone) {
                        guest.say(letter, bytes.to_vec());
                    }
                }
            }
        }
        any
    }

    fn look_after_health(&mut self) {
        let Some(check) = &mut self.check else { return };
        if let Some(child) = &mut check.running {
            if matches!(child.try_wait(), Ok(None)) {
                return;
            }
            check.running = None;
            check.put_off();
        }
        if Instant::now() >= check.next {
            let mut command = Command::new("/proc/self/exe");
            command.arg("--root").arg(&self.root).arg("health").arg(&self.id);
            check.running = command.spawn().ok();
            check.put_off();
        }
    }

    /// The container has ended: what it printed last is taken, its status heard, and the heavy form does the rest.
    fn end(&mut self) -> std::io::Error {
        loop {
            let more = self.show();
            if self.is_stalled() && !self.wait_for_guests() {
                self.guests.retain(|guest| guest.waiting.is_none());
            } else if !more && !self.is_stalled() {
                break;
            }
        }
        if let Some(log) = &mut self.log {
            self.sources.iter_mut().for_each(|source| source.note_rest(log));
        }
        if let Some(mut child) = self.check.as_mut().and_then(|check| check.running.take()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let code = reap(&self.init).map_or(255, Ending::code);
        let mut command = Command::new("/proc/self/exe");
        command.arg("--root").arg(&self.root).arg("keep").arg(&self.id).arg("--ended").arg(code.to_string());
        for guest in &self.guests {
            if fcntl(&guest.wire, FcntlArg::F_SETFD(FdFlag::empty())).is_ok() {
                command.arg("--guest").arg(guest.wire.as_fd().as_raw_fd().to_string());
            }
        }
        command.exec()
    }

    /// Waits until a guest has read something; false if none does.
    fn wait_for_guests(&mut self) -> bool {
        let waiting = self.guests.iter().filter(|guest| guest.waiting.is_some());
        let mut all: Vec<PollFd<'_>> =
            waiting.map(|guest| PollFd::new(guest.wire.as_fd(), PollFlags::POLLOUT)).collect();
        let moved = !matches!(poll(&mut all, LAST_WORDS), Ok(0));
        for at in 0..self.guests.len() {
            self.retry(at);
        }
        self.guests.retain(|guest| !guest.gone);
        moved
    }
}

struct Ready {
    ended: bool,
    came: bool,
}

impl Guest {
    fn say(&mut self, kind: u8, bytes: Vec<u8>) {
        match self.wire.try_say(kind, &bytes) {
            Ok(()) => {}
            Err(Errno::EAGAIN) => self.waiting = Some((kind, bytes)),
            Err(_) => self.gone = true,
        }
    }
}

impl Source {
    /// Writes whole lines to the log, and keeps what has no end yet.
    fn note(&mut self, log: &mut LogFile, mut bytes: &[u8]) {
        let mut text = Vec::new();
        while !bytes.is_empty() {
            let room = LINE.saturating_sub(self.line.len()).max(1);
            let end = bytes.iter().take(room).position(|byte| *byte == b'\n').map(|at| at + 1);
            let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len().min(room)));
            self.line.extend_from_slice(part);
            bytes = rest;
            if end.is_some() || self.line.len() >= LINE {
                self.entry(&mut text);
            }
        }
        log.append(&text);
    }

    fn note_rest(&mut self, log: &mut LogFile) {
        if !self.line.is_empty() {
            let mut text = Vec::new();
            self.entry(&mut text);
            log.append(&text);
        }
    }

    /// docker's form: a line of JSON for each line.
    fn entry(&mut self, text: &mut Vec<u8>) {
        let stream = if self.letter == b'e' { "stderr" } else { "stdout" };
        text.extend_from_slice(b"{\"log\":");
        // Neither can fail: a string into memory.
        let _ = serde_json::to_writer(&mut *text, &String::from_utf8_lossy(&self.line));
        let _ = writeln!(text, ",\"stream\":\"{stream}\",\"time\":\"{}\"}}", rfc3339(since_epoch()));
        self.line.clear();
    }
}

/// As the heavy form wrote it: a size, and how many files.
fn parse_rotation(text: &str) -> Option<Rotation> {
    let (size, files) = text.split_once(',')?;
    Some(Rotation { size: size.parse().ok()?, files: files.parse().ok()? })
}
