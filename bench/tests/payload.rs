//! The payload as a process: it does what is written to it, however that comes in pieces.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// What it says and ends with when these come one after the other.
fn told(pieces: &[&[u8]]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-payload"));
    command.arg("a-nonce").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut payload = command.spawn().unwrap();
    let mut input = payload.stdin.take().unwrap();
    for piece in pieces {
        input.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(20)); // so that it reads them one by one, as far as one can see to that
    }
    drop(input);
    payload.wait_with_output().unwrap()
}

#[test]
fn commands_may_come_together_or_in_parts() {
    let said = told(&[b"nonce\nspin 3\nno", b"", b"nce", b"\n\nnonce\nexit 5\nnonce\n"]);
    let expected = "ISOLAB-READY a-nonce\nnonce a-nonce\nok spin 3\nnonce a-nonce\nnonce a-nonce\n";
    assert_eq!((String::from_utf8(said.stdout).unwrap().as_str(), said.status.code()), (expected, Some(5)));
}

#[test]
fn a_command_that_is_too_long_is_refused_and_none_is_cut() {
    let longest = [&[b'a'; 128][..], b"\nnonce\n"].concat();
    let said = told(&[&longest]);
    assert!(said.stdout.ends_with(b"\nnonce a-nonce\n"), "{said:?}");
    assert_eq!(said.status.code(), Some(0));
    let longer = [&[b'a'; 129][..], b"\nnonce\n"].concat();
    let said = told(&[&longer]);
    assert_eq!((said.stderr, said.status.code()), (b"error: the command is longer than 128 bytes\n".to_vec(), Some(2)));
    let in_the_end = told(&[b"nonce\nexi"]);
    assert!(in_the_end.stdout.ends_with(b"\nnonce a-nonce\n"), "{in_the_end:?}");
}
