//! What `run` and `create` have in common: docker's flags, and the wishes that they come to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use isolab_runtime::engine::document::Healthcheck;
use isolab_runtime::engine::{
    self, Device, DeviceRule, DiskKind, DiskLimit, Limits, Log, MountKind, MountWish, Restart, Rights, Rotation,
    Seccomp, Sharing, Ulimit, Users, VolumesFrom, WishError, Wishes,
};

use super::network::NetworkFlags;
use crate::voice::Failure;

/// What a container may use at the most: the same for a new one and for one that is there.
#[derive(Args)]
pub(crate) struct LimitFlags {
    /// The most memory it may use
    #[arg(short, long, value_name = "SIZE", value_parser = engine::parse_size)]
    memory: Option<u64>,
    /// The most memory and swap together; -1 for as much swap as there is
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size_or_unlimited)]
    memory_swap: Option<i64>,
    /// What the kernel tries to leave it when memory is short
    #[arg(long, value_name = "SIZE", value_parser = engine::parse_size)]
    memory_reservation: Option<u64>,
    /// How many processors' time it may use, such as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = engine::parse_cpus)]
    cpus: Option<u64>,
    /// How many microseconds of each period it may use processors; -1 for all
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// That period, in microseconds; 100000 is usual
    #[arg(long, value_name = "NUMBER")]
    cpu_period: Option<u64>,
    /// Its weight against others that want processors; 1024 is usual
    #[arg(short, long, value_name = "NUMBER")]
    cpu_shares: Option<u64>,
    /// Which processors it may use, such as 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Which nodes of memory it may use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// How many processes and threads it may have; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
}

impl LimitFlags {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            memory: self.memory.map(|size| size as i64),
            memory_swap: self.memory_swap,
            memory_reservation: self.memory_reservation.map(|size| size as i64),
            nano_cpus: self.cpus,
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids: self.pids_limit,
            disks: Vec::new(),
        }
    }
}

/// How a container shall be.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of docker's")]
pub(crate) struct Flags {
    /// Leave standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Remove the container at its end
    #[arg(long)]
    pub(crate) rm: bool,
    /// The container's name [default: two words]
    #[arg(long)]
    name: Option<String>,
    /// Write the container's id to a file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Whether to fetch the image first
    #[arg(long, default_value = "missing")]
    pub(crate) pull: Pull,
    /// Fetch it without telling how far that is
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Set a variable; a name alone takes the caller's value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set variables, one a line of a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Note something about it
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Note what a file says, one thing a line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Note something for the runtime, in the bundle's configuration
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
    /// Where the program runs
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// As whom it runs
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// A group that it is in besides
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// The program, in place of the image's
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// What the container calls itself
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// Its domain (NIS)
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Let it see a volume, or a file or folder of the host
    #[arg(short, long, value_name = "[HOST|NAME:]CONTAINER[:ro]", value_parser = MountWish::parse_short)]
    volume: Vec<MountWish>,
    /// The same, said at length: type=volume|bind|tmpfs,source=...,target=...,readonly
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = MountWish::parse_long)]
    mount: Vec<MountWish>,
    /// Let it see the volumes of another container
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<VolumesFrom>,
    /// Forbid it to write to its own root
    #[arg(long)]
    read_only: bool,
    /// Give it a folder in memory
    #[arg(long, value_name = "DIR[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// The size of its /dev/shm
    #[arg(long, value_name = "SIZE", value_parser = engine::parse_size)]
    shm_size: Option<u64>,
    #[command(flatten)]
    limits: LimitFlags,
    /// How many bytes a second it may read from a disk
    #[arg(long, value_name = "DISK:RATE")]
    device_read_bps: Vec<String>,
    /// How many bytes a second it may write to a disk
    #[arg(long, value_name = "DISK:RATE")]
    device_write_bps: Vec<String>,
    /// How often a second it may read from a disk
    #[arg(long, value_name = "DISK:NUMBER")]
    device_read_iops: Vec<String>,
    /// How often a second it may write to a disk
    #[arg(long, value_name = "DISK:NUMBER")]
    device_write_iops: Vec<String>,
    /// What follows its end: no, always, on-failure[:N], unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    restart: Restart,
    /// The signal that asks it to end
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// How many seconds it may take to end when asked
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u64>,
    /// What becomes of its output: json-file, or none, which leaves no process of ours beside a detached container
    #[arg(long, value_name = "DRIVER", default_value = "json-file")]
    log_driver: LogDriver,
    /// How long that is: max-size=SIZE begins a new file, max-file=NUMBER keeps so many
    #[arg(long, value_name = "OPTION")]
    log_opt: Vec<String>,
    /// Let a small first process reap what others leave
    #[arg(long)]
    init: bool,
    /// Everything that root may, and all devices
    #[arg(long)]
    privileged: bool,
    /// Give it a capability; ALL for all
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability from it; ALL for all
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// seccomp=FILE, seccomp=unconfined, no-new-privileges
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Limit each of its processes, such as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Ulimit>,
    /// Let it use a device of the host
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]")]
    device: Vec<Device>,
    /// Let it use devices by their numbers, where it makes their files, such as 'c 10:200 rwm'
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<DeviceRule>,
    /// How much sooner than others it is killed when memory runs out, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    oom_score_adj: Option<i32>,
    /// Set a kernel parameter of its namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// Whose process numbers it sees: host, container:NAME
    #[arg(long, value_name = "WHOSE", default_value = "private", hide_default_value = true)]
    pid: Sharing,
    /// Whose queues and shared memory it sees: host, container:NAME (which does not share /dev/shm)
    #[arg(long, value_name = "WHOSE", default_value = "private", hide_default_value = true)]
    ipc: Sharing,
    /// Whose host name it has: host, container:NAME
    #[arg(long, value_name = "WHOSE", default_value = "private", hide_default_value = true)]
    uts: Sharing,
    /// Whose control groups it sees: private, host [default: private, for a privileged one host]
    #[arg(long, value_name = "WHOSE", value_parser = own_or_host)]
    cgroupns: Option<Sharing>,
    /// Whose users it has: host, or auto for its own, which are nobody in particular to the host [default: host]
    #[arg(long, value_name = "WHOSE", value_parser = users)]
    userns: Option<Users>,
    /// A line for the shell that says by its status whether the container works
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// The time between two such checks
    #[arg(long, value_name = "TIME", value_parser = engine::parse_duration)]
    health_interval: Option<u64>,
    /// The time that one may take
    #[arg(long, value_name = "TIME", value_parser = engine::parse_duration)]
    health_timeout: Option<u64>,
    /// The time in which failures don't count
    #[arg(long, value_name = "TIME", value_parser = engine::parse_duration)]
    health_start_period: Option<u64>,
    /// The time between two checks while failures don't count
    #[arg(long, value_name = "TIME", value_parser = engine::parse_duration)]
    health_start_interval: Option<u64>,
    /// How many failures in a row are one
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u64>,
    /// Do without the image's own check
    #[arg(long, conflicts_with = "health_cmd")]
    no_healthcheck: bool,
    /// Print this
    // Without a letter: docker's -h is the host name.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    network: NetworkFlags,
    /// The image's name or id, and what to run in place of the image's command
    // Both in one: all behind the first word is the program's, also what looks like a flag of ours, such as `-c`.
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    words: Vec<String>,
}

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pull {
    Missing,
    Always,
    Never,
}

/// Clap wants a default that can be printed.
#[derive(Debug, Clone, Copy)]
struct LogDriver(Log);

impl std::str::FromStr for LogDriver {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, WishError> {
        text.parse().map(Self)
    }
}

fn own_or_host(text: &str) -> Result<Sharing, WishError> {
    match text.parse()? {
        Sharing::Container(_) => Err(WishError { text: text.to_owned(), expected: "host or private" }),
        other => Ok(other),
    }
}

/// docker's word, and podman's for what docker's engine does for all containers or for none.
fn users(text: &str) -> Result<Users, WishError> {
    match text {
        "" | "host" => Ok(Users::Host),
        "auto" => Ok(Users::Own),
        _ => Err(WishError { text: text.to_owned(), expected: "host or auto; isolab-oci maps users as a bundle says" }),
    }
}

pub(crate) fn size_or_unlimited(text: &str) -> Result<i64, WishError> {
    if text == "-1" { Ok(-1) } else { engine::parse_size(text).map(|size| size as i64) }
}

impl Flags {
    /// The image's name or id.
    pub(crate) fn image(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    pub(crate) fn wishes(&self) -> Result<Wishes, Failure> {
        if self.rm && self.restart != Restart::No {
            let text = format!("--rm --restart {}", self.restart);
            return Err(WishError { text, expected: "one of the two: what is removed is not started again" }.into());
        }
        let mounts = self.volume.iter().chain(&self.mount);
        let (in_memory, volumes): (Vec<_>, Vec<_>) = mounts.cloned().partition(|it| it.kind == MountKind::Tmpfs);
        let entrypoint = self.entrypoint.as_ref().map(|program| {
            let word = Some(program.clone()).filter(|program| !program.is_empty());
            word.into_iter().collect()
        });
        let folders = self.tmpfs.iter().map(|text| {
            let (place, options) = text.split_once(':').unwrap_or((text, ""));
            (place.to_owned(), options.to_owned())
        });
        let in_memory = in_memory.into_iter().map(|mut wish| {
            if wish.read_only {
                wish.options = [wish.options.as_str(), "ro"].join(if wish.options.is_empty() { "" } else { "," });
            }
            (wish.target.display().to_string(), wish.options)
        });
        let (network, networking) = self.network.wishes()?;
        Ok(Wishes {
            name: self.name.clone(),
            command: self.words.iter().skip(1).cloned().collect(),
            entrypoint,
            environment: environment(&self.env_file, &self.env)?,
            folder: self.workdir.clone(),
            user: self.user.clone(),
            groups: self.group_add.clone(),
            hostname: self.hostname.clone(),
            domainname: self.domainname.clone(),
            volumes,
            volumes_from: self.volumes_from.clone(),
            mounts: Vec::new(),
            read_only: self.read_only,
            network,
            networking,
            terminal: self.tty,
            interactive: self.interactive,
            remove: self.rm,
            labels: self.labels()?,
            annotations: pairs(&self.annotation),
            restart: self.restart,
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            log: self.log_driver.0,
            rotation: self.rotation()?,
            limits: Limits { disks: self.disks()?, ..self.limits.limits() },
            rights: self.rights()?,
            tmpfs: folders.chain(in_memory).collect(),
            shm_size: self.shm_size,
            sysctls: pairs(&self.sysctl),
            pid: self.pid.clone(),
            ipc: self.ipc.clone(),
            uts: self.uts.clone(),
            cgroup: self.cgroupns.clone(),
            users: self.userns.unwrap_or_default(),
            init: self.init,
            health: self.health(),
        })
    }

    /// The files' notes first: what the command line says holds.
    fn labels(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut lines = Vec::new();
        for path in &self.label_file {
            let read = std::fs::read_to_string(path);
            let text = read.map_err(|source| Failure::Read { from: path.display().to_string(), source })?;
            let meant = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            lines.extend(meant.map(str::to_owned));
        }
        lines.extend(self.label.iter().cloned());
        Ok(pairs(&lines))
    }

    fn rotation(&self) -> Result<Option<Rotation>, WishError> {
        if self.log_driver.0 == Log::None && !self.log_opt.is_empty() {
            let text = self.log_opt.join(" ");
            return Err(WishError { text, expected: "no --log-opt beside --log-driver none: there is no log" });
        }
        Rotation::parse(&self.log_opt)
    }

    fn disks(&self) -> Result<Vec<DiskLimit>, WishError> {
        let all = [
            (DiskKind::ReadBytes, &self.device_read_bps),
            (DiskKind::WriteBytes, &self.device_write_bps),
            (DiskKind::Reads, &self.device_read_iops),
            (DiskKind::Writes, &self.device_write_iops),
        ];
        let each = all.iter().flat_map(|(kind, texts)| texts.iter().map(|text| DiskLimit::parse(*kind, text)));
        each.collect()
    }

    fn rights(&self) -> Result<Rights, Failure> {
        let mut rights = Rights {
            privileged: self.privileged,
            add: self.cap_add.clone(),
            drop: self.cap_drop.clone(),
            no_new_privileges: false,
            seccomp: Seccomp::Default,
            ulimits: self.ulimit.clone(),
            devices: self.device.clone(),
            device_rules: self.device_cgroup_rule.clone(),
            oom_score: self.oom_score_adj,
        };
        for option in &self.security_opt {
            match option.split_once(['=', ':']).unwrap_or((option, "")) {
                ("no-new-privileges", "" | "true") => rights.no_new_privileges = true,
                ("no-new-privileges", "false") => rights.no_new_privileges = false,
                ("seccomp", "unconfined") => rights.seccomp = Seccomp::Unconfined,
                ("seccomp", "builtin" | "default") => rights.seccomp = Seccomp::Default,
                ("seccomp", file) if !file.is_empty() => rights.seccomp = engine::read_seccomp(file.as_ref())?,
                _ => {
                    let expected = "seccomp=FILE, seccomp=unconfined or no-new-privileges";
                    return Err(WishError { text: option.clone(), expected }.into());
                }
            }
        }
        Ok(rights)
    }

    fn health(&self) -> Option<Healthcheck> {
        if self.no_healthcheck {
            return Some(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() });
        }
        let check = Healthcheck {
            test: self.health_cmd.iter().flat_map(|line| ["CMD-SHELL".to_owned(), line.clone()]).collect(),
            interval: self.health_interval.unwrap_or(0),
            timeout: self.health_timeout.unwrap_or(0),
            start_period: self.health_start_period.unwrap_or(0),
            start_interval: self.health_start_interval.unwrap_or(0),
            retries: self.health_retries.unwrap_or(0),
        };
        (check != Healthcheck::default()).then_some(check)
    }
}

/// `NAME=VALUE`, or a name alone for an empty value.
fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    };
    texts.iter().map(pair).collect()
}

/// Variables of files and of the command line, in this order.
pub(crate) fn environment(files: &[PathBuf], words: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let mut environment = Vec::new();
    for path in files {
        environment.extend(engine::read_environment(path)?);
    }
    for pair in words {
        match pair.split_once('=') {
            Some(("", _)) => return Err(WishError { text: pair.clone(), expected: "NAME=VALUE, with a name" }.into()),
            Some((name, value)) => environment.push((name.to_owned(), value.to_owned())),
            None => environment.extend(std::env::var(pair).ok().map(|value| (pair.clone(), value))),
        }
    }
    Ok(environment)
}
