//! Where state is kept, and how signals are named: what a command needs before it knows a container.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::str::FromStr;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use super::error::ContainerError;
use super::state::StateError;

/// The state root of this user: `/run/isolab` for root, `$XDG_RUNTIME_DIR/isolab` for others, and for those who have no
/// such folder one below /tmp, which must be theirs alone.
pub fn default_root() -> Result<PathBuf, ContainerError> {
    if geteuid().is_root() {
        return Ok(PathBuf::from("/run/isolab"));
    }
    if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        return Ok(PathBuf::from(folder).join("isolab"));
    }
    let path = PathBuf::from(format!("/tmp/isolab-{}", geteuid()));
    let failed = |source| StateError::Io { attempt: "use", path: path.clone(), source };
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error).into()),
        _ => {}
    }
    // /tmp is everybody's: somebody else may have made it first, or put a link there.
    let found = fs::symlink_metadata(&path).map_err(failed)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() || found.mode() & 0o077 != 0 {
        return Err(failed(io::Error::from(io::ErrorKind::PermissionDenied)).into());
    }
    Ok(path.join("run"))
}

/// The number of a signal: `9`, `KILL`, `SIGKILL`, `RTMIN+3`; whatever the case of its letters.
pub fn parse_signal(text: &str) -> Result<i32, ContainerError> {
    let unknown = || ContainerError::Signal { name: text.to_owned() };
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let above =
            if rest.is_empty() { Some(0) } else { rest.strip_prefix('+').and_then(|digits| digits.parse().ok()) };
        // The kernel's first one is 32, but libraries keep two for themselves; what programs call SIGRTMIN is 34.
        return above.filter(|above| (0..=30).contains(above)).map(|above: i32| 34 + above).ok_or_else(unknown);
    }
    Signal::from_str(&format!("SIG{name}")).map(|signal| signal as i32).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn a_signal_has_a_number_and_a_name() {
        for (text, number) in [("9", 9), ("kill", 9), ("SIGTERM", 15), ("RTMIN+3", 37), ("sigrtmin", 34), ("64", 64)] {
            assert_eq!(parse_signal(text).ok(), Some(number), "{text}");
        }
        for text in ["0", "65", "-1", "NONE", "", "RTMIN+31", "RTMIN-1"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
