//! Shares of the processor's last cache and of the way to memory, and counts of both (OCI runtime specification,
//! config-linux.md, "`IntelRdt`"; Documentation/arch/x86/resctrl.rst).
//!
//! `resctrl` is a file system like that of cgroups: a folder is a *class of service*, its file `schemata` says which parts
//! of the cache and how much of the bandwidth it has, and who is written to its file `tasks` is in it. Folders in a class's
//! `mon_groups` only count.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};
use tracing::info_span;

use super::bundle::Bundle;
use super::id::ContainerId;

/// Folders that the kernel makes; no class can have their names.
const RESERVED: [&str; 3] = ["info", "mon_groups", "mon_data"];

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RdtPlan {
    /// Where resctrl is mounted.
    root: PathBuf,
    /// The class's folder.
    class: PathBuf,
    /// Whether the configuration names the class; otherwise it is the container's own.
    named: bool,
    /// What `l3CacheSchema` and `memBwSchema` come to.
    older: Vec<String>,
    /// What `schemata` has.
    newer: Vec<String>,
    /// The folder that counts, where that is asked for.
    monitor: Option<PathBuf>,
}

/// What a container has in resctrl, and what of it goes with the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdtRecord {
    /// The class that was made for it.
    class: Option<PathBuf>,
    /// The folder that counts for it.
    monitor: Option<PathBuf>,
}

/// A container's part in resctrl while nobody answers for it; dropped, it is given back.
#[derive(Debug)]
pub(crate) struct RdtGroup(Option<RdtRecord>);

/// Why there can be no share.
#[derive(Debug, thiserror::Error)]
pub enum RdtError {
    /// No such file system.
    #[error("linux.intelRdt is set, but no resctrl file system is mounted")]
    NotMounted,
    /// A word that can name no class.
    #[error("linux.intelRdt.closID: {0:?} can name no class of service")]
    Name(String),
    /// A value with a line too many, or of the wrong kind.
    #[error("linux.intelRdt.{field}: {value:?} {problem}")]
    Schema {
        /// The value's name.
        field: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A class that has to be there.
    #[error("there is no class of service {}, and nothing to make one of", .0.display())]
    Missing(PathBuf),
    /// A class that is there, with other shares.
    #[error("the class of service {} has {found:?}, and not {wanted:?}", path.display())]
    Differs {
        /// Its folder.
        path: PathBuf,
        /// What it has.
        found: String,
        /// What is asked for.
        wanted: String,
    },
    /// A file or folder.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl RdtError {
    /// What to try next.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotMounted => {
                Some("mount -t resctrl resctrl /sys/fs/resctrl, where the processor and the kernel have it")
            }
            Self::Io { attempt: "write", .. } => {
                Some("the file info/last_cmd_status of resctrl says what the kernel missed")
            }
            _ => None,
        }
    }
}

impl RdtPlan {
    /// Reads the wishes, and looks where resctrl is.
    pub(crate) fn new(id: &ContainerId, bundle: &Bundle) -> Result<Option<Self>, RdtError> {
        let Some(asked) = bundle.linux.intel_rdt() else { return Ok(None) };
        let mounts = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(mounts).map_err(failed("read", mounts))?;
        let root = mounted(&text).ok_or(RdtError::NotMounted)?;
        let mut plan = Self::below(root, id, asked)?;
        if monitors_in_older_words(&bundle.text) {
            plan.monitor = Some(plan.class.join("mon_groups").join(id.as_str()));
        }
        Ok(Some(plan))
    }

    fn below(root: PathBuf, id: &ContainerId, asked: &LinuxIntelRdt) -> Result<Self, RdtError> {
        let name = asked.clos_id().as_deref().filter(|name| !name.is_empty());
        let class = match name {
            None => root.join(id.as_str()),
            // The class that everybody is in who is in no other.
            Some("/") => root.clone(),
            Some(name) if name.starts_with('.') || name.contains(['/', '\n', '\0']) || RESERVED.contains(&name) => {
                return Err(RdtError::Name(name.to_owned()));
            }
            Some(name) => root.join(name),
        };
        let monitors = *asked.enable_monitoring() == Some(true);
        Ok(Self {
            monitor: monitors.then(|| class.join("mon_groups").join(id.as_str())),
            root,
            class,
            named: name.is_some(),
            older: older(asked)?,
            newer: asked.schemata().clone().unwrap_or_default(),
        })
    }

    /// Puts the process into its class, and makes that where it has to be made.
    pub(crate) fn enter(&self, pid: Pid) -> Result<RdtGroup, RdtError> {
        let _span = info_span!(
            "rdt.enter",
            call = "mkdir(2), write(schemata), write(tasks)",
            why = "the processor itself keeps the container to its part of the cache and of the way to memory"
        )
        .entered();
        crate::spans::fault().map_err(|errno| failed("enter", &self.class)(errno.into()))?;
        let mut group = RdtGroup(Some(RdtRecord::default()));
        let mut record = RdtRecord::default();
        let wishes = !self.older.is_empty() || !self.newer.is_empty();
        match (self.class.is_dir(), self.named) {
            (true, true) => self.compare()?,
            (true, false) => {} // left by one of this name that was killed
            (false, true) if !wishes => return Err(RdtError::Missing(self.class.clone())),
            (false, _) => fs::create_dir(&self.class).map_err(failed("make", &self.class))?,
        }
        if self.class != self.root && (!self.named || self.is_empty()) {
            record.class = Some(self.class.clone());
        }
        group.0 = Some(record.clone());
        for lines in [&self.older, &self.newer].into_iter().filter(|lines| !lines.is_empty()) {
            let text = lines.join("\n") + "\n";
            let file = self.class.join("schemata");
            fs::write(&file, text).map_err(failed("write", &file))?;
        }
        if let Some(folder) = &self.monitor {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("make", folder)(error));
                }
                _ => record.monitor = Some(folder.clone()),
            }
            group.0 = Some(record);
        }
        for folder in [Some(&self.class), self.monitor.as_ref()].into_iter().flatten() {
            let file = folder.join("tasks");
            fs::write(&file, pid.to_string()).map_err(failed("write", &file))?;
        }
        Ok(group)
    }

    /// A class that others may be in is taken as it is, or not at all.
    fn compare(&self) -> Result<(), RdtError> {
        if self.older.is_empty() {
            return Ok(());
        }
        let file = self.class.join("schemata");
        let found = fs::read_to_string(&file).map_err(failed("read", &file))?;
        let has: Vec<_> = found.lines().filter_map(shares).collect();
        match self.older.iter().find(|line| shares(line).is_none_or(|wanted| !has.contains(&wanted))) {
            None => Ok(()),
            Some(wanted) => Err(RdtError::Differs {
                path: self.class.clone(),
                found: found.trim().to_owned(),
                wanted: wanted.clone(),
            }),
        }
    }

    /// Whether nobody is in the class.
    fn is_empty(&self) -> bool {
        fs::read_to_string(self.class.join("tasks")).is_ok_and(|tasks| tasks.trim().is_empty())
    }
}

impl RdtGroup {
    /// What the container has; it belongs to its record from here on.
    pub(crate) fn record(&self) -> Option<RdtRecord> {
        self.0.clone()
    }

    /// Leaves it where it is.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for RdtGroup {
    fn drop(&mut self) {
        if let Some(record) = self.0.take() {
            // On the way out of another failure, which is the one to tell of.
            let _ = record.leave();
        }
    }
}

impl RdtRecord {
    /// Gives back what was made for a container that has ended. A class that others have entered since is theirs.
    pub(crate) fn leave(&self) -> Result<(), RdtError> {
        let occupied = |class: &Path| {
            fs::read_to_string(class.join("tasks")).is_ok_and(|tasks| tasks.lines().any(|pid| is_alive(pid.trim())))
        };
        let class = self.class.as_ref().filter(|class| !occupied(class));
        for folder in [self.monitor.as_ref(), class].into_iter().flatten() {
            match fs::remove_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", folder)(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether one of the two words asks for counts that version 1.3 has made one of. The types do not know them by the names
/// that the specification gives them.
fn monitors_in_older_words(config: &[u8]) -> bool {
    let config = serde_json::from_slice::<serde_json::Value>(config).unwrap_or_default();
    let asked = |word: &str| config.pointer(&format!("/linux/intelRdt/{word}")) == Some(&true.into());
    asked("enableCMT") || asked("enableMBM")
}

fn is_alive(pid: &str) -> bool {
    !pid.is_empty() && Path::new("/proc").join(pid).exists()
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RdtError {
    let path = path.to_owned();
    move |source| RdtError::Io { attempt, path, source }
}

/// Where resctrl is mounted (proc(5), mountinfo).
fn mounted(text: &str) -> Option<PathBuf> {
    let line = text.lines().find(|line| line.contains(" - resctrl "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// The lines of the two older values: the cache's, without what it says of bandwidth where that has a value of its own.
fn older(asked: &LinuxIntelRdt) -> Result<Vec<String>, RdtError> {
    let refused = |field, value: &str, problem| Err(RdtError::Schema { field, value: value.to_owned(), problem });
    let bandwidth = asked.mem_bw_schema().as_deref().filter(|value| !value.is_empty());
    if let Some(value) = bandwidth {
        if !value.starts_with("MB:") {
            return refused("memBwSchema", value, "does not begin with MB:");
        }
        if value.contains('\n') {
            return refused("memBwSchema", value, "has more than one line");
        }
    }
    let cache = asked.l3_cache_schema().as_deref().unwrap_or_default();
    let cache = cache.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines = cache.filter(|line| bandwidth.is_none() || !line.starts_with("MB:")).chain(bandwidth);
    Ok(lines.map(str::to_owned).collect())
}

/// `L3:0=7f0;1=1f` as what it means: the kernel pads its numbers, and puts the parts in an order of its own.
fn shares(line: &str) -> Option<(String, BTreeMap<String, String>)> {
    let (resource, parts) = line.trim().split_once(':')?;
    let part = |part: &str| {
        let (domain, value) = part.trim().split_once('=')?;
        let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
        Some((domain.trim().to_owned(), if value.is_empty() { "0".to_owned() } else { value }))
    };
    let parts = parts.split(';').filter(|part| !part.trim().is_empty()).map(part).collect::<Option<_>>()?;
    Some((resource.trim().to_owned(), parts))
}

#[cfg(test)]
mod tests {
    use super::{RdtError, RdtPlan, monitors_in_older_words, mounted, shares};
    use nix::unistd::Pid;
    use oci_spec::runtime::LinuxIntelRdt;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn plan(root: &Path, text: &str) -> Result<RdtPlan, RdtError> {
        let asked: LinuxIntelRdt = serde_json::from_str(text).expect("the type takes it");
        RdtPlan::below(root.to_owned(), &"one".parse().expect("an id"), &asked)
    }

    /// A folder that stands in for resctrl, with one class that somebody has made.
    fn stand_in() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("gold")).expect("a class");
        fs::write(root.path().join("gold/schemata"), "    L3:0=7ff;1=01f\n    MB:0=100;1=100\n").expect("its shares");
        fs::write(root.path().join("gold/tasks"), "1\n").expect("who is in it");
        root
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).expect("it is there")
    }

    #[test]
    fn a_container_without_a_class_gets_one_of_its_own_and_takes_it_along() {
        let root = stand_in();
        let wishes = r#"{"l3CacheSchema":"MB:0=1\nL3:0=f","memBwSchema":"MB:0=20"}"#;
        let group = plan(root.path(), wishes).expect("good").enter(Pid::from_raw(i32::MAX)).expect("it enters");
        let class = root.path().join("one");
        assert_eq!(read(class.join("schemata")), "L3:0=f\nMB:0=20\n");
        assert_eq!(read(class.join("tasks")), i32::MAX.to_string());
        // The kernel's own folders go with their files; these have to be emptied.
        for file in ["schemata", "tasks"] {
            fs::remove_file(class.join(file)).expect("removed");
        }
        drop(group);
        assert!(!class.exists());
    }

    #[test]
    fn a_class_that_is_there_must_have_what_is_asked_for() {
        let root = stand_in();
        let enter = |text: &str| plan(root.path(), text).and_then(|plan| plan.enter(Pid::from_raw(i32::MAX)));
        enter(r#"{"closID":"gold","l3CacheSchema":"L3:1=1f;0=7ff"}"#).expect("the same in another order").keep();
        let error = enter(r#"{"closID":"gold","memBwSchema":"MB:0=50;1=100"}"#).expect_err("it differs");
        assert!(matches!(error, RdtError::Differs { .. }), "{error}");
        enter(r#"{"closID":"gold"}"#).expect("as it is").keep();
        assert_eq!(read(root.path().join("gold/tasks")), i32::MAX.to_string());
        assert!(matches!(enter(r#"{"closID":"lead"}"#), Err(RdtError::Missing(_))));
        assert!(root.path().join("gold/schemata").exists(), "who is in a class does not take it away");
    }

    #[test]
    fn the_newer_value_is_written_last() {
        let root = stand_in();
        let text = r#"{"closID":"new","l3CacheSchema":"L3:0=f","schemata":["L3:0=3","L2:0=1"]}"#;
        plan(root.path(), text).expect("good").enter(Pid::from_raw(i32::MAX)).expect("it enters").keep();
        assert_eq!(read(root.path().join("new/schemata")), "L3:0=3\nL2:0=1\n");
    }

    #[test]
    fn what_can_be_no_class_or_share_is_refused() {
        let root = stand_in();
        for text in [
            r#"{"closID":"../x"}"#,
            r#"{"closID":"."}"#,
            r#"{"closID":"info"}"#,
            r#"{"memBwSchema":"L3:0=f"}"#,
            r#"{"memBwSchema":"MB:0=1\nL3:0=f"}"#,
        ] {
            assert!(plan(root.path(), text).is_err(), "{text}");
        }
        assert!(plan(root.path(), r#"{"closID":"/"}"#).is_ok_and(|plan| plan.class == root.path()));
    }

    #[test]
    fn counting_has_a_folder_of_its_own() {
        let root = Path::new("/sys/fs/resctrl");
        let counted = |text: &str| plan(root, text).expect("good").monitor;
        assert_eq!(counted(r#"{"enableMonitoring":true}"#), Some(root.join("one/mon_groups/one")));
        assert_eq!(counted("{}"), None);
        let config = |word: &str| format!(r#"{{"linux":{{"intelRdt":{{"{word}":true}}}}}}"#);
        assert!(["enableCMT", "enableMBM"].iter().all(|word| monitors_in_older_words(config(word).as_bytes())));
        assert!(!monitors_in_older_words(config("enableX").as_bytes()) && !monitors_in_older_words(b""));
    }

    #[test]
    fn the_file_system_is_found_among_the_mounts() {
        let line = "36 24 0:33 / /sys/fs/resctrl rw,relatime shared:9 - resctrl resctrl rw\n";
        assert_eq!(mounted(line), Some(PathBuf::from("/sys/fs/resctrl")));
        assert_eq!(mounted("36 24 0:33 / /sys rw - sysfs sysfs rw\n"), None);
    }

    #[test]
    fn shares_are_compared_by_what_they_mean() {
        assert_eq!(shares("L3:0=07F;1=0"), shares(" L3:1=000;0=7f"));
        assert_ne!(shares("L3:0=7f"), shares("L3:0=7e"));
        assert_eq!(shares("nonsense"), None);
    }
}
