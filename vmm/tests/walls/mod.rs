//! Whether a monitor is confined, as the kernel tells of each of its threads.

use std::fs;

use libtest_mimic::Failed;

/// How many threads a process has, each of which must have no capability, no way to one, and a filter of system calls.
pub(crate) fn stand_around(process: u32) -> Result<usize, Failed> {
    let threads = threads(process)?;
    for status in &threads {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).ok_or_else(|| Failed::from(format!("no {name} in {status}")))
        };
        for name in ["CapInh:", "CapPrm:", "CapEff:"] {
            assert_eq!(u64::from_str_radix(field(name)?, 16)?, 0, "{name} {status}");
        }
        assert_eq!((field("NoNewPrivs:")?, field("Seccomp:")?), ("1", "2"), "{status}");
    }
    Ok(threads.len())
}

/// What the kernel says of each thread, without those that the kernel itself has for a machine.
pub(crate) fn threads(process: u32) -> Result<Vec<String>, Failed> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        match fs::read_to_string(task?.path().join("status")) {
            Ok(status) if !status.starts_with("Name:\tkvm") => threads.push(status),
            Ok(_) => {}
            // Such as of who was just answered: gone meanwhile.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(threads)
}
