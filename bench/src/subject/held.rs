//! An instance that was ready and stays: alive beside others, ready to answer, ended when its time comes.
//!
//! Where a runtime can leave its container alone, it does (`--detach`): what is left is then the instance, and no process of the
//! runtime's. It is known by the process id that the runtime wrote, and held by a descriptor (`pidfd_open(2)`), so that it can
//! never be taken for a stranger that got its number later.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use isolab_vmm::serve::Lent;
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::Nonce;
use super::child::{Child, Ending};
use super::launch::{Ends, Farewell, Launch, PATIENCE, Poised, Silence, explained, hear, readable_within};
use crate::clock;

/// How long an instance may take to answer. Touching a gibibyte takes a second.
const ANSWER: Duration = Duration::from_secs(30);

/// A proved instance that stays until [`Held::end`]; dropped, it is killed.
#[derive(Debug)]
pub struct Held {
    life: Option<Life>,
    order: fs::File,
    answer: fs::File,
    nonce: Nonce,
    launch: Launch,
    ready_ns: u64,
}

/// Whose child it is.
#[derive(Debug)]
enum Life {
    /// Ours.
    Child(Child),
    /// Somebody else's: its runtime has ended.
    Alone { pid: i32, end: OwnedFd },
    /// A server's, which ends it with this connection.
    Lent(Lent),
}

impl Poised {
    /// Starts it and keeps it. The error says in words why it does not count; nothing of it is left then.
    pub(super) fn hold(self, nonce: &Nonce) -> Result<Held, String> {
        let Self { ready, order, mut answer, complaints, launch, .. } = self;
        if launch.farewell == Farewell::Itself {
            return Err("it ends by itself, right after READY".to_owned());
        }
        let zero = clock::now();
        let started = ready.spawn().map_err(|error| format!("{} cannot be started: {error}", launch.program.display()));
        let life = started.and_then(|child| match hear(&mut answer, &launch.token, launch.patience) {
            Ok(instant) => Ok((instant, settle(child, launch.detached.as_deref())?)),
            Err(silence) => Err(silence.end(child, launch.patience)),
        });
        match life {
            Ok((instant, life)) => {
                let nonce = launch.remembers.as_ref().map_or(nonce, |it| &it.nonce).clone();
                Ok(Held { life: Some(life), order, answer, nonce, launch, ready_ns: instant - zero })
            }
            Err(reason) => {
                launch.clear(true);
                Err(explained(reason, complaints))
            }
        }
    }
}

impl Launch {
    /// Asks the server at `socket` for a clone and keeps it, with no process beside it that waits for its end.
    pub(super) fn lend(self, socket: &Path) -> Result<Held, String> {
        let Some(remembered) = self.remembers.clone() else { return Err("a clone remembers nothing".to_owned()) };
        let connections = self.connections();
        let (given, ends) = connections.map_err(|error| format!("the harness cannot prepare the start: {error}"))?;
        let Ends { order, mut answer, complaints } = ends;
        let zero = clock::now();
        let lent = Lent::ask(socket, None, given.each_ref().map(AsFd::as_fd)).map_err(|error| crate::chain(&error))?;
        // The clone has copies; with these open, its end would not close the pipe.
        drop(given);
        match hear(&mut answer, &self.token, self.patience) {
            Ok(ready) => {
                let (life, nonce, ready_ns) = (Some(Life::Lent(lent)), remembered.nonce, ready - zero);
                Ok(Held { life, order, answer, nonce, launch: self, ready_ns })
            }
            Err(silence) => Err(explained(silence.reason(self.patience), complaints)),
        }
    }
}

/// After READY: a runtime that detaches is awaited, and its instance found.
fn settle(child: Child, detached: Option<&Path>) -> Result<Life, String> {
    let Some(file) = detached else { return Ok(Life::Child(child)) };
    let cannot = |error: io::Error| format!("the harness cannot wait for the runtime: {error}");
    let end = child.open().map_err(cannot)?;
    if !readable_within(&end, PATIENCE).map_err(cannot)? {
        return Err("its runtime did not leave it alone".to_owned());
    }
    let (ending, _) = child.wait().map_err(cannot)?;
    if ending != Ending::Status(0) {
        return Err(format!("its runtime {ending} after READY"));
    }
    let text = fs::read_to_string(file).map_err(|error| format!("its process id can't be read: {error}"))?;
    let pid: i32 = text.trim().parse().map_err(|_| format!("its process id is {text:?}"))?;
    let end = open(pid).map_err(|error| format!("process {pid} can't be opened: {error}"))?;
    Ok(Life::Alone { pid, end })
}

pub(super) fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call without memory.
    let descriptor = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: just opened, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

impl Held {
    /// From start to READY, in nanoseconds.
    pub fn ready_ns(&self) -> u64 {
        self.ready_ns
    }

    /// The process at the root of all its processes.
    pub(crate) fn pid(&self) -> i32 {
        match &self.life {
            Some(Life::Child(child)) => child.pid().as_raw(),
            Some(Life::Alone { pid, .. }) => *pid,
            Some(Life::Lent(lent)) => lent.pid(),
            None => 0,
        }
    }

    /// The control groups and folders that it has while it lives.
    pub(crate) fn owned(&self) -> &[std::path::PathBuf] {
        &self.launch.owned
    }

    /// Has it give its nonce back, from its memory.
    pub fn answers(&mut self) -> Result<(), String> {
        let reply = format!("nonce {}\n", self.nonce);
        self.obeys("nonce\n", &reply)
    }

    /// Has it touch so many mebibytes.
    pub fn touch(&mut self, mib: u32) -> Result<(), String> {
        self.obeys(&format!("touch {mib}\n"), &format!("ok touch {mib}\n"))
    }

    /// Has it write again to so many pages of what was touched last; how long that took, in nanoseconds.
    pub(crate) fn again(&mut self, pages: u64) -> Result<u64, String> {
        let begun = clock::now();
        self.obeys(&format!("again {pages}\n"), &format!("ok again {pages}\n"))?;
        Ok(clock::now() - begun)
    }

    /// Has it write its nonce to a file; how long that took, in nanoseconds.
    pub(crate) fn write(&mut self, path: &str) -> Result<u64, String> {
        let begun = clock::now();
        self.obeys(&format!("write {path}\n"), &format!("ok write {path}\n"))?;
        Ok(clock::now() - begun)
    }

    fn obeys(&mut self, order: &str, reply: &str) -> Result<(), String> {
        let order_name = order.trim_end();
        self.order.write_all(order.as_bytes()).map_err(|error| format!("it can't be told {order_name:?}: {error}"))?;
        hear(&mut self.answer, reply.as_bytes(), ANSWER).map(drop).map_err(|silence| match silence {
            Silence::Closed => format!("it ended instead of answering {order_name:?}"),
            Silence::Hung => format!("no answer to {order_name:?} within {} s", ANSWER.as_secs()),
            Silence::Babble => format!("another answer to {order_name:?}"),
            Silence::Broken(error) => format!("the harness cannot read its answer: {error}"),
        })
    }

    /// Orders it to end, without waiting: many can end at the same time.
    pub(crate) fn dismiss(&mut self) {
        // It may have ended already; its end tells.
        let _ = self.order.write_all(b"exit\n");
    }

    /// Waits for its end after [`Held::dismiss`], and removes what it leaves.
    pub(crate) fn end(mut self) -> Result<(), String> {
        let cannot = |error: io::Error| format!("the harness cannot wait for the end: {error}");
        match self.life.take() {
            Some(Life::Child(child)) => {
                let end = child.open().map_err(cannot)?;
                let patience = self.launch.patience;
                if !readable_within(&end, patience).map_err(cannot)? {
                    return Err(format!("did not end within {} s", patience.as_secs()));
                }
                let (ending, _) = child.wait().map_err(cannot)?;
                if ending != Ending::Status(0) {
                    return Err(format!("{ending} when told to exit"));
                }
            }
            Some(Life::Alone { end, .. }) => {
                let ended = readable_within(&end, PATIENCE).map_err(cannot)?;
                self.launch.clear(true);
                if !ended {
                    return Err(format!("did not end within {} s", PATIENCE.as_secs()));
                }
            }
            Some(Life::Lent(lent)) => {
                let patience = self.launch.patience;
                if !readable_within(&lent, patience).map_err(cannot)? {
                    return Err(format!("did not end within {} s", patience.as_secs()));
                }
                let status = lent.wait().map_err(|error| crate::chain(&error))?;
                if status != 0 {
                    return Err(format!("{} when told to exit", Ending::Status(status.into())));
                }
            }
            None => {}
        }
        let left = self.launch.left().is_some() && self.launch.await_gone().is_err();
        match self.launch.left() {
            Some(path) if left => Err(format!("left behind: {}", path.display())),
            _ => Ok(()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let lived = self.life.is_some();
        match self.life.take() {
            // Kills and reaps.
            Some(Life::Child(child)) => drop(child),
            // Its server ends it.
            Some(Life::Lent(lent)) => drop(lent),
            Some(Life::Alone { end, .. }) => kill(&end),
            None => {}
        }
        self.launch.clear(lived);
    }
}

/// Kills whom a descriptor stands for.
fn kill(process: &OwnedFd) {
    let nothing: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is open; no information is handed over. It may have ended, which is as good.
    let _ =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), Signal::SIGKILL as i32, nothing, 0) };
    let _ = readable_within(process, PATIENCE);
}
