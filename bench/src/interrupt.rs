//! Ctrl-C, SIGTERM and a closed terminal end a run in good order: the start that is under way goes to its end, and what there is is written.

use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static RECEIVED: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: i32) {
    RECEIVED.store(signal, Ordering::Relaxed);
}

/// From here on the first of these signals is noted; a second one ends this process at once, as it would have without us.
pub fn listen() -> Result<(), Errno> {
    // SA_RESETHAND: the second signal finds the default action.
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESETHAND, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler stores to an atomic and does nothing else, which is allowed at any instant.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// The signal that came, if one did.
pub fn received() -> Option<i32> {
    match RECEIVED.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(signal),
    }
}
