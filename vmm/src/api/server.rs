//! The socket beside a machine: takes requests, rings, and hands back what the machine answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

use super::attendant::{Asked, Attendant};
use super::{Reply, Request};
use crate::confine;
use crate::machine::stop::Bell;

/// The longest request, in bytes: a path and a little.
const LONGEST: u64 = 16 << 10;
/// How much more is read of one that is longer, before its sender is cut off.
const MUCH: u64 = 1 << 20;
/// How many may be connected at a time.
const CALLERS: usize = 16;
/// How soon a ring that was slept through is repeated.
const AGAIN: Duration = Duration::from_millis(5);
/// How long a machine that has ended waits for those to be told who have asked. Only one who reads nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Wakes whoever can let the attendant in. May come more than once, and late.
pub type Ring = Arc<dyn Fn() + Send + Sync>;

/// A socket that is listened at; its name is removed with it, once all who have asked there are answered. The attendant has to
/// go first: who has asked him when he went is told that the machine has ended.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    owed: Arc<Owed>,
}

impl Socket {
    /// Listens at `path`, where nothing is yet, on behalf of the machine that the calling thread will run. What is asked
    /// there comes to the attendant.
    pub fn listen(path: &Path) -> io::Result<(Self, Attendant)> {
        // Until the machine listens for it, and after, a ring means nothing.
        // SAFETY: to ignore a signal runs no code.
        unsafe { signal(Signal::SIGUSR1, SigHandler::SigIgn) }?;
        let bell = Bell::of_this_thread();
        Self::listen_and_ring(path, Arc::new(move || bell.ring()))
    }

    /// The same on behalf of a machine that is rung for otherwise.
    pub fn listen_and_ring(path: &Path, ring: Ring) -> io::Result<(Self, Attendant)> {
        let listener = UnixListener::bind(path)?;
        let owed = Arc::<Owed>::default();
        let socket = Self { path: path.to_owned(), owed: owed.clone() };
        // Who may ask may do all that the owner may.
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
        let (sender, receiver) = mpsc::channel();
        let asked = Arc::<AtomicBool>::default();
        let desk = Desk { machine: sender, asked: asked.clone(), ring, callers: Arc::default(), owed };
        confine::spawn("api".to_owned(), move || desk.open(&listener))?;
        Ok((socket, Attendant::answering(receiver, asked)))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        self.owed.settle();
    }
}

/// How many replies are owed: requests that were read, and whose replies are not written yet. Threads write them that end with
/// the process, wherever they are.
#[derive(Debug, Default)]
struct Owed {
    count: Mutex<usize>,
    paid: Condvar,
}

/// One of them, until it is dropped.
struct Debt<'a>(&'a Owed);

impl Owed {
    fn owe(&self) -> Debt<'_> {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Debt(self)
    }

    /// Waits until there are none.
    fn settle(&self) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether it was in time or not: there is nothing else to be done.
        drop(self.paid.wait_timeout_while(count, PATIENCE, |count| *count > 0));
    }
}

impl Drop for Debt<'_> {
    fn drop(&mut self) {
        let mut count = self.0.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_sub(1);
        self.0.paid.notify_all();
    }
}

/// Where callers are heard.
#[derive(Clone)]
struct Desk {
    machine: Sender<Asked>,
    asked: Arc<AtomicBool>,
    ring: Ring,
    callers: Arc<AtomicUsize>,
    owed: Arc<Owed>,
}

impl Desk {
    fn open(&self, listener: &UnixListener) {
        // Signals are the machine's; a thread inherits the mask of the one that makes it.
        let _ = SigSet::all().thread_block();
        for caller in listener.incoming() {
            let Ok(caller) = caller else {
                // No descriptor is left, as it seems: they come back when callers go.
                std::thread::sleep(AGAIN);
                continue;
            };
            if self.callers.fetch_add(1, Ordering::Relaxed) < CALLERS {
                let desk = self.clone();
                let spawned = std::thread::Builder::new().name("api-caller".to_owned()).spawn(move || {
                    let _ = desk.serve(&caller);
                    desk.callers.fetch_sub(1, Ordering::Relaxed);
                });
                if spawned.is_ok() {
                    continue;
                }
            }
            self.callers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn serve(&self, caller: &UnixStream) -> io::Result<()> {
        let mut lines = BufReader::new(caller);
        loop {
            let mut line = Vec::new();
            lines.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
            let whole = line.ends_with(b"\n");
            if line.is_empty() {
                return Ok(());
            }
            let debt = self.owed.owe();
            let reply = match serde_json::from_slice(&line) {
                _ if !whole => Reply::Error(format!("a request is one line of at most {LONGEST} bytes")),
                Ok(request) => self.ask(request),
                Err(error) => Reply::Error(format!("it is no request: {error}")),
            };
            let mut text = serde_json::to_vec(&reply)?;
            text.push(b'\n');
            (&*caller).write_all(&text)?;
            drop(debt);
            if !whole {
                // Who is still writing would otherwise hear of a broken connection instead of the reply.
                return io::copy(&mut lines.take(MUCH), &mut io::sink()).map(|_| ());
            }
        }
    }

    /// Has the machine answer.
    fn ask(&self, request: Request) -> Reply {
        let ended = || Reply::Error("the machine has ended".to_owned());
        let (sender, replies) = mpsc::sync_channel(1);
        let heard = Arc::new(AtomicBool::new(false));
        if self.machine.send(Asked { request, heard: heard.clone(), reply: sender }).is_err() {
            return ended();
        }
        loop {
            if !heard.load(Ordering::Relaxed) {
                self.asked.store(true, Ordering::Release);
                (self.ring)();
            }
            match replies.recv_timeout(AGAIN) {
                Ok(reply) => return reply,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return ended(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn who_has_asked_is_answered_before_the_socket_is_gone() -> Result<(), Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("api");
        let (socket, attendant) = Socket::listen_and_ring(&path, Arc::new(|| {}))?;
        let mut caller = UnixStream::connect(&path)?;
        caller.write_all(b"{\"do\":\"status\"}\n")?;
        while !attendant.is_asked() {
            std::thread::sleep(AGAIN);
        }
        drop(attendant);
        drop(socket);
        // As the process would end now: what is not there will not come.
        caller.set_nonblocking(true)?;
        let mut answer = [0; 256];
        let length = caller.read(&mut answer)?;
        assert_eq!(String::from_utf8_lossy(&answer[..length]), "{\"error\":\"the machine has ended\"}\n");
        Ok(())
    }
}
