//! Runtimes with the command line of runc: `runc run --bundle DIR ID`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use isolab_reports::model::Role;

use super::super::bundle::{ID, Network, Root, Template};
use super::super::catalogue::LeftOut;
use super::super::launch::Launch;
use super::super::{About, Lab, Nonce, Subject};
use super::{MountedRoot, Peers, root};

pub(in super::super) struct Oci<'a> {
    lab: &'a Lab,
    about: About,
    program: PathBuf,
    template: Template,
    /// The same bundle on a root file system of the instance's own.
    staying: Template,
}

impl<'a> Oci<'a> {
    pub(in super::super) fn new(name: &'static str, lab: &'a Lab, peers: &Peers) -> Result<Self, LeftOut> {
        let (program, version) = peers.find(name)?;
        let template = |root: PathBuf| {
            Template::new(lab, Network::Own, &Root::Mounted(root))
                .map_err(|error| LeftOut::new(name, format!("no bundle: {error}"), "isolab-bench doctor"))
        };
        let shared = template(peers.root(name, lab)?.to_owned())?;
        let staying = template(root::own_folder(lab).join(ID).join(root::POINT))?;
        let about = match name {
            "crun" => {
                "crun, the OCI runtime beneath podman, from the same bundle; its root file system was mounted beforehand, as \
                 its engine does."
            }
            "youki" => {
                "youki, an OCI runtime in Rust, from the same bundle; its root file system was mounted beforehand, as an engine does."
            }
            _ => {
                "runc, the OCI runtime beneath docker, from the same bundle; its root file system was mounted beforehand, as \
                 its engine does."
            }
        };
        let command = [name, "run", "--bundle", "{}", "{}"].map(str::to_owned).into();
        Ok(Self {
            lab,
            about: About { name, role: Role::Peer, about, command, version },
            program,
            template: shared,
            staying,
        })
    }
}

impl Subject for Oci<'_> {
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

impl Oci<'_> {
    fn launch_of(&self, number: u64, nonce: &Nonce, stays: bool) -> Result<Launch, String> {
        let scratch = self.lab.scratch();
        let template = if stays { &self.staying } else { &self.template };
        let bundle = template.write(scratch.name(number), nonce)?;
        let root = stays.then(|| MountedRoot::own(self.lab, &bundle.id).map(Arc::new)).transpose()?;
        let states = scratch.path().join(self.about.name);
        let mut owned = bundle.groups;
        owned.push(states.join(&bundle.id));
        let with_root = |rest: &[&str]| -> Vec<OsString> {
            let mut words = vec!["--root".into(), states.clone().into_os_string()];
            words.extend(rest.iter().map(OsString::from));
            words
        };
        let folder = bundle.folder.to_string_lossy();
        let pid = bundle.folder.join("pid");
        let words = if stays {
            with_root(&["run", "--detach", "--pid-file", &pid.to_string_lossy(), "--bundle", &folder, &bundle.id])
        } else {
            with_root(&["run", "--bundle", &folder, &bundle.id])
        };
        let mut undo = vec![self.program.clone().into_os_string()];
        undo.extend(with_root(&["delete", "--force", &bundle.id]));
        let launch = Launch::new(self.lab, &self.program, words, nonce.token());
        let (detached, litter) = (stays.then_some(pid), Some(bundle.folder.clone()));
        Ok(Launch { owned, detached, undo: Some(undo), litter, root, ..launch })
    }
}
