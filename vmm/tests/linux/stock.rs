//! A distribution's kernel, `isolab-init`, and programs in their machine.
//!
//! The kernel and a folder with its modules are named by `ISOLAB_TEST_KERNEL` and `ISOLAB_TEST_MODULES`; a squashfs made of an
//! image with busybox and this program by `ISOLAB_TEST_ROOT`; a qcow2 disk with an ext4 on it by `ISOLAB_TEST_DATA`.
//! `.ci/guests` makes all of them, and looks at the last afterwards.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use nix::unistd::Pid;

use super::needs::on_path;
use super::{Done, isolab_vm, trial};

/// What this very program is called with as a program of the guest.
pub(super) const IN_THE_GUEST: &str = "in-the-guest";
/// The port that it connects to.
pub(super) const PORT: u32 = 5000;

pub(super) const CMDLINE: &str = "console=ttyS0 panic=-1 pci=off quiet";

pub(super) fn trials() -> Vec<Trial> {
    let needs = &["kernel", "busybox"];
    vec![
        trial("a_distribution_s_kernel_runs_a_program_and_hands_its_status_back", needs, one_processor),
        trial("a_kernel_whose_first_process_fails_ends_its_machine", needs, first_process_fails),
        trial("a_program_is_asked_to_end_by_the_power_button_of_its_machine", needs, power_button),
        trial(
            "an_image_runs_on_two_processors_with_disks_network_and_sockets",
            &["kernel", "busybox", "root", "disks"],
            everything,
        ),
    ]
}

pub(super) fn busybox() -> Option<PathBuf> {
    on_path("busybox")
}

fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists())
}

/// The kernel, and the folder of its modules.
pub(super) fn files() -> Option<(PathBuf, PathBuf)> {
    named("ISOLAB_TEST_KERNEL").zip(named("ISOLAB_TEST_MODULES"))
}

/// The lab's own small kernel (`vmm/kernel`), which has no modules.
pub(super) fn small() -> Option<PathBuf> {
    named("ISOLAB_TEST_SMALL_KERNEL")
}

pub(super) fn root_disk() -> Option<PathBuf> {
    named("ISOLAB_TEST_ROOT")
}

pub(super) fn data_disk() -> Option<PathBuf> {
    named("ISOLAB_TEST_DATA")
}

// ---- how a guest is made -------------------------------------------------------------------------------------------

/// Packs an initial file system: `isolab-init`, the modules, what it is to do, and busybox or what else is named.
pub(super) fn pack(
    folder: &Path,
    init: &serde_json::Value,
    modules: Option<&Path>,
    programs: &[(&Path, &str)],
) -> Result<PathBuf, Failed> {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("bin"))?;
    fs::create_dir_all(tree.join("modules"))?;
    fs::copy(env!("CARGO_BIN_EXE_isolab-init"), tree.join("init"))?;
    fs::write(tree.join("isolab.json"), init.to_string())?;
    for (program, place) in programs {
        fs::copy(program, tree.join(place))?;
    }
    for module in modules.map(fs::read_dir).transpose()?.into_iter().flatten().flatten() {
        fs::copy(module.path(), tree.join("modules").join(module.file_name()))?;
    }
    let archive = folder.join("initrd");
    let busybox = busybox().ok_or("no busybox")?;
    let script = format!("cd '{}' && '{1}' find . | '{1}' cpio -o -H newc", tree.display(), busybox.display());
    let packed = Command::new(&busybox).args(["sh", "-c", &script]).stdout(fs::File::create(&archive)?).output()?;
    if packed.status.success() { Ok(archive) } else { Err(format!("no archive: {packed:?}").into()) }
}

pub(super) fn text(path: &Path) -> Result<&str, Failed> {
    path.to_str().ok_or_else(|| "a path in UTF-8".into())
}

/// Boots it and returns what it printed and its status.
fn boot(initrd: &Path, more: &[&str]) -> Result<(String, Option<i32>), Failed> {
    let (kernel, _) = files().ok_or("no kernel")?;
    let words = ["run", "--kernel", text(&kernel)?, "--initrd", text(initrd)?, "--cmdline", CMDLINE];
    let limits = ["--timeout", "120", "--memory", "384"];
    let output = isolab_vm(&[&words[..], &limits, more].concat())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((said, output.status.code()))
}

/// Fails where it did not print all of this.
fn printed(said: &str, parts: &[&str]) -> Done {
    match parts.iter().find(|part| !said.contains(**part)) {
        Some(part) => Err(format!("{part:?} is not in what the guest printed:\n{said}").into()),
        None => Ok(()),
    }
}

/// The same with the distribution's modules.
pub(super) fn initrd(folder: &Path, init: &serde_json::Value, programs: &[(&Path, &str)]) -> Result<PathBuf, Failed> {
    let (_, modules) = files().ok_or("no kernel")?;
    pack(folder, init, Some(&modules), programs)
}

// ---- guests --------------------------------------------------------------------------------------------------------

fn one_processor() -> Done {
    let folder = tempfile::tempdir()?;
    let script =
        "echo cpus=$(nproc) release=$(uname -r) host=$(hostname) uid=$(id -u) pid1=$(cat /proc/1/comm); exit 42";
    let init = serde_json::json!({
        "hostname": "guest",
        "process": {"args": ["/bin/busybox", "sh", "-c", script], "uid": 65534, "gid": 65534},
    });
    let busybox = busybox().ok_or("no busybox")?;
    let initrd = initrd(folder.path(), &init, &[(&busybox, "bin/busybox"), (&busybox, "bin/sh")])?;
    let (said, status) = boot(&initrd, &[])?;
    printed(&said, &["cpus=1 release=", "-cloud-amd64 host=guest uid=65534 pid1=init"])?;
    assert_eq!(status, Some(42), "{said}");
    Ok(())
}

fn first_process_fails() -> Done {
    let folder = tempfile::tempdir()?;
    let init = serde_json::json!({"process": {"args": ["/no/such/program"]}});
    let (said, status) = boot(&initrd(folder.path(), &init, &[])?, &[])?;
    printed(&said, &["isolab-init: error: cannot run /no/such/program: No such file or directory"])?;
    assert_eq!(status, Some(125), "{said}");
    Ok(())
}

/// SIGTERM to the monitor presses the button, the kernel tells the first process, and that sends the program SIGTERM.
fn power_button() -> Done {
    let folder = tempfile::tempdir()?;
    let script = "trap 'echo it is late; exit 3' TERM; echo up; while :; do sleep 0.1; done";
    let init = serde_json::json!({"process": {"args": ["/bin/busybox", "sh", "-c", script]}});
    let busybox = busybox().ok_or("no busybox")?;
    let links = [(&*busybox, "bin/busybox"), (&*busybox, "bin/sh"), (&*busybox, "bin/sleep")];
    let (initrd, (kernel, _)) = (initrd(folder.path(), &init, &links)?, files().ok_or("no kernel")?);
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-vm"));
    command.args(["run", "--kernel", text(&kernel)?, "--initrd", text(&initrd)?, "--cmdline", CMDLINE]);
    command.args(["--timeout", "120", "--memory", "384", "--grace", "60"]);
    let mut monitor = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut said = String::new();
    let mut output = BufReader::new(monitor.stdout.take().ok_or("no output")?);
    while !said.ends_with("up\r\n") && !said.ends_with("up\n") && output.read_line(&mut said)? > 0 {}
    // It does not matter whether it has ended meanwhile: then what it printed tells.
    let _ = kill(Pid::from_raw(monitor.id() as i32), Signal::SIGTERM);
    output.read_to_string(&mut said)?;
    let status = monitor.wait()?;
    printed(&said, &["up", "it is late"])?;
    assert_eq!(status.code(), Some(3), "{said}");
    Ok(())
}

/// The whole of a machine: an image's squashfs as its root, a second disk for what stays, a card on a tap, sockets.
fn everything() -> Done {
    let folder = tempfile::tempdir()?;
    let (root, data) = (root_disk().ok_or("no root")?, data_disk().ok_or("no disk for data")?);
    let script = format!(
        "echo cpus=$(nproc) greeting=$(cat /greeting); echo new > /greeting && echo root=writable; \
         cat /data/from-the-host; echo kept > /data/from-the-guest; \
         ping -c 2 -W 20 10.111.7.1 | grep received; /linux-trials {IN_THE_GUEST}; exit 7"
    );
    let init = serde_json::json!({
        "root": {"device": "/dev/vda", "filesystem": "squashfs"},
        "mounts": [{"device": "/dev/vdb", "filesystem": "ext4", "at": "/data"}],
        "network": {"interface": "eth0", "address": "10.111.7.2/24", "gateway": "10.111.7.1"},
        "process": {"args": ["/bin/busybox", "sh", "-c", script]},
    });
    let initrd = initrd(folder.path(), &init, &[])?;
    let socket = folder.path().join("vsock");
    let echo = Echo::listen(&folder.path().join(format!("vsock_{PORT}")))?;
    let tap = Tap::give_address("isolabt7", "10.111.7.1")?;
    let disks = [format!("{},ro", text(&root)?), text(&data)?.to_owned()];
    let vsock = format!("3,socket={}", text(&socket)?);
    let net = format!("tap={}", tap.name);
    let more = ["--cpus", "2", "--disk", &disks[0], "--disk", &disks[1], "--net", &net, "--vsock", &vsock, "--rng"];
    let (said, status) = boot(&initrd, &more)?;
    printed(
        &said,
        &["cpus=2 greeting=from the image", "root=writable", "from the host", "2 packets received", "echoed: hello"],
    )?;
    assert_eq!(status, Some(7), "{said}");
    echo.heard()?;
    Ok(())
}

// ---- the host's ends -----------------------------------------------------------------------------------------------

/// Somebody at the host's end of a vsock who says what he hears.
pub(super) struct Echo(std::thread::JoinHandle<std::io::Result<String>>);

impl Echo {
    pub(super) fn listen(path: &Path) -> Result<Self, Failed> {
        let listener = UnixListener::bind(path)?;
        Ok(Self(std::thread::spawn(move || {
            let (stream, _) = listener.accept()?;
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line)?;
            (&stream).write_all(format!("echoed: {line}").as_bytes())?;
            Ok(line)
        })))
    }

    pub(super) fn heard(self) -> Done {
        let line = self.0.join().map_err(|_| "the echo died")??;
        assert_eq!(line, "hello\n");
        Ok(())
    }
}

/// Gives a tap its address as soon as the monitor has made it. It goes with the monitor.
struct Tap {
    name: &'static str,
}

impl Tap {
    fn give_address(name: &'static str, address: &'static str) -> Result<Self, Failed> {
        let busybox = busybox().ok_or("no busybox")?;
        std::thread::spawn(move || {
            let deadline = Instant::now() + Duration::from_mins(1);
            while !Path::new("/sys/class/net").join(name).exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            Command::new(busybox)
                .args(["ifconfig", name, address, "netmask", "255.255.255.0", "up"])
                .stdin(Stdio::null())
                .output()
        });
        Ok(Self { name })
    }
}

/// In the guest: says hello to the host, and prints what comes back.
pub(super) fn in_the_guest() {
    let said = (|| {
        let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None)?;
        connect(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_HOST, PORT))?;
        let mut stream = fs::File::from(socket);
        stream.write_all(b"hello\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    })();
    match said {
        Ok(answer) => print!("{answer}"),
        Err(error) => println!("no vsock: {error}"),
    }
}
