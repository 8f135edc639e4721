//! How much a published port carries, beside docker's: one stream from another host, by iperf3, in turn.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::checks::wait_within;
use super::engine::Shop;
use super::lab::{Lab, inside, run};
use super::needs;
use super::service::collect;

/// What we must carry of what docker does.
const SHARE: f64 = 0.8;
/// Times in turn; more where the machine was busy, since the best one of each counts.
const ROUNDS: usize = 3;
const MOST_ROUNDS: usize = 9;
/// Ports of the host that lead to docker's server and to ours.
const DOCKERS: u16 = 5301;
const OURS: u16 = 5302;

pub(crate) fn trials() -> Vec<Trial> {
    let needs = ["root", "overlay", "cgroup", "ip", "nft", "docker", "dockerd", "iperf3", "ldd"];
    vec![needs::trial("a_published_port_carries_nearly_what_dockers_does", &needs, through)]
}

/// docker on the trial's own host. Dropped, it ends, and what it mounted goes with it.
struct Daemon {
    child: Child,
    folder: PathBuf,
}

impl Daemon {
    fn start(folder: PathBuf) -> Result<Self, Failed> {
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("daemon.json"), "{}")?;
        let log = File::create(folder.join("log"))?;
        let mut command = Command::new("dockerd");
        command.args(["--bip", "172.31.77.1/24", "--storage-driver=vfs", "--default-ulimit", "nofile=1024:1024"]);
        command.arg("--host").arg(format!("unix://{}", folder.join("sock").display()));
        command.arg("--cgroup-parent").arg(format!("/{}", cgroup()));
        for (option, name) in
            [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid"), ("--config-file", "daemon.json")]
        {
            command.arg(option).arg(folder.join(name));
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let daemon = Self { child, folder };
        let up = wait_within(Duration::from_secs(30), Duration::from_millis(100), "dockerd", || {
            daemon.docker(&["version"]).is_ok()
        });
        up.map_err(|_| std::fs::read_to_string(daemon.folder.join("log")).unwrap_or_default())?;
        Ok(daemon)
    }

    fn docker(&self, words: &[&str]) -> Result<String, Failed> {
        let socket = format!("unix://{}", self.folder.join("sock").display());
        run(&[&["docker", "--host", &socket], words].concat())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.docker(&["rm", "-f", "server"]);
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let ended = wait_within(Duration::from_secs(20), Duration::from_millis(50), "dockerd's end", || {
            matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
        });
        if ended.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // docker leaves the one above those of its containers: at the root of version 2, or in each tree of version 1.
        let trees = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        for tree in trees.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let _ = std::fs::remove_dir(tree.join(cgroup()));
        }
    }
}

/// The cgroup of docker's containers.
fn cgroup() -> String {
    format!("isolab-through-{}", std::process::id())
}

fn through() -> Result<(), Failed> {
    let (lab, world) = Lab::with_world()?;
    let shop = Shop { lab, root: "root" };
    let server = needs::on_path("iperf3").ok_or("no iperf3")?;
    let (root, archive) = (shop.lab.path("files"), shop.lab.path("files.tar").display().to_string());
    collect(&root, &server)?;
    run(&["tar", "-C", &root.display().to_string(), "-cf", &archive, "."])?;
    let words = [&server.display().to_string(), "-s"];
    let daemon = Daemon::start(shop.lab.path("docker"))?;
    daemon.docker(&["import", &archive, "iperf"])?;
    let to = format!("{DOCKERS}:5201");
    daemon.docker(&[&["run", "-d", "--name", "server", "-p", &to, "iperf"], &words[..]].concat())?;
    shop.ok(&["import", &archive, "iperf"])?;
    let to = format!("{OURS}:5201");
    shop.ok(&[&["run", "-d", "--name", "server", "-p", &to, "iperf"], &words[..]].concat())?;
    let (mut dockers, mut ours) = (0.0_f64, 0.0_f64);
    for round in 0..MOST_ROUNDS {
        if round >= ROUNDS && ours >= SHARE * dockers {
            break;
        }
        dockers = dockers.max(stream(&world, DOCKERS)?);
        ours = ours.max(stream(&world, OURS)?);
    }
    println!("one stream through a published port: {ours:.1} Gbit/s, docker's {dockers:.1} ({:.2})", ours / dockers);
    assert!(ours >= SHARE * dockers, "{ours} Gbit/s, docker's {dockers}");
    shop.ok(&["rm", "-f", "server"])?;
    drop(daemon);
    Ok(())
}

/// A second's stream from the other host, in Gbit/s as they arrive.
fn stream(world: &OwnedFd, port: u16) -> Result<f64, Failed> {
    let port = port.to_string();
    let words = ["iperf3", "-c", "192.0.2.1", "-p", &port, "-t", "1", "-J"];
    let mut told = None;
    // A server that has just begun does not listen yet.
    wait_within(Duration::from_secs(20), Duration::from_millis(100), "a stream", || {
        told = inside(world, || run(&words)).ok();
        told.is_some()
    })?;
    let told: Value = serde_json::from_str(&told.unwrap_or_default())?;
    let bits = told["end"]["sum_received"]["bits_per_second"].as_f64().ok_or("no rate")?;
    Ok(bits / 1e9)
}
