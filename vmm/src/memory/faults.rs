//! Guest memory that is brought page by page, by whoever knows which pages will be wanted (userfaultfd(2)).
//!
//! A mapped file brings a page when it is touched, and each touch stops the processor for a walk through the kernel's file
//! system. Most machines that go on from one snapshot touch the same pages first. So the first one's are written down (its
//! *working set*), and for each later one they are copied in before it runs, in a few long pieces. All others come as before:
//! the kernel stops who touches one and tells this module's thread, which copies it in.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::request_code_readwrite;
use tracing::debug;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use super::{Layers, PAGE};
use crate::confine;

/// `<linux/userfaultfd.h>`
mod abi {
    pub(super) const API: u64 = 0xaa;
    pub(super) const MISSING: u64 = 1;
    pub(super) const PAGE_FAULT: u8 = 0x12;

    #[repr(C)]
    pub(super) struct Api {
        pub(super) version: u64,
        pub(super) features: u64,
        pub(super) ioctls: u64,
    }

    #[repr(C)]
    pub(super) struct Register {
        pub(super) start: u64,
        pub(super) length: u64,
        pub(super) mode: u64,
        pub(super) ioctls: u64,
    }

    #[repr(C)]
    pub(super) struct Copy {
        pub(super) to: u64,
        pub(super) from: u64,
        pub(super) length: u64,
        pub(super) mode: u64,
        pub(super) copied: i64,
    }

    #[repr(C)]
    pub(super) struct Zero {
        pub(super) start: u64,
        pub(super) length: u64,
        pub(super) mode: u64,
        pub(super) zeroed: i64,
    }
}

/// The file of a working set: a range of pages a line, first and number.
const LONGEST: u64 = 1 << 20;

/// A part of guest memory: where it lies in the monitor, how long it is, and where in the file its bytes are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) host: u64,
    pub(super) length: u64,
    pub(super) file: u64,
}

/// A thread that brings pages. Ends with this value; what it has brought is written down, if nobody has done so before.
#[derive(Debug)]
pub(super) struct Faults {
    thread: Option<JoinHandle<Vec<u64>>>,
    stop: EventFd,
    record: PathBuf,
}

impl Faults {
    /// Brings the pages of `parts`, which nobody has touched, from `saved`; those that `record` names at once.
    pub(super) fn serve(parts: Vec<Piece>, saved: &Layers, record: &Path) -> io::Result<Self> {
        let bringer = Bringer::new(parts, saved)?;
        bringer.prefetch(&read_record(record)?)?;
        let stop = EventFd::new(EFD_CLOEXEC)?;
        let ear = stop.try_clone()?;
        let thread = confine::spawn("faults".to_owned(), move || bringer.work(&ear))?;
        Ok(Self { thread: Some(thread), stop, record: record.to_owned() })
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        let Some(Ok(pages)) = self.thread.take().map(JoinHandle::join) else { return };
        // A machine that goes on without a record was only slower.
        let _ = write_record(&self.record, pages).inspect_err(|error| debug!("no working set is written: {error}"));
    }
}

/// Who brings pages.
struct Bringer {
    faults: OwnedFd,
    parts: Vec<Piece>,
    /// The saved memory, mapped to be read.
    source: Source,
    /// Where in it anything is.
    data: Vec<Range<u64>>,
}

struct Source {
    at: *mut libc::c_void,
    length: usize,
}

// SAFETY: a mapping that is only read, by the kernel, and unmapped once.
unsafe impl Send for Source {}

impl Source {
    /// All the files of a saved memory as one range of addresses.
    fn of(saved: &Layers) -> io::Result<Self> {
        let map = |at: *mut libc::c_void, length: u64, flags: libc::c_int, file: libc::c_int, offset: u64| {
            let protection = if file < 0 { libc::PROT_NONE } else { libc::PROT_READ };
            // SAFETY: a new mapping, or one over a part of that; only the kernel reads from it.
            let mapped = unsafe { libc::mmap(at, length as usize, protection, flags, file, offset as libc::off_t) };
            if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(mapped) }
        };
        let length = saved.length();
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let source = Self { at: map(std::ptr::null_mut(), length, anonymous, -1, 0)?, length: length as usize };
        for (range, file) in saved.pieces() {
            let at = source.at.wrapping_byte_add(range.start as usize);
            map(at, range.end - range.start, libc::MAP_SHARED | libc::MAP_FIXED, file.as_raw_fd(), range.start)?;
        }
        Ok(source)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // SAFETY: mapped by `Bringer::new`, and known to nobody else.
        unsafe { libc::munmap(self.at, self.length) };
    }
}

impl Bringer {
    fn new(parts: Vec<Piece>, saved: &Layers) -> io::Result<Self> {
        let faults = open()?;
        let mut api = abi::Api { version: abi::API, features: 0, ioctls: 0 };
        ask(&faults, request_code_readwrite!(abi::API, 0x3f, size_of::<abi::Api>()), &mut api)?;
        for part in &parts {
            let mut register = abi::Register { start: part.host, length: part.length, mode: abi::MISSING, ioctls: 0 };
            ask(&faults, request_code_readwrite!(abi::API, 0x00, size_of::<abi::Register>()), &mut register)?;
        }
        Ok(Self { faults, parts, source: Source::of(saved)?, data: saved.data()? })
    }

    /// Brings the pages of a record; such as are not there are passed over.
    fn prefetch(&self, record: &[Range<u64>]) -> io::Result<()> {
        for range in record {
            for part in &self.parts {
                let (start, end) = (range.start.max(part.file), range.end.min(part.file + part.length));
                if start < end {
                    self.bring(part.host + (start - part.file), start, end - start)?;
                }
            }
        }
        Ok(())
    }

    /// The thread's whole life; returns the places in the file of all pages that were touched.
    fn work(self, stop: &EventFd) -> Vec<u64> {
        let mut touched = Vec::new();
        loop {
            // SAFETY: the descriptor is open as long as `stop`.
            let ear = unsafe { std::os::fd::BorrowedFd::borrow_raw(stop.as_raw_fd()) };
            let mut ready = [PollFd::new(self.faults.as_fd(), PollFlags::POLLIN), PollFd::new(ear, PollFlags::POLLIN)];
            let _ = poll(&mut ready, PollTimeout::NONE);
            let [faults, stop] = ready.map(|file| file.any().unwrap_or(false));
            if faults && let Err(error) = self.answer(&mut touched) {
                // Whoever has touched the page would wait for ever. A mapped file ends a process in the same way.
                eprintln!("error: cannot bring a page of guest memory: {error}");
                // SAFETY: a signal to this process.
                unsafe { libc::kill(libc::getpid(), libc::SIGBUS) };
                return touched;
            }
            if stop {
                return touched;
            }
        }
    }

    fn answer(&self, touched: &mut Vec<u64>) -> io::Result<()> {
        let mut message = [0_u8; 32];
        // SAFETY: the buffer is that long and ours.
        let read = unsafe { libc::read(self.faults.as_raw_fd(), message.as_mut_ptr().cast(), message.len()) };
        if read < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) };
        }
        let [event, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, address @ .., _, _, _, _, _, _, _, _] = message;
        if event != abi::PAGE_FAULT {
            return Ok(());
        }
        let address = u64::from_ne_bytes(address) / PAGE * PAGE;
        let inside = |part: &&Piece| (part.host..part.host + part.length).contains(&address);
        let Some(part) = self.parts.iter().find(inside) else { return Ok(()) };
        let place = part.file + (address - part.host);
        touched.push(place);
        self.bring(address, place, PAGE)
    }

    /// Brings whole pages: copied where the file has anything, zeroes where it has a hole.
    fn bring(&self, to: u64, place: u64, length: u64) -> io::Result<()> {
        let end = place + length;
        let mut at = place;
        while at < end {
            let next = self.data.iter().find(|data| data.end > at);
            let (start, stop) =
                next.map_or((end, end), |data| (data.start / PAGE * PAGE, data.end.next_multiple_of(PAGE)));
            if at < start {
                let length = start.min(end) - at;
                let mut zero = abi::Zero { start: to + (at - place), length, mode: 0, zeroed: 0 };
                Self::done(ask(
                    &self.faults,
                    request_code_readwrite!(abi::API, 0x04, size_of::<abi::Zero>()),
                    &mut zero,
                ))?;
                at += length;
            } else {
                let length = stop.min(end) - at;
                let from = self.source.at as u64 + at;
                let mut copy = abi::Copy { to: to + (at - place), from, length, mode: 0, copied: 0 };
                Self::done(ask(
                    &self.faults,
                    request_code_readwrite!(abi::API, 0x03, size_of::<abi::Copy>()),
                    &mut copy,
                ))?;
                at += length;
            }
        }
        Ok(())
    }

    /// Somebody else may have been quicker: with this page, or by unmapping it.
    fn done(outcome: io::Result<()>) -> io::Result<()> {
        match outcome {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOENT | libc::ESRCH)) => Ok(()),
            other => other,
        }
    }
}

/// A descriptor to hear of touched pages by, also where the kernel touches them on a guest's behalf.
fn open() -> io::Result<OwnedFd> {
    // SAFETY: the call takes a number; what it returns is a new descriptor, or -1.
    let mut number = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
    if number < 0 {
        // Not every user may; who may open this file may too (Documentation/admin-guide/mm/userfaultfd.rst).
        let device = File::options().read(true).write(true).open("/dev/userfaultfd")?;
        // SAFETY: `USERFAULTFD_IOC_NEW` takes a number; what it returns is a new descriptor, or -1.
        number = unsafe { libc::ioctl(device.as_raw_fd(), 0xaa00, libc::O_CLOEXEC | libc::O_NONBLOCK) }.into();
    }
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number as i32) })
}

fn ask<T>(faults: &OwnedFd, what: u64, argument: &mut T) -> io::Result<()> {
    // SAFETY: each request here is made of the size of its argument, which lives over the call.
    match unsafe { libc::ioctl(faults.as_raw_fd(), what as libc::Ioctl, &raw mut *argument) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The ranges of bytes in a record; none where there is no record. A line that makes no sense is passed over.
fn read_record(path: &Path) -> io::Result<Vec<Range<u64>>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(LONGEST).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let range = |line: &str| {
        let (first, count) = line.split_once(' ')?;
        let (first, count) = (first.parse::<u64>().ok()?, count.parse::<u64>().ok()?);
        Some(first.checked_mul(PAGE)?..first.checked_add(count)?.checked_mul(PAGE)?)
    };
    Ok(text.lines().filter_map(range).collect())
}

/// Writes down which pages were touched, where nobody has yet.
fn write_record(path: &Path, mut touched: Vec<u64>) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    touched.sort_unstable();
    touched.dedup();
    let mut lines = String::new();
    for run in touched.chunk_by(|place, next| place + PAGE == *next) {
        if let Some(first) = run.first() {
            let _ = writeln!(lines, "{} {}", first / PAGE, run.len()); // a text takes all that is written
        }
    }
    let unfinished = path.with_extension(std::process::id().to_string());
    std::fs::write(&unfinished, lines)?;
    std::fs::rename(&unfinished, path).inspect_err(|_| drop(std::fs::remove_file(&unfinished)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_nonsense_in_it_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("working-set");
        assert_eq!(read_record(&path).unwrap(), []);
        write_record(&path, vec![3 * PAGE, PAGE, 4 * PAGE, PAGE]).unwrap();
        let expected = [PAGE..2 * PAGE, 3 * PAGE..5 * PAGE];
        assert_eq!(read_record(&path).unwrap(), expected);
        write_record(&path, vec![9 * PAGE]).unwrap();
        assert_eq!(read_record(&path).unwrap(), expected, "the first one stays");
        let huge = u64::MAX;
        std::fs::write(&path, format!("x\n1\n{huge} 1\n1 {huge}\n-1 2\n7 1\n9 1\n")).unwrap();
        assert_eq!(read_record(&path).unwrap(), [7 * PAGE..8 * PAGE, 9 * PAGE..10 * PAGE]);
    }
}
