//! The server: one list of what it waits for, and a child or a thread for each clone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, Pid, fork};
use tracing::info_span;

use super::clone::{Clone, Failure, status};
use super::packet::{Received, receive, send};
use super::{Reply, Request, ServeError};
use crate::confine::{ConfineError, Duties, Walls};
use crate::machine::pc::{Pc, Renewal};
use crate::machine::stop::Ender;
use crate::machine::{Ended, Machine, Template};
use crate::memory::Loading;

/// How many clients may be connected at a time.
const CLIENTS: usize = 4096;

/// Where clones live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// Each is a process of its own.
    Processes,
    /// All are threads of the server: nothing is forked, and nothing but KVM stands between them.
    Threads,
}

/// A template, and the socket at which clones of it are handed out.
#[derive(Debug)]
pub struct Server {
    template: Arc<Template>,
    clones: Clones,
    listener: OwnedFd,
    signals: SignalFd,
    /// Signals as they were, for the children.
    mask: SigSet,
    clients: Vec<Client>,
    /// Clones that were told to end, and have not yet: that takes KVM milliseconds, in which others can be served.
    leaving: Vec<Clone>,
    name: SocketName,
}

/// What clones are, and what each that is a process confines itself with: within its server's walls, or all that it has.
#[derive(Debug)]
enum Clones {
    Processes(Walls),
    Threads,
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
    clone: Option<Clone>,
}

impl Server {
    /// Takes the template's memory in, and listens at `path`, where nothing is yet.
    ///
    /// Where clones are programs, the whole process gives up then what neither it nor any of them needs: a thread or a child has
    /// that from the start, and it costs none of them anything.
    pub fn listen(path: &Path, template: Template, home: Home) -> Result<Self, ServeError> {
        if home == Home::Threads {
            if template.is_pc() {
                return Err(ServeError::NoThreads);
            }
            Ender::prepare().map_err(ServeError::Interrupt)?;
            as_many_files_as_may_be();
        }
        let (own_walls, clones) = walls(&template, home).map_err(ServeError::Confine)?;
        let template = {
            let _span = info_span!(
                "serve.template",
                call = "memfd_create(2), fcntl(F_ADD_SEALS)",
                why = "the memory that all clones show must never change: a sealed memory file can't, for anybody"
            )
            .entered();
            Arc::new(template.in_memory().map_err(ServeError::Memory)?)
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
        if let Some(walls) = own_walls {
            walls.put_up().map_err(ServeError::Confine)?;
        }
        Ok(Self { template, clones, listener, signals, mask, clients: Vec::new(), leaving: Vec::new(), name })
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
            for index in ready.left.into_iter().rev() {
                if self.leaving.get_mut(index).is_some_and(|clone| clone.ended().is_some()) {
                    self.leaving.swap_remove(index);
                }
            }
            if ready.caller {
                self.let_in();
            }
        }
    }

    fn wait(&self) -> Result<Ready, ServeError> {
        // Who finds no room waits at the door, and nobody needs to be told of him.
        let door = if self.is_full() { PollFlags::empty() } else { PollFlags::POLLIN };
        let mut fds =
            vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN), PollFd::new(self.listener.as_fd(), door)];
        fds.extend(self.leaving.iter().map(|clone| PollFd::new(clone.end(), PollFlags::POLLIN)));
        for client in &self.clients {
            fds.push(PollFd::new(client.socket.as_fd(), PollFlags::POLLIN));
            // One slot each, also for who has no clone yet: so that places stay known.
            let end = client.clone.as_ref().map_or(client.socket.as_fd(), Clone::end);
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
        let (own, others) = fds.split_at(2);
        let (leaving, clients) = others.split_at(self.leaving.len());
        let left = leaving.iter().enumerate().filter(|(_, end)| stirs(end)).map(|(index, _)| index);
        let clients = clients.chunks(2).enumerate().filter(|(_, pair)| pair.iter().any(stirs)).map(|(index, _)| index);
        Ok(Ready {
            signal: own.first().is_some_and(stirs),
            caller: own.get(1).is_some_and(stirs),
            left: left.collect(),
            clients: clients.collect(),
        })
    }

    fn is_full(&self) -> bool {
        self.clients.len() + self.leaving.len() >= CLIENTS
    }

    /// Lets in whoever waits at the door.
    fn let_in(&mut self) {
        while !self.is_full() {
            let Ok(number) = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) else { return };
            // SAFETY: accept4(2) has just made this descriptor; nobody else has it.
            let socket = unsafe { OwnedFd::from_raw_fd(number) };
            self.clients.push(Client { socket, clone: None });
        }
    }

    /// Something has happened to a client: he wants a clone, his clone has ended, or he is gone.
    fn look_at(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        let gone = match &mut client.clone {
            Some(clone) => {
                if let Some(status) = clone.ended() {
                    let _ = send(client.socket.as_fd(), &Reply::Ended { status }, &[]);
                } else {
                    // It is the client: he is gone, or says something more, which nobody has asked for.
                    clone.stop();
                    self.leaving.extend(client.clone.take());
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
        let made = match (<[OwnedFd; 3]>::try_from(files), &self.clones) {
            (Ok(files), Clones::Threads) => Clone::thread(self.template.clone(), timeout, files),
            // SAFETY: this process has one thread, so the child may do whatever this one may.
            (Ok(files), Clones::Processes(walls)) => match unsafe { fork() } {
                Ok(ForkResult::Child) => self.become_clone(timeout, &files, walls),
                Ok(ForkResult::Parent { child }) => Clone::process(child),
                Err(errno) => Err(errno.into()),
            },
            (Err(_), _) => Err(io::Error::new(io::ErrorKind::InvalidInput, "a request comes with three open files")),
        };
        let Some(client) = self.clients.get_mut(index) else { return false };
        let reply = match made {
            Ok(clone) => {
                let pid = clone.pid();
                client.clone = Some(clone);
                Reply::Ok { pid: pid.as_raw() }
            }
            Err(error) => Reply::Error(format!("cannot make a process or a thread for the clone: {error}")),
        };
        let _ = send(client.socket.as_fd(), &reply, &[]);
        client.clone.is_some()
    }

    /// All that have not ended.
    fn clones(&self) -> impl Iterator<Item = &Clone> {
        self.clients.iter().filter_map(|client| client.clone.as_ref()).chain(&self.leaving)
    }

    /// The child: a machine of its own, with the client's open files, to its end.
    fn become_clone(&self, timeout: Option<Duration>, files: &[OwnedFd; 3], walls: &Walls) -> ! {
        for (file, number) in files.iter().zip(0..) {
            // SAFETY: onto the three that every process has; Rust's own handles know them by number only.
            unsafe { libc::dup2(file.as_raw_fd(), number) };
        }
        self.let_go_of_others(files);
        // A server that is killed takes its clones with it; one that was killed since the fork can't any more.
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        if nix::unistd::getppid() != self.name.owner {
            // SAFETY: _exit(2) does nothing but end the process.
            unsafe { libc::_exit(1) };
        }
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None);
        let status = status(self.live(timeout, walls), &mut io::stderr());
        // SAFETY: as above. What the machine has printed was passed on when it ended.
        unsafe { libc::_exit(i32::from(status)) }
    }

    /// In the child: what it has of the server's and of other clients' is nothing to a clone, nor to a guest that breaks out.
    fn let_go_of_others(&self, files: &[OwnedFd; 3]) {
        let sockets = self.clients.iter().map(|client| client.socket.as_fd());
        let ends = self.clones().map(Clone::end);
        let own = [self.listener.as_fd(), self.signals.as_fd()];
        let others = own.into_iter().chain(sockets).chain(ends).chain(files.iter().map(AsFd::as_fd));
        for number in others.map(|file| file.as_raw_fd()).filter(|number| *number > 2) {
            // SAFETY: the child uses none of them again, and ends without dropping what holds them.
            unsafe { libc::close(number) };
        }
    }

    fn live(&self, timeout: Option<Duration>, walls: &Walls) -> Result<Ended, Failure> {
        if self.template.is_pc() {
            let console = Box::new(io::stdout());
            let renewal = Renewal::default();
            let pc = Pc::restore(&self.template, Loading::Lazy, timeout, console, &renewal).map_err(Failure::Boot)?;
            let typist = io::stdin();
            walls.put_up().map_err(Failure::Confine)?;
            return pc.resume().and_then(|running| running.wait(Some(typist.as_fd()))).map_err(Failure::Run);
        }
        let machine = Machine::restore(&self.template, Loading::Lazy, timeout, io::stdout()).map_err(Failure::Boot)?;
        walls.close_in().map_err(Failure::Confine)?;
        machine.resume().map_err(Failure::Run)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.name.owner != nix::unistd::getpid() {
            return;
        }
        // All are told before one is waited for.
        self.clones().for_each(Clone::stop);
        self.clients.clear();
        self.leaving.clear();
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None);
    }
}

/// The server's own walls, where it has some, and its clones. A machine with a kernel opens disks, cards and sockets as it is made,
/// for which it needs what a server would have given up; so each gives that up itself.
fn walls(template: &Template, home: Home) -> Result<(Option<Walls>, Clones), ConfineError> {
    if template.is_pc() {
        return Ok((None, Clones::Processes(Walls::of(Duties { threads: true, ..Duties::default() })?)));
    }
    let server = Duties { serves: true, forks: home == Home::Processes, ..Duties::default() };
    let clones = match home {
        Home::Processes => Clones::Processes(Walls::within(server, Duties::default())?),
        Home::Threads => Clones::Threads,
    };
    Ok((Some(Walls::of(server)?), clones))
}

/// A machine has a dozen open files, and here all machines have them in one process; by habit it may have 1024.
fn as_many_files_as_may_be() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Refused, it shows as a clone that can't be made, with the reason.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// What stirs.
struct Ready {
    signal: bool,
    caller: bool,
    left: Vec<usize>,
    clients: Vec<usize>,
}
