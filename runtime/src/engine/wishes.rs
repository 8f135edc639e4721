//! What a user wants otherwise than the image has it: kept with the container, since it is wanted at every start.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::Healthcheck;
use super::limits::Limits;
use super::log_file::Rotation;
use super::networking::Networking;
use super::users::Users;
use super::volumes::{MountWish, VolumesFrom};

/// How a container sees the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Only itself.
    #[default]
    None,
    /// As the host does: nothing is kept apart.
    Host,
    /// Through a bridge, in the networks of [`Networking`].
    Bridge,
    /// As another container does: that of [`Networking`].
    Container,
}

/// A file or folder of the host that a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the host.
    pub from: PathBuf,
    /// In the container.
    pub to: PathBuf,
    /// Whether it may only be read.
    pub read_only: bool,
    /// The volume that it is, if it is one.
    #[serde(default)]
    pub volume: Option<String>,
}

/// All that can be wanted. What is not said is as the image, or docker's habit, has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line, and none implies another")]
pub struct Wishes {
    /// The container's name.
    pub name: Option<String>,
    /// What to run in place of the image's command.
    pub command: Vec<String>,
    /// What to run it with in place of the image's entry point.
    pub entrypoint: Option<Vec<String>>,
    /// Variables to set.
    pub environment: Vec<(String, String)>,
    /// Where the program runs.
    pub folder: Option<String>,
    /// As whom.
    pub user: Option<String>,
    /// Groups that its program is in besides, by name or number.
    pub groups: Vec<String>,
    /// What the container calls itself.
    pub hostname: Option<String>,
    /// Its domain, as setdomainname(2) means it.
    pub domainname: Option<String>,
    /// What it sees of the host's files, once that is decided.
    pub mounts: Vec<Mount>,
    /// Volumes, and files of the host, that it shall see.
    pub volumes: Vec<MountWish>,
    /// Containers whose mounts it shall have, too.
    pub volumes_from: Vec<VolumesFrom>,
    /// Whether its root can only be read.
    pub read_only: bool,
    /// Its network.
    pub network: Network,
    /// What it shall have there.
    pub networking: Networking,
    /// Whether its program gets a terminal.
    pub terminal: bool,
    /// Whether its standard input stays open.
    pub interactive: bool,
    /// Whether it is removed at its end.
    pub remove: bool,
    /// Notes.
    pub labels: BTreeMap<String, String>,
    /// Notes for the runtime, in the bundle's configuration.
    pub annotations: BTreeMap<String, String>,
    /// What follows its end.
    pub restart: Restart,
    /// What asks it to end.
    pub stop_signal: Option<String>,
    /// How long it may take to end when asked, in seconds.
    pub stop_timeout: Option<u64>,
    /// What becomes of what it prints.
    pub log: Log,
    /// When that is continued in a new file; never, where nothing is said.
    pub rotation: Option<Rotation>,
    /// What it may use.
    pub limits: Limits,
    /// What it may do.
    pub rights: Rights,
    /// Folders of its own in memory: where, and with which options of tmpfs(5).
    pub tmpfs: BTreeMap<String, String>,
    /// The size of its /dev/shm, in bytes.
    pub shm_size: Option<u64>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Whose process numbers it sees.
    pub pid: Sharing,
    /// Whose queues and shared memory it sees.
    pub ipc: Sharing,
    /// Whose host name it has.
    pub uts: Sharing,
    /// Whose control groups it sees; its own, unless it is privileged, where nothing is said.
    pub cgroup: Option<Sharing>,
    /// Whose users it has.
    pub users: Users,
    /// Whether a small first process reaps what others leave.
    pub init: bool,
    /// How to see whether it works; `["NONE"]` for not at all.
    pub health: Option<Healthcheck>,
}

/// What follows a container's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Restart {
    /// Nothing.
    #[default]
    No,
    /// It is started again, unless somebody stopped it.
    Always,
    /// As `Always`; the two differ only for an engine that starts containers at boot, which this one does not.
    UnlessStopped,
    /// It is started again where its status was not 0; so many times, or without end where no number is said.
    OnFailure(Option<u32>),
}

/// What becomes of what a container prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Log {
    /// It is kept, line by line, with the time.
    #[default]
    #[serde(rename = "json-file")]
    Json,
    /// Nobody reads it.
    #[serde(rename = "none")]
    None,
}

/// Whose view of something a container has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Sharing {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another container, by name or id.
    Container(String),
}

/// A text that means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not understood: {expected}")]
pub struct WishError {
    /// As given.
    pub text: String,
    /// What could stand there.
    pub expected: &'static str,
}

pub(super) fn refused<T>(text: &str, expected: &'static str) -> Result<T, WishError> {
    Err(WishError { text: text.to_owned(), expected })
}

impl FromStr for Restart {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, WishError> {
        const EXPECTED: &str = "no, always, unless-stopped, on-failure or on-failure:N";
        match text.split_once(':') {
            None => match text {
                "" | "no" => Ok(Self::No),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                "on-failure" => Ok(Self::OnFailure(None)),
                _ => refused(text, EXPECTED),
            },
            Some(("on-failure", count)) => match count.parse() {
                // Docker's 0 is no bound.
                Ok(0) => Ok(Self::OnFailure(None)),
                Ok(count) => Ok(Self::OnFailure(Some(count))),
                Err(_) => refused(text, EXPECTED),
            },
            Some(_) => refused(text, EXPECTED),
        }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => formatter.write_str("no"),
            Self::Always => formatter.write_str("always"),
            Self::UnlessStopped => formatter.write_str("unless-stopped"),
            Self::OnFailure(None) => formatter.write_str("on-failure"),
            Self::OnFailure(Some(count)) => write!(formatter, "on-failure:{count}"),
        }
    }
}

impl Restart {
    /// Whether a container that ended with this status is started again, after so many times already.
    pub fn wants(self, code: Option<i32>, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure(most) => code != Some(0) && most.is_none_or(|most| restarts < most),
        }
    }
}

impl FromStr for Sharing {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, WishError> {
        match text.split_once(':') {
            None if matches!(text, "" | "private" | "shareable") => Ok(Self::Private),
            None if text == "host" => Ok(Self::Host),
            Some(("container", other)) if !other.is_empty() => Ok(Self::Container(other.to_owned())),
            _ => refused(text, "host, private, or container:NAME"),
        }
    }
}

impl fmt::Display for Sharing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => formatter.write_str("private"),
            Self::Host => formatter.write_str("host"),
            Self::Container(other) => write!(formatter, "container:{other}"),
        }
    }
}

impl FromStr for Log {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, WishError> {
        match text {
            "json-file" | "local" => Ok(Self::Json),
            "none" => Ok(Self::None),
            _ => refused(text, "json-file or none"),
        }
    }
}

macro_rules! through_text {
    ($($kind:ty),*) => { $(
        impl TryFrom<String> for $kind {
            type Error = WishError;
            fn try_from(text: String) -> Result<Self, WishError> {
                text.parse()
            }
        }
        impl From<$kind> for String {
            fn from(value: $kind) -> Self {
                value.to_string()
            }
        }
    )* };
}

through_text!(Restart, Sharing);

/// What a container may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rights {
    /// Everything that root may.
    pub privileged: bool,
    /// Capabilities that it has besides; `ALL` for all.
    pub add: Vec<String>,
    /// Capabilities that it has not; `ALL` for none.
    pub drop: Vec<String>,
    /// Whether its programs can never gain rights.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Limits of each of its processes.
    pub ulimits: Vec<Ulimit>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Devices that it may use where it makes their files itself.
    pub device_rules: Vec<DeviceRule>,
    /// How much sooner than others it is killed when memory runs out: -1000 to 1000.
    pub oom_score: Option<i32>,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// What almost every program does.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// Those of a profile in the runtime's words (config-linux.md, "Seccomp").
    Profile(Value),
}

/// A limit of each process (getrlimit(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Of what, as ulimit(1) names it: `nofile`.
    pub name: String,
    /// What holds.
    pub soft: u64,
    /// What a process may raise that to.
    pub hard: u64,
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// On the host.
    pub from: PathBuf,
    /// In the container.
    pub to: PathBuf,
    /// What may be done with it: letters of `rwm`.
    pub access: String,
}

/// Devices by their numbers, as cgroups know them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// `a` for all, `b` for block devices, `c` for character devices.
    pub kind: char,
    /// The number of the driver; nothing for all.
    pub major: Option<u32>,
    /// The number of the device; nothing for all.
    pub minor: Option<u32>,
    /// What may be done with it: letters of `rwm`.
    pub access: String,
}

const RLIMITS: [&str; 15] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "sigpending",
    "stack",
];

impl FromStr for Ulimit {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, WishError> {
        const EXPECTED: &str = "NAME=SOFT[:HARD], such as nofile=1024:2048; -1 for no limit";
        let Some((name, limits)) = text.split_once('=') else { return refused(text, EXPECTED) };
        if !RLIMITS.contains(&name) {
            return refused(text, EXPECTED);
        }
        let number = |text: &str| if text == "-1" { Some(u64::MAX) } else { text.parse().ok() };
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        match (number(soft), number(hard)) {
            (Some(soft), Some(hard)) if soft <= hard => Ok(Self { name: name.to_owned(), soft, hard }),
            _ => refused(text, EXPECTED),
        }
    }
}

impl FromStr for Device {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, WishError> {
        const EXPECTED: &str = "/dev/ON-THE-HOST[:/dev/IN-THE-CONTAINER][:rwm]";
        let parts: Vec<&str> = text.split(':').collect();
        let (from, to, access) = match parts.as_slice() {
            [from] => (*from, *from, "rwm"),
            [from, access] if is_access(access) => (*from, *from, *access),
            [from, to] => (*from, *to, "rwm"),
            [from, to, access] if is_access(access) => (*from, *to, *access),
            _ => return refused(text, EXPECTED),
        };
        if !from.starts_with('/') || !to.starts_with('/') {
            return refused(text, EXPECTED);
        }
        Ok(Self { from: from.into(), to: to.into(), access: access.to_owned() })
    }
}

fn is_access(text: &str) -> bool {
    !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| b"rwm".contains(&byte))
}

impl FromStr for DeviceRule {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, WishError> {
        const EXPECTED: &str = "TYPE MAJOR:MINOR ACCESS, such as 'c 10:200 rwm'; * for any number";
        let parse = || {
            let mut words = text.split(' ');
            let kind = words.next().filter(|word| matches!(*word, "a" | "b" | "c"))?.chars().next()?;
            let (major, minor) = words.next()?.split_once(':')?;
            let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
            let access = words.next().filter(|word| is_access(word))?.to_owned();
            words.next().is_none().then_some(Self { kind, major: number(major)?, minor: number(minor)?, access })
        };
        parse().map_or_else(|| refused(text, EXPECTED), Ok)
    }
}

/// Reads a size as docker's users write it: `512m`, `1g`, `65536`, `1.5GiB`; powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, WishError> {
    const EXPECTED: &str = "a number of bytes, with b, k, m, g or t behind it for more";
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let factor: u64 = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return refused(text, EXPECTED),
    };
    match number.parse::<f64>() {
        Ok(number) if number.is_finite() && number * factor as f64 <= i64::MAX as f64 => {
            Ok((number * factor as f64) as u64)
        }
        _ => refused(text, EXPECTED),
    }
}

/// Reads a share of processors: `1.5`; in billionths.
pub fn parse_cpus(text: &str) -> Result<u64, WishError> {
    match text.parse::<f64>() {
        // The kernel's least quota is a millisecond of each tenth of a second.
        Ok(number) if number.is_finite() && (0.01..=65_536.0).contains(&number) => Ok((number * 1e9) as u64),
        _ => refused(text, "a number of processors, at least 0.01"),
    }
}

/// Reads a duration as Go writes it: `1m30s`, `500ms`; in nanoseconds.
pub fn parse_duration(text: &str) -> Result<u64, WishError> {
    const EXPECTED: &str = "a time such as 30s, 1m30s or 500ms";
    let mut rest = text;
    let mut total = 0.0;
    if rest == "0" {
        return Ok(0);
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(0);
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let factor = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return refused(text, EXPECTED),
        };
        let Ok(number) = number.parse::<f64>() else { return refused(text, EXPECTED) };
        total += number * factor;
        rest = after;
    }
    if text.is_empty() || total >= u64::MAX as f64 { refused(text, EXPECTED) } else { Ok(total as u64) }
}

#[cfg(test)]
mod tests {
    use super::{Device, DeviceRule, Restart, Sharing, Ulimit, parse_cpus, parse_duration, parse_size};

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        for text in ["no", "always", "unless-stopped", "on-failure", "on-failure:3"] {
            assert_eq!(text.parse::<Restart>().expect("a policy").to_string(), text);
        }
        for text in ["yes", "always:3", "on-failure:", "on-failure:x", "on-failure:-1"] {
            assert!(text.parse::<Restart>().is_err(), "{text}");
        }
        assert!(Restart::OnFailure(Some(2)).wants(Some(1), 1) && !Restart::OnFailure(Some(2)).wants(Some(1), 2));
        assert!(!Restart::OnFailure(None).wants(Some(0), 0) && Restart::Always.wants(Some(0), 99));
    }

    #[test]
    fn sizes_shares_and_times_are_read_as_docker_reads_them() {
        let sizes = ["65536", "64k", "1m", "2G", "1.5g", "10MiB", "1tb", "7b"].map(|text| parse_size(text).ok());
        let expected = [65536, 65536, 1 << 20, 2 << 30, 3 << 29, 10 << 20, 1 << 40, 7].map(Some);
        assert_eq!(sizes, expected);
        for text in ["", "m", "-1", "1x", "1.2.3", "99999999999t"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_cpus("1.5").ok(), Some(1_500_000_000));
        assert!(["0", "-1", "x", "", "inf"].iter().all(|text| parse_cpus(text).is_err()));
        assert_eq!(parse_duration("1m30s").ok(), Some(90_000_000_000));
        assert_eq!(parse_duration("500ms").ok(), Some(500_000_000));
        assert!(["", "5", "s", "1y", "1s2"].iter().all(|text| parse_duration(text).is_err()));
    }

    #[test]
    fn devices_limits_and_namespaces_have_their_forms() {
        let device = "/dev/null:/dev/x:rw".parse::<Device>().expect("a device");
        assert_eq!((device.to.to_str(), device.access.as_str()), (Some("/dev/x"), "rw"));
        assert!("/dev/null:r".parse::<Device>().is_ok_and(|device| device.access == "r" && device.to == device.from));
        assert!("null".parse::<Device>().is_err());
        let rule = "c 10:* rw".parse::<DeviceRule>().expect("a rule");
        assert_eq!((rule.kind, rule.major, rule.minor, rule.access.as_str()), ('c', Some(10), None, "rw"));
        for text in ["", "c", "d 1:2 r", "c 1 r", "c 1:x r", "c 1:2 x", "c 1:2 r r"] {
            assert!(text.parse::<DeviceRule>().is_err(), "{text}");
        }
        assert!("nofile=1:2".parse::<Ulimit>().is_ok_and(|limit| (limit.soft, limit.hard) == (1, 2)));
        assert!(["nofile", "files=1", "nofile=2:1", "nofile=x"].iter().all(|text| text.parse::<Ulimit>().is_err()));
        assert_eq!("container:a".parse::<Sharing>().ok(), Some(Sharing::Container("a".to_owned())));
        assert!("container:".parse::<Sharing>().is_err());
    }
}
