//! The testbed: a Linux machine with a stock KVM, made of software alone.
//!
//! Many machines have no `/dev/kvm`, or one that cannot run an operating system; many have control groups of version 1.
//! QEMU can emulate a whole x86 computer, with AMD's virtualization in it, so that the Linux it boots has a KVM like any
//! other, and control groups of version 2. It is slow, and its clock tells how long the emulator took: only ratios between
//! things measured in one run mean anything. What works there works on real hardware.
//!
//! [`run`] reads top to bottom as what happens: find a kernel, pack a file system, start the machine, pass on what it says.

mod cpio;
mod error;
mod forward;
mod image;
mod init;
mod kernel;
mod lab;
mod libraries;
mod machine;
mod modules;
mod wire;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::host::roots::Roots;

pub use error::{STANDS, TestbedError};
pub use forward::{FOLDER, Forward};
pub use image::ImageError;
pub use init::init;
pub use kernel::{KernelError, fetched};
pub use lab::{FIRMWARE, run_lab};
pub use modules::ModuleError;

use kernel::Kernel;
use machine::{Machine, Parts};
use wire::Frame;

/// How long a machine may take until it starts the command. It takes 4 to 15 s; a loaded host may be much slower.
const BOOT: Duration = Duration::from_mins(3);

/// How long a machine may say nothing, [`SILENCES`] times in a row, before it is taken for one that stands still.
const SILENCE: Duration = Duration::from_secs(30);

/// More than one: of a command that was stopped for a while (Ctrl-Z) and goes on, the first has passed already.
const SILENCES: u32 = 2;

/// How many CPUs the machine has where nobody has said otherwise. With more than one the emulator (seen in QEMU 7.2) now and then
/// breaks a virtual machine inside, or all of it:
///
/// - A CPU that translates code while another one patches it can keep the translation of what was there before, for ever. Linux
///   patches its scheduler when the first virtual machine comes and when the last one goes, with a breakpoint in the meantime;
///   both CPUs were found to run into a breakpoint that was in memory no more.
/// - An interrupt that KVM injects into its guest is delivered a second time, even to a guest that takes none just then, if the
///   emulator is called out of its loop before the next exit. One CPU calls another one out so, and with one thread for all
///   (`thread=single`) a clock does it ten times a second. Linux in the guest was found to wait for a lock that it held itself.
pub const CPUS: u32 = 1;

/// What to run, and in what machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its CPUs, at least one.
    pub cpus: u32,
    /// Features that its CPUs shall not have, as the emulator names them: `avx2`, `rdrand`.
    pub without: Vec<String>,
    /// Its memory, MiB. The file system is in it too.
    pub memory: u32,
    /// What it is to have besides the lab's own commands.
    pub forward: Vec<Forward>,
    /// The kernel to boot; none for Debian's, which is then fetched once and kept.
    pub kernel: Option<PathBuf>,
    /// How long the machine may run, boot included; none for as long as the command takes.
    pub timeout: Option<Duration>,
    /// How long it may say nothing, twice in a row, before it is given up: it says every 2 s that it is there, whatever the
    /// command does.
    pub silence: Duration,
    /// Where the files go that the command leaves in `$OUT`. Made only where there are any.
    pub out: PathBuf,
    /// The program and its arguments.
    pub command: Vec<String>,
}

impl Config {
    /// A machine with [`CPUS`] and 3 GiB for this command, whose files go to `testbed-out`.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            cpus: CPUS,
            without: Vec::new(),
            memory: 3072,
            forward: Vec::new(),
            kernel: None,
            timeout: None,
            silence: SILENCE,
            out: PathBuf::from("testbed-out"),
            command,
        }
    }
}

/// Runs a command in a testbed, passes its output on to this process' own, and returns its exit status (128 and the
/// signal's number where a signal ended it).
///
/// When this returns, and also when this process is killed meanwhile, the machine is gone; no file of it remains but the
/// kernel in the state folder and what the command left in `$OUT`. To be called on a thread that does not end earlier.
pub fn run(config: &Config) -> Result<i32, TestbedError> {
    let started = Instant::now();
    let kernel = match &config.kernel {
        Some(image) => Kernel::named(image)?,
        None => Kernel::kept(&Roots::of_user().data.join("testbed"))?,
    };
    let image = file_system(config, &kernel)?;
    let Config { cpus, memory, without, .. } = config;
    let machine = Machine::start(&Parts { cpus: *cpus, without, memory: *memory, kernel: &kernel, image: &image })?;
    // The emulator has its own descriptor, and the archive's pages go once it has closed that.
    drop(image);
    follow(machine, config, started)
}

/// The machine's file system, in a file without a name: the kernel frees it with its last user.
fn file_system(config: &Config, kernel: &Kernel) -> Result<File, TestbedError> {
    let file = anonymous_file()?;
    let copy = file.try_clone().map_err(TestbedError::host("make a file in memory"))?;
    let own = std::env::current_exe().map_err(TestbedError::host("find the lab's own commands"))?;
    let commands = own.parent().unwrap_or(Path::new("/"));
    image::write(copy, commands, kernel.modules.as_deref(), &config.forward, &config.command)?;
    Ok(file)
}

fn anonymous_file() -> Result<File, TestbedError> {
    let file = memfd_create(c"isolab-testbed", MFdFlags::MFD_CLOEXEC);
    file.map(File::from).map_err(io::Error::from).map_err(TestbedError::host("make a file in memory"))
}

/// Passes on what the machine says until it says how the command ended.
fn follow(mut machine: Machine, config: &Config, started: Instant) -> Result<i32, TestbedError> {
    let mut files: Option<File> = None;
    let mut booted = false;
    let mut missed = 0;
    let limit = config.timeout.map(|timeout| started + timeout);
    loop {
        let boot = (!booted).then_some(started + BOOT);
        // Nobody expects anything of a machine that boots.
        let silence = booted.then(|| Instant::now() + config.silence);
        let frame = match machine.next([limit, boot, silence].into_iter().flatten().min()) {
            Ok(frame) => frame,
            Err(error) if error.kind() == ErrorKind::TimedOut && booted && !is_past(limit) => {
                missed += 1;
                if missed < SILENCES {
                    continue;
                }
                return Err(TestbedError::Stands { seconds: (config.silence * missed).as_secs() });
            }
            Err(error) => return Err(failure(machine, error, booted, config.timeout)),
        };
        missed = 0;
        match frame {
            Frame::Alive => {}
            Frame::Started => booted = true,
            Frame::Stdout(bytes) => pass_on(&mut io::stdout(), &bytes)?,
            Frame::Stderr(bytes) => pass_on(&mut io::stderr(), &bytes)?,
            Frame::Files(bytes) => {
                let archive = match &mut files {
                    Some(archive) => archive,
                    none => none.insert(anonymous_file()?),
                };
                archive.write_all(&bytes).map_err(TestbedError::files(&config.out))?;
            }
            Frame::Ended(status) => {
                files
                    .map_or(Ok(()), |archive| unpack(archive, &config.out))
                    .map_err(TestbedError::files(&config.out))?;
                return Ok(i32::from(status));
            }
            Frame::Failed(said) => return Err(TestbedError::Inside(said)),
        }
    }
}

fn is_past(limit: Option<Instant>) -> bool {
    limit.is_some_and(|limit| limit <= Instant::now())
}

fn pass_on(to: &mut impl Write, bytes: &[u8]) -> Result<(), TestbedError> {
    to.write_all(bytes).and_then(|()| to.flush()).map_err(TestbedError::host("pass the command's output on"))
}

/// What it means that no further frame came.
fn failure(machine: Machine, error: io::Error, booted: bool, timeout: Option<Duration>) -> TestbedError {
    match (error.kind(), timeout) {
        (ErrorKind::TimedOut, Some(timeout)) if booted => TestbedError::TimedOut { seconds: timeout.as_secs() },
        (ErrorKind::TimedOut, timeout) => {
            let seconds = timeout.map_or(BOOT, |timeout| timeout.min(BOOT)).as_secs();
            TestbedError::NotBooted { seconds, console: machine.last_words() }
        }
        (ErrorKind::UnexpectedEof, _) => TestbedError::Died { console: machine.last_words() },
        _ => TestbedError::Garbled(error),
    }
}

/// Unpacks what the command left. The archive comes from a machine in which anything may have run: `tar` writes nothing
/// outside the folder.
fn unpack(mut archive: File, folder: &Path) -> io::Result<()> {
    archive.rewind()?;
    fs::create_dir_all(folder)?;
    let mut archive = tar::Archive::new(io::BufReader::new(archive));
    archive.set_preserve_mtime(false);
    archive.unpack(folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    /// What comes of a machine that says this, with a pause before each, and then nothing.
    fn follow_one_that_says(frames: Vec<Frame>) -> Result<i32, TestbedError> {
        let config = Config { silence: Duration::from_millis(200), ..Config::new(Vec::new()) };
        let (port, mut far_end) = UnixStream::pair().unwrap();
        let speaker = thread::spawn(move || {
            for frame in frames {
                thread::sleep(Duration::from_millis(100));
                // Whoever has given up listens no more.
                let _ = frame.write(&mut far_end);
            }
            far_end
        });
        let outcome = follow(Machine::dummy(port), &config, Instant::now());
        drop(speaker.join());
        outcome
    }

    #[test]
    fn a_machine_that_says_nothing_any_more_stands_still() {
        let said = follow_one_that_says(vec![Frame::Alive, Frame::Started, Frame::Alive]).unwrap_err();
        assert!(matches!(said, TestbedError::Stands { .. }), "{said}");
        assert_eq!(said.status(), 75);
    }

    #[test]
    fn a_command_may_be_silent_as_long_as_its_machine_is_not() {
        let frames = std::iter::once(Frame::Started).chain(std::iter::repeat_n(Frame::Alive, 8));
        assert_eq!(follow_one_that_says(frames.chain([Frame::Ended(7)]).collect()).unwrap(), 7);
    }
}
