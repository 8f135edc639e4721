//! Machines: what the built-in guests do, and how a machine ends when its guest can't go on or somebody wants it to stop.
//!
//! Guests that do what they should not are made here, of a few bytes each, and put into machines through the library. A
//! trial that needs `/dev/kvm` is ignored where there is none, and says so, or fails where `ISOLAB_REQUIRE` lists `kvm`.

mod needs;

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use isolab_vmm::guest::bare::long_mode;
use isolab_vmm::guest::{Entry, Flow, Guest, GuestError};
use isolab_vmm::machine::overseer::{Moment, Overseer, Verdict};
use isolab_vmm::machine::stop::Bell;
use isolab_vmm::machine::{Config, Ended, Machine, Paused, RunError};
use isolab_vmm::memory::Memory;
use isolab_vmm::units::Mib;
use isolab_vmm::vcpu::Cpu;
use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs};
use libtest_mimic::{Arguments, Failed};
use nix::sys::signal::{SigHandler, Signal, kill};
use nix::unistd::Pid;
use vm_memory::{Bytes, GuestAddress};

use needs::{Done, trial};

fn main() {
    // One after the other: a process has one set of signal handlers, so it can listen on behalf of one machine.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let trials = vec![
        trial("each_built_in_guest_prints_what_it_is_for", &["kvm"], each_guest_prints),
        trial("a_line_of_any_bytes_comes_out_as_it_went_in", &["kvm"], a_line_comes_out),
        trial("what_cannot_be_run_is_refused_with_a_hint", &[], what_cannot_be_run_is_refused),
        trial("a_guest_larger_than_its_machine_is_refused", &["kvm"], a_guest_too_large_is_refused),
        trial("without_permission_the_hint_is_a_group", &["kvm", "root", "closed-kvm"], without_permission),
        trial("a_fault_that_nobody_handles_is_told_with_its_place", &["kvm"], a_triple_fault),
        trial("an_instruction_that_is_not_there_is_told_with_its_place", &["kvm"], no_instruction),
        trial("a_guest_that_loops_ends_in_time_and_is_told_with_its_place", &["kvm"], a_loop_ends_in_time),
        trial("who_rings_is_let_in_while_the_guest_loops", &["kvm"], who_rings_is_let_in),
        trial("a_guest_that_halts_ends_in_time_and_takes_no_cpu", &["kvm"], a_halt_ends_in_time),
        trial("a_store_to_nowhere_is_told_with_its_address", &["kvm"], a_store_to_nowhere),
        trial("a_load_from_nowhere_reads_ones", &["kvm"], a_load_from_nowhere),
        trial("the_status_is_handed_through", &["kvm"], the_status_is_handed_through),
        trial("a_signal_ends_the_machine_as_a_shell_would_tell", &["kvm"], a_signal_ends_it),
        trial("a_signal_that_is_ignored_stays_ignored", &["kvm"], an_ignored_signal),
        trial("a_console_that_is_gone_ends_the_machine", &["kvm"], a_console_that_is_gone),
        trial("guest_memory_that_is_not_touched_costs_nothing", &["kvm"], untouched_memory_costs_nothing),
        trial("the_timeline_has_each_step_in_order", &["kvm"], the_timeline),
        trial("the_lesson_names_each_step_and_its_call", &["kvm"], the_lesson),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

// ---- the command ---------------------------------------------------------------------------------------------------

fn isolab_vm(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-vm"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(words: &[&str]) -> Result<Output, Failed> {
    Ok(isolab_vm(words).output()?)
}

fn prints(words: &[&str], expected: &str) -> Done {
    let output = output(words)?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{words:?}: {output:?}");
    assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
    Ok(())
}

fn each_guest_prints() -> Done {
    prints(&["run", "--bare", "real-hello"], "4\n")?;
    prints(&["run", "--bare", "real-hello", "--", "40000", "2"], "40002\n")?;
    prints(&["run", "--bare", "long-hello"], "Hello from 64-bit mode\n")?;
    prints(&["run", "--bare", "counter", "--", "12345"], "12345\n")?;
    prints(&["run", "--bare", "toucher", "--", "3"], "768\n")?;
    prints(&["run", "--bare", "toucher", "--", "0"], "0\n")?;
    prints(&["run", "--memory", "2", "--bare", "long-hello", "--", "small"], "small\n")?;
    prints(&["run", "--memory", "3072", "--bare", "long-hello", "--", "large"], "large\n")
}

fn a_line_comes_out() -> Done {
    let text = "ä\tb ".repeat(800);
    prints(&["run", "--bare", "long-hello", "--", &text], &format!("{text}\n"))
}

fn refused(words: &[&str], status: i32, parts: &[&str]) -> Done {
    let output = output(words)?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{words:?}: {errors}");
    assert!(output.stdout.is_empty(), "{words:?}");
    assert!(errors.starts_with("error: ") && parts.iter().all(|part| errors.contains(part)), "{words:?}: {errors}");
    Ok(())
}

fn what_cannot_be_run_is_refused() -> Done {
    refused(&["run", "--bare", "hello"], 125, &["no built-in guest \"hello\"", "hint: ", "real-hello, long-hello"])?;
    refused(&["run", "--bare", "counter", "--", "many"], 125, &["counter takes a number above 0", "hint: "])?;
    refused(&["run", "--memory", "1", "--bare", "counter"], 125, &["at least 2 MiB, at most 524288 MiB"])?;
    refused(&["run", "--memory", "99999999999", "--bare", "counter"], 125, &["at most 524288 MiB"])?;
    refused(&["run"], 2, &["--bare", "--app"])?;
    refused(&["run", "--bare", "counter", "--app", "/bin/true"], 2, &["cannot be used with"])?;
    refused(&["run", "--timeout=-1", "--bare", "counter"], 2, &["--timeout"])?;
    refused(&["run", "--memory", "much", "--bare", "counter"], 2, &["--memory"])
}

fn a_guest_too_large_is_refused() -> Done {
    let words = ["run", "--memory", "4", "--bare", "toucher", "--", "4"];
    refused(&words, 125, &["cannot touch 4 MiB", "3 MiB are free", "hint: give the machine more"])
}

fn without_permission() -> Done {
    let mut command = isolab_vm(&["run", "--bare", "long-hello"]);
    // A copy that this user can reach: the folder of the build may be root's own.
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("isolab-vm");
    fs::copy(command.get_program(), &copy)?;
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    command = {
        let mut other = Command::new(copy);
        other.args(command.get_args());
        other
    };
    let output = command.uid(65534).gid(65534).output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        errors.contains("cannot open /dev/kvm") && errors.contains("hint: ") && errors.contains("group"),
        "{errors}"
    );
    assert_eq!(output.status.code(), Some(125));
    Ok(())
}

// ---- guests made here ----------------------------------------------------------------------------------------------

/// 64-bit code at this address, in a machine of [`SIZE`], with one page more mapped than there is memory.
const CODE: u64 = 0x8000;
const SIZE: Mib = Mib(4);
/// First address that page tables know and no memory lies behind.
const NOWHERE: u64 = SIZE.0 << 20;

struct Bytewise(&'static [u8]);

impl Guest for Bytewise {
    fn load(&mut self, memory: &Memory, reset: &kvm_sregs, _: &[kvm_cpuid_entry2]) -> Result<Entry, GuestError> {
        let sregs = long_mode::enter(memory, reset)?;
        // The page directory is the third table above the root's: one large page more than `enter` has mapped.
        let directory = sregs.cr3 + 0x2000;
        memory.guest().write_obj(NOWHERE | 0x83, GuestAddress(directory + NOWHERE / (2 << 20) * 8))?;
        memory.guest().write_slice(self.0, GuestAddress(CODE))?;
        let regs = kvm_regs { rip: CODE, rsp: CODE, rbx: NOWHERE, rflags: 2, ..kvm_regs::default() };
        Ok(Entry { regs, sregs, msrs: Vec::new(), xcr0: None })
    }

    fn store(&mut self, at: u64, data: &[u8], _: &mut Cpu<'_>, _: &Memory) -> Result<Flow, GuestError> {
        Err(GuestError::Nowhere { at, length: data.len() })
    }
}

fn run(code: &'static [u8], timeout: Option<Duration>) -> Result<Result<Ended, RunError>, Failed> {
    Ok(Machine::boot(&Config { memory: SIZE, timeout }, Bytewise(code), io::sink())?.resume())
}

/// Fails where the error's words are others; returns them.
fn ends_with(ended: &Result<Ended, RunError>, parts: &[&str]) -> Done {
    let Err(error) = ended else { return Err(format!("it ended well: {ended:?}").into()) };
    let words = error.to_string();
    let told = parts.iter().all(|part| words.contains(part));
    if told { Ok(()) } else { Err(format!("expected {parts:?} in {words:?}").into()) }
}

fn a_triple_fault() -> Done {
    // mov al, [-1]: no page there; no handler for that; and none for the want of a handler.
    let ended = run(&[0x8a, 0x04, 0x25, 0xff, 0xff, 0xff, 0xff], None)?;
    // KVM resets an AMD processor at once, and its registers with it.
    let reset = Path::new("/sys/module/kvm_amd").exists();
    let place: &[&str] = if reset { &["a place that is not known any more"] } else { &["rip 0x8000", "8a 04 25"] };
    ends_with(&ended, &[&["triple fault"], place].concat())
}

fn no_instruction() -> Done {
    // jmp rbx, to an address that is mapped but where there is no memory to read an instruction from.
    let ended = run(&[0xff, 0xe3], None)?;
    ends_with(&ended, &["rip 0x400000", "no memory"])
}

fn a_loop_ends_in_time() -> Done {
    let before = Instant::now();
    let ended = run(&[0xeb, 0xfe], Some(Duration::from_millis(50)))?; // jmp to itself
    assert!(before.elapsed() < Duration::from_secs(20), "a loop must not go on");
    ends_with(&ended, &["still ran after 50ms", "rip 0x8000", "eb fe"])
}

/// Lets the guest go on twice, and ends it at the third ring.
struct Thrice(u8);

impl Overseer<Bytewise, io::Sink> for Thrice {
    fn attend(&mut self, _: &mut Paused<Bytewise, io::Sink>, moment: Moment) -> Result<Verdict, RunError> {
        assert_eq!(moment, Moment::Asked);
        self.0 += 1;
        Ok(if self.0 == 3 { Verdict::End(Ended::Status(9)) } else { Verdict::GoOn })
    }
}

fn who_rings_is_let_in() -> Done {
    let config = Config { memory: Mib(2), timeout: Some(Duration::from_mins(1)) };
    let machine = Machine::boot(&config, Bytewise(&[0xeb, 0xfe]), io::sink())?;
    let bell = Bell::of_this_thread();
    let over = AtomicBool::new(false);
    // Rings that come early or late are not for a process that doesn't listen.
    // SAFETY: to ignore a signal runs no code.
    let before = unsafe { nix::sys::signal::signal(Signal::SIGUSR1, SigHandler::SigIgn) }?;
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
                bell.ring();
            }
        });
        let ended = machine.resume_under(&mut Thrice(0));
        over.store(true, Ordering::Relaxed);
        ended
    });
    // SAFETY: what was there before.
    unsafe { nix::sys::signal::signal(Signal::SIGUSR1, before) }?;
    assert_eq!(ended?, Ended::Status(9));
    Ok(())
}

fn a_halt_ends_in_time() -> Done {
    let used = || nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from);
    let before = used()?;
    let ended = run(&[0xf4], Some(Duration::from_millis(500)))?; // hlt, with interrupts off
    assert!(used()?.saturating_sub(before) < Duration::from_millis(250), "who halts takes no CPU");
    ends_with(&ended, &["still ran after 500ms", "rip 0x8001"])
}

fn a_store_to_nowhere() -> Done {
    let ended = run(&[0x89, 0x03], None)?; // mov [rbx], eax
    ends_with(&ended, &["stored 4 bytes", "0x400000"])
}

fn a_load_from_nowhere() -> Done {
    // mov al, [rbx]; out 0xf4, al
    let ended = run(&[0x8a, 0x03, 0xe6, 0xf4], None)?;
    assert_eq!(ended?, Ended::Status(0xff));
    Ok(())
}

fn the_status_is_handed_through() -> Done {
    let ended = run(&[0xb0, 0x2a, 0xe6, 0xf4], None)?; // mov al, 42; out 0xf4, al
    assert_eq!(ended?, Ended::Status(42));
    Ok(())
}

// ---- ending from outside -------------------------------------------------------------------------------------------

/// A machine that counts for hours. It does not outlive its test.
struct Busy(Child);

impl Busy {
    fn start(mut command: Command) -> Result<Self, Failed> {
        let busy = Self(command.spawn()?);
        let deadline = Instant::now() + Duration::from_secs(20);
        // On a slow host it takes long to come about, and before it listens a signal is the kernel's matter.
        while !busy.listens()? || busy.cpu_ticks()? < 5 {
            if Instant::now() > deadline {
                return Err("the machine does not run".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(busy)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    /// Whether it has a handler for SIGTERM by now.
    fn listens(&self) -> Result<bool, Failed> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
        let caught = u64::from_str_radix(caught.trim(), 16)?;
        Ok(caught >> (Signal::SIGTERM as i32 - 1) & 1 == 1)
    }

    /// CPU time in user mode, in the kernel, and as a guest: fields 14 and 15 of /proc/PID/stat.
    fn cpu_ticks(&self) -> Result<u64, Failed> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        Ok(fields.get(11..13).unwrap_or_default().iter().filter_map(|field| field.parse::<u64>().ok()).sum())
    }

    fn end(mut self) -> Result<std::process::ExitStatus, Failed> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err("the machine does not end".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const COUNT_FOR_HOURS: [&str; 5] = ["run", "--bare", "counter", "--", "1000000000000000"];

fn a_signal_ends_it() -> Done {
    for (signal, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129)] {
        let mut command = isolab_vm(&COUNT_FOR_HOURS);
        // Whoever runs the trials in the background of a shell has it ignored, and then it would be no wish to end.
        // SAFETY: signal(2) may be called between fork and exec, and the default is no handler.
        unsafe {
            command.pre_exec(move || {
                nix::sys::signal::signal(signal, SigHandler::SigDfl)?;
                Ok(())
            });
        }
        let busy = Busy::start(command)?;
        kill(busy.pid(), signal)?;
        assert_eq!(busy.end()?.code(), Some(status), "{signal}");
    }
    Ok(())
}

fn an_ignored_signal() -> Done {
    let mut command = isolab_vm(&COUNT_FOR_HOURS);
    // As nohup(1) does it.
    // SAFETY: signal(2) may be called between fork and exec, and to ignore is no handler.
    unsafe {
        command.pre_exec(|| {
            nix::sys::signal::signal(Signal::SIGHUP, SigHandler::SigIgn)?;
            Ok(())
        });
    }
    let busy = Busy::start(command)?;
    kill(busy.pid(), Signal::SIGHUP)?;
    let before = busy.cpu_ticks()?;
    while busy.cpu_ticks()? < before + 5 {
        std::thread::sleep(Duration::from_millis(10)); // ends with an error when the process is gone
    }
    kill(busy.pid(), Signal::SIGTERM)?;
    assert_eq!(busy.end()?.code(), Some(143));
    Ok(())
}

fn a_console_that_is_gone() -> Done {
    let (reader, writer) = io::pipe()?;
    drop(reader);
    let output = isolab_vm(&["run", "--bare", "long-hello"]).stdout(writer).output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("error: cannot write what the guest prints"), "{errors}");
    assert_eq!(output.status.code(), Some(125));
    Ok(())
}

fn untouched_memory_costs_nothing() -> Done {
    let mut words = COUNT_FOR_HOURS.to_vec();
    words.splice(1..1, ["--memory", "3072"]);
    let busy = Busy::start(isolab_vm(&words))?;
    let status = fs::read_to_string(format!("/proc/{}/status", busy.0.id()))?;
    // Its own pages; those of the command's file are more in a build for debugging than the guest has in all.
    let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    let resident: u64 = resident.trim().trim_end_matches(" kB").parse()?;
    assert!(resident < 2048, "{resident} KiB resident, for a guest that has touched a few pages");
    Ok(())
}

// ---- the instrument ------------------------------------------------------------------------------------------------

const STEPS: [&str; 11] = [
    "memory.map",
    "kvm.open",
    "kvm.create_vm",
    "memory.register",
    "irqchip.split",
    "vcpu.create",
    "vcpu.cpuid",
    "guest.load",
    "vcpu.setup",
    "guest.first_exit",
    "machine.close",
];

fn the_timeline() -> Done {
    let file = tempfile::NamedTempFile::new()?;
    let path = file.path().to_str().ok_or("a path in UTF-8")?;
    prints(&["--timeline", path, "run", "--bare", "long-hello", "--", "x"], "x\n")?;
    let (mut reader, writer) = io::pipe()?;
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    let descriptor = writer.as_raw_fd().to_string();
    prints(&["--timeline", &descriptor, "run", "--bare", "long-hello", "--", "x"], "x\n")?;
    drop(writer);
    for text in [fs::read_to_string(path)?, io::read_to_string(&mut reader)?] {
        let steps: Vec<serde_json::Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let names: Vec<_> = steps.iter().filter_map(|step| step["name"].as_str()).collect();
        assert!(STEPS.iter().all(|step| names.contains(step)), "{names:?}");
        assert!(steps.iter().map(|step| step["start_ns"].as_u64()).is_sorted());
        assert!(steps.iter().all(|step| step["end_ns"].as_u64() >= step["start_ns"].as_u64()));
        assert!(steps.iter().all(|step| step["why"].as_str().is_some_and(|why| why.len() > 10)));
    }
    Ok(())
}

fn the_lesson() -> Done {
    let output = output(&["--explain", "run", "--bare", "long-hello", "--", "x"])?;
    let lesson = String::from_utf8_lossy(&output.stderr).into_owned();
    let places: Vec<_> = STEPS.iter().map(|step| lesson.find(step)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{lesson}");
    assert!(lesson.contains("[ioctl(KVM_CREATE_VM)]") && lesson.contains("times at a port"), "{lesson}");
    assert_eq!(output.stdout, b"x\n");
    Ok(())
}
