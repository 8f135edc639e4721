//! A place for one trial: a folder to build from, a store, and the command under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use libtest_mimic::Failed;
use tempfile::TempDir;

use super::needs::busybox;

/// The command under test.
pub(crate) const CTR: &str = env!("CARGO_BIN_EXE_isolab-ctr");

/// What every Dockerfile here begins with: a system of busybox alone.
pub(crate) const BASE: &str = "FROM scratch AS base\nCOPY busybox /bin/busybox\n\
    RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
    RUN mkdir -p /etc /tmp /srv && echo root:x:0:0:root:/root:/bin/sh > /etc/passwd \
    && echo web:x:33:33::/srv:/bin/sh >> /etc/passwd && echo web:x:33: > /etc/group\n";

/// A folder and a store of one trial's own.
pub(crate) struct Lab {
    folder: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Result<Self, Failed> {
        let lab = Self { folder: tempfile::Builder::new().prefix("isolab-build-").tempdir()? };
        fs::create_dir(lab.context())?;
        fs::copy(busybox()?, lab.context().join("busybox"))?;
        Ok(lab)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder that files come from.
    pub(crate) fn context(&self) -> PathBuf {
        self.path("context")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Puts a file into the build's folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), Failed> {
        let path = self.context().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        Ok(fs::write(path, text)?)
    }

    /// The command with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(CTR);
        command.arg("--root").arg(self.store()).args(arguments).stdin(Stdio::null()).env_remove("SOURCE_DATE_EPOCH");
        // No trial here is about networks, and none shall make a bridge on the host.
        command.env("ISOLAB_NETWORK", "none");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Output, Failed> {
        Ok(self.command(arguments).output()?)
    }

    /// Builds a Dockerfile as `name`, with more arguments; its end must be good. Answers the id and what was told.
    pub(crate) fn build(&self, name: &str, dockerfile: &str, more: &[&str]) -> Result<(String, String), Failed> {
        let (id, told) = succeed(&self.try_build(name, dockerfile, more)?)?;
        Ok((id.trim().to_owned(), told))
    }

    pub(crate) fn try_build(&self, name: &str, dockerfile: &str, more: &[&str]) -> Result<Output, Failed> {
        let file = self.path("Dockerfile");
        fs::write(&file, dockerfile)?;
        let (file, context) = (file.display().to_string(), self.context().display().to_string());
        let mut arguments = vec!["build", "-t", name, "-f", &file];
        arguments.extend(more);
        arguments.push(&context);
        self.run(&arguments)
    }
}

/// What a command printed on both ways; an error with all of it if it failed.
pub(crate) fn succeed(output: &Output) -> Result<(String, String), Failed> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    if output.status.success() { Ok((out, err)) } else { Err(format!("{}\n{out}{err}", output.status).into()) }
}

pub(crate) fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Result<(), Failed> {
    if found == expected { Ok(()) } else { Err(format!("found {found:#?}\nexpected {expected:#?}").into()) }
}

pub(crate) fn has(text: &str, part: &str) -> Result<(), Failed> {
    if text.contains(part) { Ok(()) } else { Err(format!("no {part:?} in {text:?}").into()) }
}
