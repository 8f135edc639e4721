//! What users write of mounts: docker's `-v`, `--mount` and `--volumes-from`.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::engine::wishes::{WishError, refused};

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A file or folder of the host.
    Bind,
    /// A volume.
    Volume,
    /// A folder in memory.
    Tmpfs,
}

/// A mount that a user wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountWish {
    /// What is mounted.
    pub kind: MountKind,
    /// A path of the host, or a volume's name; empty for a volume without a name.
    pub source: String,
    /// Where the container sees it.
    pub target: PathBuf,
    /// Whether it can only be read.
    pub read_only: bool,
    /// Whether a new volume begins with what the image has there.
    pub copy: bool,
    /// Whether a folder of the host that is not there is made.
    pub make: bool,
    /// Options of tmpfs(5).
    pub options: String,
}

/// A container whose mounts another shall have, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    /// Its name or id.
    pub container: String,
    /// Whether they can only be read, where that is said.
    pub read_only: Option<bool>,
}

const VOLUME: &str = "-v [/ON/THE/HOST:|NAME:]/IN/THE/CONTAINER[:ro]";

impl MountWish {
    fn new(kind: MountKind, source: &str, target: PathBuf) -> Self {
        Self {
            kind,
            source: source.to_owned(),
            target,
            read_only: false,
            copy: true,
            make: false,
            options: String::new(),
        }
    }

    /// Reads what stands behind `-v`.
    pub fn parse_short(text: &str) -> Result<Self, WishError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts.as_slice() {
            [target] => ("", *target, ""),
            [source, target] => (*source, *target, ""),
            [source, target, options] => (*source, *target, *options),
            _ => return refused(text, VOLUME),
        };
        if source.is_empty() && parts.len() > 1 {
            return refused(text, VOLUME);
        }
        let kind = if source.starts_with(['/', '.', '~']) { MountKind::Bind } else { MountKind::Volume };
        let mut wish = Self::new(kind, source, target_of(text, target)?);
        wish.make = true;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => wish.read_only = true,
                "nocopy" if kind == MountKind::Volume => wish.copy = false,
                // Labels for a security module, and how mounts travel: there is nothing to do for them here.
                "rw" | "z" | "Z" | "rprivate" | "private" => {}
                _ => return refused(text, "options ro, rw and, for a volume, nocopy"),
            }
        }
        wish.checked(text)
    }

    /// Reads what stands behind `--mount`: `type=volume,source=NAME,target=/PATH,readonly`.
    pub fn parse_long(text: &str) -> Result<Self, WishError> {
        let mut wish = Self::new(MountKind::Volume, "", PathBuf::new());
        for pair in text.split(',') {
            let (key, value) = pair.split_once('=').map_or((pair, None), |(key, value)| (key, Some(value)));
            let yes = || match value {
                None | Some("true" | "1") => Ok(true),
                Some("false" | "0") => Ok(false),
                Some(_) => refused(text, "true or false behind readonly and volume-nocopy"),
            };
            match (key, value) {
                ("type", Some("bind")) => wish.kind = MountKind::Bind,
                ("type", Some("volume")) => wish.kind = MountKind::Volume,
                ("type", Some("tmpfs")) => wish.kind = MountKind::Tmpfs,
                ("type", _) => return refused(text, "type=bind, type=volume or type=tmpfs"),
                ("source" | "src", Some(source)) => source.clone_into(&mut wish.source),
                ("target" | "destination" | "dst", Some(target)) => wish.target = target_of(text, target)?,
                ("readonly" | "ro", _) => wish.read_only = yes()?,
                ("volume-nocopy", _) => wish.copy = !yes()?,
                ("bind-propagation", Some("rprivate" | "private")) => {}
                ("tmpfs-size", Some(size)) => add(&mut wish.options, &format!("size={size}")),
                ("tmpfs-mode", Some(mode)) => add(&mut wish.options, &format!("mode={mode}")),
                _ => {
                    return refused(
                        text,
                        "type, source, target, readonly, volume-nocopy, bind-propagation=rprivate, tmpfs-size and tmpfs-mode",
                    );
                }
            }
        }
        if wish.target.as_os_str().is_empty() {
            return refused(text, "a target=/PATH");
        }
        wish.checked(text)
    }

    fn checked(mut self, text: &str) -> Result<Self, WishError> {
        if self.kind == MountKind::Bind && self.source.starts_with('.') {
            // As docker's command does: from where the user stands.
            let absolute = std::path::absolute(&self.source).ok().map(|path| lexical(&path));
            self.source = absolute.and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_default();
        }
        match self.kind {
            MountKind::Bind if !self.source.starts_with('/') => refused(text, "an absolute path of the host"),
            MountKind::Volume if !self.source.is_empty() && super::check_name(&self.source).is_err() => {
                refused(text, "a volume's name, of letters, digits and _ . -, or a path that begins with /")
            }
            MountKind::Tmpfs if !self.source.is_empty() => refused(text, "no source for a tmpfs"),
            MountKind::Bind | MountKind::Volume if !self.options.is_empty() => {
                refused(text, "tmpfs-size and tmpfs-mode only with type=tmpfs")
            }
            _ => Ok(self),
        }
    }
}

/// The path without `..`, which means the folder before it.
fn lexical(path: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(whole.pop()),
            other => whole.push(other),
        }
    }
    whole
}

fn add(options: &mut String, option: &str) {
    if !options.is_empty() {
        options.push(',');
    }
    options.push_str(option);
}

fn target_of(text: &str, target: &str) -> Result<PathBuf, WishError> {
    let plain = clean(Path::new(target));
    if target.starts_with('/') && plain != Path::new("/") {
        Ok(plain)
    } else {
        refused(text, "an absolute path below / in the container")
    }
}

/// A path without `.`, `..` and doubled slashes.
pub(in crate::engine) fn clean(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(part) => plain.push(part),
            Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    plain
}

impl FromStr for VolumesFrom {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, WishError> {
        let (container, mode) = text.split_once(':').unwrap_or((text, ""));
        let read_only = match mode {
            "" => None,
            "ro" => Some(true),
            "rw" => Some(false),
            _ => return refused(text, "CONTAINER, CONTAINER:ro or CONTAINER:rw"),
        };
        if container.is_empty() {
            return refused(text, "the name or id of a container");
        }
        Ok(Self { container: container.to_owned(), read_only })
    }
}

#[cfg(test)]
mod tests {
    use super::{MountKind, MountWish, VolumesFrom};
    use std::path::Path;

    #[test]
    fn a_mount_is_written_short_or_long() {
        let table = [
            ("/data", "type=volume,target=/data"),
            ("web:/data", "type=volume,source=web,target=/data"),
            ("web:/data:ro", "src=web,dst=/data,readonly"),
            ("web:/data:nocopy", "source=web,target=/data,volume-nocopy=true"),
            ("/a b:/data/./x/..:ro", "type=bind,source=/a b,target=/data,ro=1"),
        ];
        for (short, long) in table {
            let mut short = MountWish::parse_short(short).expect(short);
            assert!(short.make, "-v makes what is missing");
            short.make = false;
            assert_eq!(short, MountWish::parse_long(long).expect(long), "{long}");
        }
        let tmpfs = MountWish::parse_long("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").expect("it is one");
        assert_eq!((tmpfs.kind, tmpfs.options.as_str()), (MountKind::Tmpfs, "size=1m,mode=1770"));
        assert_eq!(tmpfs.target, Path::new("/t"));
    }

    #[test]
    fn a_path_with_a_dot_is_where_the_user_stands() {
        let here = std::env::current_dir().expect("a folder").join("b");
        let wish = MountWish::parse_short("./a/../b:/c").expect("a mount");
        assert_eq!((wish.kind, wish.source.as_str()), (super::MountKind::Bind, here.to_str().expect("text")));
    }

    #[test]
    fn what_is_no_mount_is_refused() {
        for text in ["", "data", ":/x", "a:b", "web:/", "/a:/b:x", "/a:/b:ro:rw", "-x:/y", "a/b:/c", "/a:/b:nocopy"] {
            assert!(MountWish::parse_short(text).is_err(), "{text:?}");
        }
        for text in [
            "",
            "target=x",
            "type=bind,target=/x",
            "type=nfs,target=/x",
            "source=a",
            "target=/x,colour=red",
            "type=tmpfs,source=a,target=/x",
            "target=/x,tmpfs-size=1m",
            "target=/x,readonly=perhaps",
        ] {
            assert!(MountWish::parse_long(text).is_err(), "{text:?}");
        }
        assert!("web:rx".parse::<VolumesFrom>().is_err() && ":ro".parse::<VolumesFrom>().is_err());
        assert_eq!("web:ro".parse::<VolumesFrom>().expect("it is one").read_only, Some(true));
    }
}
