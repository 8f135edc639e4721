//! The relay between our own terminal and the container's, while the command stays in the foreground.
//!
//! Ours is made raw: each key goes through as a byte, and it is the container's terminal that makes lines, echo and signals
//! of them. So Ctrl-C reaches the program's job in there, and not the command that relays.

use std::io::{self, Stdin};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{read, write};

use super::error::ContainerError;
use super::signals::Signals;
use super::sys::process::pidfd_signal;
use super::sys::terminal::{Settings, set_settings, set_size, settings, size};

/// How long nobody may hold the container's end before it is looked at again, in milliseconds.
const LULL: u16 = 100;
/// How long to wait for more after the program has ended, if a process it left behind holds its terminal.
const LAST_WORDS: u16 = 50;

/// Relays until the process behind `pidfd` has ended and all that its terminal still held is written.
pub(crate) fn relay(far: OwnedFd, pidfd: &OwnedFd, signals: &Signals) -> Result<(), ContainerError> {
    let failed = ContainerError::system("relay", "the terminal");
    Relay::new(far).and_then(|mut relay| relay.run(pidfd, signals)).map_err(failed)
}

#[expect(clippy::struct_excessive_bools, reason = "four facts about two streams, each true or not by itself")]
struct Relay {
    far: OwnedFd,
    stdin: Stdin,
    stdout: io::Stdout,
    /// What was typed and could not be passed on yet.
    typed: Vec<u8>,
    /// Whether a line was begun and not ended: then the end of file has to be said twice.
    in_line: bool,
    hears: bool,
    speaks: bool,
    /// Nobody has the container's end open at the moment.
    alone: bool,
    /// Ours as it was before. Given back when this is dropped, whatever the way out.
    before: Option<Settings>,
}

impl Relay {
    fn new(far: OwnedFd) -> nix::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&far, FcntlArg::F_GETFL)?);
        fcntl(&far, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let stdin = io::stdin();
        let before = settings(&stdin).ok();
        if let Some(before) = &before {
            // SIGTTOU, which this raises in the background, is among the signals that are collected.
            set_settings(&stdin, &before.raw())?;
        }
        let typed = Vec::new();
        let stdout = io::stdout();
        let mut relay =
            Self { far, stdin, stdout, typed, in_line: false, hears: true, speaks: true, alone: false, before };
        relay.resize();
        Ok(relay)
    }

    fn run(&mut self, pidfd: &OwnedFd, signals: &Signals) -> nix::Result<()> {
        loop {
            let ready = self.wait(pidfd, signals)?;
            if ready.signal {
                self.take_signals(pidfd, signals)?;
            }
            if ready.stdin {
                self.listen();
            }
            if !self.typed.is_empty() {
                self.pass_on();
            }
            if ready.far {
                self.alone = !self.show()?;
            }
            if ready.ended {
                return self.drain();
            }
        }
    }

    fn wait(&mut self, pidfd: &OwnedFd, signals: &Signals) -> nix::Result<Ready> {
        let far = match (self.alone, self.typed.is_empty()) {
            (true, _) => PollFlags::empty(),
            (false, true) => PollFlags::POLLIN,
            (false, false) => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        let mut all =
            vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let (hears, alone) = (self.hears && self.typed.is_empty(), self.alone);
        if !alone {
            all.push(PollFd::new(self.far.as_fd(), far));
        }
        if hears {
            all.push(PollFd::new(self.stdin.as_fd(), PollFlags::POLLIN));
        }
        let patience = if alone { PollTimeout::from(LULL) } else { PollTimeout::NONE };
        match poll(&mut all, patience) {
            Err(Errno::EINTR) => return Ok(Ready::default()),
            other => other?,
        };
        let mut said = all.iter().map(|one| one.revents().unwrap_or(PollFlags::empty()));
        let mut next = |there: bool| if there { said.next() } else { None }.unwrap_or(PollFlags::empty());
        let (ended, signal) = (!next(true).is_empty(), !next(true).is_empty());
        let far = next(!alone).intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) || alone;
        Ok(Ready { ended, signal, far, stdin: !next(hears).is_empty() })
    }

    /// Passes signals on; but the news that our window has changed is for the container's terminal.
    fn take_signals(&mut self, pidfd: &OwnedFd, signals: &Signals) -> nix::Result<()> {
        while let Some(number) = signals.next()? {
            if number == Signal::SIGWINCH as i32 {
                self.resize();
                continue;
            }
            match pidfd_signal(pidfd, number) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn resize(&mut self) {
        // Without a terminal of our own there is no size to copy; and one that cannot be set harms nobody.
        if let Ok(ours) = size(&self.stdin)
            && (ours.rows, ours.columns) != (0, 0)
        {
            let _ = set_size(&self.far, ours);
        }
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        match read(&self.stdin, &mut buffer) {
            Ok(0) => {
                self.hears = false;
                // The end of a file is no byte; on a terminal it is said by one, and after half a line by two.
                let byte = settings(&self.far).map_or(4, |settings| settings.end_of_file());
                self.typed.extend(std::iter::repeat_n(byte, if self.in_line { 2 } else { 1 }));
            }
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                self.in_line = !matches!(bytes.last(), Some(b'\n' | b'\r'));
                self.typed.extend_from_slice(bytes);
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // Our terminal is gone, or we are in its background: there is nothing to be heard any more.
            Err(_) => self.hears = false,
        }
    }

    fn pass_on(&mut self) {
        match write(&self.far, &self.typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => self.typed.clear(),
        }
    }

    /// Writes what the container's terminal says; false: nobody holds its other end.
    fn show(&mut self) -> nix::Result<bool> {
        let mut buffer = [0; 16384];
        match read(&self.far, &mut buffer) {
            Ok(0) | Err(Errno::EIO) => Ok(false),
            Ok(count) => {
                self.say(buffer.get(..count).unwrap_or_default());
                Ok(true)
            }
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(true),
            Err(errno) => Err(errno),
        }
    }

    /// Writes to our standard output. Where nobody reads that, what is said is read all the same: or the program would
    /// wait for ever for room in its terminal.
    fn say(&mut self, mut bytes: &[u8]) {
        while self.speaks && !bytes.is_empty() {
            match write(&self.stdout, bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => wait_writable(self.stdout.as_fd()),
                Err(_) => self.speaks = false,
            }
        }
    }

    /// The program has ended; what it said last may still be on the way.
    fn drain(&mut self) -> nix::Result<()> {
        loop {
            let mut it = [PollFd::new(self.far.as_fd(), PollFlags::POLLIN)];
            match poll(&mut it, LAST_WORDS) {
                Err(Errno::EINTR) => continue,
                Ok(0) => return Ok(()),
                other => other?,
            };
            if !self.show()? {
                return Ok(());
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that is gone needs no mending.
            let _ = set_settings(&self.stdin, before);
        }
    }
}

/// What happened meanwhile.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "any of them can be ready together")]
struct Ready {
    ended: bool,
    signal: bool,
    far: bool,
    stdin: bool,
}

fn wait_writable(output: BorrowedFd<'_>) {
    let _ = poll(&mut [PollFd::new(output, PollFlags::POLLOUT)], PollTimeout::NONE);
}
