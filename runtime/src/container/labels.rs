//! Labels of the security modules: an `AppArmor` profile or an `SELinux` context for the program, and one for its files (OCI
//! runtime specification, config.md, "Linux Process"; config-linux.md, "Mount Label").
//!
//! A label that confines the process and can't be set is an error: the container would have more rights than its author
//! believes. A label for files without `SELinux` takes nothing from anybody: there it is only told of.

use std::ffi::{CStr, CString, NulError};
use std::fs;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::write;
use oci_spec::runtime::Process;
use tracing::info_span;

use super::report::{At, Failure, Step};
use super::sys::mount::Context;

/// A label that cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// An `AppArmor` profile on a host without `AppArmor`.
    #[error("process.apparmorProfile asks for {0:?}, but this kernel has no AppArmor")]
    NoAppArmor(String),
    /// An `SELinux` context on a host without `SELinux`.
    #[error("process.selinuxLabel asks for {0:?}, but this kernel has no SELinux")]
    NoSelinux(String),
    /// A label with a NUL byte.
    #[error("a label of process has a NUL byte")]
    Nul(#[from] NulError),
}

/// What is written to the process's attribute files; it holds from the next execve(2) on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    writes: Vec<(&'static CStr, CString)>,
}

/// Which security modules the kernel has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Modules {
    apparmor: bool,
    selinux: bool,
}

impl Modules {
    /// Looks at the host.
    pub(crate) fn detect() -> Self {
        let enabled = fs::read("/sys/module/apparmor/parameters/enabled");
        Self {
            apparmor: enabled.is_ok_and(|text| text.starts_with(b"Y")),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }
}

impl Labels {
    /// Reads the wishes of `process`. Looks at the host only where there are any.
    pub(crate) fn plan(process: &Process) -> Result<Self, LabelError> {
        let profile = asked(process.apparmor_profile().as_ref());
        let context = asked(process.selinux_label().as_ref());
        if profile.is_none() && context.is_none() {
            return Ok(Self::default());
        }
        Self::for_host(profile, context, Modules::detect())
    }

    fn for_host(profile: Option<&str>, context: Option<&str>, modules: Modules) -> Result<Self, LabelError> {
        let mut writes = Vec::new();
        match profile {
            Some(name) if modules.apparmor => {
                writes.push((c"thread-self/attr/apparmor/exec", CString::new(format!("exec {name}"))?));
            }
            // What every process is anyway.
            None | Some("unconfined") => {}
            Some(name) => return Err(LabelError::NoAppArmor(name.to_owned())),
        }
        match context {
            Some(context) if modules.selinux => writes.push((c"thread-self/attr/exec", CString::new(context)?)),
            None => {}
            Some(context) => return Err(LabelError::NoSelinux(context.to_owned())),
        }
        Ok(Self { writes })
    }

    /// What is written for label `index`, as a reader of an error knows it.
    pub(crate) fn name(&self, index: usize) -> Option<&str> {
        self.writes.get(index)?.1.to_str().ok()
    }

    /// Sets them for the program that the calling process becomes.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        if self.writes.is_empty() {
            return Ok(());
        }
        let _span = info_span!(
            "process.label",
            call = "write(attr/exec)",
            why = "the security module knows the program by this label, from its first instruction on"
        )
        .entered();
        // A procfs of our own: at /proc there may be anything, and a label written elsewhere confines nobody.
        let proc = Context::open(c"proc").and_then(|proc| proc.mount(0)).at(Step::Label)?;
        for (index, (path, label)) in self.writes.iter().enumerate() {
            let file = nix::fcntl::openat(&proc, *path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
            file.and_then(|file| write(&file, label.to_bytes())).at_index(Step::Label, index)?;
        }
        Ok(())
    }
}

/// The label for the files of file systems that are made for the container, where there is `SELinux` to read it.
pub(crate) fn for_files(label: Option<&String>, warnings: &mut Vec<String>) -> Option<String> {
    let label = asked(label)?;
    if Modules::detect().selinux {
        return Some(label.to_owned());
    }
    warnings.push("linux.mountLabel is left out: this kernel has no SELinux".to_owned());
    None
}

fn asked(label: Option<&String>) -> Option<&str> {
    label.map(String::as_str).filter(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{LabelError, Labels, Modules};

    #[test]
    fn a_label_goes_to_the_module_that_reads_it() {
        let both = Modules { apparmor: true, selinux: true };
        let labels = Labels::for_host(Some("profile"), Some("a:b:c"), both).expect("both are there");
        let written = [
            (c"thread-self/attr/apparmor/exec", c"exec profile".to_owned()),
            (c"thread-self/attr/exec", c"a:b:c".to_owned()),
        ];
        assert_eq!(labels.writes, written);
    }

    #[test]
    fn a_label_that_nobody_reads_is_an_error() {
        let none = Modules { apparmor: false, selinux: false };
        assert!(matches!(Labels::for_host(Some("p"), None, none), Err(LabelError::NoAppArmor(_))));
        assert!(matches!(Labels::for_host(None, Some("c"), none), Err(LabelError::NoSelinux(_))));
        assert_eq!(Labels::for_host(Some("unconfined"), None, none).ok(), Some(Labels::default()));
    }
}
