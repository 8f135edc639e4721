//! Two machines at once, of which one has a driver that writes garbage: to every register of every device, and all over the
//! rings that those look at. Its devices stop, its monitor goes on, and the other machine does not notice.

use std::arch::global_asm;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use isolab_vmm::machine::Standing;
use isolab_vmm::machine::pc::{Disk, Sockets, Wiring};
use libtest_mimic::{Failed, Trial};

use super::{Done, tiny, trial};

/// How often it brings up and ruins each device.
const ROUNDS: usize = 12;
/// What the guest ends with that has come so far.
const CAME_THROUGH: i32 = 9;

// Both are entered with memory mapped to itself; the rings and buffers of the first are where its own code is not, so that it
// lives to the end. R8: its random numbers (xorshift64), begun before. EBX: a device's registers.
global_asm!(
    ".pushsection .rodata.hostile, \"a\"",
    "hostile:",
    "    mov  esp, 0x280000",
    "    mov  r15d, {rounds}",
    "20: xor  r14d, r14d",
    "21: mov  ebx, r14d",
    "    shl  ebx, 12",
    "    add  ebx, 0xd0000000",
    // As a driver begins (virtio 1.2, section 3.1.1): reset, there, a driver, these features.
    "    mov  dword ptr [rbx + 0x70], 0",
    "    mov  dword ptr [rbx + 0x70], 1",
    "    mov  dword ptr [rbx + 0x70], 3",
    "    xor  ecx, ecx",
    "22: mov  dword ptr [rbx + 0x14], ecx",
    "    mov  dword ptr [rbx + 0x24], ecx",
    "    mov  eax, dword ptr [rbx + 0x10]",
    "    mov  dword ptr [rbx + 0x20], eax",
    "    inc  ecx",
    "    cmp  ecx, 2",
    "    jne  22b",
    "    mov  dword ptr [rbx + 0x70], 11",
    // Three queues: descriptors, available and used ring, from 0x300000 on.
    "    xor  ecx, ecx",
    "23: mov  dword ptr [rbx + 0x30], ecx",
    "    mov  eax, dword ptr [rbx + 0x34]",
    "    mov  dword ptr [rbx + 0x38], eax",
    "    mov  edx, ecx",
    "    shl  edx, 16",
    "    add  edx, 0x300000",
    "    mov  dword ptr [rbx + 0x80], edx",
    "    mov  dword ptr [rbx + 0x84], 0",
    "    add  edx, 0x4000",
    "    mov  dword ptr [rbx + 0x90], edx",
    "    mov  dword ptr [rbx + 0x94], 0",
    "    add  edx, 0x4000",
    "    mov  dword ptr [rbx + 0xa0], edx",
    "    mov  dword ptr [rbx + 0xa4], 0",
    "    mov  dword ptr [rbx + 0x44], 1",
    "    inc  ecx",
    "    cmp  ecx, 3",
    "    jne  23b",
    "    mov  dword ptr [rbx + 0x70], 15",
    // Each queue's first 16 descriptors: a place in the upper half of memory or far outside, any length, any flags, any next.
    "    mov  edi, 0x300000",
    "24: xor  ecx, ecx",
    "25: call 90f",
    "    mov  rax, r8",
    "    test r8d, 0x1c000000",
    "    jz   26f",
    "    and  eax, 0x3fffff",
    "    add  eax, 0x400000",
    "26: mov  qword ptr [rdi + rcx * 8], rax",
    "    inc  ecx",
    "    call 90f",
    "    mov  rax, r8",
    "    test r8d, 0x40000000",
    "    jz   27f",
    "    mov  rdx, 0x000f000700000fff",
    "    and  rax, rdx",
    "27: mov  qword ptr [rdi + rcx * 8], rax",
    "    inc  ecx",
    "    cmp  ecx, 32",
    "    jne  25b",
    // The available ring: flags, an index, and heads among those 16 or anything.
    "    call 90f",
    "    mov  eax, r8d",
    "    and  eax, 0x001f0001",
    "    mov  dword ptr [rdi + 0x4000], eax",
    "    xor  ecx, ecx",
    "28: call 90f",
    "    mov  eax, r8d",
    "    test r8d, 0x70000000",
    "    jz   29f",
    "    and  eax, 0x000f000f",
    "29: mov  dword ptr [rdi + rcx * 4 + 0x4004], eax",
    "    inc  ecx",
    "    cmp  ecx, 16",
    "    jne  28b",
    "    add  edi, 0x10000",
    "    cmp  edi, 0x330000",
    "    jne  24b",
    // The bells of these queues and of one that is not there.
    "    xor  ecx, ecx",
    "30: mov  dword ptr [rbx + 0x50], ecx",
    "    inc  ecx",
    "    cmp  ecx, 4",
    "    jne  30b",
    // And anything to any register, a few bytes off as well.
    "    mov  ecx, 48",
    "31: call 90f",
    "    mov  eax, r8d",
    "    and  eax, 0x1ff",
    "    test r8d, 0x60000000",
    "    jz   32f",
    "    and  eax, 0x1fc",
    "32: mov  rdx, r8",
    "    shr  rdx, 20",
    "    mov  dword ptr [rbx + rax], edx",
    "    dec  ecx",
    "    jnz  31b",
    "    inc  r14d",
    "    cmp  r14d, {devices}",
    "    jne  21b",
    "    mov  dx, 0x3f8",
    "    mov  al, 'r'",
    "    out  dx, al",
    "    mov  al, 10",
    "    out  dx, al",
    "    dec  r15d",
    "    jnz  20b",
    "    mov  al, {through}",
    "    out  0xf4, al",
    // The next random number.
    "90: mov  rax, r8",
    "    shl  rax, 13",
    "    xor  r8, rax",
    "    mov  rax, r8",
    "    shr  rax, 7",
    "    xor  r8, rax",
    "    mov  rax, r8",
    "    shl  rax, 17",
    "    xor  r8, rax",
    "    ret",
    "hostile_end:",
    // The other machine: to whatever is typed it answers the next letter, which it keeps in memory.
    "bystander:",
    "    mov  ebx, 0x200000",
    "    mov  byte ptr [rbx], 'a'",
    "40: mov  dx, 0x3fd",
    "    in   al, dx",
    "    test al, 1",
    "    jz   40b",
    "    mov  dx, 0x3f8",
    "    in   al, dx",
    "    mov  al, byte ptr [rbx]",
    "    out  dx, al",
    "    inc  byte ptr [rbx]",
    "    mov  al, 10",
    "    out  dx, al",
    "    jmp  40b",
    "bystander_end:",
    ".popsection",
    rounds = const ROUNDS,
    devices = const DEVICES,
    through = const CAME_THROUGH,
);

/// How many devices [`devices`] makes.
const DEVICES: usize = 5;

unsafe extern "C" {
    static hostile: u8;
    static hostile_end: u8;
    static bystander: u8;
    static bystander_end: u8;
}

fn between(start: &'static u8, end: &'static u8) -> &'static [u8] {
    let (start, end) = (std::ptr::from_ref(start), std::ptr::from_ref(end));
    // SAFETY: both are labels of one section above, in this order, and nobody writes there.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

pub(super) fn trials() -> Vec<Trial> {
    vec![trial("a_guest_that_writes_garbage_to_its_devices_harms_no_other_machine", &["kvm"], || {
        (1..=2).try_for_each(beside_each_other)
    })]
}

fn devices(folder: &Path, name: &str) -> Result<Vec<Wiring>, Failed> {
    let disk = |kind: &str, read_only: bool| -> Result<Wiring, Failed> {
        let path = folder.join(format!("{name}-{kind}.img"));
        fs::write(&path, [7; 8192])?;
        Ok(Wiring::Disk(Disk::new(path, read_only, None)))
    };
    let sockets = Sockets { cid: 3, path: folder.join(format!("{name}.vsock")) };
    Ok(vec![disk("data", false)?, Wiring::Vsock(sockets), Wiring::Rng, Wiring::Balloon(0), disk("image", true)?])
}

/// A machine that runs in a process of its own, from its first instruction on; gone with this value.
struct Monitor {
    process: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Monitor {
    fn start(folder: &Path, name: &str, code: &[u8]) -> Result<Self, Failed> {
        let at = folder.join(name);
        // KVM may interpret this kernel, which the command refuses for one of Linux and not for what goes on.
        tiny::boot_with(&tiny::CONFIG, code, devices(folder, name)?)?.0.save(&at)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-vm"));
        command.arg("restore").arg(&at).args(["--timeout", "60"]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (input, output) = (process.stdin.take().ok_or("no input")?, process.stdout.take().ok_or("no output")?);
        let (sender, lines) = channel();
        // Ends with the machine's output.
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Self { process, input, lines })
    }

    /// The one that answers, asked.
    fn answers(&mut self, letter: u8) -> Done {
        self.input.write_all(b"?")?;
        assert_eq!(self.hears()?.as_bytes(), [letter]);
        Ok(())
    }

    fn hears(&self) -> Result<String, Failed> {
        Ok(self.lines.recv_timeout(Duration::from_secs(20))?)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn beside_each_other(seed: u64) -> Done {
    let folder = tempfile::tempdir()?;
    // SAFETY: labels of bytes that are there and that nobody changes.
    let (bad, good) = unsafe { (between(&hostile, &hostile_end), between(&bystander, &bystander_end)) };
    let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let begins = [&[0x49, 0xb8][..], &seed.to_le_bytes()].concat(); // mov r8, SEED
    let mut other = Monitor::start(folder.path(), "other", good)?;
    other.answers(b'a')?;
    let mut monitor = Monitor::start(folder.path(), "hostile", &[&tiny::map_devices(), &begins, bad].concat())?;
    // While the one does its worst, round by round, the other does what it did before.
    for letter in (b'b'..).take(ROUNDS) {
        assert_eq!(monitor.hears()?, "r");
        other.answers(letter)?;
    }
    let status = monitor.process.wait()?;
    let mut said = String::new();
    monitor.process.stderr.take().ok_or("no errors")?.read_to_string(&mut said)?;
    assert_eq!(status.code(), Some(CAME_THROUGH), "{status}: {said}");
    for device in ["block", "vsock", "rng"] {
        assert!(said.contains(&format!("virtio {device}: ")), "nobody told that {device} had stopped: {said}");
    }
    other.answers(b'b' + ROUNDS as u8)?;
    assert!(other.process.try_wait()?.is_none());
    Ok(())
}
