//! Ending a machine from outside: by a signal, or because its time is up.
//!
//! A processor that runs guest code hears nothing. A signal to its thread makes `KVM_RUN` return; but one that arrives just
//! before `KVM_RUN` would be over before the guest runs, and lost. So the handler also sets `immediate_exit` in the page
//! that is shared with KVM, which KVM looks at after it has begun to run; and a timer repeats the signal, for
//! system calls that wait on a guest's behalf and have no such flag.
//!
//! A [`Bell`] uses the same way in: whoever rings it does not end the machine, but is let in between two of its steps.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};
use std::time::Duration;

use kvm_bindings::kvm_run;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The signals that end a machine; SIGALRM is the timer's.
const SIGNALS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGALRM];
/// The signal that is a bell.
const BELL: Signal = Signal::SIGUSR1;
/// How soon a signal is repeated.
const AGAIN: Duration = Duration::from_millis(20);

/// What was heard on behalf of a machine.
#[derive(Debug, Default)]
struct Heard {
    /// The first signal that came; 0 while none has.
    came: AtomicI32,
    /// Whether the bell has been rung and nobody has looked yet.
    rung: AtomicBool,
    /// `kvm_run.immediate_exit` of the processor that runs.
    immediate_exit: AtomicPtr<u8>,
    /// The timer that repeats.
    timer: AtomicPtr<libc::c_void>,
    /// Whether there is one: a process's first timer has the number 0, and looks like no pointer to anything.
    has_timer: AtomicBool,
}

thread_local! {
    /// Of the machine that this thread runs; null where it runs none. The handler comes in on this thread and only reads it.
    static OWN: Cell<*const Heard> = const { Cell::new(ptr::null()) };
}

/// What this thread has heard, where it listens on a machine's behalf.
fn own<T>(look: impl FnOnce(&Heard) -> T) -> Option<T> {
    // SAFETY: set by `Stop::listen` on this thread to what that `Stop` holds, and to null before it is dropped.
    unsafe { OWN.get().as_ref() }.map(look)
}

/// Why a machine shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its time is up.
    Timeout,
    /// A signal with this number.
    Signal(i32),
}

/// Whether the machine shall end or stand still: asked by whoever waits on a guest's behalf and was interrupted.
pub fn requested() -> bool {
    must_end() || own(|heard| heard.rung.load(Ordering::Relaxed)).unwrap_or(false)
}

/// Whether the machine shall end.
pub(crate) fn must_end() -> bool {
    own(|heard| heard.came.load(Ordering::Relaxed) != 0).unwrap_or(false)
}

/// Rings at the thread that runs a machine: the machine stands still and its overseer is let in.
#[derive(Debug, Clone, Copy)]
pub struct Bell(libc::pthread_t);

impl Bell {
    /// The bell of the calling thread, for another one to ring. That thread must outlive every ring.
    pub fn of_this_thread() -> Self {
        // SAFETY: it has no conditions.
        Self(unsafe { libc::pthread_self() })
    }

    /// Rings. A ring just before the guest waits for something may be slept through: ring again until you are let in.
    pub fn ring(self) {
        // SAFETY: the thread lives, says `of_this_thread`. What can fail is a thread that is gone, which needs no ring.
        unsafe { libc::pthread_kill(self.0, BELL as libc::c_int) };
    }
}

/// Ends one of many machines of a process, each on a thread of its own: what a signal does where there is one machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ender(Arc<Heard>);

impl Ender {
    /// Lets this process's threads be interrupted. To be called once, before there is any.
    pub(crate) fn prepare() -> io::Result<()> {
        for signal in [Signal::SIGALRM, BELL] {
            // SAFETY: see `handler`.
            unsafe { sigaction(signal, &handler()) }?;
        }
        Ok(())
    }

    /// Ends the machine that `thread` runs under this, now or as soon as it begins. The thread is not joined yet.
    pub(crate) fn end(&self, thread: libc::pthread_t) {
        let _ = self.0.came.compare_exchange(0, libc::SIGTERM, Ordering::Relaxed, Ordering::Relaxed);
        // SAFETY: the thread is not joined, so its name is still its own. One that has ended needs no ring.
        unsafe { libc::pthread_kill(thread, BELL as libc::c_int) };
    }
}

/// Whether the bell has been rung since the last time; the processor may run again.
pub(crate) fn answer_bell(run: &mut kvm_run) -> bool {
    if !own(|heard| heard.rung.swap(false, Ordering::Relaxed)).unwrap_or(false) {
        return false;
    }
    // A ring from here on sets both again. A signal that ends the machine may have set the flag too: it stays set for that.
    if !must_end() {
        run.immediate_exit = 0;
    }
    true
}

/// While it lives, the machine of the calling thread can be ended.
pub(crate) struct Stop {
    heard: Arc<Heard>,
    before: Vec<(Signal, SigAction)>,
    timer: libc::timer_t,
}

impl Stop {
    /// Listens for signals from here on, and for the end of the `timeout`. The processor must outlive this.
    pub(crate) fn listen(run: &mut kvm_run, timeout: Option<Duration>) -> io::Result<Self> {
        let mut stop = Self::begin(run, Arc::default())?;
        for signal in SIGNALS {
            // SAFETY: see `handler`.
            let before = unsafe { sigaction(signal, &handler()) }?;
            if matches!(before.handler(), SigHandler::SigIgn) && signal != Signal::SIGALRM {
                // Somebody (nohup, a shell's background job) has said that this signal shall not matter.
                // SAFETY: what was there before.
                unsafe { sigaction(signal, &before) }?;
                continue;
            }
            stop.before.push((signal, before));
        }
        // SAFETY: as above.
        stop.before.push((BELL, unsafe { sigaction(BELL, &handler()) }?));
        SIGNALS.into_iter().chain([BELL]).collect::<SigSet>().thread_unblock()?;
        stop.end_after(timeout)
    }

    /// The same for one of many: signals that are sent to the process are somebody else's. See [`Ender::prepare`].
    pub(crate) fn listen_to(ender: &Ender, run: &mut kvm_run, timeout: Option<Duration>) -> io::Result<Self> {
        let stop = Self::begin(run, ender.0.clone())?;
        SigSet::from_iter([Signal::SIGALRM, BELL]).thread_unblock()?;
        // Whoever ended it before this thread listened has rung in vain.
        if must_end() {
            run.immediate_exit = 1;
        }
        stop.end_after(timeout)
    }

    /// There is no processor to be called out of its guest, until [`Stop::runs`].
    pub(super) fn stands(&self) {
        self.heard.immediate_exit.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// There is one again. It must outlive this, or the next [`Stop::stands`].
    pub(super) fn runs(&self, run: &mut kvm_run) {
        self.heard.immediate_exit.store(&raw mut run.immediate_exit, Ordering::Relaxed);
        // What was heard before has found no flag to set.
        if requested() {
            run.immediate_exit = 1;
        }
    }

    fn begin(run: &mut kvm_run, heard: Arc<Heard>) -> io::Result<Self> {
        run.immediate_exit = 0;
        heard.immediate_exit.store(&raw mut run.immediate_exit, Ordering::Relaxed);
        let stop = Self { heard, before: Vec::with_capacity(SIGNALS.len() + 1), timer: timer()? };
        stop.heard.timer.store(stop.timer, Ordering::Relaxed);
        stop.heard.has_timer.store(true, Ordering::Relaxed);
        OWN.set(Arc::as_ptr(&stop.heard));
        Ok(stop)
    }

    fn end_after(self, timeout: Option<Duration>) -> io::Result<Self> {
        if let Some(timeout) = timeout {
            arm(self.timer, timeout.max(Duration::from_nanos(1)))?;
        }
        Ok(self)
    }

    /// Why the machine shall end, if it shall.
    pub(crate) fn cause(&self) -> Option<Cause> {
        match self.heard.came.load(Ordering::Relaxed) {
            0 => None,
            libc::SIGALRM => Some(Cause::Timeout),
            signal => Some(Cause::Signal(signal)),
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        // First: a signal from here on finds no machine.
        OWN.set(ptr::null());
        // SAFETY: made by `timer`, deleted once.
        unsafe { libc::timer_delete(self.timer) };
        for (signal, before) in self.before.drain(..) {
            // SAFETY: what was there before. It can't fail: the same signal was set before.
            let _ = unsafe { sigaction(signal, &before) };
        }
    }
}

/// The handler does only what signal-safety(7) allows: atomics, a store, `timer_settime(2)`. No `SA_RESTART`: a read that waits
/// for the guest's input must end, not go on.
fn handler() -> SigAction {
    SigAction::new(SigHandler::Handler(hear), SaFlags::empty(), SigSet::empty())
}

/// A timer that sends SIGALRM to this very thread: another one would not make `KVM_RUN` return.
fn timer() -> io::Result<libc::timer_t> {
    // SAFETY: all zeroes are a valid `sigevent`.
    let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = libc::SIGALRM;
    event.sigev_notify_thread_id = nix::unistd::gettid().as_raw();
    let mut timer = ptr::null_mut();
    // SAFETY: both pointers are to values that live over the call.
    match unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) } {
        0 => Ok(timer),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets the timer go off after `first`, and again and again.
fn arm(timer: libc::timer_t, first: Duration) -> io::Result<()> {
    let spec = libc::itimerspec { it_value: timespec(first), it_interval: timespec(AGAIN) };
    // SAFETY: `timer` was made by `timer_create` and is not deleted; the old value is not asked for.
    match unsafe { libc::timer_settime(timer, 0, &raw const spec, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(duration.subsec_nanos()),
    }
}

/// The signal handler, on the thread that runs the machine.
extern "C" fn hear(signal: libc::c_int) {
    // The interrupted call may not have read its error yet.
    // SAFETY: the address of this thread's errno is always valid.
    let errno = unsafe { *libc::__errno_location() };
    own(|heard| heard.hear(signal));
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

impl Heard {
    fn hear(&self, signal: libc::c_int) {
        let bell = signal == BELL as libc::c_int;
        // Whoever ends one of many has said so before he rang.
        let ends = if bell {
            self.rung.store(true, Ordering::Relaxed);
            self.came.load(Ordering::Relaxed) != 0
        } else {
            self.came.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        if let Some(flag) = NonNull::new(self.immediate_exit.load(Ordering::Relaxed)) {
            // SAFETY: points into the processor's shared page, which lives while `Stop` does.
            unsafe { flag.write_volatile(1) };
        }
        if ends && signal != libc::SIGALRM && self.has_timer.load(Ordering::Relaxed) {
            let _ = arm(self.timer.load(Ordering::Relaxed), AGAIN);
        }
    }
}
