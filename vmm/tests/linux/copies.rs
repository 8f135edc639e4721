//! A distribution's kernel with disks, a network card and sockets that is saved, goes back, and goes on as many machines.
//!
//! One guest is booted, and everything else comes of it: under emulation a boot takes longer than all that is asked here. It
//! is talked to over its console: a shell there does what it is told, and prints what came of it between two marks.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::guests::{Guest, Made, Root, pings};
use super::stock::{Echo, IN_THE_GUEST, PORT, data_disk, files, root_disk, text};
use super::{Done, trial, walls};

const BRIDGE: &str = "isolabb9";
/// How many clones live at a time: `ISOLAB_CLONES`, or a few, since under emulation each takes its seconds.
fn how_many() -> usize {
    std::env::var("ISOLAB_CLONES").ok().and_then(|number| number.parse().ok()).unwrap_or(4)
}

pub(super) fn trials() -> Vec<Trial> {
    vec![trial(
        "a_guest_with_disk_and_net_goes_back_to_two_branches_and_on_as_clones",
        &["kernel", "busybox", "root", "disks"],
        everything,
    )]
}

fn everything() -> Done {
    let _bridge = Bridge::make()?;
    let begun = Instant::now();
    let says = |what: &str| println!("{what} after {:?}", begun.elapsed());
    let root = Root::new()?;
    let parent = with_disks_and_net(&root)?;
    parent.start()?;
    parent.expect("READY")?;
    says("it is up");
    two_branches(&root, &parent)?;
    says("two branches");
    clones(&root, &parent)?;
    says("clones");
    killed(&root, &parent)?;
    says("killed at ten moments");
    full_clone(&root)?;
    says("a full clone");
    nothing_is_left(&root)
}

fn two_branches(root: &Root, web: &Guest) -> Done {
    web.ask("n=1; echo base > /data/log; busybox sync")?;
    root.does(&["snapshot", "web", "base"])?;
    web.ask("n=2; echo a >> /data/log; busybox sync")?;
    root.does(&["snapshot", "web", "a"])?;
    web.go_back("base")?;
    assert_eq!(web.ask("echo $n $(cat /data/log)")?, "1 base");
    web.ask("n=3; echo b >> /data/log; busybox sync")?;
    root.does(&["snapshot", "web", "b", "--diff"])?; // and it has the changes since "base" alone
    web.go_back("a")?;
    assert_eq!(web.ask("echo $n $(cat /data/log)")?, "2 base a");
    web.go_back("b")?;
    assert_eq!(web.ask("echo $n $(cat /data/log)")?, "3 base b");
    let tree = root.does(&["snapshots", "web"])?;
    assert!(tree.lines().map(str::trim_start).map(|line| &line[..1]).eq(["b", "a", "b"]), "{tree}");
    assert!(tree.lines().any(|line| line.trim_start().starts_with("b ") && line.contains("of changes")), "{tree}");
    root.refuses(&["rm-snapshot", "web", "base"], "the snapshot web@b stands on it")
}

fn clones(root: &Root, web: &Guest) -> Done {
    web.go_back("base")?;
    let many = how_many();
    let count = many.to_string();
    root.does(&["clone", "--count", &count, "--address", "10.111.9.11/24", "web@base", "c"])?;
    let clones: Vec<Guest> = (1..=many).map(|number| root.guest(&format!("c-{number}"))).collect();
    let before = Instant::now();
    clones.iter().try_for_each(Guest::start)?;
    println!("{many} clones of a Linux guest started one after the other in {:?}", before.elapsed());
    let (mut uuids, mut macs, mut systems) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for guest in clones.iter().chain([web]) {
        walls::stand_around(guest.pid()?.as_raw().unsigned_abs())?;
    }
    for (number, guest) in clones.iter().enumerate() {
        let told = guest.about(&format!("10.111.9.{}", 11 + number))?;
        assert_eq!(told.mac, guest.kept("mac")?, "{}", guest.name);
        uuids.extend(told.uuids);
        macs.insert(told.mac);
        systems.insert(told.system);
        guest.ask(&format!("n={number}; echo {} > /data/who; busybox sync", guest.name))?;
    }
    let told = web.about("10.111.9.2")?;
    uuids.extend(told.uuids);
    assert!(macs.insert(told.mac) && systems.insert(told.system), "the parent is somebody, too");
    assert_eq!((uuids.len(), macs.len(), systems.len()), (3 * (many + 1), many + 1, many + 1));
    println!("{} machines are each somebody after {:?}", many + 1, before.elapsed());
    // Each has a disk of its own, and reaches its parent and its neighbour; the parent reaches all.
    for (number, clone) in clones.iter().enumerate() {
        let neighbour = format!("10.111.9.{}", 11 + (number + 1) % many);
        let said = clone
            .ask(&format!("echo $n; cat /data/who /data/log; {}", pings(&["10.111.9.2".to_owned(), neighbour])))?;
        assert_eq!(said, format!("{number}\n{}\nbase\nreached\nreached", clone.name));
    }
    let all: Vec<String> = (0..many).map(|number| format!("10.111.9.{}", 11 + number)).collect();
    assert_eq!(web.ask(&pings(&all))?, vec!["reached"; many].join("\n"));
    println!("and each is reached on one bridge after {:?}", before.elapsed());
    // Its sockets have another address, and lead to the host.
    let echo = Echo::listen(&clones[0].folder().join(format!("vsock_{PORT}")))?;
    assert_eq!(clones[0].ask(&format!("/linux-trials {IN_THE_GUEST}"))?, "echoed: hello");
    echo.heard()?;
    // A clone has snapshots of its own, on its parent's disk.
    root.does(&["snapshot", "c-1", "own"])?;
    clones[0].ask("echo later > /data/who")?;
    clones[0].go_back("own")?;
    assert_eq!(clones[0].ask("cat /data/who")?, "c-1");
    root.refuses(&["rm", "web"], "is a linked clone of web@base")?;
    clones.iter().chain([web]).try_for_each(Guest::stop)?;
    // Kept for whoever looks at it with QEMU's tools.
    if let Some(out) = std::env::var_os("OUT") {
        fs::copy(clones[0].folder().join("snapshots/own/disk-1"), Path::new(&out).join("own.qcow2"))?;
        fs::copy(root.folder.path().join("vm/web/snapshots/base/disk-1"), Path::new(&out).join("base.qcow2"))?;
    }
    clones.iter().try_for_each(|clone| root.does(&["rm", &clone.name]).map(drop))
}

/// Verbs are killed, or the machine that they are about, at ten moments: what is listed can be gone on from.
fn killed(root: &Root, web: &Guest) -> Done {
    let verbs: [(&[&str], bool); 7] = [
        (&["snapshot", "web", "k"], true),
        (&["snapshot", "web", "k"], false),
        (&["snapshot", "web", "k", "--diff"], true),
        (&["rm-snapshot", "web", "k"], false),
        (&["stop", "--grace", "0", "web"], false),
        (&["clone", "--full", "web@a", "k"], false),
        (&["rm", "k"], false),
    ];
    for (turn, (words, the_machine)) in verbs.iter().cycle().take(10).enumerate() {
        let of_web = words[0] != "clone" && words[0] != "rm";
        if of_web {
            web.start_from("a")?;
            assert_eq!(web.ask("echo $n $(cat /data/log)")?, "2 base a");
        }
        if words[0] == "rm-snapshot" {
            root.does(&["snapshot", "web", "k"])?;
        }
        if words[0] == "rm" {
            root.does(&["clone", "--full", "web@a", "k"])?;
        }
        let monitor = if of_web { Some(web.pid()?) } else { None };
        let mut caller = root.command(words)?.spawn()?;
        std::thread::sleep(Duration::from_millis([3, 40, 150, 400, 900][turn % 5]));
        match monitor.filter(|_| *the_machine) {
            Some(monitor) => kill(monitor, Signal::SIGKILL)?,
            None => caller.kill()?,
        }
        caller.wait()?;
        let Some(monitor) = monitor else {
            // A full clone has its disk, or it is not there.
            let clone = root.guest("k");
            if clone.folder().exists() {
                clone.start()?;
                assert_eq!(clone.ask("echo $n $(cat /data/log)")?, "2 base a");
                clone.stop()?;
                root.does(&["rm", "k"])?;
            }
            continue;
        };
        let _ = web.stop(); // it may be at its end already
        while Path::new(&format!("/proc/{monitor}")).exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let listed = root.does(&["snapshots", "web"])?;
        let there = |name: &str| listed.split_whitespace().any(|word| word == name);
        assert!(["base", "a", "b"].into_iter().all(there), "{listed}");
        if there("k") {
            web.start_from("k")?;
            assert_eq!(web.ask("echo $n $(cat /data/log)")?, "2 base a");
            web.stop()?;
            root.does(&["rollback", "web", "a"])?;
            root.does(&["rm-snapshot", "web", "k"])?;
        }
    }
    // Whoever comes by next removes what was left.
    root.does(&["rollback", "web", "a"])?;
    let left = fs::read_dir(web.folder().join("snapshots"))?.flatten().map(|entry| entry.file_name());
    assert_eq!(left.filter(|name| name.as_encoded_bytes().starts_with(b".")).count(), 0);
    Ok(())
}

fn full_clone(root: &Root) -> Done {
    root.does(&["clone", "--full", "--address", "10.111.9.3/24", "web@a", "solo"])?;
    root.does(&["rm", "web"])?;
    let solo = root.guest("solo");
    solo.start()?;
    assert_eq!(solo.ask("echo $n $(cat /data/log)")?, "2 base a");
    solo.until("busybox ifconfig eth0", "inet addr:10.111.9.3 ")?;
    solo.stop()?;
    root.does(&["rm", "solo"]).map(drop)
}

fn nothing_is_left(root: &Root) -> Done {
    let left: Vec<_> = fs::read_dir(root.folder.path().join("vm"))?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, [".lock"]);
    let ports = fs::read_dir(format!("/sys/class/net/{BRIDGE}/brif"))?.count();
    assert_eq!(ports, 0, "taps are left");
    Ok(())
}

/// A guest with an image's squashfs as its root, a disk for what it writes, a card on the bridge, and sockets.
fn with_disks_and_net(root: &Root) -> Result<Guest<'_>, Failed> {
    let (kernel, modules) = files().ok_or("no kernel")?;
    let (image, data) = (root_disk().ok_or("no root")?, data_disk().ok_or("no disk for data")?);
    let init = serde_json::json!({
        "root": {"device": "/dev/vda", "filesystem": "squashfs"},
        "mounts": [{"device": "/dev/vdb", "filesystem": "ext4", "at": "/data"}],
    });
    let disks = [format!("{},ro", text(&image)?), text(&data)?.to_owned()];
    let net = format!("bridge={BRIDGE},address=10.111.9.2/24");
    let vsock = format!("9,socket={}", text(&root.folder.path().join("web-vsock"))?);
    let devices = ["--disk", &disks[0], "--disk", &disks[1], "--net", &net, "--vsock", &vsock, "--rng"];
    let options = [&["--memory", "256"], &devices[..]].concat();
    root.create("web", &Made { kernel: &kernel, modules: Some(&modules), init, programs: &[], options: &options })
}

// ---- the host's end ------------------------------------------------------------------------------------------------

/// A bridge; gone with this value.
struct Bridge;

/// `SIOCBRADDBR`, `SIOCBRDELBR`
const ADD: libc::Ioctl = 0x89a0;
const REMOVE: libc::Ioctl = 0x89a1;

impl Bridge {
    fn make() -> Result<Self, Failed> {
        let name = std::ffi::CString::new(BRIDGE)?;
        ask_kernel(ADD, name.as_ptr().cast_mut().cast())?;
        let made = Self;
        switch(true)?;
        Ok(made)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = switch(false);
        if let Ok(name) = std::ffi::CString::new(BRIDGE) {
            let _ = ask_kernel(REMOVE, name.as_ptr().cast_mut().cast());
        }
    }
}

fn switch(on: bool) -> Done {
    // SAFETY: all zeroes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name.iter_mut().zip(BRIDGE.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    request.ifr_ifru.ifru_flags = if on { libc::IFF_UP as libc::c_short } else { 0 };
    ask_kernel(libc::SIOCSIFFLAGS, (&raw mut request).cast())
}

fn ask_kernel(what: libc::Ioctl, argument: *mut libc::c_void) -> Done {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: each request takes what its caller has given: a name, or an `ifreq`, which live over the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), what, argument) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}
