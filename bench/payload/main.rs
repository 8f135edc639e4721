//! The program that every subject runs: as a host process, in a container, in a machine without a kernel, and as
//! `/init` of a Linux guest.
//!
//! Its first act is to write `ISOLAB-READY <nonce>\n` in one `write(2)`, so that the last byte of the token is the
//! instant the subject can work. Then it obeys one-line commands: first its arguments, then standard input.
//!
//! ```text
//! isolab-payload NONCE [COMMAND]...
//!
//! exit [CODE]   end, with status CODE (0)
//! idle          wait for a signal, for ever
//! touch MIB     map MIB mebibytes and write a byte to each 4 KiB page
//! again PAGES   write a byte to each of the first PAGES pages of what was touched last
//! write PATH    write the nonce to the beginning of a file, which is made where it is not there
//! read PATH     print what a file begins with
//! spin N        N turns of an empty loop
//! syscalls N    N calls of getppid(2), the cheapest call that no library caches
//! nonce         print the nonce again: it is kept in memory only, so a restored snapshot proves itself by it
//! ```
//!
//! Each command answers `ok <command>\n`. An unknown one answers `error: ...` and goes on; so no harness ever takes
//! silence for work. It is freestanding (no libc, no `std`): what is timed is the isolation, not a runtime's start, and a
//! student can read every system call it makes on this page.
//!
//! Called as `/init` it is the first process of a machine with a Linux kernel, and its end is the machine's: it hands its
//! status to the port that `isolab-vm` listens at, and with another monitor restarts the machine, which that takes for an
//! end. Called as `/init-off` it switches the machine off instead, for monitors that do restart. Its terminal, a serial
//! port, then passes lines on as they are.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};

// The kernel enters with argc at (%rsp) and argv above it (System V ABI, x86-64 supplement, section 3.4.1).
// Every call must leave the stack 16-byte aligned, hence the `and`.
global_asm!(
    ".global _start",
    "_start:",
    "xor %ebp, %ebp",
    "mov %rsp, %rdi",
    "and $-16, %rsp",
    "call {start}",
    "ud2",
    start = sym start,
    options(att_syntax)
);

const SYS_READ: usize = 0;
const SYS_WRITE: usize = 1;
const SYS_OPEN: usize = 2;
const SYS_CLOSE: usize = 3;
const SYS_MMAP: usize = 9;
const SYS_IOCTL: usize = 16;
const SYS_PAUSE: usize = 34;
const SYS_GETPPID: usize = 110;
const SYS_REBOOT: usize = 169;
const SYS_IOPERM: usize = 173;
const SYS_EXIT_GROUP: usize = 231;
const EINTR: isize = -4;

/// The longest nonce that is kept, in bytes; a longer one is refused, never cut.
const NONCE_MAX: usize = 64;
/// The longest command line, in bytes.
const LINE_MAX: usize = 128;
const PAGE: usize = 4096;

extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: `stack` is what the kernel entered with: a count, then that many pointers to NUL-terminated strings.
    let (count, arguments) = unsafe { (*stack, stack.add(1).cast::<*const u8>()) };
    // SAFETY: as above; `index` stays below `count`.
    let argument = |index: usize| unsafe { c_bytes(*arguments.add(index)) };
    match if count > 0 { argument(0) } else { b"" } {
        b"/init" => own_the_machine(RESTART),
        b"/init-off" => own_the_machine(POWER_OFF),
        _ => {}
    }
    let given: &[u8] = if count > 1 { argument(1) } else { b"none" };
    if given.len() > NONCE_MAX {
        say(2, &[b"error: the nonce is longer than 64 bytes\n"]);
        exit(2);
    }
    // A copy in memory of our own: the nonce must come back out of RAM, not out of the argument area, which a
    // restored clone could be given anew.
    let mut nonce = [0_u8; NONCE_MAX];
    for (kept, byte) in nonce.iter_mut().zip(given) {
        *kept = *byte;
    }
    let mut payload = Payload { nonce, length: given.len(), touched: 0, pages: 0 };
    say(1, &[b"ISOLAB-READY ", payload.nonce(), b"\n"]);
    for index in 2..count {
        payload.obey(argument(index));
    }
    payload.obey_standard_input();
    exit(0)
}

/// What the program keeps between commands.
struct Payload {
    nonce: [u8; NONCE_MAX],
    length: usize,
    /// What was touched last: its address, and how many pages it has.
    touched: usize,
    pages: usize,
}

impl Payload {
    fn nonce(&self) -> &[u8] {
        self.nonce.get(..self.length).unwrap_or_default()
    }

    /// Carries out commands, one a line, until the end of input. It takes all that is there in one read(2): for a machine without
    /// a kernel each call is a stop.
    fn obey_standard_input(&mut self) {
        let mut taken = [0_u8; LINE_MAX + 1];
        let mut length = 0;
        loop {
            let rest = taken.get_mut(length..).unwrap_or_default();
            if rest.is_empty() {
                say(2, &[b"error: the command is longer than 128 bytes\n"]);
                exit(2);
            }
            match syscall(SYS_READ, [0, rest.as_mut_ptr() as usize, rest.len(), 0, 0, 0]) {
                EINTR => {}
                got @ 1.. => length = self.obey_lines(&mut taken, length + got as usize),
                _ => return,
            }
        }
    }

    /// Carries out the whole lines among the first `length` bytes, and moves what is behind them to the front; how much that is.
    fn obey_lines(&mut self, taken: &mut [u8; LINE_MAX + 1], length: usize) -> usize {
        let mut begin = 0;
        for end in 0..length {
            if taken.get(end) == Some(&b'\n') {
                self.obey(taken.get(begin..end).unwrap_or_default());
                begin = end + 1;
            }
        }
        let rest = length - begin;
        for at in 0..rest {
            if let Some(byte) = taken.get(begin + at).copied()
                && let Some(place) = taken.get_mut(at)
            {
                *place = byte;
            }
        }
        rest
    }

    /// Carries out one command and answers.
    fn obey(&mut self, line: &[u8]) {
        let (verb, rest) = split_word(line);
        let number = parse(rest);
        match (verb, number) {
            (b"", _) => return,
            (b"exit", code) => exit(code.unwrap_or(0)),
            (b"idle", _) => loop {
                syscall(SYS_PAUSE, [0; 6]);
            },
            (b"nonce", _) => return say(1, &[b"nonce ", self.nonce(), b"\n"]),
            (b"touch", Some(mib)) => match map(mib) {
                Some(base) => {
                    (self.touched, self.pages) = (base, mib * (1 << 20) / PAGE);
                    write_each(base, self.pages);
                }
                None => return say(1, &[b"error: touch: the kernel gives no such memory\n"]),
            },
            (b"again", Some(pages)) if pages > self.pages => {
                return say(1, &[b"error: again: so much was not touched\n"]);
            }
            (b"again", Some(pages)) => write_each(self.touched, pages),
            (b"write", _) if !write_file(rest, self.nonce()) => return say(1, &[b"error: ", line, b"\n"]),
            (b"write", _) => {}
            (b"read", _) => {
                let mut bytes = [0_u8; NONCE_MAX];
                return match read_file(rest, &mut bytes) {
                    Some(length) => say(1, &[b"read ", bytes.get(..length).unwrap_or_default(), b"\n"]),
                    None => say(1, &[b"error: ", line, b"\n"]),
                };
            }
            (b"spin", Some(turns)) => spin(turns),
            (b"syscalls", Some(count)) => {
                for _ in 0..count {
                    syscall(SYS_GETPPID, [0; 6]);
                }
            }
            _ => return say(1, &[b"error: unknown command: ", line, b"\n"]),
        }
        say(1, &[b"ok ", line, b"\n"]);
    }
}

/// Maps `mib` mebibytes; nothing where the kernel refuses. None at all are mapped nowhere.
fn map(mib: usize) -> Option<usize> {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS: usize = 0x22;
    let length = mib.checked_mul(1 << 20)?;
    let base = syscall(SYS_MMAP, [0, length, READ_WRITE, PRIVATE_ANONYMOUS, usize::MAX, 0]);
    match base {
        ..0 if mib == 0 => Some(0),
        ..0 => None,
        base => Some(base as usize),
    }
}

/// Writes one byte to each of so many pages.
fn write_each(base: usize, pages: usize) {
    for page in 0..pages {
        // SAFETY: inside a mapping that this program made and never gives back, of at least so many pages. Volatile: the write is
        // the point, though nobody reads it.
        unsafe { core::ptr::write_volatile((base as *mut u8).add(page * PAGE), 1) };
    }
}

/// Writes `bytes` to the beginning of a file; whether that could be done.
fn write_file(path: &[u8], bytes: &[u8]) -> bool {
    const WRITE_ONLY_CREATE: usize = 0o101;
    let Some(file) = open(path, WRITE_ONLY_CREATE) else { return false };
    let written = syscall(SYS_WRITE, [file, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]);
    syscall(SYS_CLOSE, [file, 0, 0, 0, 0, 0]);
    written == bytes.len() as isize
}

/// Reads the beginning of a file; how much that is.
fn read_file(path: &[u8], into: &mut [u8]) -> Option<usize> {
    let file = open(path, 0)?;
    let got = syscall(SYS_READ, [file, into.as_mut_ptr() as usize, into.len(), 0, 0, 0]);
    syscall(SYS_CLOSE, [file, 0, 0, 0, 0, 0]);
    usize::try_from(got).ok()
}

fn open(path: &[u8], flags: usize) -> Option<usize> {
    // The kernel wants a NUL behind the last byte.
    let mut text = [0_u8; LINE_MAX + 1];
    for (kept, byte) in text.iter_mut().zip(path).take(LINE_MAX) {
        *kept = *byte;
    }
    usize::try_from(syscall(SYS_OPEN, [text.as_ptr() as usize, flags, 0o644, 0, 0, 0])).ok()
}

fn spin(turns: usize) {
    for turn in 0..turns {
        core::hint::black_box(turn);
    }
}

/// Writes the parts as one line: joined first, because READY must arrive whole.
fn say(descriptor: usize, parts: &[&[u8]]) {
    let mut line = [0_u8; 2 * LINE_MAX];
    let mut length = 0;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        if let Some(slot) = line.get_mut(length) {
            *slot = *byte;
            length += 1;
        }
    }
    let mut written = 0;
    while written < length {
        let got = syscall(SYS_WRITE, [descriptor, line.as_ptr() as usize + written, length - written, 0, 0, 0]);
        match got {
            EINTR => {}
            1.. => written += got as usize,
            _ => exit(3), // nobody listens any more
        }
    }
}

/// How this program ends the machine that it is the first process of (reboot(2)); 0 where it is not.
static END: AtomicUsize = AtomicUsize::new(0);
const RESTART: usize = 0x0123_4567;
const POWER_OFF: usize = 0x4321_fedc;

/// From here on the end of this program is that of the machine, and the terminal passes lines on as they are: it neither
/// echoes what it is told nor puts a carriage return before a line feed (`ioctl_tty(2)`, termios(3)).
fn own_the_machine(end: usize) {
    const TCGETS: usize = 0x5401;
    const TCSETS: usize = 0x5402;
    const OPOST: u32 = 1;
    const ECHO: u32 = 8;
    END.store(end, Ordering::Relaxed);
    // Four words of flags (input, output, control, local), then bytes of others: 36 in all.
    let mut settings = [0_u32; 9];
    if syscall(SYS_IOCTL, [1, TCGETS, settings.as_mut_ptr() as usize, 0, 0, 0]) == 0 {
        settings[1] &= !OPOST;
        settings[3] &= !ECHO;
        syscall(SYS_IOCTL, [1, TCSETS, settings.as_ptr() as usize, 0, 0, 0]);
    }
}

/// Ends the machine, if it is ours to end.
fn end_the_machine(code: usize) {
    const STATUS: u16 = 0xf4;
    const MAGIC: [usize; 2] = [0xfee1_dead, 0x2812_1969];
    let end = END.load(Ordering::Relaxed);
    if end == 0 {
        return;
    }
    if syscall(SYS_IOPERM, [STATUS as usize, 1, 1, 0, 0, 0]) == 0 {
        // SAFETY: the kernel has just let this program at that port; nothing of the program's lies behind it.
        unsafe { asm!("out dx, al", in("dx") STATUS, in("al") code as u8, options(nomem, nostack, preserves_flags)) };
    }
    // Still here: another monitor, which has nobody at that port.
    syscall(SYS_REBOOT, [MAGIC[0], MAGIC[1], end, 0, 0, 0]);
}

fn exit(code: usize) -> ! {
    end_the_machine(code);
    loop {
        syscall(SYS_EXIT_GROUP, [code, 0, 0, 0, 0, 0]);
    }
}

/// The first word of a line, and what follows its blank.
fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == b' ') {
        Some(at) => (line.get(..at).unwrap_or_default(), line.get(at + 1..).unwrap_or_default()),
        None => (line, b""),
    }
}

/// A decimal number; nothing where a byte is no digit, or where it does not fit.
fn parse(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_usize, |value, byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(usize::from(byte - b'0')),
        _ => None,
    })
}

/// The bytes of a C string, without its NUL.
///
/// # Safety
/// `text` points to a NUL-terminated string that is never written while the result lives.
unsafe fn c_bytes<'a>(text: *const u8) -> &'a [u8] {
    let mut length = 0;
    // SAFETY: the caller's promise: every byte up to the NUL may be read. Volatile, or the compiler would make this
    // loop a call of strlen(3), which nobody here defines.
    unsafe {
        while text.add(length).read_volatile() != 0 {
            length += 1;
        }
        core::slice::from_raw_parts(text, length)
    }
}

/// One Linux system call; the result is negative `errno` where it fails (syscall(2)).
fn syscall(number: usize, arguments: [usize; 6]) -> isize {
    let result;
    // SAFETY: the calls made here touch only memory that this program owns and passes by pointer and length.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0], in("rsi") arguments[1], in("rdx") arguments[2],
            in("r10") arguments[3], in("r8") arguments[4], in("r9") arguments[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    exit(101)
}

/// Never called, as nothing unwinds; an unoptimized `core` names it all the same.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

// The compiler may call these for copies and fills of its own; without a libc somebody must have them.

/// memcpy(3).
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller's promise; `rep movsb` counts rcx down and leaves the direction flag alone.
    unsafe {
        asm!("rep movsb", inout("rcx") length => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack));
    }
    to
}

/// memset(3).
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
    // SAFETY: as for memcpy.
    unsafe {
        asm!("rep stosb", inout("rcx") length => _, inout("rdi") to => _, in("al") byte as u8, options(nostack));
    }
    to
}

/// bcmp(3): zero where the two are equal.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    for index in 0..length {
        // SAFETY: the caller's promise; volatile, or the compiler would turn this loop into a call of bcmp.
        let differs = unsafe { left.add(index).read_volatile() != right.add(index).read_volatile() };
        if differs {
            return 1;
        }
    }
    0
}

/// memcmp(3), as far as equality goes: all that this program compares.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { bcmp(left, right, length) }
}
