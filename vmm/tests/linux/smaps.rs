//! How much of a monitor is in memory, and how much of that is its guest's: from `/proc/PID/smaps` (proc(5)).
//!
//! The benchmark of devices (`bench/benches/devices.rs`) reads QEMU's with it too.
#![allow(dead_code, reason = "each of those who include this file uses a part of it")]

use std::fs;
use std::io::{self, ErrorKind};

/// What is in memory, in KiB.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Resident {
    /// Of the guest's RAM.
    pub(crate) guest: u64,
    /// Of all else.
    pub(crate) others: u64,
    /// Of that, what is the monitor's alone.
    pub(crate) own: u64,
}

impl Resident {
    /// Of the monitor that is this process; the mapping with so many KiB is its guest's RAM.
    pub(crate) fn of(monitor: u32, ram: u64) -> io::Result<Self> {
        let found = parse(&fs::read_to_string(format!("/proc/{monitor}/smaps"))?, ram);
        // A process that has ended has an empty file.
        if found == Self::default() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(found) }
    }
}

fn parse(maps: &str, ram: u64) -> Resident {
    let field = |line: &str, name: &str| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
    let (mut found, mut size) = (Resident::default(), 0);
    for line in maps.lines() {
        if let Some(kib) = field(line, "Size:") {
            size = kib;
        } else if let Some(kib) = field(line, "Rss:") {
            *(if size == ram { &mut found.guest } else { &mut found.others }) += kib;
        } else if let Some(kib) = field(line, "Anonymous:")
            && size != ram
        {
            found.own += kib;
        }
    }
    found
}
