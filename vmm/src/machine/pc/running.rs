//! A machine that runs: its processors' threads, and the one that waits for them.
//!
//! A processor that runs guest code hears nothing. To get it out, a flag is set in the page that it shares with KVM
//! (`immediate_exit`), and a signal is sent to its thread: if the signal comes before the guest runs, KVM sees the flag and
//! does not let it run; if it comes later, it ends the run. So none is lost, and no thread need be asked twice.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::thread::JoinHandleExt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{debug, info_span};

use super::farewell::Farewell;
use super::input::{Input, Typed};
use super::processor::{self, Shared};
use super::signals::{self, Signals};
use super::{Own, Pc};
use crate::machine::{Ended, Place, RunError};
use crate::vcpu::Vcpu;

/// How long the beginning of a line is kept back, in case its end comes.
const PART: Duration = Duration::from_millis(20);
/// How long a processor may take to stand still. Only one whose console takes nothing any more takes longer than a moment.
const PATIENCE: Duration = Duration::from_secs(2);
/// How soon it is kicked again.
const AGAIN: Duration = Duration::from_millis(5);

/// A machine that runs.
pub struct Running {
    processors: Vec<Processor>,
    // Before the rest: KVM lets go of the memory before it is unmapped.
    pc: Frame,
    shared: Arc<Shared>,
    signals: Signals,
    started: Instant,
    pub(super) farewell: Farewell,
}

/// What of a machine is not its threads'.
struct Frame {
    vm: Arc<kvm_ioctls::VmFd>,
    timeout: Option<Duration>,
    /// Nothing once the machine has been handed back.
    own: Option<Own>,
}

/// What has become of a machine that should stand still.
pub enum Paused {
    /// It does.
    Still(Pc),
    /// It had ended before.
    Ended(Ended),
}

/// What a wait for a machine has come to.
pub(super) enum Waited {
    /// It has ended.
    Ended(Ended),
    /// Somebody wants something of it.
    Asked(Box<Running>),
}

/// Why the thread that waits does so no more.
enum Woken {
    Ended(Result<Ended, RunError>),
    Asked,
}

/// One processor's thread.
struct Processor {
    thread: JoinHandle<Vcpu>,
    immediate_exit: Flag,
}

/// `kvm_run.immediate_exit` of a processor that a thread has.
struct Flag(NonNull<u8>);

// SAFETY: it is only ever stored to, atomically; and what it points to is there until the thread that has the processor is
// joined, after which nobody stores (`Processor::join`).
unsafe impl Send for Flag {}

impl Flag {
    fn set(&self) {
        // SAFETY: as above: it points into a mapping that lives with the processor, and one byte is always aligned.
        unsafe { AtomicU8::from_ptr(self.0.as_ptr()) }.store(1, Ordering::Release);
    }
}

impl Processor {
    fn start(number: usize, mut vcpu: Vcpu, shared: Arc<Shared>) -> Result<Self, RunError> {
        // The last kick may have come when it already stood still.
        vcpu.fd().set_kvm_immediate_exit(0);
        let immediate_exit = Flag(NonNull::from(&mut vcpu.fd().get_kvm_run().immediate_exit));
        // What is answered at a pause is not told to the guest as time that was lost to it; a guest without KVM's clock
        // has nothing to tell it by.
        let _ = vcpu.fd().kvmclock_ctrl();
        let thread = thread::Builder::new()
            .name(format!("vcpu {number}"))
            .spawn(move || processor::run(vcpu, &shared))
            .map_err(|source| RunError::Host { attempt: "start a thread for a processor", source })?;
        Ok(Self { thread, immediate_exit })
    }

    fn kick(&self) {
        self.immediate_exit.set();
        signals::kick(self.thread.as_pthread_t());
    }
}

impl Pc {
    /// Lets the processors run, each on a thread of its own.
    pub fn resume(self) -> Result<Running, RunError> {
        let _span = info_span!(
            "machine.resume",
            call = "clone3(2)",
            why = "a thread for each processor: it belongs to the guest while KVM runs it, and to the monitor at each exit"
        )
        .entered();
        let host = |attempt| move |source| RunError::Host { attempt, source };
        signals::expect_kicks().map_err(RunError::Signals)?;
        let signals = Signals::block().map_err(RunError::Signals)?;
        let Self { vcpus, board, vm, memory, notice, timeout, own } = self;
        // What was noticed before is looked at anyway.
        let _ = notice.read();
        board.bus.resume();
        let shared = Arc::new(Shared::new(board, memory, notice));
        let pc = Frame { vm, timeout, own: Some(own) };
        let (started, farewell) = (Instant::now(), Farewell::default());
        let mut running = Running { processors: Vec::new(), shared, signals, pc, started, farewell };
        for (number, vcpu) in vcpus.into_iter().enumerate() {
            running.processors.push(Processor::start(number, vcpu, running.shared.clone())?);
        }
        running.shared.notice.write(1).map_err(host("look at the machine"))?;
        Ok(running)
    }
}

impl Running {
    /// The same machine, whose power button is pressed when SIGTERM or SIGHUP comes: it then has so long to end by itself.
    /// Another signal ends it at once, and so does a second one.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        self.taking_leave(Farewell::of(grace))
    }

    /// The same machine with the end of one that was paused: its time runs on.
    pub(super) fn taking_leave(mut self, farewell: Farewell) -> Self {
        self.farewell = farewell;
        self
    }

    /// Waits until the machine ends, or a signal ends it, or its time is up. What comes from `input` is typed at its serial
    /// port.
    pub fn wait(self, input: Option<BorrowedFd<'_>>) -> Result<Ended, RunError> {
        match self.wait_until(input, &|| false)? {
            Waited::Ended(ended) => Ok(ended),
            Waited::Asked(running) => {
                running.stop();
                Ok(Ended::Signal(libc::SIGTERM))
            }
        }
    }

    /// Waits as [`Running::wait`] does, or until `asked` says so when it is looked at, which a notice makes it be.
    pub(super) fn wait_until(
        mut self,
        input: Option<BorrowedFd<'_>>,
        asked: &dyn Fn() -> bool,
    ) -> Result<Waited, RunError> {
        let ended = {
            let _span = info_span!(
                "guest.run",
                call = "ioctl(KVM_RUN), again and again, on each processor's thread",
                why = "each time the guest does what its processor can't do alone, the monitor does it in its place"
            )
            .entered();
            self.attend(input.map(Input::new), asked)
        };
        if matches!(ended, Ok(Some(Woken::Asked))) {
            return Ok(Waited::Asked(Box::new(self)));
        }
        let stood_still = self.halt();
        // A processor that does not come back may hold the console.
        let flushed = if stood_still.is_some() { self.shared.board.flush() } else { Ok(()) };
        let mut vcpus = stood_still.unwrap_or_default();
        let ended = match ended {
            Ok(Some(Woken::Ended(ended))) => ended,
            Ok(Some(Woken::Asked) | None) => Err(self.timed_out(&mut vcpus)),
            Err(error) => Err(error),
        };
        self.close(vcpus);
        let ended = ended?;
        flushed?;
        Ok(Waited::Ended(ended))
    }

    /// Gets the machine back, with its processors standing still.
    pub fn pause(mut self) -> Result<Paused, RunError> {
        let _span = info_span!(
            "machine.pause",
            call = "tgkill(2)",
            why = "every processor leaves its guest, and no device's answer is left half given: the machine is one instant"
        )
        .entered();
        let Some(vcpus) = self.halt() else {
            let source = io::Error::from(Errno::ETIMEDOUT);
            return Err(RunError::Host { attempt: "get a processor to stand still", source });
        };
        if let Some(outcome) = self.shared.take_outcome() {
            self.shared.board.flush()?;
            return outcome.map(Paused::Ended);
        }
        let Some(own) = self.pc.own.take() else {
            let source = io::Error::from(Errno::ESRCH);
            return Err(RunError::Host { attempt: "get a machine back twice", source });
        };
        let Shared { board, memory, notice, .. } = &*self.shared;
        // After the processors: none of them can ring any more.
        board.bus.pause();
        // What has passed is not given again.
        let timeout = self.pc.timeout.map(|timeout| timeout.saturating_sub(self.started.elapsed()));
        Ok(Paused::Still(Pc {
            vcpus,
            board: board.clone(),
            vm: self.pc.vm.clone(),
            memory: memory.clone(),
            notice: notice.clone(),
            timeout,
            own,
        }))
    }

    /// Ends the machine as it stands.
    pub fn stop(mut self) {
        let vcpus = self.halt().unwrap_or_default();
        self.close(vcpus);
    }

    /// Where the machine was when its time was up: its first processor; the others are told of in the notes.
    fn timed_out(&self, vcpus: &mut [Vcpu]) -> RunError {
        let mut places = vcpus.iter_mut().map(|vcpu| Place::of(vcpu, &self.shared.memory));
        let place = places.next().unwrap_or(Place { rip: 0, bytes: Vec::new(), reset: false });
        for (number, place) in (1..).zip(places) {
            debug!(target: "machine.places", "processor {number} was at {place}");
        }
        RunError::Timeout { after: self.pc.timeout.unwrap_or_default(), place }
    }

    /// Does what is to do on this thread while the processors run: none where the machine's time is up.
    fn attend(&mut self, mut input: Option<Input<'_>>, asked: &dyn Fn() -> bool) -> Result<Option<Woken>, RunError> {
        let deadline = self.pc.timeout.map(|timeout| self.started + timeout);
        let board = self.shared.board.clone();
        loop {
            if let Some(outcome) = self.shared.take_outcome() {
                return Ok(Some(Woken::Ended(outcome)));
            }
            if asked() {
                return Ok(Some(Woken::Asked));
            }
            let part = board.has_part().then_some(PART);
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            if let Some(signal) = self.farewell.over(Instant::now()) {
                return Ok(Some(Woken::Ended(Ok(Ended::Signal(signal)))));
            }
            let grace = self.farewell.left(Instant::now());
            let room = board.room();
            let typist = input.as_ref().filter(|_| room > 0);
            let [noticed, signalled, typed] = self.poll(typist, part.into_iter().chain(left).chain(grace).min())?;
            if !noticed && !signalled && !typed && part.is_some() {
                board.flush()?;
            }
            if noticed {
                // Its count says only that there was something.
                let _ = self.shared.notice.read();
            }
            if signalled && let Some(signal) = self.signals.take().map_err(RunError::Signals)? {
                if !self.farewell.hears(signal, Instant::now()) {
                    return Ok(Some(Woken::Ended(Ok(Ended::Signal(signal)))));
                }
                board.press();
            }
            if typed && let Some(typist) = &mut input {
                let failed = |source| RunError::Host { attempt: "read what is typed", source };
                match typist.read(room).map_err(failed)? {
                    Typed::Bytes(bytes) => board.type_in(&bytes)?,
                    Typed::Quit => return Ok(Some(Woken::Ended(Ok(Ended::Signal(libc::SIGTERM))))),
                    Typed::End => input = None,
                }
            }
        }
    }

    /// Waits for something to do: which of the notice, a signal and the typist has.
    fn poll(&self, typist: Option<&Input<'_>>, wait: Option<Duration>) -> Result<[bool; 3], RunError> {
        // SAFETY: the notice is open as long as `self` is.
        let notice = unsafe { BorrowedFd::borrow_raw(std::os::fd::AsRawFd::as_raw_fd(&*self.shared.notice)) };
        let mut files =
            vec![PollFd::new(notice, PollFlags::POLLIN), PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        files.extend(typist.map(|typist| PollFd::new(typist.as_fd(), PollFlags::POLLIN)));
        // Rounded up: a wait of half a millisecond is none of zero.
        let wait = wait.map_or(PollTimeout::NONE, |wait| {
            PollTimeout::try_from(wait.as_micros().div_ceil(1000).min(60_000) as u32).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut files, wait) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(RunError::Host { attempt: "wait for the machine", source: error.into() }),
        }
        let ready = |at: usize| files.get(at).and_then(PollFd::any).unwrap_or(false);
        Ok([ready(0), ready(1), ready(2)])
    }

    /// Gets the processors out of the guest and back from their threads. None where one does not come: its thread is left
    /// with all that it needs.
    fn halt(&mut self) -> Option<Vec<Vcpu>> {
        self.shared.halt.store(true, Ordering::Release);
        let deadline = Instant::now() + PATIENCE;
        let still = |processor: &Processor| processor.thread.is_finished();
        self.processors.iter().for_each(Processor::kick);
        while !self.processors.iter().all(still) {
            if Instant::now() > deadline {
                self.processors.clear();
                return None;
            }
            thread::sleep(AGAIN);
            self.processors.iter().for_each(Processor::kick);
        }
        Some(self.processors.drain(..).filter_map(|processor| processor.thread.join().ok()).collect())
    }

    fn close(self, vcpus: Vec<Vcpu>) {
        let _span = info_span!(
            "machine.close",
            call = "close(2), munmap(2)",
            why = "the processors, the machine and its memory go, in this order; nothing of them is left in the kernel"
        )
        .entered();
        drop(vcpus);
        drop(self);
    }
}

impl Drop for Running {
    /// However it came to this: no thread goes on with a guest that nobody waits for.
    fn drop(&mut self) {
        drop(self.halt());
    }
}
