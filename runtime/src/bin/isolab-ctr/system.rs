//! `system`, `info` and `version`: what there is in all, and on what.

use clap::{Args, Subcommand};
use isolab_runtime::container::cgroup;
use isolab_runtime::engine::{DiskUsage, Engine, Share, State};
use serde_json::{Map, Value, json};

use crate::format::{Listing, documents, row};
use crate::print;
use crate::voice::Failure;

#[derive(Subcommand)]
#[command(after_help = "Besides: `system info` is `info`, `system events` is `events`.")]
pub(crate) enum Verb {
    /// Show what images, containers and volumes take on the disk
    Df {
        /// By a template, or `json`
        #[arg(long)]
        format: Option<String>,
    },
    /// Remove containers that don't run, networks and images that nobody uses, and what killed commands left
    Prune {
        /// Also volumes without a name that no container has
        #[arg(long)]
        volumes: bool,
        /// For docker's scripts: nothing is asked
        #[arg(short, long)]
        force: bool,
    },
}

/// Tell on what containers run, and how many there are
#[derive(Args)]
pub(crate) struct Info {
    /// By a template, or `json`
    #[arg(short, long)]
    format: Option<String>,
}

/// Tell which version this is, and of what it stands on
#[derive(Args)]
pub(crate) struct Version {
    /// By a template, or `json`
    #[arg(short, long)]
    format: Option<String>,
}

pub(crate) fn obey(verb: &Verb, engine: &Engine) -> Result<u8, Failure> {
    match verb {
        Verb::Df { format } => {
            let usage = engine.disk_usage()?;
            let columns = &[
                ("Type", "TYPE"),
                ("TotalCount", "TOTAL"),
                ("Active", "ACTIVE"),
                ("Size", "SIZE"),
                ("Reclaimable", "RECLAIMABLE"),
            ];
            Listing { columns, more: &[], rows: rows(&usage) }.print(format.as_deref())?;
        }
        Verb::Prune { volumes, .. } => {
            let (removed, mut bytes) = engine.prune_containers(|_| true)?;
            let lines: String = removed.iter().flat_map(|id| ["Deleted: container ", id.as_str(), "\n"]).collect();
            print::text(&lines)?;
            crate::network::prune(engine)?;
            if *volumes {
                let (removed, freed) = engine.prune_volumes(false)?;
                let lines: String = removed.iter().flat_map(|name| ["Deleted: volume ", name.as_str(), "\n"]).collect();
                print::text(&lines)?;
                bytes += freed;
            }
            print::text(&format!("Space reclaimed by them: {}\n", print::size(bytes)))?;
            crate::images::prune(engine, false)?;
        }
    }
    Ok(0)
}

fn rows(usage: &DiskUsage) -> Vec<Map<String, Value>> {
    let one = |name: &str, share: &Share| {
        let percent = (share.reclaimable * 100).checked_div(share.bytes).unwrap_or(0);
        row(&[
            ("Type", name.to_owned()),
            ("TotalCount", share.total.to_string()),
            ("Active", share.active.to_string()),
            ("Size", print::size(share.bytes)),
            ("Reclaimable", format!("{} ({percent}%)", print::size(share.reclaimable))),
        ])
    };
    vec![one("Images", &usage.images), one("Containers", &usage.containers), one("Local Volumes", &usage.volumes)]
}

impl Info {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let records = engine.list()?;
        let states = records.iter().map(|record| engine.state(record)).collect::<Result<Vec<_>, _>>()?;
        let count = |wanted: &dyn Fn(State) -> bool| states.iter().filter(|state| wanted(**state)).count();
        let images = engine.store().names()?.len();
        let (kernel, version) = (kernel(), cgroup_version());
        let (processors, memory) = (processors(), memory());
        let networks = engine.networks().list()?.len();
        let all = json!({
            "Containers": records.len(),
            "ContainersRunning": count(&|state| state == State::Running),
            "ContainersPaused": count(&|state| state == State::Paused),
            "ContainersStopped": count(&|state| !state.is_up()),
            "Images": images,
            "Networks": networks,
            "Driver": "overlay",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": version,
            "KernelVersion": kernel,
            "OperatingSystem": system(),
            "OSType": "linux",
            "Architecture": std::env::consts::ARCH,
            "NCPU": processors,
            "MemTotal": memory,
            "DockerRootDir": engine.store().root(),
            "RunRootDir": engine.run_root(),
            "Rootless": !nix::unistd::geteuid().is_root(),
            "ServerVersion": env!("CARGO_PKG_VERSION"),
        });
        if self.format.is_some() {
            return one(self.format.as_deref(), all);
        }
        let text = |key: &str| all[key].as_str().map_or_else(|| all[key].to_string(), str::to_owned);
        let lines = [
            ("Containers", text("Containers")),
            (" Running", text("ContainersRunning")),
            (" Paused", text("ContainersPaused")),
            (" Stopped", text("ContainersStopped")),
            ("Images", text("Images")),
            ("Networks", text("Networks")),
            ("Version", text("ServerVersion")),
            ("Storage driver", text("Driver")),
            ("Cgroup driver", text("CgroupDriver")),
            ("Cgroup version", text("CgroupVersion")),
            ("Kernel version", text("KernelVersion")),
            ("Operating system", text("OperatingSystem")),
            ("Architecture", text("Architecture")),
            ("CPUs", text("NCPU")),
            ("Total memory", print::binary_size(memory)),
            ("Rootless", text("Rootless")),
            ("Root", text("DockerRootDir")),
            ("Run root", text("RunRootDir")),
        ];
        let lines = lines.iter().map(|(name, value)| format!("{name}: {value}"));
        print::text(&(lines.collect::<Vec<_>>().join("\n") + "\n"))?;
        Ok(0)
    }
}

impl Version {
    pub(crate) fn obey(&self) -> Result<u8, Failure> {
        let all = json!({ "Client": {
            "Version": env!("CARGO_PKG_VERSION"), "Os": "linux", "Arch": std::env::consts::ARCH, "KernelVersion": kernel(),
        }});
        if self.format.is_some() {
            return one(self.format.as_deref(), all);
        }
        let version = env!("CARGO_PKG_VERSION");
        print::text(&format!(
            "isolab-ctr {version}\n OS/Arch:   linux/{}\n Kernel:    {}\n Server:    none: each command does its work itself\n",
            std::env::consts::ARCH,
            kernel()
        ))?;
        Ok(0)
    }
}

/// One document: by a template, or as JSON in one line.
fn one(format: Option<&str>, document: Value) -> Result<u8, Failure> {
    match format {
        Some("json") => print::text(&format!("{document}\n"))?,
        format => documents(format, vec![document])?,
    }
    Ok(0)
}

fn kernel() -> String {
    nix::sys::utsname::uname().map(|it| it.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Of the host, by its own name (os-release(5)).
fn system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// In bytes (proc(5), meminfo).
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

/// 2 where that is all there is, as docker counts: a host that has both is one of version 1.
fn cgroup_version() -> &'static str {
    let unified = cgroup::Layout::detect().is_ok_and(|layout| layout.flavour() == cgroup::Flavour::V2);
    if unified { "2" } else { "1" }
}
