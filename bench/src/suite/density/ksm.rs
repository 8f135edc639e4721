//! Equal pages merged by the kernel (KSM), for as long as a suite wants it: then everything is as it was.
//!
//! KSM looks only at memory that asks for it. A process that has said so for all of its own (`PR_SET_MEMORY_MERGE`, Linux 6.4) hands that
//! on to whatever it starts (since Linux 6.7). So the harness says it, and all instances have it. It saves memory, and tells who
//! can measure the time of a write what his neighbours have in theirs; that is why no cloud has it on.
//!
//! So it must not stay on by accident, and a harness that is killed gives nothing back. A shell beside it does, which waits for
//! the end of its input: a pipe's other end is closed with whoever had it, whatever he died of.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
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

/// What the shell does at the end of its input, in the settings' folder. It is stopped before it is slowed down; what is merged
/// stays so where it was on before, else it is parted (2).
const GIVE_BACK: &str = r#"read -r _; test "$1" = 0 && echo 2 >run; echo "$1" >run
echo "$2" >sleep_millisecs; echo "$3" >pages_to_scan"#;

/// KSM is on while this lives.
#[derive(Debug)]
pub(super) struct Ksm {
    keeper: Child,
}

impl Ksm {
    /// Switches it on. The error says in words why it can't be had.
    pub(super) fn on() -> Result<Self, String> {
        let cannot = |what: &str, error: io::Error| format!("KSM can't be had: {what}: {error}");
        let mut before = Vec::new();
        for (name, _) in WANTED.iter().rev() {
            let path = Path::new(FOLDER).join(name);
            let old = fs::read_to_string(&path).map_err(|error| cannot(&path.display().to_string(), error))?;
            before.push(old.trim().to_owned());
        }
        // First: what is half done is undone too.
        let ksm = Self { keeper: keeper(&before).map_err(|error| cannot("sh", error))? };
        for (name, value) in WANTED {
            let path = Path::new(FOLDER).join(name);
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
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Starts the shell that gives back what was before: `run`, `sleep_millisecs`, `pages_to_scan`.
fn keeper(before: &[String]) -> io::Result<Child> {
    let mut shell = Command::new("sh");
    shell.args(["-c", GIVE_BACK, "sh"]).args(before).current_dir(FOLDER);
    // In a group of its own: a terminal's Ctrl-C is for the harness, which ends in its own time.
    shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Whether all anonymous memory of this process, and of what it starts from now on, may be merged.
fn merge(wanted: bool) -> Result<(), Errno> {
    // SAFETY: a plain system call without memory; arguments that it does not know must be 0.
    let done = unsafe { libc::prctl(libc::PR_SET_MEMORY_MERGE, libc::c_ulong::from(wanted), 0, 0, 0) };
    Errno::result(done).map(drop)
}
