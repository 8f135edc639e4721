//! Terminals: one of the container's own, relayed to ours or handed to whoever listens at a socket.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::lab::{Lab, has, same, text, wait_for};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_terminal_is_the_containers_own_and_controls_the_program", &NEEDS, own),
        trial("a_terminal_is_shown_at_dev_console", &NEEDS, console),
        trial("a_terminal_belongs_to_the_containers_user", &NEEDS, owner),
        trial("our_window_size_is_the_containers_and_follows_ours", &NEEDS, window),
        trial("control_c_ends_the_job_and_not_the_shell", &NEEDS, job_control),
        trial("our_terminal_is_raw_meanwhile_and_as_before_afterwards", &NEEDS, restored),
        trial("the_end_of_our_input_ends_the_containers", &NEEDS, end_of_input),
        trial("all_that_was_said_arrives_though_the_program_has_ended", &NEEDS, drained),
        trial("exec_with_a_terminal_is_interactive", &NEEDS, exec),
        trial("a_console_socket_receives_the_terminal", &NEEDS, socket),
        trial("exec_detached_sends_its_terminal_to_the_socket", &NEEDS, exec_socket),
        trial("a_terminal_that_nobody_would_hold_is_refused", &NEEDS, refused),
        trial("a_console_that_is_a_link_reaches_nothing", &NEEDS, linked_console),
        trial("without_devpts_there_is_no_terminal", &NEEDS, no_devpts),
        trial("an_ordinary_user_has_a_terminal_too", &["root", "busybox", "userns"], rootless),
    ]
}

/// The test's end of a pair, and the command that believes the other end to be a user's terminal.
struct Seat {
    master: File,
    slave: OwnedFd,
    child: Child,
    heard: String,
}

fn window_size(rows: u16, columns: u16) -> libc::winsize {
    libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn settings(terminal: &impl AsRawFd) -> Vec<u8> {
    // SAFETY: a structure of integers, which the call fills.
    let mut found: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: `found` outlives the call.
    assert_eq!(unsafe { libc::tcgetattr(terminal.as_raw_fd(), &raw mut found) }, 0, "the test's end is a terminal");
    [found.c_iflag, found.c_oflag, found.c_lflag, found.c_cflag].into_iter().flat_map(u32::to_ne_bytes).collect()
}

impl Seat {
    fn at(command: &mut Command, rows: u16, columns: u16) -> Result<Self, Failed> {
        let (mut master, mut slave) = (-1, -1);
        let size = window_size(rows, columns);
        // SAFETY: two descriptors are stored; null pointers mean that neither name nor settings are asked for.
        let made = unsafe {
            libc::openpty(&raw mut master, &raw mut slave, std::ptr::null_mut(), std::ptr::null(), &raw const size)
        };
        same(made, 0)?;
        // SAFETY: both are new and nobody else's.
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        for end in [master.as_raw_fd(), slave.as_raw_fd()] {
            // SAFETY: numbers. Or the other end would never see this one closed.
            unsafe { libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave.try_clone()?);
        // SAFETY: both calls may be made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                let taken = libc::setsid() >= 0 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0;
                if taken { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        let child = command.spawn()?;
        Ok(Self { master, slave, child, heard: String::new() })
    }

    fn types(&mut self, text: &str) -> Result<(), Failed> {
        Ok(self.master.write_all(text.as_bytes())?)
    }

    /// Reads until `part` was said, for ten seconds at most; what stood before it is forgotten.
    fn hears(&mut self, part: &str) -> Result<(), Failed> {
        let begin = Instant::now();
        loop {
            if let Some(place) = self.heard.find(part) {
                self.heard.drain(..place + part.len());
                return Ok(());
            }
            let mut it = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&self.master), nix::poll::PollFlags::POLLIN)];
            let ready = nix::poll::poll(&mut it, 200_u16)? > 0;
            let mut buffer = [0; 4096];
            let count = if ready { self.master.read(&mut buffer)? } else { 0 };
            self.heard += &text(&buffer[..count]);
            if begin.elapsed() > Duration::from_secs(10) {
                return Err(format!("{part:?} is not in {:?}", self.heard).into());
            }
        }
    }

    /// Waits for the command's end; returns its status.
    fn ends(&mut self) -> Result<Option<i32>, Failed> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            if begin.elapsed() > Duration::from_secs(10) {
                return Err(format!("it does not end; heard {:?}", self.heard).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A lab whose program has a terminal.
fn lab(script: &str) -> Lab {
    let mut lab = Lab::new(script);
    lab.set("/process/terminal", json!(true));
    lab
}

fn run(lab: &Lab) -> Result<Seat, Failed> {
    Seat::at(&mut lab.command(&["run", &lab.id]), 33, 77)
}

fn running(lab: &Lab) -> Result<(), Failed> {
    let output = lab.oci(&["run", "--detach", &lab.id]);
    same((output.status.code(), text(&output.stderr)), (Some(0), String::new()))
}

fn own() -> Result<(), Failed> {
    let lab = lab("busybox tty; echo said > /dev/tty; ls /dev/pts; ps -o pid,tty,comm; exit 5");
    let mut seat = run(&lab)?;
    for part in ["/dev/pts/0\r\n", "said\r\n", "0     ptmx\r\n", "1 136,0  sh\r\n"] {
        seat.hears(part)?;
    }
    same(seat.ends()?, Some(5))?;
    lab.is_clean()
}

fn console() -> Result<(), Failed> {
    let lab = lab("echo hello > /dev/console; stat -c '%F %t:%T' /dev/console; mount | grep /dev/console");
    let mut seat = run(&lab)?;
    for part in ["hello\r\n", "character special file 88:0\r\n", "devpts on /dev/console type devpts"] {
        seat.hears(part)?;
    }
    same(seat.ends()?, Some(0))
}

fn owner() -> Result<(), Failed> {
    let mut lab = lab("stat -c %u:%g /dev/pts/0; echo again > /dev/pts/0; echo third > /dev/console");
    lab.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let mut seat = run(&lab)?;
    for part in ["1000:5\r\n", "again\r\n", "third\r\n"] {
        seat.hears(part)?;
    }
    same(seat.ends()?, Some(0))
}

fn window() -> Result<(), Failed> {
    let lab = lab("trap 'busybox stty size; exit 0' WINCH; busybox stty size; while true; do sleep 0.05; done");
    let mut seat = run(&lab)?;
    seat.hears("33 77\r\n")?;
    let size = window_size(20, 50);
    // SAFETY: reads one `winsize`, which outlives the call. The kernel tells the command by SIGWINCH.
    same(unsafe { libc::ioctl(seat.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }, 0)?;
    seat.hears("20 50\r\n")?;
    same(seat.ends()?, Some(0))
}

fn job_control() -> Result<(), Failed> {
    let mut lab = lab("");
    lab.set("/process/args", json!(["sh", "-i"]));
    let mut seat = run(&lab)?;
    seat.hears("# ")?;
    seat.types("sleep 50; echo gone=$?\n")?;
    seat.hears("gone=$?\r\n")?;
    std::thread::sleep(Duration::from_millis(300));
    seat.types("\x03")?;
    seat.hears("# ")?;
    seat.types("sleep 50\n")?;
    std::thread::sleep(Duration::from_millis(300));
    seat.types("\x1a")?;
    seat.hears("Stopped")?;
    seat.hears("# ")?;
    seat.types("fg\n")?;
    seat.hears("sleep 50")?;
    std::thread::sleep(Duration::from_millis(300));
    seat.types("\x03")?;
    seat.hears("# ")?;
    seat.types("exit 6\n")?;
    same(seat.ends()?, Some(6))?;
    lab.is_clean()
}

fn restored() -> Result<(), Failed> {
    for (script, signal, code) in [
        ("echo up; sleep 0.2; exit 3", None, Some(3)),
        ("trap 'exit 4' TERM; echo up; while true; do sleep 0.05; done", Some(Signal::SIGTERM), Some(4)),
    ] {
        let lab = lab(script);
        let mut command = lab.command(&["run", &lab.id]);
        let mut seat = Seat::at(&mut command, 24, 80)?;
        seat.hears("up\r\n")?;
        let raw = settings(&seat.slave);
        if let Some(signal) = signal {
            kill(Pid::from_raw(seat.child.id() as i32), signal)?;
        }
        same(seat.ends()?, code)?;
        let after = settings(&seat.slave);
        let lflag = |settings: &[u8]| settings.get(8..12).map(<[u8]>::to_vec);
        same(lflag(&raw) == lflag(&after), false)?;
        // As the kernel makes a terminal: that is how it was handed over.
        let fresh = Seat::at(&mut Command::new("true"), 24, 80)?;
        same(after, settings(&fresh.slave))?;
    }
    Ok(())
}

fn end_of_input() -> Result<(), Failed> {
    for typed in ["", "word\n", "half"] {
        let lab = lab("cat; echo over");
        let mut child = lab
            .command(&["run", &lab.id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().ok_or("a pipe")?.write_all(typed.as_bytes())?;
        let output = child.wait_with_output()?;
        same((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""))?;
        let said = text(&output.stdout);
        has(&said, "over\r\n")?;
        // Once by the terminal's echo, once by the program.
        same(said.matches(typed.trim()).count().min(2), if typed.is_empty() { said.len().min(2) } else { 2 })?;
    }
    Ok(())
}

fn drained() -> Result<(), Failed> {
    let lab =
        lab("i=0; while [ $i -lt 2000 ]; do echo line $i of many, long enough to fill a terminal; i=$((i+1)); done");
    for _ in 0..5 {
        let output = lab.run();
        same((output.status.code(), text(&output.stdout).lines().count()), (Some(0), 2000))?;
        has(&text(&output.stdout), "line 1999 of many")?;
    }
    lab.is_clean()
}

fn exec() -> Result<(), Failed> {
    let lab = Lab::new("sleep 60");
    running(&lab)?;
    let mut seat = Seat::at(&mut lab.command(&["exec", "--tty", &lab.id, "sh", "-i"]), 33, 77)?;
    seat.hears("# ")?;
    seat.types("busybox stty size; busybox tty; ps -o tty,comm | grep stty; echo no\"\"tty\n")?;
    for part in ["33 77\r\n", "/dev/pts/0\r\n", "notty"] {
        seat.hears(part)?;
    }
    seat.types("sleep 50\n")?;
    std::thread::sleep(Duration::from_millis(300));
    seat.types("\x03")?;
    seat.hears("# ")?;
    seat.types("exit 6\n")?;
    same(seat.ends()?, Some(6))?;
    // The command's death is the process's.
    let mut seat = Seat::at(&mut lab.command(&["exec", "-t", &lab.id, "sh", "-c", "echo up; sleep 51"]), 33, 77)?;
    seat.hears("up")?;
    seat.child.kill()?;
    seat.child.wait()?;
    let left = || !text(&lab.oci(&["exec", &lab.id, "ps"]).stdout).contains("sleep 51");
    wait_for("the program's end", left)
}

/// Accepts one connection and receives a descriptor on it.
fn receive(listener: &UnixListener) -> Result<File, Failed> {
    let (connection, _) = listener.accept()?;
    let mut name = [0; 64];
    let mut part = [std::io::IoSliceMut::new(&mut name)];
    let mut room = nix::cmsg_space!([i32; 1]);
    let flags = nix::sys::socket::MsgFlags::MSG_CMSG_CLOEXEC;
    let message = nix::sys::socket::recvmsg::<()>(connection.as_raw_fd(), &mut part, Some(&mut room), flags)?;
    let descriptor = message.cmsgs()?.find_map(|one| match one {
        nix::sys::socket::ControlMessageOwned::ScmRights(all) => all.first().copied(),
        _ => None,
    });
    let descriptor = descriptor.ok_or("no descriptor came")?;
    has(&text(&name), "/dev/pts/")?;
    // SAFETY: just received, and nobody else's.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

fn heard(mut terminal: File) -> String {
    let mut all = Vec::new();
    // The end of a terminal is EIO.
    let _ = terminal.read_to_end(&mut all);
    text(&all)
}

fn socket() -> Result<(), Failed> {
    let mut lab = lab("busybox tty; busybox stty size; read line; echo got $line");
    lab.set("/process/consoleSize", json!({ "height": 11, "width": 22 }));
    for verbs in [["create", "start"].as_slice(), &["run"]] {
        // Deeper than a socket's address has room for.
        let folder = lab.path(&"deep/".repeat(30));
        fs::create_dir_all(&folder)?;
        let open = File::open(&folder)?;
        let short = format!("/proc/self/fd/{}/socket", open.as_raw_fd());
        let listener = UnixListener::bind(&short)?;
        let path = folder.join("socket").display().to_string();
        let detached = if verbs == ["run"] { vec!["--detach"] } else { vec![] };
        let first = [&[verbs[0], "--console-socket", &path], detached.as_slice(), &[&lab.id]].concat();
        let output = lab.oci(&first);
        same((output.status.code(), text(&output.stderr)), (Some(0), String::new()))?;
        let mut terminal = receive(&listener)?;
        if verbs.len() == 2 {
            same(lab.oci(&["start", &lab.id]).status.code(), Some(0))?;
        }
        terminal.write_all(b"a line\n")?;
        let said = heard(terminal);
        for part in ["/dev/pts/0\r\n", "11 22\r\n", "got a line\r\n"] {
            has(&said, part)?;
        }
        lab.oci(&["delete", "--force", &lab.id]);
        lab.is_clean()?;
        fs::remove_dir_all(lab.path("deep"))?;
    }
    Ok(())
}

fn exec_socket() -> Result<(), Failed> {
    let lab = Lab::new("sleep 60");
    running(&lab)?;
    let listener = UnixListener::bind(lab.path("socket"))?;
    let process = json!({
        "terminal": true, "user": {}, "cwd": "/", "env": ["PATH=/bin"],
        "args": ["sh", "-c", "busybox tty; busybox stty size; ls /dev/console; exit 3"],
        "consoleSize": { "height": 12, "width": 23 }
    });
    fs::write(lab.path("process.json"), process.to_string())?;
    let arguments =
        ["exec", "--detach", "-p", "process.json", "--console-socket", "socket", "--pid-file", "pid", &lab.id];
    let output = lab.oci(&arguments);
    same((output.status.code(), text(&output.stderr)), (Some(0), String::new()))?;
    let said = heard(receive(&listener)?);
    for part in ["/dev/pts/0\r\n", "12 23\r\n"] {
        has(&said, part)?;
    }
    same(fs::read_to_string(lab.path("pid"))?.parse::<u32>().is_ok(), true)
}

fn refused() -> Result<(), Failed> {
    let mut lab = lab("sleep 60");
    for verbs in [["create"].as_slice(), &["run", "--detach"]] {
        let output = lab.oci(&[verbs, &[&lab.id]].concat());
        same(output.status.code(), Some(1))?;
        has(&text(&output.stderr), "nobody would hold its other end")?;
        lab.is_clean()?;
    }
    let output = lab.oci(&["create", "--console-socket", "none", &lab.id]);
    has(&text(&output.stderr), "cannot connect to the console socket none")?;
    lab.set("/process/terminal", json!(false));
    let _listener = UnixListener::bind(lab.path("socket"))?;
    for verb in ["create", "run"] {
        let output = lab.oci(&[verb, "--console-socket", "socket", &lab.id]);
        same(output.status.code(), Some(1))?;
        has(&text(&output.stderr), "no terminal is asked for")?;
        lab.is_clean()?;
    }
    running(&lab)?;
    let output = lab.oci(&["exec", "-d", "-t", &lab.id, "true"]);
    has(&text(&output.stderr), "nobody would hold its other end")?;
    let output = lab.oci(&["exec", "--console-socket", "socket", &lab.id, "true"]);
    has(&text(&output.stderr), "no terminal is asked for")
}

fn linked_console() -> Result<(), Failed> {
    let mut lab = lab("true");
    lab.unmount("/dev");
    fs::write(lab.root().join("etc/target"), "the image's")?;
    std::os::unix::fs::symlink("/etc/target", lab.root().join("dev/console"))?;
    let output = lab.run();
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "cannot mount the terminal at /dev/console")?;
    same(fs::read_to_string(lab.root().join("etc/target"))?.as_str(), "the image's")?;
    lab.is_clean()
}

fn no_devpts() -> Result<(), Failed> {
    // None; then a file, and a device of another kind, where the multiplexer should be.
    for forged in ["", "touch /dev/pts/ptmx", "ln -s ../null /dev/pts/ptmx"] {
        let lab = {
            let mut lab = Lab::new("true");
            lab.unmount("/dev/pts");
            lab.set("/process/args", json!(["sleep", "60"]));
            lab
        };
        running(&lab)?;
        let script = format!("mkdir -p /dev/pts; {forged}");
        same(lab.oci(&["exec", &lab.id, "sh", "-c", &script]).status.code(), Some(0))?;
        let output = lab.oci(&["exec", "-t", &lab.id, "true"]);
        same((forged, output.status.code()), (forged, Some(1)))?;
        has(&text(&output.stderr), "cannot make a terminal with /dev/pts/ptmx")?;
    }
    Ok(())
}

fn rootless() -> Result<(), Failed> {
    const USER: u32 = 54_321;
    let mut lab = lab("busybox tty; echo hello > /dev/console; id -u");
    // Group 5 has no number in that user namespace.
    lab.unmount("/dev/pts");
    let options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    lab.set(
        "/mounts/-",
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": options }),
    );
    for path in [lab.bundle().to_owned(), lab.root(), lab.root().join("tmp"), lab.root().join("dev")] {
        std::os::unix::fs::chown(path, Some(USER), Some(USER))?;
    }
    let output = lab.command(&["run", &lab.id]).uid(USER).gid(USER).output()?;
    same(text(&output.stdout).as_str(), "/dev/pts/0\r\nhello\r\n0\r\n")?;
    same(output.status.code(), Some(0))?;
    lab.is_clean()
}
