//! Where the lab keeps what outlives a command, and what does not outlive the boot.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// The two folders of the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// What a boot clears: containers, sockets, scratch folders.
    pub runtime: PathBuf,
    /// What stays: images and their layers.
    pub data: PathBuf,
}

impl Roots {
    /// This user's: `/run/isolab` and `/var/lib/isolab` as root, the XDG folders otherwise.
    pub fn of_user() -> Self {
        let user = nix::unistd::geteuid().as_raw();
        Self::of(user, |name| env::var_os(name).filter(|value| !value.is_empty()))
    }

    /// Those of the user `user`, who has these environment variables.
    fn of(user: u32, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        if user == 0 {
            return Self { runtime: "/run/isolab".into(), data: "/var/lib/isolab".into() };
        }
        let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let runtime = folder("XDG_RUNTIME_DIR").map(|folder| folder.join("isolab"));
        let home = folder("HOME").map(|home| home.join(".local/share"));
        let data = folder("XDG_DATA_HOME").or(home).map(|folder| folder.join("isolab"));
        // Without a login session there is no XDG folder; a name with the user in it keeps users apart.
        let fallback = |what: &str| PathBuf::from(format!("/tmp/isolab-{user}")).join(what);
        Self { runtime: runtime.unwrap_or_else(|| fallback("run")), data: data.unwrap_or_else(|| fallback("data")) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_user_has_folders_of_their_own() {
        assert_eq!(Roots::of(0, |_| Some("/home/x".into())).data, Path::new("/var/lib/isolab"));
        let student = Roots::of(1000, |name| match name {
            "XDG_RUNTIME_DIR" => Some("/run/user/1000".into()),
            "HOME" => Some("/home/ada".into()),
            _ => None,
        });
        assert_eq!(student.runtime, Path::new("/run/user/1000/isolab"));
        assert_eq!(student.data, Path::new("/home/ada/.local/share/isolab"));
        let bare = Roots::of(1000, |name| (name == "XDG_DATA_HOME").then(|| "relative".into()));
        assert_eq!(bare.runtime, Path::new("/tmp/isolab-1000/run"));
        assert_eq!(bare.data, Path::new("/tmp/isolab-1000/data"));
    }
}
