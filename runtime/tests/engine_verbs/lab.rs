//! A place for one trial: a root of its own with an image of busybox in it, and the command under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use tempfile::TempDir;

use super::needs::busybox;

/// The command under test.
pub(crate) const CTR: &str = env!("CARGO_BIN_EXE_isolab-ctr");

/// What every trial here needs.
pub(crate) const NEEDS: [&str; 4] = ["root", "cgroup", "overlay", "busybox"];

/// The image: busybox, a folder of somebody else's, and a file beside it.
const IMAGE: &str = r#"
    cd "$0"
    mkdir -p root/bin root/etc root/tmp root/srv/site root/var
    cp "$1" root/bin/busybox
    for name in sh cat ls sleep touch rm mkdir id ln stat echo mv chmod chown dd yes head test true find sync kill; do
        ln -s busybox "root/bin/$name"
    done
    echo root:x:0:0:root:/root:/bin/sh > root/etc/passwd
    echo page > root/srv/site/page; chmod 640 root/srv/site/page; chown -R 33:33 root/srv/site; chmod 750 root/srv/site
    echo conf > root/etc/conf; ln -s ../srv root/var/link; ln -s /etc/conf root/srv/outside
    tar -C root -cf root.tar .
"#;

/// A root of one trial's own; its containers are gone with it.
pub(crate) struct Lab {
    folder: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Result<Self, Failed> {
        let lab = Self { folder: tempfile::Builder::new().prefix("isolab-verbs-").tempdir()? };
        let made = Command::new("sh").args(["-ec", IMAGE]).arg(lab.folder.path()).arg(busybox()?).output()?;
        succeed(&made)?;
        lab.ctr(&["import", &lab.text("root.tar"), "sample:1"])?;
        Ok(lab)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The command with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(CTR);
        // No trial here is about networks, and none shall make a bridge on the host.
        command
            .arg("--root")
            .arg(self.path("store"))
            .args(arguments)
            .stdin(Stdio::null())
            .env("ISOLAB_NETWORK", "none");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Output, Failed> {
        Ok(self.command(arguments).output()?)
    }

    /// What it prints; its end must be good.
    pub(crate) fn ctr(&self, arguments: &[&str]) -> Result<String, Failed> {
        succeed(&self.run(arguments)?)
            .map_err(|error| format!("{arguments:?}: {}", error.message().unwrap_or("")).into())
    }

    /// What it complains of; its end must be bad.
    pub(crate) fn refused(&self, arguments: &[&str]) -> Result<String, Failed> {
        let output = self.run(arguments)?;
        if output.status.success() {
            return Err(format!("{arguments:?} was done, and ought to be refused").into());
        }
        Ok(String::from_utf8(output.stderr)?)
    }

    /// A container that runs until it is stopped.
    pub(crate) fn sleeper(&self, name: &str, flags: &[&str]) -> Result<(), Failed> {
        let run = [&["run", "-d", "--name", name], flags, &["sample:1", "sleep", "1000"]].concat();
        self.ctr(&run).map(drop)
    }

    /// A shell line in a new container that is gone afterwards.
    pub(crate) fn sh(&self, flags: &[&str], line: &str) -> Result<String, Failed> {
        self.ctr(&[&["run", "--rm"], flags, &["sample:1", "sh", "-c", line]].concat())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Ok(all) = self.run(&["ps", "--all", "--quiet"]) {
            for id in String::from_utf8_lossy(&all.stdout).lines() {
                // After a failure that failure is what is told.
                let _ = self.run(&["rm", "--force", id]);
            }
        }
    }
}

/// What a command printed; an error with its complaint if it failed.
pub(crate) fn succeed(output: &Output) -> Result<String, Failed> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr)).into())
}

pub(crate) fn has(text: &str, part: &str) -> Result<(), Failed> {
    if text.contains(part) { Ok(()) } else { Err(format!("no {part:?} in {text:?}").into()) }
}

pub(crate) fn same(found: &str, expected: &str) -> Result<(), Failed> {
    if found == expected { Ok(()) } else { Err(format!("found {found:?}\nexpected {expected:?}").into()) }
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> Result<bool, Failed>) -> Result<(), Failed> {
    let begin = Instant::now();
    while !holds()? {
        if begin.elapsed() > Duration::from_secs(10) {
            return Err(format!("in vain: {what}").into());
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Each path below a folder with kind, mode and owner.
pub(crate) fn tree(folder: &Path) -> Result<String, Failed> {
    let script = "cd \"$0\" && find . -printf '%P %y %m %U:%G %l\\n' | sort";
    succeed(&Command::new("sh").args(["-c", script]).arg(folder).output()?)
}
