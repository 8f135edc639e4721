//! Kernels of a few instructions.
//!
//! Each is entered as Linux is, in 64-bit mode with all memory below the devices mapped to itself, and speaks to the same
//! registers of the same devices.

use std::io::{PipeWriter, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use isolab_vmm::guest::linux::Linux;
use isolab_vmm::machine::pc::{Config, Console, Interpreted, Paused, Pc, Wiring};
use isolab_vmm::machine::{Ended, RunError};
use isolab_vmm::units::Mib;
use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Done, Screen, isolab_vm, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_kernel_hands_its_status_over_at_a_port", &["kvm"], a_status),
        trial("a_kernel_prints_on_the_serial_port", &["kvm"], prints),
        trial("a_kernel_switches_its_machine_off_by_acpi", &["kvm"], switched_off),
        trial("a_kernel_that_resets_its_machine_ends_it_and_that_is_told", &["kvm"], reset),
        trial("a_kernel_that_jumps_to_the_firmware_resets_its_machine", &["kvm"], firmware),
        trial("a_kernel_that_faults_three_times_ends_its_machine_and_that_is_told", &["kvm"], triple_fault),
        trial("a_kernel_wakes_another_processor", &["kvm"], second_processor),
        trial("a_serial_port_interrupts_when_something_is_typed", &["kvm"], typed),
        trial("a_line_longer_than_the_port_holds_is_read_by_a_driver_that_takes_it_in_parts", &["kvm"], a_long_line),
        trial("what_a_kernel_has_printed_of_a_line_is_shown_before_its_end", &["kvm"], a_prompt),
        trial("a_kernel_that_runs_too_long_is_told_with_its_place", &["kvm"], too_long),
        trial("a_signal_ends_a_machine_of_several_processors", &["kvm"], a_signal),
        trial("a_polite_signal_presses_the_power_button_and_the_guest_ends_by_itself", &["kvm"], a_button),
        trial("a_guest_that_hears_no_button_is_ended_when_its_time_is_up", &["kvm"], a_deaf_guest),
        trial("a_machine_that_stands_still_does_nothing_and_then_goes_on_where_it_was", &["kvm"], stands_still),
        trial("a_machine_that_is_dropped_leaves_no_thread", &["kvm"], dropped),
        trial("garbage_at_every_register_harms_nothing_but_the_guest", &["kvm"], garbage),
        trial("a_kernel_where_kvm_interprets_it_is_refused_with_the_way_out", &["interpreted-kvm"], interpreted),
        trial("what_cannot_be_booted_is_refused", &[], refused),
    ]
}

// ---- how a kernel is made ------------------------------------------------------------------------------------------

/// Where a kernel's code lies, and is entered.
const CODE: u64 = 0x10_0000;

/// A vmlinux of this code.
fn kernel(code: &[u8]) -> Result<tempfile::NamedTempFile, Failed> {
    let mut header = [0; 64 + 56];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0x7f, b'E', b'L', b'F', 2, 1]);
    put(16, &[2, 0, 62, 0]);
    put(24, &CODE.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(54, &[56, 0, 1, 0]);
    put(64, &1_u32.to_le_bytes());
    put(64 + 8, &120_u64.to_le_bytes());
    put(64 + 24, &CODE.to_le_bytes());
    put(64 + 32, &(code.len() as u64).to_le_bytes());
    put(64 + 40, &0x1_0000_u64.to_le_bytes());
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(&header)?;
    file.write_all(code)?;
    Ok(file)
}

pub(super) const CONFIG: Config =
    Config { memory: Mib(8), cpus: 1, timeout: Some(Duration::from_secs(20)), interpreted: Interpreted::Run };

pub(super) fn boot(config: &Config, code: &[u8]) -> Result<(Pc, Screen), Failed> {
    boot_with(config, code, Vec::new())
}

pub(super) fn boot_with(config: &Config, code: &[u8], devices: Vec<Wiring>) -> Result<(Pc, Screen), Failed> {
    let screen = Screen::default();
    Ok((boot_onto(config, code, Box::new(screen.clone()), devices)?, screen))
}

/// The same, and what it prints goes there.
pub(super) fn boot_onto(config: &Config, code: &[u8], console: Console, devices: Vec<Wiring>) -> Result<Pc, Failed> {
    let file = kernel(code)?;
    let linux = Linux::open(file.path(), None, "")?;
    Ok(Pc::boot(config, &linux, console, devices)?)
}

fn run(config: &Config, code: &[u8]) -> Result<(Result<Ended, RunError>, Screen), Failed> {
    let (pc, screen) = boot(config, code)?;
    Ok((pc.resume()?.wait(None), screen))
}

/// `mov al, VALUE; out PORT, al` for ports below 0x100.
const fn out(port: u8, value: u8) -> [u8; 4] {
    [0xb0, value, 0xe6, port]
}

/// `mov dx, PORT; mov al, VALUE; out dx, al`
pub(super) const fn out_far(port: u16, value: u8) -> [u8; 7] {
    let port = port.to_le_bytes();
    [0x66, 0xba, port[0], port[1], 0xb0, value, 0xee]
}

/// Ends the machine with this status.
pub(super) const fn exit(status: u8) -> [u8; 4] {
    out(0xf4, status)
}

/// `jmp` to itself.
pub(super) const FOR_EVER: [u8; 2] = [0xeb, 0xfe];

/// `mov dword [ADDRESS], VALUE`, by way of RBX: the address has 32 bits without a sign.
pub(super) fn store(address: u32, value: u32) -> Vec<u8> {
    // mov ebx, ADDRESS; mov dword [rbx], VALUE
    [&[0xbb][..], &address.to_le_bytes(), &[0xc7, 0x03], &value.to_le_bytes()].concat()
}

/// Maps the pages of devices to themselves: when a kernel is entered, no more than memory is mapped. The monitor's table of
/// tables ([`isolab_vmm::guest::bare::long_mode`]) gets another one, in the room that so little memory leaves free.
pub(super) fn map_devices() -> Vec<u8> {
    let directory = |index: u32, page: u64| (0x5000 + index * 8, page | 0x83);
    let entries =
        [(0x3018, 0x5003), directory(128, 0xd000_0000), directory(502, 0xfec0_0000), directory(503, 0xfee0_0000)];
    entries.into_iter().flat_map(|(at, entry)| store_64(at, entry)).collect()
}

/// `mov rax, VALUE; mov [ADDRESS], rax`
pub(super) fn store_64(address: u32, value: u64) -> Vec<u8> {
    [&[0x48, 0xb8][..], &value.to_le_bytes(), &[0x48, 0x89, 0x04, 0x25], &address.to_le_bytes()].concat()
}

// ---- how a machine ends --------------------------------------------------------------------------------------------

fn a_status() -> Done {
    for status in [0, 42, 255] {
        assert_eq!(run(&CONFIG, &exit(status))?.0?, Ended::Status(status));
    }
    Ok(())
}

fn prints() -> Done {
    let code = [out_far(0x3f8, b'h'), out_far(0x3f8, b'i'), out_far(0x3f8, b'\n')].concat();
    let (ended, screen) = run(&CONFIG, &[code, exit(0).to_vec()].concat())?;
    assert_eq!((ended?, screen.text().as_str()), (Ended::Status(0), "hi\n"));
    Ok(())
}

fn switched_off() -> Done {
    // Sleep type 5, "now"; a sleep of another type is none.
    let code =
        [&out_far(0x600, 3 << 2 | 1 << 5)[..], &out_far(0x3f8, b'x'), &out_far(0x600, 5 << 2 | 1 << 5), &FOR_EVER];
    let (ended, screen) = run(&CONFIG, &code.concat())?;
    assert_eq!((ended?, screen.text().as_str()), (Ended::Off, "x"), "the part of a line is shown at the end");
    Ok(())
}

fn reset() -> Done {
    for way in [out(0x64, 0xfe).to_vec(), out_far(0x602, 1).to_vec()] {
        let (ended, _) = run(&CONFIG, &[way, FOR_EVER.to_vec()].concat())?;
        assert!(matches!(ended, Err(RunError::Reset)), "{ended:?}");
    }
    Ok(())
}

/// Linux on a machine without ACPI's old hardware, at the end of its means, jumps to where firmware would begin. Here another
/// processor is woken right below.
fn firmware() -> Done {
    let to_firmware = u64::from_le_bytes([0xea, 0xf0, 0xff, 0, 0xf0, 0, 0, 0]); // ljmpw 0xf000:0xfff0
    let code = [
        map_devices(),
        store_64(0x9000, to_firmware),
        store(0xfee0_00f0, 0x1ff),
        store(0xfee0_0310, 1 << 24),
        store(0xfee0_0300, 0x4500),
        store(0xfee0_0300, 0x4609),
        FOR_EVER.to_vec(),
    ]
    .concat();
    let (ended, _) = run(&Config { cpus: 2, ..CONFIG }, &code)?;
    assert!(matches!(ended, Err(RunError::Reset)), "{ended:?}");
    Ok(())
}

fn triple_fault() -> Done {
    // mov al, [-1]: no page there; no handler for that; and none for the want of a handler.
    let (ended, _) = run(&CONFIG, &[0x8a, 0x04, 0x25, 0xff, 0xff, 0xff, 0xff])?;
    assert!(matches!(ended, Err(RunError::TripleFault(_))), "{ended:?}");
    Ok(())
}

fn too_long() -> Done {
    let config = Config { timeout: Some(Duration::from_millis(100)), cpus: 2, ..CONFIG };
    let before = Instant::now();
    let (ended, _) = run(&config, &FOR_EVER)?;
    assert!(before.elapsed() < Duration::from_secs(10), "a loop must not go on");
    let error = ended.err().ok_or("it ended well")?.to_string();
    assert!(error.contains("still ran after 100ms") && error.contains("rip 0x100000, bytes there eb fe"), "{error}");
    Ok(())
}

fn a_signal() -> Done {
    let config = Config { cpus: 3, ..CONFIG };
    let code = [&out_far(0x3f8, b'r')[..], &FOR_EVER].concat();
    let (pc, screen) = boot(&config, &code)?;
    let running = pc.resume()?;
    let sender = std::thread::spawn(move || {
        while screen.text().is_empty() {
            std::thread::sleep(Duration::from_millis(2));
        }
        kill(Pid::this(), Signal::SIGTERM)
    });
    assert_eq!(running.wait(None)?, Ended::Signal(libc::SIGTERM));
    sender.join().map_err(|_| "the sender died")??;
    Ok(())
}

/// Boots a kernel that prints an `r`, waits for the machine with this grace, and sends SIGTERM when it has printed.
fn ended_politely(code: &[u8], grace: Duration) -> Result<Ended, Failed> {
    let (pc, screen) = boot(&CONFIG, code)?;
    let running = pc.resume()?.with_grace(grace);
    let sender = std::thread::spawn(move || {
        while screen.text().is_empty() {
            std::thread::sleep(Duration::from_millis(2));
        }
        kill(Pid::this(), Signal::SIGTERM)
    });
    let ended = running.wait(None)?;
    sender.join().map_err(|_| "the sender died")??;
    Ok(ended)
}

fn a_button() -> Done {
    let waits = is_interrupted(BUTTON_LINE, b"r", &exit(9));
    assert_eq!(ended_politely(&waits, Duration::from_secs(15))?, Ended::Status(9));
    Ok(())
}

fn a_deaf_guest() -> Done {
    let code = [&out_far(0x3f8, b'r')[..], &FOR_EVER].concat();
    let before = Instant::now();
    assert_eq!(ended_politely(&code, Duration::from_millis(200))?, Ended::Signal(libc::SIGTERM));
    assert!(before.elapsed() >= Duration::from_millis(200), "it had no time");
    Ok(())
}

// ---- several processors, interrupts --------------------------------------------------------------------------------

/// Wakes processor 1 by its local APIC as Linux does, and waits. What it wakes to, in 16-bit mode at 0x9000, ends the machine.
fn second_processor() -> Done {
    let trampoline: u64 = u64::from_le_bytes([0xb0, 7, 0xe6, 0xf4, 0xeb, 0xfe, 0, 0]);
    let code = [
        map_devices(),
        store_64(0x9000, trampoline),
        // The local APIC on (spurious vector register); then INIT and two SIPIs to processor 1.
        store(0xfee0_00f0, 0x1ff),
        store(0xfee0_0310, 1 << 24),
        store(0xfee0_0300, 0x4500),
        store(0xfee0_0300, 0x4609),
        store(0xfee0_0300, 0x4609),
        FOR_EVER.to_vec(),
    ]
    .concat();
    let (ended, _) = run(&Config { cpus: 2, ..CONFIG }, &code)?;
    assert_eq!(ended?, Ended::Status(7));
    Ok(())
}

/// Sets up an interrupt table, the local APIC and line 4 of the I/O APIC, and waits with `hlt` for the serial port's
/// interrupt; its handler ends the machine with the byte that was typed.
fn typed() -> Done {
    let (pc, screen) = boot(&CONFIG, &waits_for_a_key(b"?"))?;
    let (reader, writer) = std::io::pipe()?;
    let typist = std::thread::spawn(move || type_at_the_prompt(&screen, writer, b"k"));
    let ended = pc.resume()?.wait(Some(reader.as_fd()));
    typist.join().map_err(|_| "the typist died")??;
    assert_eq!(ended?, Ended::Status(b'k'));
    Ok(())
}

/// Linux's driver takes so many bytes at most, then asks whether there is more to do, and waits for an interrupt if there is
/// not. The port is full when this one asks: were it told that there is not, it would get no interrupt any more.
fn a_long_line() -> Done {
    const TAKES_PART: [u8; 56] = [
        0x66, 0xba, 0xfa, 0x03, 0xec, //             more: mov dx, 0x3fa; in al, dx
        0xa8, 0x01, 0x75, 0x20, //                   test al, 1; jnz done
        0xb9, 0x20, 0, 0, 0, //                      mov ecx, 32
        0x66, 0xba, 0xf8, 0x03, 0xec, //             next: mov dx, 0x3f8; in al, dx
        0xff, 0xc5, 0x83, 0xfd, 100, 0x74, 0x1e, //  inc ebp; cmp ebp, 100; je end
        0x66, 0xba, 0xfd, 0x03, 0xec, //             mov dx, 0x3fd; in al, dx
        0xa8, 0x01, 0x74, 0xdd, //                   test al, 1; jz more
        0xff, 0xc9, 0x75, 0xe7, 0xeb, 0xd7, //       dec ecx; jnz next; jmp more
        0xbb, 0xb0, 0x00, 0xe0, 0xfe, //             done: mov ebx, 0xfee000b0
        0xc7, 0x03, 0, 0, 0, 0, //                   mov dword [rbx], 0: the end of the interrupt
        0xfb, 0xf4, 0xeb, 0xfd, //                   sti; again: hlt; jmp again
    ];
    let handler = [&TAKES_PART[..], &exit(0)].concat(); // end
    let (pc, screen) = boot(&CONFIG, &is_interrupted(SERIAL_LINE, b"?", &handler))?;
    let (reader, writer) = std::io::pipe()?;
    let typist = std::thread::spawn(move || type_at_the_prompt(&screen, writer, &[b'x'; 100]));
    let ended = pc.resume()?.wait(Some(reader.as_fd()));
    typist.join().map_err(|_| "the typist died")??;
    assert_eq!(ended?, Ended::Status(0));
    Ok(())
}

/// The code of such a kernel, which prints this first.
pub(super) fn waits_for_a_key(prompt: &[u8]) -> Vec<u8> {
    // mov dx, 0x3f8; in al, dx; out 0xf4, al
    is_interrupted(SERIAL_LINE, prompt, &[0x66, 0xba, 0xf8, 0x03, 0xec, 0xe6, 0xf4])
}

/// The lines of the serial port and of the power button.
const SERIAL_LINE: u32 = 4;
const BUTTON_LINE: u32 = 1;

/// The code of a kernel that prints this, waits, and does that when this line interrupts. EBP is zero before.
fn is_interrupted(line: u32, prompt: &[u8], then: &[u8]) -> Vec<u8> {
    let handler = CODE + 0x200;
    let gate = |address: u64| [(address & 0xffff) | 0x10 << 16 | 0x8e00 << 32 | (address >> 16 & 0xffff) << 48, 0];
    let mut code = map_devices();
    code.extend([0x31, 0xed]); // xor ebp, ebp
    for (index, half) in gate(handler).into_iter().enumerate() {
        let at = 0x7000 + 0x40 * 16 + index as u32 * 8;
        code.extend(store_64(at, half));
    }
    // The descriptor of the table at 0x6ff0: limit, base; and lidt [0x6ff0].
    code.extend(store(0x6ff0, 0x0fff | 0x7000 << 16));
    code.extend(store(0x6ff4, 0));
    code.extend([0x0f, 0x01, 0x1c, 0x25, 0xf0, 0x6f, 0, 0]);
    code.extend(store(0xfee0_00f0, 0x1ff)); // the local APIC on
    code.extend(store(0xfec0_0000, 0x10 + 2 * line)); // the line: vector 0x40, edge, not masked
    code.extend(store(0xfec0_0010, 0x40));
    code.extend(out_far(0x3f9, 1)); // interrupt when something has been received
    code.extend(prompt.iter().flat_map(|byte| out_far(0x3f8, *byte)));
    code.extend([0xfb, 0xf4, 0xeb, 0xfd]); // sti; again: hlt; jmp again
    code.resize(0x200, 0x90);
    code.extend(then);
    code
}

/// Types once the guest has shown its prompt: that no line feed follows must not keep it back.
fn type_at_the_prompt(screen: &Screen, mut writer: PipeWriter, line: &[u8]) -> std::io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !screen.text().ends_with('?') && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    writer.write_all(line)
}

fn a_prompt() -> Done {
    let code = [&out_far(0x3f8, b'$')[..], &FOR_EVER].concat();
    let (pc, screen) = boot(&Config { timeout: Some(Duration::from_secs(2)), ..CONFIG }, &code)?;
    let running = pc.resume()?;
    let seen = std::thread::spawn(move || {
        let before = Instant::now();
        while screen.text() != "$" && before.elapsed() < Duration::from_millis(1500) {
            std::thread::sleep(Duration::from_millis(2));
        }
        screen.text() == "$"
    });
    let _ = running.wait(None);
    assert!(seen.join().map_err(|_| "the reader died")?);
    Ok(())
}

// ---- standing still ------------------------------------------------------------------------------------------------

/// Prints empty lines for ever: `mov dx, 0x3f8; mov al, LF; out dx, al; jmp -3`
const LINES: [u8; 9] = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'\n', 0xee, 0xeb, 0xfd];

fn stands_still() -> Done {
    let (mut pc, screen) = boot(&Config { cpus: 2, ..CONFIG }, &LINES)?;
    let mut printed = 0;
    for _ in 0..20 {
        let running = pc.resume()?;
        while screen.text().len() <= printed {
            std::thread::sleep(Duration::from_millis(1));
        }
        let Paused::Still(still) = running.pause()? else { return Err("it had ended".into()) };
        printed = screen.text().len();
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(screen.text().len(), printed, "who stands still prints nothing");
        pc = still;
    }
    pc.resume()?.stop();
    assert!(screen.text().bytes().all(|byte| byte == b'\n'));
    Ok(())
}

fn dropped() -> Done {
    // The kernel has threads of its own in a process that has a machine.
    let processor = |task: std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("vcpu"))
    };
    let threads =
        || std::fs::read_dir("/proc/self/task").map(|tasks| tasks.flatten().map(processor).filter(|it| *it).count());
    let files = || std::fs::read_dir("/proc/self/fd").map(Iterator::count);
    let before = (threads()?, files()?);
    let running = boot(&Config { cpus: 4, ..CONFIG }, &FOR_EVER)?.0.resume()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while threads()? < before.0 + 4 {
        // A thread gets its name when it first runs.
        assert!(Instant::now() < deadline, "{} threads", threads()?);
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(running);
    assert_eq!((threads()?, files()?), before);
    Ok(())
}

// ---- bad input -----------------------------------------------------------------------------------------------------

/// Writes all kinds of values to every port but the one that ends the machine, and all over the pages of devices.
fn garbage() -> Done {
    let mut code = Vec::new();
    for port in (0x60..0x80).chain(0x3f8..0x400).chain([0x600, 0x601, 0x603, 0xcf8, 0xcfc, 0xffff]) {
        for value in [0, 1, 0x55, 0x80] {
            code.extend(out_far(port, value));
            code.extend([0xec, 0xed]); // in al, dx; in eax, dx
        }
    }
    code.extend(map_devices());
    for page in [0xfec0_0000_u32, 0xd000_0000, 0xd000_1000, 0xfed0_0000] {
        for offset in [0, 1, 4, 0x10, 0x11, 0x40, 0xffc, 0xffe] {
            code.extend(store(page + offset, 0xffff_ff3f));
            code.extend([0x8b, 0x03, 0x48, 0x8b, 0x03, 0x8a, 0x03]); // mov eax, [rbx]; mov rax, [rbx]; mov al, [rbx]
        }
    }
    code.extend(exit(5));
    let (ended, _) = run(&CONFIG, &code)?;
    assert_eq!(ended?, Ended::Status(5));
    Ok(())
}

fn interpreted() -> Done {
    let file = kernel(&exit(0))?;
    let path = file.path().to_str().ok_or("a path in UTF-8")?;
    let output = isolab_vm(&["run", "--kernel", path])?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{errors}");
    for part in ["error: no Linux kernel runs", "kvm_pvm", "hint: ", "isolab-bench testbed"] {
        assert!(errors.contains(part), "{part:?} in {errors}");
    }
    Ok(())
}

fn refused() -> Done {
    let refuse = |words: &[&str], status: i32, parts: &[&str]| -> Done {
        let output = isolab_vm(words)?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = parts.iter().all(|part| errors.contains(part));
        if output.status.code() != Some(status) || !told || !output.stdout.is_empty() {
            return Err(format!("{words:?} should be refused with {parts:?}: {errors}").into());
        }
        Ok(())
    };
    let empty = tempfile::NamedTempFile::new()?;
    let empty = empty.path().to_str().ok_or("a path in UTF-8")?;
    let tiny = kernel(&exit(0))?;
    let tiny = tiny.path().to_str().ok_or("a path in UTF-8")?;
    refuse(&["run", "--kernel", empty], 125, &["error: ", "neither a bzImage nor an ELF file", "hint: "])?;
    refuse(&["run", "--kernel", "/nowhere"], 125, &["cannot read the kernel /nowhere", "No such file"])?;
    refuse(&["run", "--kernel", tiny, "--initrd", "/nowhere"], 125, &["initial file system /nowhere", "No such file"])?;
    refuse(&["run", "--kernel", tiny, "--initrd", empty], 125, &["it is empty"])?;
    refuse(&["run", "--kernel", tiny, "--cmdline", &"x".repeat(3000)], 125, &["too long", "takes 2047"])?;
    refuse(&["run", "--kernel", tiny, "--cpus", "0"], 125, &["0 processors"])?;
    refuse(&["run", "--kernel", tiny, "--cpus", "65"], 125, &["at most 64"])?;
    refuse(&["run", "--kernel", tiny, "--", "sh"], 2, &["cannot be used with"])?;
    refuse(&["run", "--bare", "counter", "--cpus", "2"], 2, &["cannot be used with"])?;
    refuse(&["run", "--initrd", empty], 2, &["--kernel"])
}
