//! The emulated machine: QEMU as a child of ours, with a console that nobody sees while all is well, and one port that the
//! machine speaks to us by.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;

use crate::host::tools;

use super::error::TestbedError;
use super::kernel::Kernel;
use super::wire::{Frame, NUDGE, PORT};

const EMULATOR: &str = "qemu-system-x86_64";

/// How much of the console's end is kept for an error, bytes.
const CONSOLE: usize = 8 << 10;

/// A running machine. It ends when this is dropped, and when the process that made it dies, however it dies.
pub(super) struct Machine {
    emulator: Child,
    port: UnixStream,
    console: Option<JoinHandle<VecDeque<u8>>>,
}

/// What a machine is made of.
pub(super) struct Parts<'a> {
    pub(super) cpus: u32,
    /// What they lack, as the emulator names it.
    pub(super) without: &'a [String],
    /// MiB.
    pub(super) memory: u32,
    pub(super) kernel: &'a Kernel,
    /// The archive of its file system.
    pub(super) image: &'a File,
}

impl Machine {
    /// Starts it. To be called on a thread that lives as long as the machine shall.
    pub(super) fn start(parts: &Parts<'_>) -> Result<Self, TestbedError> {
        let program = tools::find(EMULATOR).ok_or(TestbedError::NoEmulator(EMULATOR))?;
        let (port, far_end) = UnixStream::pair().map_err(TestbedError::host("make the machine's port"))?;
        let far_end = OwnedFd::from(far_end);
        let (console, printed) = io::pipe().map_err(TestbedError::host("make the machine's console"))?;
        let also_printed = printed.try_clone().map_err(TestbedError::host("make the machine's console"))?;
        let mut command = command(&program, parts, far_end.as_raw_fd());
        command.stdin(Stdio::null()).stdout(printed).stderr(also_printed);
        bind_to_us(&mut command, [far_end.as_raw_fd(), parts.image.as_raw_fd()]);
        let emulator = command.spawn().map_err(TestbedError::host("start the emulator"))?;
        // `command` holds the write ends of the console, `far_end` is the port's: only the emulator shall, so that we see it end.
        drop((command, far_end));
        nudge(port.try_clone().map_err(TestbedError::host("share the machine's port"))?);
        Ok(Self { emulator, port, console: Some(thread::spawn(move || end_of(console))) })
    }

    /// One that only sleeps; whoever has the other end of `port` speaks for it.
    #[cfg(test)]
    pub(super) fn dummy(port: UnixStream) -> Self {
        let emulator = Command::new("sleep").arg("60").spawn().unwrap();
        Self { emulator, port, console: None }
    }

    /// The next frame; an error of kind `TimedOut` once the deadline is past, `UnexpectedEof` once the machine is gone.
    pub(super) fn next(&mut self, deadline: Option<Instant>) -> io::Result<Frame> {
        Frame::read(&mut Until { port: &self.port, deadline })
    }

    /// Ends it, and tells what its console showed last.
    pub(super) fn last_words(mut self) -> String {
        self.end();
        let bytes = self.console.take().and_then(|console| console.join().ok()).unwrap_or_default();
        let text = String::from_utf8_lossy(&Vec::from(bytes)).replace('\r', "");
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() { "(its console showed nothing)".to_owned() } else { lines.join("\n") }
    }

    fn end(&mut self) {
        // Both fail only where it has ended and been waited for already. It has nothing to lose: no disk, no network.
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}

/// The emulator's command line.
fn command(program: &Path, parts: &Parts<'_>, port: RawFd) -> Command {
    let mut command = Command::new(program);
    // A thread for each processor. One for all would be the safer way to have several, but not with virtual machines in them:
    // see `CPUS`.
    command.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-no-reboot", "-nodefaults", "-display", "none"]);
    // A CPU with AMD-V and nested paging: the emulator has no VT-x to offer.
    let without = parts.without.iter().map(|feature| format!("-{feature}"));
    let cpu: Vec<String> = std::iter::once("EPYC-Rome,+svm,+npt".to_owned()).chain(without).collect();
    command.args(["-cpu", &cpu.join(",")]);
    command.args(["-smp", &parts.cpus.to_string(), "-m", &parts.memory.to_string()]);
    command.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    command.args(["-chardev", &format!("socket,id=port,fd={port}"), "-device", "virtio-serial-pci"]);
    command.args(["-device", &format!("virtserialport,chardev=port,name={PORT}")]);
    command.args(["-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random"]);
    command.arg("-kernel").arg(&parts.kernel.image);
    // The archive has no name in any file system: the emulator inherits it.
    command.args(["-initrd", &format!("/proc/self/fd/{}", parts.image.as_raw_fd())]);
    // panic=-1 restarts at once, which -no-reboot turns into an exit. After `--` come the arguments of the first process.
    let arguments =
        "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on rdinit=/bin/isolab-bench -- testbed-init";
    command.args(["-append", arguments]);
    command
}

/// Lets the child inherit these descriptors, and die when the thread that starts it does.
fn bind_to_us(command: &mut Command, inherited: [RawFd; 2]) {
    let parent = nix::unistd::getpid();
    let prepare = move || {
        // prctl(2): the one signal that even our own SIGKILL sends. If we died before this line, nobody would send it.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if nix::unistd::getppid() != parent {
            return Err(io::Error::from(nix::errno::Errno::ESRCH));
        }
        for descriptor in inherited {
            // SAFETY: both stay open in the parent until after the child is started.
            let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) };
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, on copies of plain numbers.
    unsafe { command.pre_exec(prepare) };
}

/// Sends a byte again and again, until the machine is gone.
fn nudge(mut port: UnixStream) {
    thread::spawn(move || {
        while port.write_all(&[0]).is_ok() {
            thread::sleep(NUDGE);
        }
    });
}

/// Reads the console to its end and keeps the last of it.
fn end_of(mut console: PipeReader) -> VecDeque<u8> {
    let mut kept = VecDeque::with_capacity(2 * CONSOLE);
    let mut piece = [0; 4096];
    // An error here is an end: there is nothing else to learn from this pipe.
    while let Ok(length @ 1..) = console.read(&mut piece) {
        kept.extend(piece.iter().take(length));
        kept.drain(..kept.len().saturating_sub(CONSOLE));
    }
    kept
}

/// The port, up to a moment.
struct Until<'a> {
    port: &'a UnixStream,
    deadline: Option<Instant>,
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // The kernel rounds to clock ticks, and takes zero for "forever".
        self.port.set_read_timeout(left.map(|left| left.max(Duration::from_millis(10))))?;
        match self.port.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
            // The emulator died with something unread: for us it is gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(0),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_console_is_kept() {
        let (console, mut printed) = io::pipe().unwrap();
        let reader = thread::spawn(move || end_of(console));
        for line in 0..10_000 {
            writeln!(printed, "line {line}").unwrap();
        }
        drop(printed);
        let kept = String::from_utf8(reader.join().unwrap().into()).unwrap();
        assert_eq!(kept.len(), CONSOLE);
        assert!(kept.ends_with("line 9998\nline 9999\n"));
    }

    #[test]
    fn a_machine_is_nudged_until_it_is_gone() {
        let (near, mut far) = UnixStream::pair().unwrap();
        nudge(near);
        far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        far.read_exact(&mut [1; 3]).unwrap();
    }

    #[test]
    fn a_silent_port_is_read_no_longer_than_until_the_deadline() {
        let (near, far) = UnixStream::pair().unwrap();
        let start = Instant::now();
        let deadline = Some(start + Duration::from_millis(50));
        let error = Frame::read(&mut Until { port: &near, deadline }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(5));
        drop(far);
        let error = Frame::read(&mut Until { port: &near, deadline: None }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
