//! Waiting for a machine that was just started.

use std::path::Path;
use std::time::{Duration, Instant};

use isolab_vmm::api::{Request, ask};

use crate::needs::Done;

/// Waits until the machine whose socket this is can be asked: it stands, or runs.
pub(crate) fn once_at(socket: &Path) -> Done {
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = ask(socket, &Request::Status) {
        if Instant::now() > deadline {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
