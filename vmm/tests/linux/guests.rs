//! Guests with names that a trial talks to.
//!
//! Each runs a shell that does what is written to its console, and prints what came of it between two marks.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use isolab_vmm::api::{self, Answer, Request};
use libtest_mimic::Failed;
use nix::unistd::Pid;

use super::stock::{CMDLINE, pack, text};
use super::{Done, isolab_vm};

/// Under emulation a busy guest may take its time.
const PATIENCE: Duration = Duration::from_secs(90);
/// What each guest runs.
const SHELL: &str = "busybox stty -echo; n=0; echo READY; while read -r line; do eval \"$line\"; done";

/// What a machine is made of.
pub(super) struct Made<'a> {
    pub(super) kernel: &'a Path,
    /// The folder of its modules, where it has any.
    pub(super) modules: Option<&'a Path>,
    /// What its first process is to do, but for the program.
    pub(super) init: serde_json::Value,
    /// Programs in its initial file system, and their places.
    pub(super) programs: &'a [(&'a Path, &'a str)],
    /// Options for `isolab-vm create`.
    pub(super) options: &'a [&'a str],
}

/// A folder of machines; whatever runs there ends with this value.
pub(super) struct Root {
    pub(super) folder: tempfile::TempDir,
}

impl Root {
    pub(super) fn new() -> Result<Self, Failed> {
        Ok(Self { folder: tempfile::tempdir()? })
    }

    fn run(&self, words: &[&str]) -> Result<std::process::Output, Failed> {
        isolab_vm(&[&["--root", text(self.folder.path())?], words].concat())
    }

    pub(super) fn command(&self, words: &[&str]) -> Result<Command, Failed> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-vm"));
        command.args(["--root", text(self.folder.path())?]).args(words).stderr(Stdio::null());
        Ok(command)
    }

    pub(super) fn does(&self, words: &[&str]) -> Result<String, Failed> {
        let output = self.run(words)?;
        if !output.status.success() {
            return Err(format!("{words:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(super) fn refuses(&self, words: &[&str], why: &str) -> Done {
        let output = self.run(words)?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !said.contains(why) {
            return Err(format!("{words:?} should be refused for {why:?}: {said}").into());
        }
        Ok(())
    }

    pub(super) fn guest(&self, name: &str) -> Guest<'_> {
        Guest { root: self, name: name.to_owned() }
    }

    /// Keeps a machine with this kernel in it, which runs a shell that does what it is told over the console.
    pub(super) fn create(&self, name: &str, made: &Made<'_>) -> Result<Guest<'_>, Failed> {
        let mut init = made.init.clone();
        init["process"] = serde_json::json!({"args": ["/bin/busybox", "sh", "-c", SHELL]});
        let packed = pack(self.folder.path(), &init, made.modules, made.programs)?;
        let kept = self.folder.path().join(format!("{name}.cpio"));
        fs::rename(packed, &kept)?;
        let what = ["create", name, "--kernel", text(made.kernel)?, "--initrd", text(&kept)?, "--cmdline", CMDLINE];
        self.does(&[&what[..], made.options].concat())?;
        Ok(self.guest(name))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.folder.path().join("vm")).into_iter().flatten().flatten() {
            let _ = self.run(&["stop", "--grace", "0", &entry.file_name().to_string_lossy()]);
        }
    }
}

/// Random for each who reads it.
pub(super) const UUID: &str = "/proc/sys/kernel/random/uuid";

/// Who a guest says that it is.
pub(super) struct About {
    pub(super) mac: String,
    /// What its kernel has drawn.
    pub(super) uuids: [String; 3],
    /// Its UUID, as the firmware's tables tell it.
    pub(super) system: String,
}

/// Says "reached" for each of these that answers.
pub(super) fn pings(addresses: &[String]) -> String {
    let ping = |address: &String| format!("ping -c 1 -W 20 {address} > /dev/null && echo reached || echo lost");
    addresses.iter().map(ping).collect::<Vec<_>>().join("; ")
}

/// A machine with a name.
pub(super) struct Guest<'r> {
    root: &'r Root,
    pub(super) name: String,
}

impl Guest<'_> {
    pub(super) fn folder(&self) -> PathBuf {
        self.root.folder.path().join("vm").join(&self.name)
    }

    pub(super) fn start(&self) -> Done {
        self.root.does(&["start", "--detach", &self.name]).map(drop)
    }

    pub(super) fn stop(&self) -> Done {
        // What counts is on its disk, or in a snapshot: nothing is lost with the power.
        self.root.does(&["stop", "--grace", "0", &self.name]).map(drop)
    }

    /// Ends it, and lets it go on from a snapshot.
    pub(super) fn go_back(&self, snapshot: &str) -> Done {
        self.stop()?;
        self.start_from(snapshot)
    }

    pub(super) fn start_from(&self, snapshot: &str) -> Done {
        self.root.does(&["rollback", &self.name, snapshot])?;
        self.start()
    }

    /// The process that runs it.
    pub(super) fn pid(&self) -> Result<Pid, Failed> {
        match api::ask(&self.folder().join("socket"), &Request::Status)? {
            Answer::Status(status) => Ok(Pid::from_raw(status.pid as i32)),
            Answer::Snapshot { .. } => Err("a snapshot was not asked for".into()),
        }
    }

    /// What is kept of its identity.
    pub(super) fn kept(&self, field: &str) -> Result<String, Failed> {
        let kept: serde_json::Value = serde_json::from_str(&self.root.does(&["inspect", &self.name])?)?;
        Ok(kept["identity"][field].as_str().ok_or("no such field")?.to_owned())
    }

    fn console(&self) -> String {
        fs::read_to_string(self.folder().join("console.log")).unwrap_or_default()
    }

    pub(super) fn expect(&self, part: &str) -> Done {
        let deadline = Instant::now() + PATIENCE;
        while !self.console().contains(part) {
            if Instant::now() > deadline {
                return Err(format!("{} does not say {part:?}:\n{}", self.name, self.console()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Lets its shell do something; returns what that printed.
    pub(super) fn ask(&self, command: &str) -> Result<String, Failed> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut input = File::options().write(true).open(self.folder().join("console.in"))?;
        writeln!(input, "echo '<{number}'; {command}; echo '{number}>'")?;
        let end = format!("{number}>");
        self.expect(&end)?;
        let console = self.console();
        let said = console.split(&format!("<{number}\n")).nth(1).and_then(|rest| rest.split(&end).next());
        Ok(said.ok_or_else(|| format!("{} said something else:\n{console}", self.name))?.trim().to_owned())
    }

    /// Who it is, once it has this address.
    pub(super) fn about(&self, address: &str) -> Result<About, Failed> {
        let said = self.ask(&format!(
            "until busybox ifconfig eth0 | grep -q 'inet addr:{address} '; do busybox sleep 0.2; done; \
             cat /sys/class/net/eth0/address; cat {UUID} {UUID} {UUID}; busybox date +%s; \
             busybox hexdump -s 8 -n 16 -e '16/1 \"%02x\"' /sys/firmware/dmi/tables/DMI"
        ))?;
        let lines: Vec<&str> = said.lines().collect();
        let [mac, first, second, third, day, system] = lines[..] else {
            return Err(format!("no answer: {said}").into());
        };
        let (now, day) = (SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(), day.parse::<u64>()?);
        assert!(now.abs_diff(day) < 60, "it is {now}, and {} says {day}", self.name);
        let uuids = [first, second, third].map(str::to_owned);
        Ok(About { mac: mac.to_owned(), uuids, system: system.to_owned() })
    }

    /// Asks again and again until the answer has this in it.
    pub(super) fn until(&self, command: &str, part: &str) -> Done {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.ask(command)?;
            if said.contains(part) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{}: {command}: no {part:?} in {said}\n{}", self.name, self.console()).into());
            }
        }
    }
}
