//! A device's thread: it waits for the bell and for the device's files, and lets the device do the work.
//!
//! The processors' threads run guests and nothing else: a disk that takes its time stops whoever waits for the disk, not
//! the guest that has other things to do. While the thread runs the device is its own; whoever stops the thread gets the
//! device back.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use virtio_bindings::bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::events::{Event, Events};
use super::line::Line;
use super::queue::Ring;
use super::{Fault, VirtioDevice};
use crate::confine;

/// A device that a driver has set up: it can work, whether or not a thread does so just now.
pub(super) struct Active {
    pub(super) device: Box<dyn VirtioDevice>,
    pub(super) rings: Vec<Ring>,
    pub(super) events: Events,
    pub(super) bells: Vec<EventFd>,
    pub(super) line: Arc<Line>,
}

impl Active {
    /// Looks at every queue once: what was rung for while nobody listened is there, even if the bell is silent.
    pub(super) fn look(&mut self) {
        for queue in 0..self.rings.len() {
            self.meet(Event::Queue(queue));
        }
    }

    /// Does all that there is to do, without waiting for more.
    pub(super) fn turn(&mut self) {
        while let Ok(ready) = self.events.wait(false)
            && !ready.is_empty()
            && !self.is_broken()
        {
            for event in ready {
                self.meet(event);
            }
        }
    }

    fn is_broken(&self) -> bool {
        self.line.status() & VIRTIO_CONFIG_S_NEEDS_RESET != 0
    }

    /// Lets the device do something. After a fault it does nothing any more. Whether it may go on.
    fn meet(&mut self, event: Event) -> bool {
        if self.is_broken() {
            return false;
        }
        let done = match event {
            Event::Stop => return false,
            Event::Queue(queue) => {
                if let Some(bell) = self.bells.get(queue) {
                    let _ = bell.read(); // silent already if the device rang for itself and was served since
                }
                self.device.queue_ready(queue, &mut self.rings, &self.events)
            }
            Event::File(token) => self.device.file_ready(token, &mut self.rings, &self.events),
        };
        done.map_or_else(|fault| self.break_down(&fault), |()| true)
    }

    fn break_down(&mut self, fault: &Fault) -> bool {
        self.line.complain(self.device.kind().name(), fault);
        let _ = self.line.needs_reset(); // a guest that can't be interrupted can't be helped either
        false
    }

    /// The thread's whole life.
    fn work(mut self) -> Self {
        self.look();
        loop {
            match self.events.wait(true) {
                Ok(ready) => {
                    // What came together with the word to stop is done first: an edge is told of only once.
                    let stop = ready.contains(&Event::Stop);
                    if !ready.into_iter().filter(|event| *event != Event::Stop).all(|event| self.meet(event)) || stop {
                        return self;
                    }
                }
                Err(source) => {
                    self.break_down(&Fault::Host { attempt: "wait for events", source });
                    return self;
                }
            }
        }
    }
}

/// A thread with a device.
pub(super) struct Worker {
    thread: JoinHandle<Option<Active>>,
    stop: EventFd,
}

impl Worker {
    /// Starts a thread; where there can be none, the device comes back.
    pub(super) fn start(active: Active) -> Result<Self, (Box<Active>, io::Error)> {
        let back = |error, active| (Box::new(active), error);
        let stop = match EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK) {
            Ok(stop) => stop,
            Err(error) => return Err(back(error, active)),
        };
        if let Err(error) = active.events.add_stop(&stop) {
            return Err(back(error, active));
        }
        // Handed over to a thread that exists: one that can't be made would take the device with it.
        let (hand, receive) = std::sync::mpsc::sync_channel::<Active>(1);
        let name = format!("virtio-{}", active.device.kind().name());
        match confine::spawn(name, move || receive.recv().ok().map(Active::work)) {
            Ok(thread) => match hand.send(active) {
                Ok(()) => Ok(Self { thread, stop }),
                Err(unsent) => Err(back(io::ErrorKind::BrokenPipe.into(), unsent.0)),
            },
            Err(error) => Err(back(error, active)),
        }
    }

    /// Stops the thread when it is done with what it does, and takes the device back.
    pub(super) fn stop(self) -> Option<Active> {
        let _ = self.stop.write(1); // it can fail only where it was told already, billions of times
        let active = self.thread.join().ok().flatten()?;
        let _ = active.events.remove_event(&self.stop);
        Some(active)
    }
}
