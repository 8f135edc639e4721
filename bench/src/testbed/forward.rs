//! A file of the host that the testbed is to have.

use std::convert::Infallible;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// Where forwarded files lie that are given no other place; also the command's working directory, and on its `PATH`.
pub const FOLDER: &str = "/forward";

/// Where the machine mounts the kernel's own file systems, over whatever is there.
const HIDDEN: [&str; 3] = ["dev", "proc", "sys"];

/// A file or folder to forward: `FILE`, or `HOST=GUEST` where it is to have a certain path in the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Its path on this host.
    pub host: PathBuf,
    /// Its path in the machine: absolute, or else below [`FOLDER`]. None for its own name there.
    pub guest: Option<PathBuf>,
}

impl FromStr for Forward {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.rsplit_once('=') {
            // A file whose own name has an equals sign in it.
            _ if Path::new(text).exists() => Self { host: text.into(), guest: None },
            Some((host, guest)) if !guest.is_empty() => Self { host: host.into(), guest: Some(guest.into()) },
            _ => Self { host: text.into(), guest: None },
        })
    }
}

impl Forward {
    /// Its path in the machine without the leading slash; none where it would name no file there, or one that is hidden.
    pub(super) fn place(&self) -> Option<String> {
        let path = Path::new(FOLDER).join(match &self.guest {
            Some(path) => path.clone(),
            // By the name it was called by: what `gcc` is a link to has another. A path like `..` has none of its own.
            None => match self.host.file_name() {
                Some(name) => name.into(),
                None => self.host.canonicalize().ok()?.file_name()?.into(),
            },
        });
        normal(&path).filter(|place| !HIDDEN.iter().any(|folder| Path::new(place).starts_with(folder)))
    }
}

/// A path without its leading slash and without `.`; none where it has `..` in it, is the root, or is no text.
pub(super) fn normal(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Option<String> {
        text.parse::<Forward>().unwrap().place()
    }

    #[test]
    fn a_file_lands_under_its_name_or_where_it_was_told_to() {
        assert_eq!(place("/etc/passwd").as_deref(), Some("forward/passwd"));
        assert_eq!(place("/bin/sh").as_deref(), Some("forward/sh"), "not what it is a link to");
        assert_eq!(place("/usr/bin/..").as_deref(), Some("forward/usr"));
        assert_eq!(place("no/such.file").as_deref(), Some("forward/such.file"));
        assert_eq!(place("/etc/passwd=/etc/people").as_deref(), Some("etc/people"));
        assert_eq!(place("/etc/passwd=lists/./people").as_deref(), Some("forward/lists/people"));
    }

    #[test]
    fn a_place_that_names_no_file_is_none() {
        assert_eq!(place("/etc/passwd=/"), None);
        assert_eq!(place("/etc/passwd=../x"), None);
        assert_eq!(place("/etc/passwd=/sys/x"), None, "sysfs will be mounted over it");
        assert_eq!(place("/etc/passwd=/system").as_deref(), Some("system"));
    }

    #[test]
    fn a_name_with_an_equals_sign_is_that_files_name_where_there_is_such_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a=b");
        std::fs::write(&path, "").unwrap();
        assert_eq!(place(path.to_str().unwrap()).as_deref(), Some("forward/a=b"));
    }
}
