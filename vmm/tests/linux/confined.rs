//! What a monitor may still do once its machine runs.
//!
//! Nobody gives such rights back, so each of these monitors is a process of its own: this very program, told what to be. Its
//! misdeed is done where a guest would have it done, in a device: the console, on the thread of the processor that prints.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use isolab_vmm::api::{Request, Socket, ask};
use isolab_vmm::confine::{Duties, confine};
use isolab_vmm::guest::bare::Bare;
use isolab_vmm::machine::pc::{Disk, Wiring};
use isolab_vmm::machine::{self, Ended, Machine, Standing};
use isolab_vmm::memory::Loading;
use isolab_vmm::units::Mib;
use libtest_mimic::{Failed, Trial};

use super::{Done, answers, devices_go_on, isolab_vm, tiny, trial, walls};

/// What this program is called with to be such a monitor: its machine and its misdeed follow.
pub(super) const CONFINED: &str = "confined";

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_monitor_that_does_what_no_guest_needs_is_killed", &["kvm"], misdeeds),
        trial("no_thread_of_a_confined_monitor_has_a_capability_or_can_get_one", &["kvm"], no_rights),
        trial("a_monitor_that_saves_may_write_files_but_start_no_program", &["kvm"], saves),
        trial("a_confined_monitor_may_have_many_threads", &["kvm"], many_threads),
        trial("a_machine_with_a_kernel_goes_on_behind_walls", &["kvm"], goes_on_behind_walls),
        trial("a_confined_monitor_saves_its_machine_and_one_goes_on_confined", &["kvm"], goes_on),
    ]
}

/// A monitor with this machine, doing this.
fn monitor(machine: &str, deed: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args([CONFINED, machine, deed]).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

fn misdeeds() -> Done {
    for machine in ["bare", "pc"] {
        let good = monitor(machine, "nothing").output()?;
        assert_eq!((good.status.code(), good.stdout.as_slice()), (Some(0), &b"hello\n"[..]), "{machine}: {good:?}");
        for deed in ["open", "program", "socket", "code", "trace"] {
            let bad = monitor(machine, deed).output()?;
            assert_eq!(bad.status.signal(), Some(libc::SIGSYS), "{machine}, {deed}: {bad:?}");
        }
    }
    Ok(())
}

fn saves() -> Done {
    let open = monitor("saving", "open").output()?;
    assert_eq!(open.status.code(), Some(0), "{open:?}");
    let program = monitor("saving", "program").output()?;
    assert_eq!(program.status.signal(), Some(libc::SIGSYS), "{program:?}");
    Ok(())
}

/// More than eight at once, of which each wants memory: the C library counts the processors then, if nobody has told it not to.
fn many_threads() -> Done {
    let many = monitor("pc", "threads").output()?;
    assert_eq!((many.status.code(), many.stdout.as_slice()), (Some(0), &b"hello\n"[..]), "{many:?}");
    Ok(())
}

/// By way of its socket; then with pages brought as they are touched, which the first writes down for the second.
fn goes_on() -> Done {
    let folder = tempfile::tempdir()?;
    let at = folder.path().to_str().ok_or("a path in UTF-8")?;
    for machine in ["asked", "recorded", "recorded", "mapped"] {
        let output = monitor(machine, at).stderr(Stdio::piped()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{machine}: {}: {said}", output.status);
    }
    assert!(folder.path().join("one/working-set").exists(), "nobody wrote down what was touched");
    // And the command, which confines itself; its machine counts how often it has gone on.
    fs::remove_file(folder.path().join("one/working-set"))?;
    let (one, listens) = (format!("{at}/one"), format!("{at}/server"));
    for way in ["--recorded", "--recorded", "--lazy", "--eager"] {
        let output = isolab_vm(&["restore", &one, way, "--timeout", "20"])?;
        assert_eq!(output.status.code(), Some(1), "{way}: {output:?}");
    }
    let _server = serves(&one, &listens)?;
    let output = isolab_vm(&["restore", "--server", &listens, "--timeout", "20"])?;
    assert_eq!(output.status.code(), Some(1), "from a server: {output:?}");
    Ok(())
}

/// A server of the snapshot in this folder, which listens.
fn serves(from: &str, listens: &str) -> Result<Killed, Failed> {
    let mut server = Command::new(env!("CARGO_BIN_EXE_isolab-vm"));
    let server = server.args(["serve", "--dir", from, "--socket", listens]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server = Killed(server.spawn()?);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    assert_eq!(line, format!("serving {listens}\n"));
    Ok(server)
}

/// From a folder, and from a server; the guest does nothing for ever.
fn goes_on_behind_walls() -> Done {
    let folder = tempfile::tempdir()?;
    let at = folder.path().to_str().ok_or("a path in UTF-8")?;
    let (one, api, listens) = (format!("{at}/one"), folder.path().join("api"), format!("{at}/server"));
    let mut pc = tiny::boot_onto(&tiny::CONFIG, &tiny::FOR_EVER, Box::new(io::sink()), Vec::new())?;
    pc.save(Path::new(&one))?;
    drop(pc);
    let vm = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-vm"));
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).spawn().map(Killed)
    };
    let mut restored = vm(&["restore", &one, "--timeout", "60", "--api", &format!("{at}/api")])?;
    answers::once_at(&api)?;
    walls::stand_around(restored.0.id())?;
    let requests = [
        Request::Pause,
        Request::Snapshot { to: folder.path().join("two"), diff: true },
        Request::Resume,
        Request::Stop,
    ];
    requests.iter().try_for_each(|request| ask(&api, request).map(drop))?;
    assert_eq!(restored.0.wait()?.code(), Some(143));

    let server = serves(&one, &listens)?;
    let _clone = vm(&["restore", "--server", &listens, "--timeout", "60"])?;
    let children = format!("/proc/{0}/task/{0}/children", server.0.id());
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // It is confined once its machine stands, a moment after it is there.
        let child = fs::read_to_string(&children)?.trim().parse();
        if let Ok(child) = child
            && walls::threads(child)?.len() > 1
        {
            walls::stand_around(child)?;
            return Ok(());
        }
        assert!(Instant::now() < deadline, "no clone with a processor's thread");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A child that does not outlive its trial.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn no_rights() -> Done {
    let mut child = Killed(monitor("endless", "nothing").stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    assert_eq!(line, "hello\n");
    // The first processor prints while the thread of the second is still being made.
    let deadline = Instant::now() + Duration::from_secs(10);
    while walls::threads(child.0.id())?.len() < 3 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    let threads = walls::stand_around(child.0.id())?;
    assert!(threads >= 3, "two processors and the one who waits for them, not {threads}");
    Ok(())
}

// ---- such a monitor ------------------------------------------------------------------------------------------------

/// A console that does something before it prints.
struct Deed(String);

impl Write for Deed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        commit(&self.0);
        let mut out = io::stdout();
        out.write_all(bytes)?;
        out.flush()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn commit(deed: &str) {
    let nothing: *const libc::c_char = std::ptr::null();
    match deed {
        "open" => drop(fs::File::open("/dev/null")),
        // SAFETY: the path is a C string, and without arguments nothing is read beyond it.
        "program" => drop(unsafe { libc::execve(c"/bin/true".as_ptr(), [nothing].as_ptr(), [nothing].as_ptr()) }),
        // SAFETY: a plain system call without memory.
        "socket" => drop(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) }),
        "code" => {
            let (access, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a mapping of its own, which nobody uses.
            let _ = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0) };
        }
        "threads" => {
            let all_here = Barrier::new(20);
            let work = || {
                let memory = std::hint::black_box(vec![1_u8; 100]);
                all_here.wait();
                drop(memory);
            };
            std::thread::scope(|scope| (0..20).for_each(|_| drop(scope.spawn(work))));
        }
        // SAFETY: it asks about no memory.
        "trace" => drop(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }),
        _ => {}
    }
}

/// A machine with disks, that is asked to save itself in this folder.
fn asked(folder: &Path) -> Done {
    fs::write(folder.join("data"), [7; 8192])?;
    let disk = Wiring::Disk(Disk::new(folder.join("data"), false, None));
    let pc = devices_go_on::boots(vec![disk, Wiring::Rng, Wiring::Balloon(1)])?;
    let (bell, socket, to) = (pc.bell(), folder.join("socket"), folder.join("one"));
    let (_listening, mut attendant) = Socket::listen_and_ring(&socket, Arc::new(move || drop(bell.write(1))))?;
    confine(Duties { threads: true, saves: true, ..Duties::default() })?;
    let asker = std::thread::spawn(move || {
        let requests =
            [Request::Status, Request::Pause, Request::Snapshot { to, diff: false }, Request::Resume, Request::Stop];
        requests.iter().try_for_each(|request| ask(&socket, request).map(drop).map_err(|error| error.to_string()))
    });
    assert_eq!(pc.resume()?.wait_attended(None, &mut attendant)?, Ended::Signal(libc::SIGTERM));
    Ok(asker.join().map_err(|_| "who asks has panicked")??)
}

/// A machine that goes on from what is saved there, is saved once more, and runs to its end.
fn goes_on_from(folder: &Path, loading: Loading) -> Done {
    let mut pc = devices_go_on::restored(&folder.join("one"), None, loading)?;
    confine(Duties { threads: true, saves: true, ..Duties::default() })?;
    pc.save(&folder.join("two"))?;
    fs::remove_dir_all(folder.join("two"))?;
    assert_eq!(pc.resume()?.wait(None)?, Ended::Status(1));
    Ok(())
}

/// Is that monitor; what it ends with is its status.
pub(super) fn be(machine: &str, deed: &str) -> Done {
    let console = Deed(deed.to_owned());
    let pc = |cpus: u8, code: &[u8]| -> Done {
        let config = isolab_vmm::machine::pc::Config { cpus, ..tiny::CONFIG };
        let pc = tiny::boot_onto(&config, code, Box::new(console), Vec::new())?;
        confine(Duties { threads: true, saves: machine == "saving", ..Duties::default() })?;
        pc.resume()?.wait(None)?;
        Ok(())
    };
    let prints: Vec<u8> = b"hello\n".iter().flat_map(|byte| tiny::out_far(0x3f8, *byte)).collect();
    match machine {
        "asked" => asked(Path::new(deed)),
        "recorded" => goes_on_from(Path::new(deed), Loading::Recorded),
        "mapped" => goes_on_from(Path::new(deed), Loading::Lazy),
        "bare" => {
            let config = machine::Config { memory: Mib(128), timeout: Some(Duration::from_secs(20)) };
            let guest = Bare::new("long-hello".parse()?, &["hello".to_owned()])?;
            let machine = Machine::boot(&config, guest, Deed(deed.to_owned()))?;
            confine(Duties::default())?;
            machine.resume()?;
            Ok(())
        }
        "endless" => pc(2, &[&prints[..], &tiny::FOR_EVER].concat()),
        _ => pc(1, &[&prints[..], &tiny::exit(0)].concat()),
    }
}
