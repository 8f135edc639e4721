//! Container engines with docker's command line: `podman run`, `docker run`.
//!
//! An engine does more than a runtime: it looks the image up, makes a root file system, a record, perhaps a process that stands by. So
//! it is measured from its own command on, with the image imported beforehand, and with the same limits as the others' bundle.
//! podman keeps all of it in the scratch folder; docker's daemon has a place of its own, from which the image is taken again at the end.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use isolab_reports::model::Role;
use nix::mount::{MntFlags, umount2};

use super::super::catalogue::LeftOut;
use super::super::family::{Files, write_image};
use super::super::launch::Launch;
use super::super::{About, Lab, Nonce, Subject, errand};
use super::Peers;

pub(in super::super) struct Engine<'a> {
    lab: &'a Lab,
    about: About,
    program: PathBuf,
    image: String,
    /// What stands before each verb, and where that keeps its images, if that is ours.
    global: Vec<OsString>,
    store: Option<PathBuf>,
}

impl<'a> Engine<'a> {
    pub(in super::super) fn new(name: &'static str, lab: &'a Lab, peers: &Peers) -> Result<Self, LeftOut> {
        let (program, version) = peers.find(name)?;
        let store = (name == "podman").then(|| lab.scratch().path().join("podman"));
        let global = store.as_deref().map(own_place).unwrap_or_default();
        let about = match name {
            "podman" => {
                "podman, a container engine without a daemon, on an image of the payload alone; no network but loopback, as with the \
                 others."
            }
            _ => {
                "docker, the command and its daemon, on an image of the payload alone; no network but loopback, as with the others."
            }
        };
        let words = ["run", "--rm", "-i", "--network", "none", "--memory", "256m", "--pids-limit", "256"];
        let rest = ["--name", "{}", "IMAGE", "/isolab-payload", "{}"];
        let command = std::iter::once(name).chain(words).chain(rest).map(str::to_owned).collect();
        let image = lab.scratch().name(0);
        let about = About { name, role: Role::Peer, about, command, version };
        let engine = Self { lab, about, program, image, global, store };
        let hint = format!("try by hand: {name} run --rm IMAGE true");
        engine.import().map_err(|reason| LeftOut::new(name, format!("no image: {reason}"), hint))?;
        Ok(engine)
    }

    fn import(&self) -> Result<(), String> {
        let archive = self.lab.scratch().path().join(format!("{}.tar", self.about.name));
        let none = Files { count: 0, bytes: 0 };
        write_image(&archive, self.lab.payload(), none).map_err(|error| format!("cannot write it: {error}"))?;
        let words = self.words(&["import", &archive.to_string_lossy(), &self.image]);
        let imported = errand::run(&self.program, &words, self.lab.scratch().path()).map(drop);
        let _ = fs::remove_file(&archive);
        imported
    }

    fn words(&self, words: &[&str]) -> Vec<OsString> {
        self.global.iter().cloned().chain(words.iter().map(OsString::from)).collect()
    }
}

/// podman's options for a store of its own. The runtime is runc where it is there, as crun does not start on hybrid hosts.
fn own_place(folder: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["--root".into(), folder.join("root").into_os_string()];
    words.extend(["--runroot".into(), folder.join("run").into_os_string()]);
    words.extend(["--cgroup-manager", "cgroupfs"].map(OsString::from));
    if let Some(runc) = crate::host::tools::find("runc") {
        words.extend(["--runtime".into(), runc.into_os_string()]);
    }
    words
}

impl Subject for Engine<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    /// Some engines' starts are longer than all others together, so they are not made eight at once.
    fn alone(&self) -> bool {
        true
    }

    /// Its instances are its daemon's or its monitor's children; their memory is not to be found below its command.
    fn stays(&self) -> bool {
        false
    }

    fn launch(&self, number: u64, nonce: &Nonce) -> Result<Launch, String> {
        let name = self.lab.scratch().name(number);
        let text = nonce.to_string();
        let limits = ["--network", "none", "--memory", "256m", "--pids-limit", "256", "--name", &name];
        let mut words = vec!["run", "--rm", "-i"];
        words.extend(limits);
        if self.store.is_some() {
            // podman would raise them, which not every root may.
            words.extend(["--ulimit", "host"]);
        }
        words.extend([self.image.as_str(), "/isolab-payload", &text]);
        let mut undo = vec![self.program.clone().into_os_string()];
        undo.extend(self.words(&["rm", "--force", &name]));
        let launch = Launch::new(self.lab, &self.program, self.words(&words), nonce.token());
        Ok(Launch { undo: Some(undo), ..launch })
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        let words = self.words(&["rmi", "--force", &self.image]);
        let _ = errand::run(&self.program, &words, self.lab.scratch().path());
        // podman binds its store onto itself, and would keep the scratch folder.
        if let Some(store) = &self.store {
            let _ = umount2(&store.join("root/overlay"), MntFlags::MNT_DETACH);
            let _ = fs::remove_dir_all(store);
        }
    }
}
