//! The payload in a container of ours, started through the command line as an engine would.

use std::ffi::OsString;
use std::path::PathBuf;

use isolab_reports::model::Role;

use super::bundle::{Root, Template};
use super::catalogue::{LeftOut, engine};
use super::launch::{Launch, TIMELINE};
use super::{About, Lab, Nonce, Subject};

pub(super) use super::bundle::Network;

pub(super) struct Container<'a> {
    lab: &'a Lab,
    about: About,
    program: PathBuf,
    template: Template,
}

impl<'a> Container<'a> {
    pub(super) fn new(lab: &'a Lab, network: Network) -> Result<Self, LeftOut> {
        let (name, about) = match network {
            Network::Own => (
                "container",
                "The payload in a container: namespaces, a cgroup in every hierarchy, an overlay root, seccomp; the host's \
                 kernel runs beneath it.",
            ),
            Network::Hosts => (
                "container-nonet",
                "The same container without a network namespace of its own: what that one costs is the difference.",
            ),
        };
        let program = engine(name, "isolab-oci", "isolab-runtime")?;
        let hint = "isolab-bench doctor tells what the lab can write to";
        let image = lab.image().map_err(|error| LeftOut::new(name, format!("no image: {error}"), hint))?;
        let template = Template::new(lab, network, &Root::Layers(image.lower_dirs()))
            .map_err(|error| LeftOut::new(name, format!("no bundle: {error}"), hint))?;
        let command = ["isolab-oci", "--timeline", TIMELINE, "run", "--bundle", "{}", "{}"].map(str::to_owned).into();
        let about = About { name, role: Role::Subject, about, command, version: None };
        Ok(Self { lab, about, program, template })
    }
}

impl Subject for Container<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn launch(&self, number: u64, nonce: &Nonce) -> Result<Launch, String> {
        self.launch_of(number, nonce, false)
    }

    fn launch_to_stay(&self, number: u64, nonce: &Nonce) -> Result<Launch, String> {
        self.launch_of(number, nonce, true)
    }
}

impl Container<'_> {
    fn launch_of(&self, number: u64, nonce: &Nonce, stays: bool) -> Result<Launch, String> {
        let bundle = self.template.write(self.lab.scratch().name(number), nonce)?;
        let root = &self.lab.roots().runtime;
        let mut owned = bundle.groups;
        owned.push(root.join("oci").join(&bundle.id));
        let with_root = |rest: &[&str]| -> Vec<OsString> {
            let mut words = vec!["--root".into(), root.clone().into_os_string()];
            words.extend(rest.iter().map(OsString::from));
            words
        };
        let folder = bundle.folder.to_string_lossy();
        let pid = bundle.folder.join("pid");
        let words = if stays {
            with_root(&["run", "--detach", "--pid-file", &pid.to_string_lossy(), "--bundle", &folder, &bundle.id])
        } else {
            with_root(&["--timeline", TIMELINE, "run", "--bundle", &folder, &bundle.id])
        };
        let mut undo = vec![self.program.clone().into_os_string()];
        undo.extend(with_root(&["delete", "--force", &bundle.id]));
        let launch = Launch::new(self.lab, &self.program, words, nonce.token());
        let (detached, litter) = (stays.then_some(pid), Some(bundle.folder.clone()));
        Ok(Launch { owned, tells: !stays, detached, undo: Some(undo), litter, ..launch })
    }
}
