//! Talking to a container through its keeper: what is typed goes in, what is printed comes out, signals go on to it, and a
//! pair of keys leaves it running.

use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::read;

use super::Engine;
use super::error::{EngineError, io_error};
use super::keeper::tell_size;
use super::record::Record;
use super::wire::{MOST, Wire};
use super::wishes::{WishError, refused};
use crate::container::{Settings, Signals, Size, set_settings, settings, size};

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// The container ended, with this status.
    Ended(i32),
    /// The keys were pressed; it goes on.
    Left,
    /// Whoever stood by it is gone.
    Lost,
}

/// How to talk.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is one stream, or one choice of the command line")]
pub struct Manner {
    /// Whether what is typed goes to the container.
    pub input: bool,
    /// Whether what it prints is heard.
    pub output: bool,
    /// Whether its errors are.
    pub errors: bool,
    /// Whether signals go on to it.
    pub signals: bool,
    /// The keys that leave it, as bytes.
    pub keys: Vec<u8>,
}

impl Manner {
    /// Whether nothing that the container prints is left out.
    pub(super) fn hears_all(&self) -> bool {
        self.output && self.errors
    }
}

/// docker's keys: Ctrl-P, Ctrl-Q.
pub const KEYS: &str = "ctrl-p,ctrl-q";

impl Engine {
    /// Starts a container with a keeper, and talks to it.
    pub fn start_and_attach(&self, text: &str, manner: &Manner) -> Result<Parting, EngineError> {
        let record = self.find(text)?;
        let wire = self.start_kept(&record, window(&record), None)?;
        converse(&wire, &record, manner)
    }

    /// Talks to a container that runs.
    pub fn attach_to(&self, text: &str, manner: &Manner) -> Result<Parting, EngineError> {
        let record = self.find(text)?;
        let state = self.state(&record)?;
        let kept = record.life.running.as_ref().is_some_and(|running| running.keeper.is_some());
        if !state.is_up() {
            return Err(super::control::unfit("attach to", &record, state));
        }
        let door = self.door(&record.id);
        if !kept || !door.exists() {
            return Err(EngineError::NoKeeper { attempt: "attach to", name: record.name });
        }
        let wire = Wire::connect(&door).map_err(|errno| io_error("connect to", &door)(errno.into()))?;
        tell_size(&wire, window(&record));
        converse(&wire, &record, manner)
    }
}

fn window(record: &Record) -> Option<Size> {
    record.wishes.terminal.then(|| size(&io::stdin()).ok()).flatten().filter(|it| it.rows > 0 && it.columns > 0)
}

/// Our terminal, made raw; as it was when this is dropped.
struct Raw(Option<Settings>);

impl Raw {
    fn make(wanted: bool) -> Self {
        let before = wanted.then(|| settings(&io::stdin()).ok()).flatten();
        let raw = before.filter(|before| set_settings(&io::stdin(), &before.raw()).is_ok());
        Self(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that is gone needs no mending.
            let _ = set_settings(&io::stdin(), before);
        }
    }
}

fn converse(wire: &Wire, record: &Record, manner: &Manner) -> Result<Parting, EngineError> {
    let failed = |errno: Errno| io_error("talk to", "the container's keeper")(errno.into());
    let signals = Signals::collect().map_err(failed)?;
    let terminal = record.wishes.terminal;
    let _raw = Raw::make(terminal && manner.input);
    let mut keys = Keys { wanted: if terminal { &manner.keys } else { &[] }, matched: 0 };
    let mut input = manner.input && record.wishes.interactive;
    loop {
        let mut all =
            vec![PollFd::new(wire.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let stdin = io::stdin();
        if input {
            all.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut all, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.map_err(failed)?,
        };
        let is_ready = |at: usize| all.get(at).and_then(PollFd::any).unwrap_or(false);
        let (said, signal, typed) = (is_ready(0), is_ready(1), is_ready(2));
        if signal {
            pass_signals(wire, &signals, record, manner).map_err(failed)?;
        }
        if typed {
            match type_on(wire, &mut keys) {
                Typed::More => {}
                Typed::End => input = false,
                Typed::Left => return Ok(Parting::Left),
            }
        }
        if said {
            match wire.hear().map_err(failed)? {
                Some(message) => match message.kind {
                    b'o' if manner.output => print(&mut io::stdout(), &message.bytes),
                    b'e' if manner.errors => print(&mut io::stderr(), &message.bytes),
                    b'x' => return Ok(Parting::Ended(number(&message.bytes))),
                    _ => {}
                },
                None => return Ok(Parting::Lost),
            }
        }
    }
}

fn number(bytes: &[u8]) -> i32 {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(255)
}

fn pass_signals(wire: &Wire, signals: &Signals, record: &Record, manner: &Manner) -> nix::Result<()> {
    while let Some(number) = signals.next()? {
        if number == Signal::SIGWINCH as i32 {
            tell_size(wire, window(record));
        } else if manner.signals && number != Signal::SIGURG as i32 {
            // Who is gone needs no signal; that it is gone is seen next.
            let _ = wire.say(b'k', number.to_string().as_bytes());
        } else if [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].iter().any(|ours| *ours as i32 == number) {
            // Meant for this command, and not for the container.
            return Err(Errno::EINTR);
        }
    }
    Ok(())
}

enum Typed {
    More,
    End,
    Left,
}

fn type_on(wire: &Wire, keys: &mut Keys<'_>) -> Typed {
    let mut buffer = [0_u8; MOST / 2];
    match read(io::stdin(), &mut buffer) {
        Ok(0) => {
            let _ = wire.say(b'c', b"");
            Typed::End
        }
        Ok(count) => {
            let (through, left) = keys.filter(buffer.get(..count).unwrap_or_default());
            if !through.is_empty() {
                let _ = wire.say(b'i', &through);
            }
            if left { Typed::Left } else { Typed::More }
        }
        Err(Errno::EINTR | Errno::EAGAIN) => Typed::More,
        // Our terminal is gone: there is nothing to be heard any more.
        Err(_) => Typed::End,
    }
}

/// What nobody reads is lost, and nobody misses it.
fn print(to: &mut impl Write, bytes: &[u8]) {
    let _ = to.write_all(bytes).and_then(|()| to.flush());
}

/// Looks for the keys that leave a container.
struct Keys<'a> {
    wanted: &'a [u8],
    matched: usize,
}

impl Keys<'_> {
    /// What goes through, and whether the keys were pressed. Some of them, followed by others, go through late.
    fn filter(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        if self.wanted.is_empty() {
            return (bytes.to_vec(), false);
        }
        let mut through = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.wanted.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.wanted.len() {
                    return (through, true);
                }
                continue;
            }
            through.extend_from_slice(self.wanted.get(..self.matched).unwrap_or_default());
            self.matched = usize::from(self.wanted.first() == Some(byte));
            if self.matched == 0 {
                through.push(*byte);
            }
        }
        (through, false)
    }
}

/// Reads keys as docker names them: `ctrl-p,ctrl-q`, or letters.
pub fn parse_keys(text: &str) -> Result<Vec<u8>, WishError> {
    const EXPECTED: &str = "keys with commas between: letters, or ctrl- and one of a-z @ [ \\ ] ^ _";
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut keys = Vec::new();
    for key in text.split(',') {
        match (key.strip_prefix("ctrl-").map(str::as_bytes), key.as_bytes()) {
            (Some([letter @ (b'a'..=b'z' | b'A'..=b'Z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]), _) => {
                keys.push(letter.to_ascii_uppercase() & 0x1f);
            }
            (None, [letter]) => keys.push(*letter),
            _ => return refused(text, EXPECTED),
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::{KEYS, Keys, parse_keys};

    #[test]
    fn keys_are_read_as_docker_writes_them() {
        assert_eq!(parse_keys(KEYS), Ok(vec![16, 17]));
        assert_eq!(parse_keys("a,ctrl-[,ctrl-@"), Ok(vec![b'a', 27, 0]));
        assert!(["ctrl-", "ctrl-1", "ab", "a,,b"].iter().all(|text| parse_keys(text).is_err()));
    }

    #[test]
    fn only_both_keys_leave_and_one_goes_through() {
        let mut keys = Keys { wanted: &[16, 17], matched: 0 };
        assert_eq!(keys.filter(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.filter(b"b\x10\x10"), (b"\x10b\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11c"), (Vec::new(), true));
    }
}
