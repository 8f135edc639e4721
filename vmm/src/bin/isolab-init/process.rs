//! The program that the machine is for, and all processes that nobody else waits for.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use isolab_vmm::guest::linux::init::{Network, Process};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};
use nix::sys::time::TimeSpec;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, setgid, setgroups, setuid};

use crate::renewal::{self, Badge};
use crate::{InitError, power};

/// Runs the program to its end; returns its status, as a shell tells of it. Where `badge` tells that the machine has become
/// another one, so does the guest.
pub(crate) fn run(process: &Process, badge: Option<Badge>, network: Option<&Network>) -> Result<u8, InitError> {
    let Some((program, arguments)) = process.args.split_first() else { return Err(InitError::NoProgram) };
    // The first process gets no signal that it does not ask for, and this one asks for all.
    let all = SigSet::all();
    all.thread_block().map_err(|error| InitError::Host("take all signals", error.into()))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir(&process.cwd);
    // A container's folder is made where the image has none.
    fs::create_dir_all(&process.cwd).map_err(|source| InitError::Path {
        attempt: "make the folder",
        on: process.cwd.clone(),
        source,
    })?;
    command.envs(process.env.iter().filter_map(|pair| pair.split_once('=')));
    if let Some(terminal) = terminal() {
        hand_over(&mut command, &terminal)?;
    }
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    let groups: Vec<Gid> = process.groups.iter().copied().map(Gid::from_raw).collect();
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        command.pre_exec(move || {
            // In this order: who is no longer root chooses no groups.
            setgroups(&groups)?;
            setgid(gid)?;
            setuid(uid)?;
            SigSet::empty().thread_set_mask()?;
            nix::unistd::setsid()?;
            // For job control in a shell: where standard input is no terminal, there is none.
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    let child = command.spawn().map_err(|source| InitError::Run { program: program.clone(), source })?;
    let child = Pid::from_raw(child.id() as i32);
    power::listen_for(child);
    wait_for(child, &all, badge, network)
}

/// The terminal behind the kernel's console. The console itself can be nobody's terminal (tty(4)).
fn terminal() -> Option<File> {
    let active = fs::read_to_string("/sys/class/tty/console/active").ok()?;
    let name = active.split_whitespace().last()?;
    File::options().read(true).write(true).open(format!("/dev/{name}")).ok()
}

/// Makes the terminal the program's, and what is printed come out as it is: a line feed is no two bytes.
fn hand_over(command: &mut Command, terminal: &File) -> Result<(), InitError> {
    let failed = |source| InitError::Host("hand the terminal over", source);
    if let Ok(mut settings) = tcgetattr(terminal.as_fd()) {
        settings.output_flags.remove(OutputFlags::OPOST);
        tcsetattr(terminal.as_fd(), SetArg::TCSANOW, &settings).map_err(|error| failed(error.into()))?;
    }
    let copy = || terminal.try_clone().map(Stdio::from).map_err(failed);
    command.stdin(copy()?).stdout(copy()?).stderr(copy()?);
    Ok(())
}

/// Waits for the program, and for every process whose parent has gone; hands on signals.
fn wait_for(
    child: Pid,
    signals: &SigSet,
    mut badge: Option<Badge>,
    network: Option<&Network>,
) -> Result<u8, InitError> {
    loop {
        if let Some(told) = badge.as_mut().and_then(Badge::look) {
            renewal::become_another(&told, network);
        }
        match next(signals, badge.is_some()) {
            Ok(Signal::SIGCHLD) => {
                if let Some(status) = reap(child)? {
                    return Ok(status);
                }
            }
            // It may have ended meanwhile: then there is nobody to tell.
            Ok(signal) => drop(kill(child, signal)),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return Err(InitError::Host("wait for signals", error.into())),
        }
    }
}

/// The next signal; with `look` not waited for longer than until the next look at who the machine is.
fn next(signals: &SigSet, look: bool) -> Result<Signal, Errno> {
    if !look {
        return signals.wait();
    }
    let often = TimeSpec::from_duration(renewal::OFTEN);
    // SAFETY: the set and the time live over the call; nothing more is wanted to be known of the signal.
    let signal = unsafe { libc::sigtimedwait(signals.as_ref(), std::ptr::null_mut(), often.as_ref()) };
    Signal::try_from(Errno::result(signal)?)
}

/// Takes leave of all who have ended; the status of the program, if it was among them.
fn reap(child: Pid) -> Result<Option<u8>, InitError> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => ended = Some(status as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => ended = Some(128 + signal as u8),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(ended),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(InitError::Host("wait for processes", io::Error::from(error))),
        }
    }
}
