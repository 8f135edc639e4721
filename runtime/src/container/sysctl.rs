//! Kernel parameters of the container's own namespaces (OCI runtime specification, config-linux.md, "Sysctl").
//!
//! Which parameters belong to a namespace, and so can be set for a container alone, is checked with the bundle.

use std::ffi::{CString, NulError};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::write;

use super::bundle::Bundle;
use super::report::{At, Failure, Step};
use super::sys::mount::Context;

/// The parameters: the path of each inside a procfs, and its value.
#[derive(Debug)]
pub(crate) struct Sysctl(Vec<(CString, CString)>);

impl Sysctl {
    /// Reads the wishes of `bundle`. `net.ipv4.ip_forward` is the file `sys/net/ipv4/ip_forward`; where a name has slashes
    /// already, they part it.
    pub(crate) fn plan(bundle: &Bundle) -> Result<Self, NulError> {
        let entries = bundle.linux.sysctl().iter().flatten();
        let entry = |(name, value): (&String, &String)| {
            let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
            Ok((CString::new(format!("sys/{path}"))?, CString::new(value.as_str())?))
        };
        entries.map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// The name of one, as a path.
    pub(crate) fn name(&self, index: usize) -> Option<String> {
        self.0.get(index).map(|(path, _)| path.to_string_lossy().into_owned())
    }

    /// Sets them, in the namespaces of the calling process.
    pub(crate) fn set(&self) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        // A procfs of our own, attached nowhere: an image may have anything at /proc.
        let proc = Context::open(c"proc").and_then(|proc| proc.mount(0)).at(Step::Sysctl)?;
        for (index, (path, value)) in self.0.iter().enumerate() {
            let file = nix::fcntl::openat(&proc, path.as_c_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
            file.and_then(|file| write(&file, value.to_bytes())).at_index(Step::Sysctl, index)?;
        }
        Ok(())
    }
}
