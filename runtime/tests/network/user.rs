//! An ordinary user's container: pasta or slirp4netns carries the packets.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use isolab_runtime::network::{Carrier, PortWish};
use libtest_mimic::{Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::checks::{same, wait_within};
use super::lab::{Lab, ask, run};
use super::needs;

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, program: &'static str| {
        // In a thread that ends with it: the mount over /dev/net/tun would stay for the next trial of the pool's thread, and nothing
        // can be mounted over a file that is gone by then.
        let apart = move || std::thread::spawn(move || published(program)).join().map_err(|_| "it panicked")?;
        needs::trial(name, &["root", "ip", program, "userns", "busybox"], apart)
    };
    vec![
        trial("pasta_leads_a_port_to_an_ordinary_users_container", "pasta"),
        trial("slirp4netns_leads_a_port_to_an_ordinary_users_container", "slirp4netns"),
    ]
}

/// Lets everybody use /dev/net/tun, as distributions do, for this thread and what it starts: a device of the same numbers,
/// in a mount namespace that is gone with them.
fn open_tun(lab: &Lab) -> Result<(), Failed> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let device = lab.path("tun");
    let mode = Mode::from_bits_truncate(0o666);
    mknod(&device, SFlag::S_IFCHR, mode, makedev(10, 200))?;
    std::fs::set_permissions(&device, std::fs::Permissions::from_mode(0o666))?;
    Ok(mount(Some(&device), "/dev/net/tun", none, MsFlags::MS_BIND, none)?)
}

/// Killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn published(program: &str) -> Result<(), Failed> {
    let (lab, _world) = Lab::with_world()?;
    // What pasta takes the container's address from.
    run(&["ip", "route", "add", "default", "via", "192.0.2.2"])?;
    open_tun(&lab)?;
    // A container as far as the network goes: namespaces of an ordinary user's, and a server inside.
    let server =
        ["--user", "--map-root-user", "--net", "busybox", "nc", "-l", "-p", "80", "-e", "busybox", "head", "-c", "1"];
    let mut command = Command::new("unshare");
    command.args(server).stdin(Stdio::null());
    let inside = Killed(command.uid(65534).gid(65534).spawn()?);
    let pid = inside.0.id() as i32;
    // A server of both kinds of addresses is listed with those of IPv6.
    let tables = ["tcp", "tcp6"].map(|name| format!("/proc/{pid}/net/{name}"));
    wait_within(Duration::from_secs(10), Duration::from_millis(5), "the server to listen", || {
        tables.iter().any(|path| std::fs::read_to_string(path).is_ok_and(|table| table.contains(":0050 ")))
    })?;
    // Called by root, pasta becomes nobody before it writes its number down.
    let folder = lab.path("notes");
    std::fs::create_dir(&folder)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
    std::fs::set_permissions(lab.path(""), std::fs::Permissions::from_mode(0o755))?;
    let carrier = Carrier::named(program)?;
    let (process, ports) = carrier.serve(pid, &PortWish::parse("127.0.0.1::80")?, &folder.join("note"))?;
    let answer = ask(Ipv4Addr::LOCALHOST, ports[0].host_port);
    drop(inside);
    Carrier::end(&process);
    wait_within(Duration::from_secs(10), Duration::from_millis(5), "it to end", || !process.is_alive())?;
    same(std::fs::read_dir(&folder)?.count(), 0)?;
    same(answer?.as_str(), "?")
}
