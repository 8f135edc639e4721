//! A real service behind a mapped port, under load, while its log is followed and what is told of its use is held against
//! the kernel's own files.
//!
//! For some seconds, with the host's redis in an image; by hand as long as `ISOLAB_SECONDS` says, with a whole
//! distribution's file system from the archive that `ISOLAB_SERVICE_TAR` names, such as Debian by debootstrap:
//!
//! ```text
//! debootstrap --variant=minbase --include=redis-server bookworm debian && tar -C debian -cf debian.tar .
//! ISOLAB_SECONDS=600 ISOLAB_SERVICE_TAR=$PWD/debian.tar cargo test -p isolab-runtime --test network -- a_service
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::checks::{has, same, text, wait_within};
use super::engine::{CTR, Shop};
use super::lab::run;
use super::needs;

const SECONDS: u64 = 4;
/// Of one call of redis-benchmark.
const REQUESTS: u64 = 100_000;

pub(crate) fn trials() -> Vec<Trial> {
    let needs = ["root", "overlay", "cgroup", "ip", "nft", "redis-server", "redis-benchmark", "ldd"];
    vec![needs::trial("a_service_behind_a_mapped_port_bears_load_and_is_told_of_rightly", &needs, service)]
}

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The host's program with the libraries that it wants, as an image's files.
pub(crate) fn collect(root: &Path, program: &Path) -> Result<(), Failed> {
    let listed = run(&["ldd", &program.display().to_string()])?;
    let libraries = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    for file in libraries.map(Path::new).chain([program]) {
        let to = root.join(file.strip_prefix("/")?);
        fs::create_dir_all(to.parent().ok_or("no folder")?)?;
        fs::copy(file, to)?;
    }
    for folder in ["tmp", "etc", "data"] {
        fs::create_dir_all(root.join(folder))?;
    }
    Ok(())
}

fn image(shop: &Shop) -> Result<String, Failed> {
    let server = needs::on_path("redis-server").ok_or("no redis-server")?;
    let archive = if let Some(archive) = std::env::var_os("ISOLAB_SERVICE_TAR") {
        PathBuf::from(archive)
    } else {
        let (root, archive) = (shop.lab.path("service"), shop.lab.path("service.tar"));
        collect(&root, &server)?;
        run(&["tar", "-C", &root.display().to_string(), "-cf", &archive.display().to_string(), "."])?;
        archive
    };
    shop.ok(&["import", &archive.display().to_string(), "service"])?;
    Ok(server.display().to_string())
}

struct Followed(Child);

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn service() -> Result<(), Failed> {
    let shop = Shop::empty()?;
    let server = image(&shop)?;
    let flags = ["run", "-d", "--name", "redis", "-p", "127.0.0.1::6379", "-m", "256m", "--cpus", "1.5"];
    let words = [&server, "--save", "", "--loglevel", "verbose", "--protected-mode", "no", "--dir", "/tmp"];
    shop.ok(&[&flags[..], &["service"], &words].concat())?;
    let port = shop.ok(&["port", "redis", "6379"])?;
    let port = port.rsplit(':').next().ok_or("no port")?.to_owned();
    let heard = shop.lab.path("followed");
    let mut follower = Command::new(CTR);
    follower.arg("--root").arg(shop.lab.path(shop.root)).args(["logs", "-f", "redis"]).stdin(Stdio::null());
    let mut follower = Followed(follower.stdout(fs::File::create(&heard)?).spawn()?);
    wait_within(Duration::from_secs(20), Duration::from_millis(20), "the service to listen", || {
        fs::read_to_string(&heard).is_ok_and(|text| text.contains("Ready to accept connections"))
    })?;
    let (begin, until) = (Instant::now(), Duration::from_secs(number("ISOLAB_SECONDS", SECONDS)));
    let (mut asked, mut looks, mut slowest) = (0, 0, f64::INFINITY);
    while begin.elapsed() < until {
        let rate = thread::scope(|scope| -> Result<f64, Failed> {
            let asking = scope.spawn(|| load(&port));
            compare(&shop)?;
            asking.join().map_err(|_| Failed::from("a panic"))?
        })?;
        slowest = slowest.min(rate);
        asked += 2 * REQUESTS;
        looks += 1;
    }
    let time = begin.elapsed().as_secs_f64();
    shop.ok(&["stop", "-t", "10", "redis"])?;
    same(shop.ok(&["inspect", "-f", "{{.State.ExitCode}} {{.State.OOMKilled}}", "redis"])?.as_str(), "0 false")?;
    same(follower.0.wait()?.success(), true)?;
    let (told, kept) = (fs::read_to_string(&heard)?, shop.ok(&["logs", "redis"])?);
    same((told.lines().count(), told.trim_end() == kept), (kept.lines().count(), true))?;
    has(&kept, "Redis is now ready to exit")?;
    println!(
        "{asked} requests in {time:.0} s ({:.0} a second, at least {slowest:.0} in a round), no error; {} lines of log \
         followed; stats right {looks} times",
        asked as f64 / time,
        told.lines().count(),
    );
    shop.ok(&["rm", "redis"])?;
    Shop::is_clean()
}

/// Asks many times, and answers how often a second.
fn load(port: &str) -> Result<f64, Failed> {
    let requests = REQUESTS.to_string();
    let words = ["-h", "127.0.0.1", "-p", port, "-c", "50", "-n", &requests, "-t", "set,get", "--csv"];
    let output = Command::new("redis-benchmark").args(words).stdin(Stdio::null()).output()?;
    let (told, complaint) = (text(&output.stdout), text(&output.stderr));
    same((output.status.success(), complaint.as_str()), (true, ""))?;
    same(told.to_lowercase().contains("error"), false)?;
    let rate = |line: &str| line.split(',').nth(1).and_then(|field| field.trim_matches('"').parse::<f64>().ok());
    let rates: Vec<f64> = told.lines().filter_map(rate).collect();
    same(rates.len(), 2)?;
    Ok(rates.into_iter().fold(f64::INFINITY, f64::min))
}

/// Holds `stats` against the files of the container's cgroup, read before it and after it.
fn compare(shop: &Shop) -> Result<(), Failed> {
    let pid: i32 = shop.ok(&["inspect", "-f", "{{.State.Pid}}", "redis"])?.parse()?;
    let (before, began) = (Counts::read(pid)?, Instant::now());
    let told: Value = serde_json::from_str(&shop.ok(&["stats", "--no-stream", "--format", "json", "redis"])?)?;
    let (after, took) = (Counts::read(pid)?, began.elapsed().as_secs_f64());
    let field = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    let mib: f64 = field("MemUsage").split("MiB").next().and_then(|text| text.parse().ok()).ok_or(told.to_string())?;
    let bounds = [before.memory, after.memory].map(|bytes| bytes as f64 / f64::from(1 << 20));
    let (low, high) = (bounds[0].min(bounds[1]) * 0.97 - 0.2, bounds[0].max(bounds[1]) * 1.03 + 0.2);
    assert!((low..=high).contains(&mib), "{mib} MiB are told, the kernel counts {bounds:?}");
    same(field("PIDs").parse::<u64>()?, after.processes)?;
    let percent: f64 = field("CPUPerc").trim_end_matches('%').parse()?;
    // Told is the use of one second within the time between our two looks.
    let used = (after.cpu - before.cpu) as f64 / 1e9;
    assert!(percent / 100.0 <= used + 0.05 && percent <= 160.0, "{percent} % are told, {used} s of {took} were used");
    Ok(())
}

/// What the kernel's files say, of either version.
struct Counts {
    memory: u64,
    processes: u64,
    /// In nanoseconds.
    cpu: u64,
}

impl Counts {
    fn read(pid: i32) -> Result<Self, Failed> {
        let folder = |controller: &str| cgroup(pid, controller);
        let file = |controller: &str, names: [&str; 2]| -> Result<String, Failed> {
            let folder = folder(controller)?;
            let found = names.iter().find_map(|name| fs::read_to_string(folder.join(name)).ok());
            Ok(found.ok_or_else(|| format!("none of {names:?} in {}", folder.display()))?)
        };
        let field = |text: &str, names: [&str; 2]| {
            let find =
                |name: &&str| text.lines().find_map(|line| line.strip_prefix(*name)?.strip_prefix(' ')?.parse().ok());
            names.iter().find_map(find).unwrap_or(0_u64)
        };
        let used: u64 = file("memory", ["memory.usage_in_bytes", "memory.current"])?.trim().parse()?;
        let inactive =
            field(&file("memory", ["memory.stat", "memory.stat"])?, ["total_inactive_file", "inactive_file"]);
        let cpu = file("cpuacct", ["cpuacct.usage", "cpu.stat"])?;
        Ok(Self {
            memory: used.saturating_sub(inactive),
            processes: file("pids", ["pids.current", "pids.current"])?.trim().parse()?,
            cpu: cpu.trim().parse().unwrap_or_else(|_| field(&cpu, ["usage_usec", "usage_usec"]) * 1000),
        })
    }
}

/// The folder of a process's cgroup for a controller.
fn cgroup(pid: i32, controller: &str) -> Result<PathBuf, Failed> {
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let line = |wanted: &dyn Fn(&str) -> bool| {
        own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            wanted(controllers).then(|| (controllers.to_owned(), path.to_owned()))
        })
    };
    let found = line(&|all| all.split(',').any(|one| one == controller)).or_else(|| line(&str::is_empty));
    let (controllers, path) = found.ok_or("no cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let fits = match *fields.get(2)? {
            "cgroup" => fields.get(3)?.split(',').any(|option| option == controller),
            "cgroup2" => controllers.is_empty(),
            _ => false,
        };
        fits.then(|| PathBuf::from(fields[1]))
    });
    Ok(mount.ok_or("no mount")?.join(path.trim_start_matches('/')))
}
