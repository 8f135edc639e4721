//! A static Linux program with no kernel under it.
//!
//! What does a program need of a kernel? Its bytes in memory, a stack with its arguments, and somebody who answers its
//! system calls. Here that somebody is the monitor: the program runs in a machine of its own, and each `syscall` stops the
//! machine at a doorbell, is served by an ordinary function, and lets the program go on. Nothing of the host is in reach
//! but three open files, some clocks and a source of random bytes.
//!
//! [`App::open`] reads and checks the file; [`Guest::load`] brings it into memory; [`Guest::store`] serves it.

mod areas;
mod clocks;
mod elf;
mod fault;
mod frames;
mod load;
mod rights;
mod saved;
mod shadow;
mod space;
mod stack;
mod stub;
mod syscalls;
mod tables;
mod task;
mod user;

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use thiserror::Error;
use tracing::{debug, info_span};
use vm_memory::GuestMemoryError;

use self::elf::Elf;
pub use self::elf::ElfError;
pub use self::fault::Fault;
pub use self::saved::AppState;
use self::space::Space;
pub use self::space::SpaceError;
use self::stub::{Doorbells, Frame, Ring};
use self::syscalls::{Call, Reply};
pub use self::tables::TableError;
use self::task::{Ready, Task};
use super::{Cpu, Entry, Flow, Guest, GuestError, GuestState};
use crate::memory::{GAP_END, Memory};

/// The size of a page, in bytes.
const PAGE: u64 = 4096;
/// Below this lie address 0 and the monitor's pages. No program lies there under Linux either (`vm.mmap_min_addr`).
const RESERVED_END: u64 = 0x1_0000;
/// Where the addresses of programs end: one page below the half of 48 bits, as under Linux, so that no `syscall` can
/// stand so high that the address after it is none.
const USER_END: u64 = (1 << 47) - PAGE;
/// The environment that every program has.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program cannot be run, or how it died.
#[derive(Debug, Error)]
pub enum AppError {
    /// The file cannot be opened.
    #[error("cannot open the program {}", .0.display())]
    Open(PathBuf, #[source] io::Error),
    /// A directory, a pipe, a device.
    #[error("cannot run {}: it is no regular file", .0.display())]
    NotAFile(PathBuf),
    /// The file is not a program that can run here.
    #[error("cannot run {}", .0.display())]
    Elf(PathBuf, #[source] ElfError),
    /// A zero byte ends a text, so it cannot be in one.
    #[error("cannot pass {0:?} to the program: it has a zero byte in it")]
    ZeroByte(OsString),
    /// More arguments and environment than a quarter of the stack.
    #[error("cannot pass the arguments and the environment: they are larger than a quarter of the stack, {0} bytes")]
    TooLong(u64),
    /// Not enough memory for the segments.
    #[error("cannot load the program: it needs {needed} bytes of memory, the machine has {available}")]
    TooLarge {
        /// What the segments take, in bytes.
        needed: u64,
        /// What is free, in bytes.
        available: u64,
    },
    /// Guest memory is out of reach.
    #[error("cannot write {what} to guest memory")]
    Write {
        /// What was to be written.
        what: &'static str,
        /// Why it was not.
        source: GuestMemoryError,
    },
    /// The program's memory cannot be laid out or changed.
    #[error("cannot lay out the program's memory")]
    Space(#[from] SpaceError),
    /// The host has no random bytes.
    #[error("cannot get random bytes for the program's stack")]
    Random(#[source] Errno),
    /// The host has no such clock.
    #[error("cannot read the program's clocks")]
    Clock(#[source] Errno),
    /// The program did what it must not.
    #[error("{0}")]
    Fault(Box<Fault>),
    /// The program sent itself a signal that ends it.
    #[error("the program ended itself by {}", signal_name(*.0))]
    Signal(u8),
    /// The program waits for a thread that does not exist.
    #[error(
        "the program waits for ever: on the futex at {address:#x}, which is {word}, and there is no other thread to change it"
    )]
    Deadlock {
        /// Where the word is.
        address: u64,
        /// What it holds.
        word: u32,
    },
    /// A store to a page without memory, not by one of the stubs.
    #[error("the machine stored to guest-physical address {at:#x}, where there is nothing")]
    Stray {
        /// Where.
        at: u64,
    },
}

impl AppError {
    /// What to try next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Elf(_, error) => error.hint().map(str::to_owned),
            Self::TooLarge { needed, .. } => Some(format!("give it more: --memory {}", needed.div_ceil(1 << 20) + 8)),
            Self::Space(SpaceError::Refused(Errno::ENOMEM)) => {
                Some("give the machine more memory: --memory MIB".to_owned())
            }
            Self::TooLong(_) => {
                Some("give fewer arguments, or more memory: the stack is an eighth of it, up to 8 MiB".to_owned())
            }
            Self::Deadlock { .. } => Some("programs that start threads cannot run without a kernel".to_owned()),
            _ => None,
        }
    }

    /// The status a shell would report, where the program ended of itself, if badly.
    pub fn status(&self) -> Option<u8> {
        match self {
            Self::Fault(fault) => Some(128 + fault.signal() as u8),
            Self::Signal(number) => Some(128 + number),
            _ => None,
        }
    }
}

fn signal_name(number: u8) -> String {
    Signal::try_from(i32::from(number)).map_or_else(|_| format!("signal {number}"), |signal| signal.to_string())
}

/// A program to run, and, once loaded, the program running.
#[derive(Debug)]
pub struct App {
    /// What is to be loaded; nothing where the program goes on from a snapshot.
    program: Option<Program>,
    running: Option<Running>,
}

/// A file that was checked, and what it will be told.
#[derive(Debug)]
struct Program {
    file: File,
    elf: Elf,
    executable: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

/// What there is only after loading.
#[derive(Debug)]
struct Running {
    task: Task,
    doorbells: Doorbells,
    returns: Option<Returns>,
    /// Where its sixteen random bytes are, for the day it goes on as another machine.
    random: u64,
}

/// How the machine goes back to the program after a system call. Asked once, at the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Returns {
    /// `syscall` raised the privilege, as on every real processor: the stub's `sysretq` lowers it again.
    BySysret,
    /// The stub runs at the program's level, as a KVM without hardware virtualization has it: `sysretq` would fault
    /// there, so the monitor does what it does.
    ByMonitor,
}

impl App {
    /// Opens and checks the program at `path`; nothing is loaded yet. Its arguments are `path` and `arguments`, its
    /// environment a `PATH` and `environment` (`NAME=VALUE` each): of the host's it sees nothing.
    pub fn open(path: &Path, arguments: &[OsString], environment: &[OsString]) -> Result<Self, AppError> {
        let open = |error| AppError::Open(path.to_owned(), error);
        // Asked before it is opened: to open a pipe would wait for its other end.
        if !path.metadata().map_err(open)?.is_file() {
            return Err(AppError::NotAFile(path.to_owned()));
        }
        let file = File::open(path).map_err(open)?;
        let elf = Elf::read(&file).map_err(|error| AppError::Elf(path.to_owned(), error))?;
        let executable = c_string(path.canonicalize().map_err(open)?.as_os_str())?;
        let all = std::iter::once(path.as_os_str()).chain(arguments.iter().map(OsString::as_os_str));
        let arguments = all.map(c_string).collect::<Result<_, _>>()?;
        let own_path = environment.iter().any(|pair| pair.as_bytes().starts_with(b"PATH="));
        let all =
            (!own_path).then_some(OsStr::new(PATH)).into_iter().chain(environment.iter().map(OsString::as_os_str));
        let environment = all.map(c_string).collect::<Result<_, _>>()?;
        let program = Program { file, elf, executable, arguments, environment };
        Ok(Self { program: Some(program), running: None })
    }
}

impl Program {
    /// Writes what the program finds on its stack, and says where its stack pointer starts and its random bytes are.
    fn fill_stack(
        &self,
        memory: &Memory,
        space: &Space,
        stack: &Range<u64>,
        cpuid: &[kvm_cpuid_entry2],
    ) -> Result<(u64, u64), AppError> {
        let _span = info_span!(
            "app.stack",
            call = "-",
            why = "arguments, environment and the auxiliary vector, as a kernel leaves them for a new program"
        )
        .entered();
        let leaf = |function: u32| cpuid.iter().find(|entry| entry.function == function && entry.index == 0);
        let contents = stack::Contents {
            arguments: &self.arguments,
            environment: &self.environment,
            executable: &self.executable,
            elf: &self.elf,
            random: syscalls::random_bytes().map_err(AppError::Random)?,
            hwcap: leaf(1).map_or(0, |entry| entry.edx),
            xsave_size: leaf(0xd).map_or(0, |entry| entry.ecx),
        };
        let laid = stack::lay_out(&contents, stack).ok_or(AppError::TooLong((stack.end - stack.start) / 4))?;
        let user = user::User::new(memory.guest(), space.tables());
        user.write(laid.pointer, &laid.bytes).map_err(SpaceError::Refused)?;
        Ok((laid.pointer, laid.random))
    }
}

impl Guest for App {
    fn load(&mut self, memory: &Memory, reset: &kvm_sregs, cpuid: &[kvm_cpuid_entry2]) -> Result<Entry, GuestError> {
        let Some(program) = &self.program else { return Err(GuestError::Loaded) };
        let mut space = Self::lay_out_space(memory)?; // 1. page tables, and the few bytes of ours
        load::load(memory, &mut space, &program.file, &program.elf)?; // 2. the program's segments
        let stack = space.make_stack(memory, program.elf.executable_stack).map_err(AppError::Space)?; // 3. a stack
        let (rsp, random) = program.fill_stack(memory, &space, &stack, cpuid)?; // 4. and what a kernel leaves on it
        let xcr0 = stub::extended_states(cpuid); // 5. the registers: at level 3, at the first instruction
        let sregs = stub::system_registers(reset, space.tables().root(), xcr0.is_some());
        let regs = kvm_regs { rip: program.elf.entry, rsp, rflags: 0x202, ..kvm_regs::default() };
        let task = Task::new(space, program.executable.as_bytes().to_vec(), &stack); // 6. who will call
        self.running = Some(Running { task, doorbells: Doorbells::of(memory), returns: None, random });
        Ok(Entry { regs, sregs, msrs: stub::model_specific_registers(), xcr0 })
    }

    fn store(&mut self, at: u64, _data: &[u8], cpu: &mut Cpu<'_>, memory: &Memory) -> Result<Flow, GuestError> {
        let Some(running) = &mut self.running else { return Err(AppError::Stray { at }.into()) };
        let rip = cpu.regs().rip;
        match running.doorbells.who(at, rip) {
            Some(Ring::SystemCall) => running.system_call(cpu, memory),
            Some(Ring::Fault(vector)) => running.fault(vector, cpu, memory),
            Some(Ring::Trespass) => Err(AppError::Fault(Box::new(Fault::doorbell(rip))).into()),
            None => Err(AppError::Stray { at }.into()),
        }
    }

    /// The program's page tables name no frame that was not taken; before it is loaded, it is in the first few.
    fn reach(&self, memory: &Memory) -> u64 {
        self.running.as_ref().map_or(1, |running| running.reach(memory))
    }

    fn awaits(&self) -> Option<BorrowedFd<'_>> {
        let task = &self.running.as_ref()?.task;
        task.awaited.map(|index| task.files.get(index))
    }

    fn save(&self) -> Result<GuestState, GuestError> {
        let running = self.running.as_ref().ok_or(GuestError::NotSaved)?;
        Ok(GuestState::App(Box::new(running.save()?)))
    }

    fn renew(&mut self, memory: &Memory) -> Result<(), GuestError> {
        let running = self.running.as_ref().ok_or(GuestError::NotSaved)?;
        Ok(running.renew(memory)?)
    }
}

impl App {
    /// The program's empty space: page tables with the monitor's own pages in them.
    fn lay_out_space(memory: &Memory) -> Result<Space, AppError> {
        let _span = info_span!(
            "app.tables",
            call = "-",
            why = "page tables make each page's protection real; the stub at the end of every system call is ten bytes"
        )
        .entered();
        let [below, above] = Memory::ranges(memory.size());
        let mut space = Space::new([stub::FIRST_FREE_FRAME..below.end, above])?;
        stub::install(memory, &mut space)?;
        saved::write_generation(memory)?;
        Ok(space)
    }
}

impl Running {
    /// Below which address all frames lie that the program has.
    fn reach(&self, memory: &Memory) -> u64 {
        let (_, frames, _, _) = self.task.space.parts();
        // Where it has none above the devices, they end further below.
        match frames.reach(memory.end()) {
            GAP_END => frames.reach(memory.below_gap()),
            reach => reach,
        }
    }

    /// Serves one system call: number and arguments in registers, the answer in RAX.
    fn system_call(&mut self, cpu: &mut Cpu<'_>, memory: &Memory) -> Result<Flow, GuestError> {
        let returns = match self.returns {
            Some(returns) => returns,
            None => *self.returns.insert(how_to_return(cpu)?),
        };
        let before = self.task.bases;
        self.task.awaited = None;
        let regs = cpu.regs();
        let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
        let reply = syscalls::serve(regs.rax, Call { task: &mut self.task, memory, args })?;
        let value = match reply {
            Reply::Return(value) => value,
            Reply::Exit(status) => return Ok(Flow::Exit(status)),
            Reply::Again => {
                // The stub rings once more when the machine goes on, with the same registers: Linux does the same by
                // setting a program back to its `syscall` (signal(7), "Interruption of system calls").
                cpu.regs_mut().rip = stub::SYSTEM_CALL;
                return Ok(if self.task.awaited.is_some() { Flow::Idle } else { Flow::Continue });
            }
        };

        let regs = cpu.regs_mut();
        regs.rax = value;
        if returns == Returns::ByMonitor {
            // What `sysretq` does: `syscall` has kept the way back in these two.
            (regs.rip, regs.rflags) = (regs.rcx, regs.r11);
        }
        let bases = self.task.bases;
        if bases.fs != before.fs {
            cpu.set_fs_base(bases.fs)?;
        }
        if bases.gs != before.gs {
            cpu.set_msr(stub::MSR_GS_BASE, bases.gs)?;
        }
        Ok(if self.task.ready == Ready::Said {
            self.task.ready = Ready::Known;
            Flow::Ready
        } else {
            Flow::Continue
        })
    }

    /// The program did what it must not: what it died of.
    fn fault(&self, vector: u8, cpu: &mut Cpu<'_>, memory: &Memory) -> Result<Flow, GuestError> {
        let cr2 = cpu.sregs()?.cr2;
        let frame = Frame::read(memory, vector, cpu.regs().rsp).unwrap_or_default();
        let fault = Fault::new(vector, &frame, cr2, memory.guest(), self.task.space.tables());
        Err(AppError::Fault(Box::new(fault)).into())
    }
}

impl Drop for Running {
    /// However the program ended, what it asked for in vain is told.
    fn drop(&mut self) {
        if let Some(line) = self.task.unserved_line() {
            debug!(target: "app.unserved", "answered ENOSYS: {line}");
        }
    }
}

/// At the first system call: who lowers the privilege on the way back. The stack segment's level is the processor's.
fn how_to_return(cpu: &Cpu<'_>) -> Result<Returns, GuestError> {
    Ok(if cpu.sregs()?.ss.dpl == 3 { Returns::ByMonitor } else { Returns::BySysret })
}

/// The page that holds `address`.
fn page_down(address: u64) -> u64 {
    address & !(PAGE - 1)
}

/// The first page boundary from `address` on. Callers keep `address` below [`USER_END`].
fn page_up(address: u64) -> u64 {
    page_down(address + (PAGE - 1))
}

/// A text with a zero byte at its end.
fn c_string(text: &OsStr) -> Result<CString, AppError> {
    CString::new(text.as_bytes()).map_err(|error| AppError::ZeroByte(OsString::from_vec(error.into_vec())))
}
