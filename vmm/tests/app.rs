//! Programs without a kernel, in real machines: what they may do, what kills them, and what is refused before it starts.
//!
//! The programs are Debian's busybox, unmodified, and small ones built here from `tests/programs`. Each trial says in its
//! name what it proves. Needed are `/dev/kvm`, a static busybox, gcc with a static C library, and rustc; a trial whose
//! need is missing is ignored and says so, or fails where `ISOLAB_REQUIRE` lists that need.

mod needs;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use needs::{Done, trial};

/// Where this run's programs and files are; gone when `main` ends.
static FOLDER: OnceLock<TempDir> = OnceLock::new();

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = refused_programs();
    trials.extend(busybox());
    trials.extend(languages());
    trials.extend(deeds());
    trials.extend(waits());
    let _ = FOLDER.set(TempDir::with_prefix("isolab-app-").expect("a folder for the programs"));
    let conclusion = libtest_mimic::run(&arguments, trials);
    // `exit` drops nothing, so the folder goes first.
    if let Some(folder) = FOLDER.get() {
        let _ = fs::remove_dir_all(folder.path());
    }
    conclusion.exit();
}

const BUSYBOX: &str = "/bin/busybox";

// ---- running a program ---------------------------------------------------------------------------------------------

fn folder() -> &'static Path {
    FOLDER.get().expect("main makes it first").path()
}

/// A file in this run's folder.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    fs::write(&path, bytes).expect("a file in the run's folder");
    path
}

/// `isolab-vm run --app PROGRAM -- ARGUMENTS`, with a time limit that no test here comes near.
fn machine(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-vm"));
    command.args(["run", "--timeout", "120", "--app"]).arg(program).arg("--").args(arguments);
    command.env("ISOLAB_DEBUG", "1").stdin(Stdio::null());
    command
}

/// How a machine ended: its status, and its two outputs as text.
struct Ended {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { status: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl Ended {
    /// Fails where the status is another one, or a text is not in the error output.
    fn expect(&self, status: i32, in_errors: &[&str]) -> Done {
        let told = in_errors.iter().all(|part| self.stderr.contains(part));
        if self.status == Some(status) && told {
            return Ok(());
        }
        let mut message = format!("expected status {status} and {in_errors:?}, got {:?}", self.status);
        let _ = write!(message, "\n--- out\n{}--- errors\n{}", self.stdout, self.stderr);
        Err(message.into())
    }

    /// As [`Ended::expect`], with status 0 and this output.
    fn expect_output(&self, output: &str) -> Done {
        self.expect(0, &[])?;
        if self.stdout == output { Ok(()) } else { Err(format!("expected {output:?}, got {:?}", self.stdout).into()) }
    }
}

/// Runs a program with `input` on standard input.
fn run(program: &Path, arguments: &[&str], input: &[u8]) -> Result<Ended, Failed> {
    let mut stdin = tempfile::tempfile_in(folder())?;
    stdin.write_all(input)?;
    std::io::Seek::rewind(&mut stdin)?;
    Ok(machine(program, arguments).stdin(stdin).output()?.into())
}

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// ---- files that are no programs ------------------------------------------------------------------------------------

/// An ELF file of one segment that holds everything, headers included, with `code` right after the headers.
fn elf(address: u64, code: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([2_u16, 62].map(u16::to_le_bytes).concat()); // an executable, for x86-64
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([address + 120, 64, 0].map(u64::to_le_bytes).concat()); // entry, program headers, no sections
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend([64_u16, 56, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    let length = 120 + code.len() as u64;
    bytes.extend([1_u32, 5].map(u32::to_le_bytes).concat()); // PT_LOAD, read and execute
    bytes.extend([0, address, address, length, length, 4096].map(u64::to_le_bytes).concat());
    bytes.extend(code);
    bytes
}

/// `exit_group(42)`.
const EXIT_42: [u8; 12] = [0xb8, 231, 0, 0, 0, 0xbf, 42, 0, 0, 0, 0x0f, 0x05];

fn refused_programs() -> Vec<Trial> {
    /// Changes a good program at some bytes and expects to read `told` in the error.
    fn refused(name: &str, told: &'static str, change: impl Fn(&mut Vec<u8>) + Send + 'static) -> Trial {
        let file_name = name.to_owned();
        trial(name, &[], move || {
            let mut bytes = elf(0x40_0000, &EXIT_42);
            change(&mut bytes);
            let ended = run(&file(&file_name, &bytes), &[], b"")?;
            ended.expect(125, &["error: cannot run", told])?;
            if ended.stdout.is_empty() { Ok(()) } else { Err("it said something".into()) }
        })
    }
    vec![
        trial("a_program_of_twelve_bytes_runs", &["kvm"], || {
            run(&file("twelve", &elf(0x40_0000, &EXIT_42)), &[], b"")?.expect(42, &[])
        }),
        refused("a_program_for_another_machine_is_refused", "64-bit ARM, not x86-64", |bytes| bytes[18] = 183),
        refused("a_32_bit_program_is_refused", "its class is 1", |bytes| bytes[4] = 1),
        refused("a_big_endian_program_is_refused", "byte order is 2", |bytes| bytes[5] = 2),
        refused("an_object_file_is_refused", "a relocatable object", |bytes| bytes[16] = 1),
        refused("a_truncated_program_is_refused", "it is truncated: segment 0x400000", |bytes| bytes.truncate(125)),
        refused("a_truncated_header_is_refused", "it is truncated: its header", |bytes| bytes.truncate(50)),
        refused("a_program_over_the_monitors_pages_is_refused", "the monitor's own pages", |bytes| {
            *bytes = elf(0x2000, &EXIT_42);
        }),
        refused("a_text_file_is_refused", "it is no ELF file", |bytes| *bytes = b"#!/bin/sh\necho no\n".to_vec()),
        refused("an_empty_file_is_refused", "it is no ELF file", Vec::clear),
        trial("noise_as_a_program_hurts_nobody_but_itself", &["kvm"], || {
            let noise = noise(60 * 500);
            for (turn, code) in noise.chunks_exact(500).enumerate() {
                let program = file(&format!("noise-{turn}"), &elf(0x40_0000, code));
                let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-vm"));
                let ended: Ended = command.args(["run", "--timeout", "0.5", "--app"]).arg(&program).output()?.into();
                // Any status will do but that of a monitor that died; and whoever fails says why.
                let status = ended.status.ok_or_else(|| format!("the monitor was killed, turn {turn}"))?;
                assert!(status < 125 || ended.stderr.starts_with("error: "), "turn {turn}: {status} {}", ended.stderr);
                assert!(!ended.stderr.contains("panicked"), "turn {turn}: {}", ended.stderr);
            }
            Ok(())
        }),
        trial("a_program_larger_than_the_machine_is_refused", &["kvm"], || {
            let mut bytes = elf(0x40_0000, &EXIT_42);
            bytes[104..112].copy_from_slice(&(1_u64 << 33).to_le_bytes());
            run(&file("large", &bytes), &[], b"")?
                .expect(125, &["error: cannot load the program", "hint: give it more"])
        }),
        trial("a_missing_program_and_a_folder_are_refused", &[], || {
            run(&folder().join("nowhere"), &[], b"")?.expect(125, &["cannot open the program", "No such file"])?;
            run(folder(), &[], b"")?.expect(125, &["it is no regular file"])
        }),
        trial("a_dynamic_program_is_refused_with_a_hint", &["gcc"], || {
            let path = folder().join("dynamic");
            compile(Command::new("gcc").arg(source("hello.c")).arg("-o").arg(&path))?;
            run(&path, &[], b"")?.expect(125, &["it is dynamic", "ld-linux", "hint: link it statically"])
        }),
    ]
}

// ---- busybox -------------------------------------------------------------------------------------------------------

fn busybox() -> Vec<Trial> {
    fn says(name: &str, arguments: &'static [&'static str], input: &'static str, output: &'static str) -> Trial {
        trial(name, &["kvm", "busybox"], move || {
            run(Path::new(BUSYBOX), arguments, input.as_bytes())?.expect_output(output)
        })
    }
    vec![
        trial("sha256sum_of_ten_mebibytes_is_the_hosts", &["kvm", "busybox", "sha256sum"], || {
            let data = noise(10 << 20);
            let path = file("noise", &data);
            let host = Command::new("sha256sum").stdin(File::open(path)?).output()?;
            run(Path::new(BUSYBOX), &["sha256sum"], &data)?.expect_output(&String::from_utf8(host.stdout)?)
        }),
        trial("what_gzip_packs_gzip_unpacks", &["kvm", "busybox"], || {
            let text = "what is packed must come out again\n".repeat(20_000);
            let mut pack = machine(Path::new(BUSYBOX), &["gzip"]);
            let packed = pack.stdin(File::open(file("text", text.as_bytes()))?).output()?;
            assert!(packed.status.success() && packed.stdout.len() < text.len() / 10);
            run(Path::new(BUSYBOX), &["gzip", "-d"], &packed.stdout)?.expect_output(&text)
        }),
        says(
            "a_shell_calculates",
            &["sh", "-c", "i=0; while [ $i -lt 9 ]; do i=$((i+2)); done; echo $((i*7))"],
            "",
            "70\n",
        ),
        says("seq_counts", &["seq", "3"], "", "1\n2\n3\n"),
        says("awk_sums", &["awk", "{ sum += $1 } END { print sum }"], "1\n2\n39\n", "42\n"),
        says("sort_sorts", &["sort", "-n"], "10\n9\n-1\n", "-1\n9\n10\n"),
        says("uname_tells_where_it_is", &["uname", "-sm"], "", "Linux x86_64\n"),
        trial("the_hosts_environment_stays_outside", &["kvm", "busybox"], || {
            let ended: Ended = machine(Path::new(BUSYBOX), &["env"]).env("SECRET", "told").output()?.into();
            assert!(ended.stdout.starts_with("PATH="), "{}", ended.stdout);
            if ended.stdout.lines().count() == 1 { Ok(()) } else { Err(ended.stdout.into()) }
        }),
    ]
}

/// Bytes without a pattern, the same each time (a linear congruential generator, Knuth's MMIX constants).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(length)
    .collect()
}

// ---- programs built here -------------------------------------------------------------------------------------------

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name)
}

fn compile(command: &mut Command) -> Done {
    let output = command.output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned().into()) }
}

/// A C program of `tests/programs`, linked statically.
fn build_c(name: &str, options: &[&str]) -> Result<PathBuf, Failed> {
    let path = folder().join(format!("{name}{}", options.concat()));
    compile(
        Command::new("gcc").args(["-O1", "-w"]).args(options).arg(source(&format!("{name}.c"))).arg("-o").arg(&path),
    )?;
    Ok(path)
}

/// The program that does one deed an argument; built once.
fn probe() -> Result<&'static Path, Failed> {
    static PROBE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = PROBE
        .get_or_init(|| build_c("probe", &["-static"]).map_err(|failed| failed.message().unwrap_or("gcc").to_owned()));
    built.as_deref().map_err(|message| message.clone().into())
}

fn languages() -> Vec<Trial> {
    vec![
        trial("hello_from_c_fixed_and_position_independent", &["kvm", "gcc"], || {
            for options in [&["-static"][..], &["-static-pie"]] {
                let ended = run(&build_c("hello", options)?, &["a", "b c"], b"")?;
                ended.expect(2, &[])?;
                assert_eq!(ended.stdout, "hello from C, 2 arguments, the last: b c\n");
            }
            Ok(())
        }),
        trial("hello_from_rusts_whole_standard_library_and_a_panic_is_101", &["kvm", "rustc"], || {
            let path = folder().join("hello-rust");
            let mut rustc = Command::new("rustc");
            rustc.args([
                "--edition=2024",
                "-O",
                "--target=x86_64-unknown-linux-gnu",
                "-C",
                "target-feature=+crt-static",
            ]);
            compile(rustc.arg(source("hello.rs")).arg("-o").arg(&path))?;
            let words = b"to be or not to be";
            run(&path, &[], words)?
                .expect_output("hello from Rust: [(\"be\", 2), (\"not\", 1), (\"or\", 1), (\"to\", 2)]\n")?;
            run(&path, &["panic"], words)?.expect(101, &["panicked", "as asked"])
        }),
    ]
}

fn deeds() -> Vec<Trial> {
    /// One deed of the probe, the status it must end with, and what must be told.
    fn deed(name: &str, argument: &'static str, status: i32, told: &'static [&'static str]) -> Trial {
        trial(name, &["kvm", "gcc"], move || run(probe()?, &[argument], b"some input")?.expect(status, told))
    }
    const DEATH: i32 = 128;
    const SIGILL: i32 = DEATH + 4;
    const SIGTRAP: i32 = DEATH + 5;
    const SIGABRT: i32 = DEATH + 6;
    const SIGFPE: i32 = DEATH + 8;
    const SIGSEGV: i32 = DEATH + 11;
    vec![
        trial("the_exit_status_comes_through", &["kvm", "gcc"], || {
            (0..=255)
                .step_by(51)
                .try_for_each(|status| run(probe()?, &["status", &status.to_string()], b"")?.expect(status, &[]))
        }),
        deed("a_guard_page_is_real_and_keeps_its_contents", "guard", SIGSEGV, &["SIGSEGV: a write to 0x30001000"]),
        deed("a_page_made_read_only_is_read_only", "readonly", SIGSEGV, &["a write to", "whose rights forbid it"]),
        deed("an_unmapped_page_is_gone", "unmapped", SIGSEGV, &["a read of 0x30000000 (no page is there)"]),
        deed("a_page_that_gains_rights_has_them_at_once", "upgrade", 0, &[]),
        deed("data_is_no_code", "noexec", SIGSEGV, &["a jump to 0x30000000 (a page whose rights forbid it)"]),
        deed("memory_that_comes_back_is_zero", "zeroed", 0, &[]),
        deed("bad_pointers_are_efault_and_the_tables_are_not_the_programs", "efault", SIGSEGV, &["a read of 0x1000"]),
        deed("no_descriptor_of_the_host_is_reachable", "badfd", 0, &[]),
        deed(
            "what_is_not_served_is_enosys_and_named_at_the_end",
            "enosys",
            0,
            &["openat (257) once", "clone (56) 2 times", "unknown numbers once"],
        ),
        deed("memory_that_is_used_up_is_enomem", "exhaust", 0, &[]),
        deed("avx_works_across_system_calls", "avx", 0, &[]),
        deed(
            "a_stack_holds_megabytes_and_an_overflow_hits_its_guard",
            "stack",
            SIGSEGV,
            &["a write to 0x2f", "no page is there"],
        ),
        deed("clocks_run_and_sleep_sleeps", "clocks", 0, &[]),
        deed("the_auxiliary_vector_and_the_three_files_are_as_told", "auxiliary", 0, &[]),
        deed(
            "a_null_pointer_kills",
            "null",
            SIGSEGV,
            &["a read of 0x0 (no page is there), at rip 0x", "bytes there: "],
        ),
        deed("a_wild_jump_kills", "jump", SIGSEGV, &["a jump to 0x123456 (no page is there), at rip 0x123456"]),
        deed("an_undefined_instruction_kills", "undefined", SIGILL, &["SIGILL", "bytes there: 0f 0b"]),
        deed("a_privileged_instruction_kills", "privileged", SIGSEGV, &["may not execute", "bytes there: f4"]),
        deed("a_division_by_zero_kills", "divide", SIGFPE, &["SIGFPE: a division by zero"]),
        deed("a_program_that_steps_itself_never_steps_through_the_stub", "step", SIGTRAP, &["SIGTRAP", "rip 0x40"]),
        deed("an_abort_is_sigabrt", "abort", SIGABRT, &["ended itself by SIGABRT"]),
        deed("the_doorbell_is_no_system_call_without_the_stub", "doorbell", SIGSEGV, &["a write to 0x3000"]),
        deed(
            "the_monitors_tables_are_out_of_reach",
            "tables",
            SIGSEGV,
            &["a read of 0x1000 (a page whose rights forbid it)"],
        ),
        deed("a_wait_for_a_thread_that_does_not_exist_is_told", "futex", 125, &["waits for ever", "hint:"]),
        trial("what_each_call_costs_can_be_measured_inside", &["kvm", "gcc"], || {
            let costs = build_c("costs", &["-static"])?;
            let ended: Ended = machine(&costs, &[]).stdin(File::open("/dev/zero")?).output()?.into();
            ended.expect(0, &["getcwd (79)"])?;
            if ended.stdout.lines().count() == 11 { Ok(()) } else { Err(ended.stdout.into()) }
        }),
        trial("a_write_to_nobody_is_sigpipe_or_epipe", &["kvm", "gcc"], || {
            for (argument, status) in [("closed", DEATH + 13), ("ignored", 4)] {
                let mut child =
                    Running(machine(probe()?, &[argument]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
                drop(child.0.stdout.take());
                assert_eq!(child.0.wait()?.code(), Some(status));
            }
            Ok(())
        }),
    ]
}

// ---- waiting and ending --------------------------------------------------------------------------------------------

/// `jmp .`
const LOOP: [u8; 2] = [0xeb, 0xfe];

fn waits() -> Vec<Trial> {
    /// A machine with a time limit of one second that must end in time, telling `told`.
    fn ends(program: &Path, arguments: &[&str], told: &[&str]) -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-vm"));
        command.args(["run", "--timeout", "1", "--app"]).arg(program).arg("--").args(arguments);
        // A pipe that nobody writes to: whoever reads from it waits.
        let start = Instant::now();
        let mut child = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
        let open = child.0.stdin.take();
        let mut stderr = String::new();
        child.0.stderr.take().ok_or("no pipe")?.read_to_string(&mut stderr)?;
        let status = child.0.wait()?.code();
        drop(open);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(950) && took < Duration::from_secs(5), "ended after {took:?}: {stderr}");
        Ended { status, stdout: String::new(), stderr }
            .expect(status.filter(|code| *code != 0).ok_or("status 0")?, told)
    }
    vec![
        trial("an_endless_loop_ends_at_the_time_limit_with_its_rip_and_bytes", &["kvm"], || {
            ends(&file("loop", &elf(0x40_0000, &LOOP)), &[], &["error:", "0x400078", "eb fe"])
        }),
        trial("a_read_that_waits_ends_at_the_time_limit", &["kvm", "busybox"], || {
            ends(Path::new(BUSYBOX), &["cat"], &["error:"])
        }),
        trial("a_sleep_ends_at_the_time_limit", &["kvm", "busybox"], || {
            ends(Path::new(BUSYBOX), &["sleep", "1000"], &["error:"])
        }),
        trial("a_pause_ends_at_the_time_limit", &["kvm", "gcc"], || ends(probe()?, &["sleep"], &["error:"])),
        trial("a_signal_to_the_monitor_ends_a_program_that_waits", &["kvm", "busybox"], || {
            let mut command = machine(Path::new(BUSYBOX), &["sh", "-c", "echo up; read line"]);
            let mut child =
                Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
            let mut up = [0; 3];
            child.0.stdout.take().ok_or("no pipe")?.read_exact(&mut up)?;
            kill(Pid::from_raw(child.0.id() as i32), Signal::SIGTERM)?;
            assert_eq!(child.0.wait()?.code(), Some(128 + 15));
            Ok(())
        }),
        trial("a_loop_of_system_calls_ends_at_the_time_limit", &["kvm"], || {
            // mov $110, %eax (getppid); syscall; jmp back
            ends(&file("calls", &elf(0x40_0000, &[0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7])), &[], &["error:"])
        }),
    ]
}
