//! Machines with names, in a folder of their own: what `isolab-vm clone` works on.

use std::ffi::OsString;
use std::path::PathBuf;

use super::original::Monitor;
use super::{Held, Lab, Nonce, errand, next_number};

/// A folder of machines, and the nonce that only its first one was told.
#[derive(Debug)]
pub(crate) struct Farm<'a> {
    monitor: Monitor<'a>,
    root: PathBuf,
    nonce: Nonce,
}

impl<'a> Farm<'a> {
    /// Makes the machine `m`, has it write to `dirty_mib` mebibytes, and takes its snapshot `s`.
    pub(crate) fn settle(monitor: Monitor<'a>, memory_mib: u32, dirty_mib: u32) -> Result<Self, String> {
        let root = monitor.lab.scratch().path().join(format!("farm-{}", next_number()));
        let nonce = Nonce::new();
        let farm = Self { monitor, root, nonce: nonce.clone() };
        let payload = monitor.lab.payload().to_string_lossy().into_owned();
        let memory = memory_mib.to_string();
        farm.errand(&["create", "m", "--memory", &memory, "--app", &payload, "--", &nonce.to_string()])?;
        let launch = monitor.launch(farm.words(&["start", "m"]), nonce.token(), None);
        let mut held = launch.poise()?.hold(&nonce)?;
        held.touch(dirty_mib)?;
        farm.errand(&["snapshot", "m", "s"])?;
        held.dismiss();
        held.end()?;
        Ok(farm)
    }

    /// Makes a clone of a machine's last snapshot; how long the command took, in nanoseconds.
    pub(crate) fn clone_of(&self, from: &str, name: &str, full: bool) -> Result<u64, String> {
        self.errand(&["clone", if full { "--full" } else { "--linked" }, from, name])
    }

    /// Starts a clone; it must know the nonce of the first machine.
    pub(crate) fn start(&self, name: &str, eager: bool) -> Result<Held, String> {
        let words: &[&str] = if eager { &["start", "--eager", name] } else { &["start", name] };
        self.monitor.go_on(self.words(words), &self.nonce)
    }

    /// Makes `name` a clone of `from` that has written to a few pages of its own, and a snapshot of it: one link of a chain.
    pub(crate) fn link(&self, from: &str, name: &str) -> Result<(), String> {
        self.clone_of(from, name, false)?;
        let mut held = self.start(name, false)?;
        held.again(64)?;
        self.errand(&["snapshot", name, "s"])?;
        held.dismiss();
        held.end()
    }

    /// Removes a machine.
    pub(crate) fn remove(&self, name: &str) -> Result<(), String> {
        self.errand(&["rm", name]).map(drop)
    }

    /// Where they were made.
    pub(crate) fn lab(&self) -> &'a Lab {
        self.monitor.lab
    }

    /// Where they are.
    pub(crate) fn root(&self) -> &std::path::Path {
        &self.root
    }

    fn errand(&self, words: &[&str]) -> Result<u64, String> {
        let took = errand::run(self.monitor.program, &self.words(words), self.monitor.lab.scratch().path());
        took.map_err(|reason| format!("isolab-vm {}: {reason}", words.first().unwrap_or(&"")))
    }

    fn words(&self, words: &[&str]) -> Vec<OsString> {
        let root = ["--root".into(), self.root.clone().into_os_string()];
        root.into_iter().chain(words.iter().map(OsString::from)).collect()
    }
}

impl Drop for Farm<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root); // the scratch folder goes last of all
    }
}
