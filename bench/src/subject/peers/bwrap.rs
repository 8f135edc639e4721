//! bubblewrap: namespaces and a root folder, and nothing else of a container.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isolab_reports::model::Role;

use super::super::catalogue::LeftOut;
use super::super::launch::Launch;
use super::super::{About, Lab, Nonce, Subject};
use super::{MountedRoot, Peers};

pub(in super::super) struct Bwrap<'a> {
    lab: &'a Lab,
    about: About,
    program: PathBuf,
    root: PathBuf,
}

impl<'a> Bwrap<'a> {
    pub(in super::super) fn new(lab: &'a Lab, peers: &Peers) -> Result<Self, LeftOut> {
        let name = "bwrap";
        let (program, version) = peers.find(name)?;
        let root = peers.root(name, lab)?.to_owned();
        let about = "bubblewrap: all namespaces, /proc and /dev, but no cgroup and no seccomp; its root file system was \
                     mounted beforehand.";
        let words = ["bwrap", "--unshare-all", "--bind", "ROOTFS", "/", "--proc", "/proc", "--dev", "/dev"];
        let command = words.into_iter().chain(["/isolab-payload", "{}"]).map(str::to_owned).collect();
        Ok(Self { lab, about: About { name, role: Role::Peer, about, command, version }, program, root })
    }
}

impl Subject for Bwrap<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn launch(&self, _: u64, nonce: &Nonce) -> Result<Launch, String> {
        Ok(self.launch_in(&self.root, nonce))
    }

    fn launch_to_stay(&self, number: u64, nonce: &Nonce) -> Result<Launch, String> {
        let root = Arc::new(MountedRoot::own(self.lab, &self.lab.scratch().name(number))?);
        let launch = self.launch_in(root.path(), nonce);
        Ok(Launch { root: Some(root), ..launch })
    }
}

impl Bwrap<'_> {
    fn launch_in(&self, root: &Path, nonce: &Nonce) -> Launch {
        let mut arguments: Vec<OsString> = vec!["--unshare-all".into(), "--bind".into(), root.into()];
        arguments.extend(["/", "--proc", "/proc", "--dev", "/dev", "/isolab-payload"].map(OsString::from));
        arguments.push(nonce.to_string().into());
        Launch::new(self.lab, &self.program, arguments, nonce.token())
    }
}
