//! Firecracker with a guest equal to `microvm-bare`'s: a few instructions that print READY on the serial port.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use isolab_reports::model::Role;
use serde_json::json;

use super::super::catalogue::LeftOut;
use super::super::launch::{Farewell, Launch};
use super::super::microvm::may_use_kvm;
use super::super::{About, Lab, Nonce, Subject, kernel};
use super::Peers;

pub(in super::super) struct Firecracker<'a> {
    lab: &'a Lab,
    about: About,
    program: PathBuf,
}

impl<'a> Firecracker<'a> {
    pub(in super::super) fn new(lab: &'a Lab, peers: &Peers) -> Result<Self, LeftOut> {
        let name = "firecracker";
        let (program, version) = peers.find(name)?;
        may_use_kvm(name)?;
        let about = "Firecracker with 128 MiB, one vCPU and no API socket; its guest is a few instructions that print READY \
                     on the serial port and reset the machine.";
        let words = ["firecracker", "--no-api", "--level", "Error", "--config-file", "{}"];
        let command = words.map(str::to_owned).into();
        Ok(Self { lab, about: About { name, role: Role::Peer, about, command, version }, program })
    }
}

impl Subject for Firecracker<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn runs_payload(&self) -> bool {
        false
    }

    fn stays(&self) -> bool {
        false
    }

    fn launch(&self, number: u64, nonce: &Nonce) -> Result<Launch, String> {
        let scratch = self.lab.scratch();
        let folder = scratch.path().join(scratch.name(number));
        let (image, file) = (folder.join("kernel"), folder.join("machine.json"));
        let token = nonce.token();
        let machine = json!({
            "boot-source": { "kernel_image_path": image },
            "drives": [],
            "machine-config": { "vcpu_count": 1, "mem_size_mib": 128 }
        });
        let written = fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&image, kernel::printing(&token)))
            .and_then(|()| fs::write(&file, machine.to_string()));
        written.map_err(|error| format!("cannot write {}: {error}", folder.display()))?;
        let mut arguments: Vec<OsString> = ["--no-api", "--level", "Error", "--config-file"].map(OsString::from).into();
        arguments.push(file.into_os_string());
        let launch = Launch::new(self.lab, &self.program, arguments, token);
        Ok(Launch { farewell: Farewell::Itself, litter: Some(folder), ..launch })
    }
}
