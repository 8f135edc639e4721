//! The server: one thread, one list of what it waits for, and a child for each clone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use tracing::info_span;

use super::packet::{Received, receive, send};
use super::{Reply, Request, ServeError};
use crate::machine::pc::{Pc, Renewal};
use crate::machine::{BootError, Ended, Machine, RunError, Template};
use crate::memory::Loading;

/// How many clients may be connected at a time.
const CLIENTS: usize = 4096;

/// A template, and the socket at which clones of it are handed out.
#[derive(Debug)]
pub struct Server {
    template: Template,
    listener: OwnedFd,
    signals: SignalFd,
    /// Signals as they were, for the children.
    mask: SigSet,
    clients: Vec<Client>,
    name: SocketName,
}

/// The socket's name; removed with the server, and not with a child that has a copy of it.
#[derive(Debug)]
struct SocketName {
    path: PathBuf,
    owner: Pid,
}

impl Drop for SocketName {
    fn drop(&mut self) {
        if self.owner == nix::unistd::getpid() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Who is connected, and the clone that was made for him.
#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    clone: Option<(Pid, OwnedFd)>,
}

impl Server {
    /// Takes the template's memory in, and listens at `path`, where nothing is yet.
    pub fn listen(path: &Path, template: Template) -> Result<Self, ServeError> {
        let template = {
            let _span = info_span!(
                "serve.template",
                call = "memfd_create(2), fcntl(F_ADD_SEALS)",
                why = "the memory that all clones show must never change: a sealed memory file can't, for anybody"
            )
            .entered();
            template.in_memory().map_err(ServeError::Memory)?
        };
        let failed = |attempt| move |source| ServeError::Socket { attempt, path: path.to_owned(), source };
        let listener =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
                .map_err(failed("make a socket for"))?;
        let address = UnixAddr::new(path).map_err(failed("use the address"))?;
        // Who may ask runs machines as this user.
        let before = umask(Mode::S_IRWXG | Mode::S_IRWXO);
        let bound = bind(listener.as_raw_fd(), &address);
        umask(before);
        bound.map_err(failed("listen at"))?;
        let name = SocketName { path: path.to_owned(), owner: nix::unistd::getpid() };
        listen(&listener, Backlog::MAXCONN).map_err(failed("listen at"))?;
        let mut mask = SigSet::empty();
        let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&ends), Some(&mut mask)).map_err(ServeError::Signals)?;
        let signals = SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC).map_err(ServeError::Signals)?;
        Ok(Self { template, listener, signals, mask, clients: Vec::new(), name })
    }

    /// Hands out clones until a signal ends the server; returns its number. The clones end with it.
    pub fn run(mut self) -> Result<i32, ServeError> {
        loop {
            let ready = self.wait()?;
            if ready.signal
                && let Ok(Some(signal)) = self.signals.read_signal()
            {
                return Ok(signal.ssi_signo as i32);
            }
            // From the last to the first: who goes does not move those who are still to be looked at.
            for index in ready.clients.into_iter().rev() {
                self.look_at(index);
            }
            if ready.caller {
                self.let_in();
            }
        }
    }

    fn wait(&self) -> Result<Ready, ServeError> {
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        for client in &self.clients {
            fds.push(PollFd::new(client.socket.as_fd(), PollFlags::POLLIN));
            // One slot each, also for who has no clone yet: so that places stay known.
            let end = client.clone.as_ref().map_or(client.socket.as_fd(), |(_, end)| end.as_fd());
            fds.push(PollFd::new(end, PollFlags::POLLIN));
        }
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(ServeError::Wait(errno)),
                Ok(_) => break,
            }
        }
        let stirs = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let (own, clients) = fds.split_at(2);
        let clients = clients.chunks(2).enumerate().filter(|(_, pair)| pair.iter().any(stirs)).map(|(index, _)| index);
        Ok(Ready {
            signal: own.first().is_some_and(stirs),
            caller: own.get(1).is_some_and(stirs),
            clients: clients.collect(),
        })
    }

    /// Lets in whoever waits at the door, and serves him at once if he has already said what he wants.
    fn let_in(&mut self) {
        while self.clients.len() < CLIENTS {
            let Ok(number) = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) else { return };
            // SAFETY: accept4(2) has just made this descriptor; nobody else has it.
            let socket = unsafe { OwnedFd::from_raw_fd(number) };
            self.clients.push(Client { socket, clone: None });
        }
    }

    /// Something has happened to a client: he wants a clone, his clone has ended, or he is gone.
    fn look_at(&mut self, index: usize) {
        let Some(client) = self.clients.get(index) else { return };
        let gone = match &client.clone {
            Some((pid, _)) => {
                if let Some(status) = ended(*pid) {
                    let _ = send(client.socket.as_fd(), &Reply::Ended { status }, &[]);
                } else {
                    // Not the clone, so the client: he is gone, or says something more, which nobody has asked for.
                    let _ = kill(*pid, Signal::SIGKILL);
                    let _ = waitpid(*pid, None);
                }
                true
            }
            None => match receive(client.socket.as_fd()) {
                Ok(Received::Value(Request::Clone { timeout }, files)) => !self.make(index, timeout, files),
                Ok(Received::Garbled) => {
                    let _ = send(client.socket.as_fd(), &Reply::Error("it is no request".to_owned()), &[]);
                    true
                }
                Err(Errno::EINTR) => false,
                Ok(Received::Gone) | Err(_) => true,
            },
        };
        if gone {
            self.clients.swap_remove(index);
        }
    }

    /// Makes a clone for a client; false where there is none.
    fn make(&mut self, index: usize, timeout: Option<Duration>, files: Vec<OwnedFd>) -> bool {
        let made = match <[OwnedFd; 3]>::try_from(files) {
            // SAFETY: this process has one thread, so the child may do whatever this one may.
            Ok(files) => match unsafe { fork() } {
                Ok(ForkResult::Child) => self.become_clone(timeout, &files),
                Ok(ForkResult::Parent { child }) => pidfd(child).map(|end| (child, end)),
                Err(errno) => Err(errno.into()),
            },
            Err(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "a request comes with three open files")),
        };
        let Some(client) = self.clients.get_mut(index) else { return false };
        let reply = match made {
            Ok((pid, end)) => {
                client.clone = Some((pid, end));
                Reply::Ok { pid: pid.as_raw() }
            }
            Err(error) => Reply::Error(format!("cannot make a process for the clone: {error}")),
        };
        let _ = send(client.socket.as_fd(), &reply, &[]);
        client.clone.is_some()
    }

    /// The child: a machine of its own, with the client's open files, to its end.
    fn become_clone(&self, timeout: Option<Duration>, files: &[OwnedFd; 3]) -> ! {
        for (file, number) in files.iter().zip(0..) {
            // SAFETY: onto the three that every process has; Rust's own handles know them by number only.
            unsafe { libc::dup2(file.as_raw_fd(), number) };
        }
        // A server that is killed takes its clones with it; one that was killed since the fork can't any more.
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        if nix::unistd::getppid() != self.name.owner {
            // SAFETY: _exit(2) does nothing but end the process.
            unsafe { libc::_exit(1) };
        }
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None);
        let status = match self.live(timeout) {
            Ok(Ended::Status(status)) => status,
            Ok(Ended::Off) => 0,
            Ok(Ended::Signal(signal)) => 128_u8.saturating_add(signal as u8),
            Err(failure) => failure.tell(),
        };
        // SAFETY: as above. What the machine has printed was passed on when it ended.
        unsafe { libc::_exit(i32::from(status)) }
    }

    fn live(&self, timeout: Option<Duration>) -> Result<Ended, Failure> {
        if self.template.is_pc() {
            let console = Box::new(io::stdout());
            let renewal = Renewal::default();
            let pc = Pc::restore(&self.template, Loading::Lazy, timeout, console, &renewal).map_err(Failure::Boot)?;
            let typist = io::stdin();
            return pc.resume().and_then(|running| running.wait(Some(typist.as_fd()))).map_err(Failure::Run);
        }
        let machine = Machine::restore(&self.template, Loading::Lazy, timeout, io::stdout()).map_err(Failure::Boot)?;
        machine.resume().map_err(Failure::Run)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.name.owner != nix::unistd::getpid() {
            return;
        }
        for (pid, _) in self.clients.iter().filter_map(|client| client.clone.as_ref()) {
            let _ = kill(*pid, Signal::SIGKILL);
            let _ = waitpid(*pid, None);
        }
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None);
    }
}

/// What stirs.
struct Ready {
    signal: bool,
    caller: bool,
    clients: Vec<usize>,
}

/// How a clone failed.
enum Failure {
    Boot(BootError),
    Run(RunError),
}

impl Failure {
    /// Says so on the client's standard error; returns the status to end with.
    fn tell(&self) -> u8 {
        let (error, hint): (&dyn std::error::Error, _) = match self {
            Self::Boot(error) => (error, error.hint()),
            Self::Run(error) => (error, error.hint()),
        };
        eprintln!("error: {}", crate::api::chain(error));
        if let Some(hint) = hint {
            eprintln!("hint: {hint}");
        }
        match self {
            Self::Run(error) => error.status().unwrap_or(125),
            Self::Boot(_) => 125,
        }
    }
}

/// A descriptor that says when a child has ended.
fn pidfd(child: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two numbers; what it returns is a new descriptor, or -1.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number as i32) })
}

/// The status of a child, as a shell would tell it, if it has ended.
fn ended(child: Pid) -> Option<u8> {
    match waitpid(child, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, status)) => Some(status as u8),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as u8),
        Ok(_) => None,
        Err(_) => Some(125),
    }
}
