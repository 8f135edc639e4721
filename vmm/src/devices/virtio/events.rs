//! What a device's thread waits for: queues that the guest rang for, files, and the word to stop.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use vmm_sys_util::eventfd::EventFd;

/// Something has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The guest rang for this queue.
    Queue(usize),
    /// The file with this token is ready.
    File(u32),
    /// The worker shall stop.
    Stop,
}

/// When a file is of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// When there is something to read.
    Read,
    /// When there is room to write.
    Write,
    /// When there was nothing to read, and now there is; and the same for writing. Each time once.
    Edges,
}

impl Interest {
    fn flags(self) -> EpollFlags {
        match self {
            Self::Read => EpollFlags::EPOLLIN,
            Self::Write => EpollFlags::EPOLLOUT,
            Self::Edges => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET,
        }
    }
}

/// The list of what is waited for. A file that is closed leaves it by itself.
#[derive(Debug)]
pub struct Events(Epoll);

/// The upper half of what epoll keeps with a file says what it is, the lower half which.
const FILE: u64 = 0;
const QUEUE: u64 = 1;
const STOP: u64 = 2;

impl Events {
    /// An empty list.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Waits for a file too.
    pub fn add(&self, file: impl AsFd, token: u32, interest: Interest) -> io::Result<()> {
        Ok(self.0.add(file, EpollEvent::new(interest.flags(), FILE << 32 | u64::from(token)))?)
    }

    /// Waits no longer for a file.
    pub fn remove(&self, file: impl AsFd) -> io::Result<()> {
        Ok(self.0.delete(file)?)
    }

    pub(super) fn add_queue(&self, event: &EventFd, queue: usize) -> io::Result<()> {
        Ok(self.0.add(borrowed(event), EpollEvent::new(EpollFlags::EPOLLIN, QUEUE << 32 | queue as u64))?)
    }

    pub(super) fn add_stop(&self, event: &EventFd) -> io::Result<()> {
        Ok(self.0.add(borrowed(event), EpollEvent::new(EpollFlags::EPOLLIN, STOP << 32))?)
    }

    pub(super) fn remove_event(&self, event: &EventFd) -> io::Result<()> {
        self.remove(borrowed(event))
    }

    /// Waits until something has happened, or looks whether it has.
    pub(super) fn wait(&self, block: bool) -> io::Result<Vec<Event>> {
        let mut ready = [EpollEvent::empty(); 16];
        let timeout = if block { EpollTimeout::NONE } else { EpollTimeout::ZERO };
        let count = match self.0.wait(&mut ready, timeout) {
            Err(nix::errno::Errno::EINTR) => 0,
            other => other?,
        };
        Ok(ready
            .iter()
            .take(count)
            .map(|event| match (event.data() >> 32, event.data() as u32) {
                (QUEUE, index) => Event::Queue(index as usize),
                (STOP, _) => Event::Stop,
                (_, token) => Event::File(token),
            })
            .collect())
    }
}

/// An event descriptor as the standard library speaks of it.
fn borrowed(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as `event`, which the result borrows.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
