//! The command: started as root, heard to the end, and everything it started ended with it.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

use super::super::forward::FOLDER;
use super::super::wire::Frame;
use super::port::Port;
use super::{InitError, say};

/// Where the command may leave files for the host: `$OUT`.
pub(super) const OUT: &str = "/out";

/// The exit status of shells and of env(1) for a command that is not there, and for one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// Runs it to its end and returns its exit status.
pub(super) fn run(words: &[String], port: &Arc<Port>) -> Result<u8, InitError> {
    let [program, arguments @ ..] = words else { return Err(InitError::NoPort("the host named no command")) };
    let path = format!("{FOLDER}:/bin");
    let mut command = Command::new(program);
    command.args(arguments).current_dir(FOLDER).env_clear();
    command.envs([("PATH", path.as_str()), ("HOME", "/root"), ("USER", "root"), ("OUT", OUT), ("TERM", "dumb")]);
    // A session of its own: no signal for it is one for us.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    say(port.send(&Frame::Started));
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(not_started(program, &error, port)),
    };
    let pumps = [
        child.stdout.take().map(|stream| pump(stream, Frame::Stdout, port)),
        child.stderr.take().map(|stream| pump(stream, Frame::Stderr, port)),
    ];
    let status = wait_for(Pid::from_raw(child.id() as i32))?;
    end_the_rest();
    for pump in pumps.into_iter().flatten() {
        // It cannot panic, and without it there is only less output.
        let _ = pump.join();
    }
    Ok(status)
}

/// Tells why the command was not started, as a shell does.
fn not_started(program: &str, error: &std::io::Error, port: &Port) -> u8 {
    let text = format!(
        "error: cannot run {program} in the testbed: {error}\n  \
         hint: --forward FILE brings a program of this host in; the lab's own and busybox' are there\n"
    );
    say(port.send(&Frame::Stderr(text.into_bytes())));
    if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN }
}

/// Passes a stream on, piece by piece, to its end.
fn pump(
    mut stream: impl Read + Send + 'static,
    frame: fn(Vec<u8>) -> Frame,
    port: &Arc<Port>,
) -> thread::JoinHandle<()> {
    let port = Arc::clone(port);
    thread::spawn(move || {
        let mut piece = vec![0; 64 << 10];
        while let Ok(length @ 1..) = stream.read(&mut piece) {
            say(port.send(&frame(piece.iter().take(length).copied().collect())));
        }
    })
}

/// Waits until the command has ended, and meanwhile for every orphan, as the first process must.
fn wait_for(command: Pid) -> Result<u8, InitError> {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, status)) if pid == command => return Ok(status as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => return Ok(128 + signal as u8),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(InitError::step("wait for", "the command")(error)),
        }
    }
}

/// Ends all processes but this one, so that the streams they hold end too.
fn end_the_rest() {
    // kill(2): -1 is everybody except the first process. It fails where there is nobody.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while !matches!(wait(), Err(Errno::ECHILD)) {}
}
