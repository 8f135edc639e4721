//! Equal pages merged by the kernel (KSM), for as long as a suite wants it: then everything is as it was.
//!
//! KSM looks only at memory that asks for it. A process that has said so for all of its own (`PR_SET_MEMORY_MERGE`, Linux 6.4) hands that
//! on to whatever it starts (since Linux 6.7). So the harness says it, and all instances have it. It saves memory, and tells who
//! can measure the time of a write what his neighbours have in theirs; that is why no cloud has it on.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::host::read;

const FOLDER: &str = "/sys/kernel/mm/ksm";
/// So many pages are looked at each time, and so many milliseconds lie between two times: eagerly, so that a rung is soon at rest.
const WANTED: [(&str, &str); 3] = [("pages_to_scan", "20000"), ("sleep_millisecs", "5"), ("run", "1")];
/// How long merging may go on after the last start, and how long its count must stand still.
const PATIENCE: Duration = Duration::from_secs(10);
const STILL: Duration = Duration::from_millis(1500);

/// KSM is on while this lives.
#[derive(Debug)]
pub(super) struct Ksm {
    before: Vec<(&'static str, String)>,
}

impl Ksm {
    /// Switches it on. The error says in words why it can't be had.
    pub(super) fn on() -> Result<Self, String> {
        let cannot = |what: &str, error: io::Error| format!("KSM can't be had: {what}: {error}");
        let mut ksm = Self { before: Vec::new() };
        for (name, value) in WANTED {
            let path = Path::new(FOLDER).join(name);
            let old = fs::read_to_string(&path).map_err(|error| cannot(&path.display().to_string(), error))?;
            // Remembered first: what is half done is undone too.
            ksm.before.push((name, old.trim().to_owned()));
            fs::write(&path, value).map_err(|error| cannot(&path.display().to_string(), error))?;
        }
        merge(true).map_err(|errno| cannot("prctl(PR_SET_MEMORY_MERGE)", errno.into()))?;
        Ok(ksm)
    }

    /// Waits until no more pages are merged.
    pub(super) fn settle() {
        let merged = || read::text(format!("{FOLDER}/pages_sharing"));
        let (begun, mut seen, mut since) = (Instant::now(), merged(), Instant::now());
        while begun.elapsed() < PATIENCE && since.elapsed() < STILL {
            thread::sleep(Duration::from_millis(50));
            let now = merged();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
    }
}

impl Drop for Ksm {
    fn drop(&mut self) {
        let _ = merge(false);
        // Backwards: it is stopped before it is slowed down. What is merged stays so where it was on before; else it is parted (2).
        for (name, old) in self.before.iter().rev() {
            let path = Path::new(FOLDER).join(name);
            if *name == "run" && old == "0" {
                let _ = fs::write(&path, "2");
            }
            let _ = fs::write(&path, old);
        }
    }
}

/// Whether all anonymous memory of this process, and of what it starts from now on, may be merged.
fn merge(wanted: bool) -> Result<(), Errno> {
    // SAFETY: a plain system call without memory; arguments that it does not know must be 0.
    let done = unsafe { libc::prctl(libc::PR_SET_MEMORY_MERGE, libc::c_ulong::from(wanted), 0, 0, 0) };
    Errno::result(done).map(drop)
}
