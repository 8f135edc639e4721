//! Who logs in, and by which password: said, read from standard input, or asked for in a terminal.

use std::io::{self, BufRead, IsTerminal, Read, Stdin};

use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices, Termios};

use crate::voice::Failure;

/// No password is longer than this.
const LONGEST: u64 = 64 << 10;
/// What ^C comes as where it sends no signal.
const INTERRUPT: u8 = 3;

/// Asks for the user.
pub(super) fn ask_user() -> Result<String, Failure> {
    let input = io::stdin();
    if !input.is_terminal() {
        return Err(Failure::NoAnswer { what: "user", hint: "name one with --username" });
    }
    eprint!("Username: ");
    Ok(line(&input, "the user")?.trim().to_owned())
}

/// The password: as said on the command line, all of standard input, or what is typed where nobody sees it.
pub(super) fn read(said: Option<&String>, from_input: bool) -> Result<String, Failure> {
    if let Some(password) = said {
        eprintln!("warning: everyone on this machine can see a password on a command line: use --password-stdin");
        return Ok(password.clone());
    }
    let input = io::stdin();
    let text = if from_input {
        let mut text = String::new();
        let read = input.take(LONGEST).read_to_string(&mut text);
        read.map_err(|source| Failure::Read { from: "the password".to_owned(), source })?;
        text
    } else if input.is_terminal() {
        unseen(&input)?
    } else {
        let hint = "give it on standard input, with --password-stdin";
        return Err(Failure::NoAnswer { what: "password", hint });
    };
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A line that is typed without being shown.
fn unseen(input: &Stdin) -> Result<String, Failure> {
    let failed = |source| Failure::Read { from: "the password".to_owned(), source };
    // Before anybody is asked: what is typed until then is thrown away, and whoever is quick has typed after the question.
    let silence = Silence::begin(input).map_err(|errno| failed(errno.into()))?;
    eprint!("Password: ");
    let text = line(input, "the password");
    drop(silence);
    eprintln!();
    let text = text?;
    if text.bytes().any(|byte| byte == INTERRUPT) {
        return Err(failed(io::ErrorKind::Interrupted.into()));
    }
    Ok(text)
}

fn line(input: &Stdin, what: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = input.lock().take(LONGEST).read_line(&mut text);
    read.map_err(|source| Failure::Read { from: what.to_owned(), source })?;
    Ok(text)
}

/// A terminal that shows nothing of what is typed, until this is dropped (termios(3)).
struct Silence<'a> {
    terminal: &'a Stdin,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn begin(terminal: &'a Stdin) -> nix::Result<Self> {
        let before = termios::tcgetattr(terminal)?;
        let mut silent = before.clone();
        // ^C must not end the process and leave the terminal so: it ends the line instead, and is found in it.
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        silent.control_chars[SpecialCharacterIndices::VEOL as usize] = INTERRUPT;
        termios::tcsetattr(terminal, SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing anyhow.
        let _ = termios::tcsetattr(self.terminal, SetArg::TCSANOW, &self.before);
    }
}
