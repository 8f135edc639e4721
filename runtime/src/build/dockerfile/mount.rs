//! `RUN --mount`: what a program of the build sees, and the image does not have.

use std::path::{Component, Path, PathBuf};

use super::error::Problem;

/// The flag, as errors name it.
const FLAG: &str = "--mount";
/// Where secrets are looked for by those who use them.
const SECRETS: &str = "/run/secrets";

/// A mount of a RUN; texts have their variables still in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMount {
    /// What it is.
    pub kind: MountKind,
    /// Where: absolute, or below the working folder.
    pub target: String,
    /// As it stands in the Dockerfile.
    pub text: String,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Files of a stage or an image, or of the build's folder where there is none.
    Bind {
        /// The stage or image.
        from: Option<String>,
        /// Which of its files.
        source: String,
        /// Whether the program may write; what it writes is thrown away.
        writable: bool,
    },
    /// A folder that the next build finds again.
    Cache {
        /// What it is known by.
        id: String,
        /// Whether one build waits until another has done with it.
        locked: bool,
        /// Whether it can only be read.
        read_only: bool,
        /// The mode of a new one.
        mode: u32,
        /// Whose a new one is: user and group.
        owner: (u32, u32),
    },
    /// A folder in memory, of so many bytes at most.
    Tmpfs {
        /// As tmpfs(5) has it.
        size: Option<String>,
    },
    /// A file that the user of the build gives, and that is nowhere afterwards.
    Secret {
        /// Which of those that were given.
        id: String,
        /// Whether the step fails without it.
        required: bool,
        /// Its mode.
        mode: u32,
        /// Whose it is: user and group.
        owner: (u32, u32),
    },
}

/// The fields of a mount, each taken once.
struct Fields<'a> {
    text: &'a str,
    pairs: Vec<(String, String)>,
}

impl RunMount {
    /// Understands `type=cache,target=/x,...`.
    pub(super) fn read(text: &str) -> Result<Self, Problem> {
        let pairs = text.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_ascii_lowercase(), value.to_owned())
        });
        let mut fields = Fields { text, pairs: pairs.collect() };
        let kind = fields.take(&["type"]).unwrap_or_else(|| "bind".to_owned());
        let target = fields.take(&["target", "dst", "destination"]).filter(|target| !target.is_empty());
        let id = fields.take(&["id"]).filter(|id| !id.is_empty());
        let needed = || fields_wrong(text, "a target=PATH");
        let (kind, target) = match kind.as_str() {
            "bind" => (fields.bind()?, target.ok_or_else(needed)?),
            "cache" => {
                let target = target.ok_or_else(needed)?;
                (fields.cache(id.unwrap_or_else(|| target.clone()))?, target)
            }
            "tmpfs" => (MountKind::Tmpfs { size: fields.take(&["size"]) }, target.ok_or_else(needed)?),
            "secret" => {
                let named = target.as_deref().and_then(|target| target.rsplit('/').next()).map(str::to_owned);
                let id = id.or(named).ok_or_else(|| fields_wrong(text, "an id=NAME"))?;
                let target = target.unwrap_or_else(|| format!("{SECRETS}/{id}"));
                (fields.secret(id)?, target)
            }
            _ => return Err(fields_wrong(text, "type=bind, cache, tmpfs or secret")),
        };
        if !fields.pairs.is_empty() {
            let form = "fields that its type has: type, target, from, source, rw, ro, id, sharing, mode, uid, gid, size \
                        or required";
            return Err(fields_wrong(text, form));
        }
        Ok(Self { kind, target, text: text.to_owned() })
    }

    /// The stage or image that it shows files of.
    pub(crate) fn from(&self) -> Option<&String> {
        if let MountKind::Bind { from, .. } = &self.kind { from.as_ref() } else { None }
    }

    /// The mount's place below the root, seen from a working folder.
    pub(crate) fn place(folder: &str, target: &str) -> PathBuf {
        let mut place = PathBuf::new();
        for part in Path::new(folder).join(target).components() {
            match part {
                Component::Normal(part) => place.push(part),
                Component::ParentDir => drop(place.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        place
    }
}

impl Fields<'_> {
    fn take(&mut self, names: &[&str]) -> Option<String> {
        let at = self.pairs.iter().position(|(name, _)| names.contains(&name.as_str()))?;
        Some(self.pairs.remove(at).1)
    }

    /// A field that is true where it only stands there.
    fn flag(&mut self, names: &[&str]) -> Result<Option<bool>, Problem> {
        match self.take(names).as_deref() {
            None => Ok(None),
            Some("" | "true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(fields_wrong(self.text, "true or false there")),
        }
    }

    fn number(&mut self, name: &str, radix: u32, usual: u32) -> Result<u32, Problem> {
        let Some(text) = self.take(&[name]) else { return Ok(usual) };
        u32::from_str_radix(&text, radix).map_err(|_| fields_wrong(self.text, "numbers for mode (octal), uid and gid"))
    }

    fn owner(&mut self) -> Result<(u32, u32), Problem> {
        Ok((self.number("uid", 10, 0)?, self.number("gid", 10, 0)?))
    }

    fn bind(&mut self) -> Result<MountKind, Problem> {
        let from = self.take(&["from"]).filter(|from| !from.is_empty());
        let source = self.take(&["source", "src"]).unwrap_or_default();
        let read_only = self.flag(&["readonly", "ro"])?;
        let writable = self.flag(&["readwrite", "rw"])?.unwrap_or(read_only == Some(false));
        Ok(MountKind::Bind { from, source, writable })
    }

    fn cache(&mut self, id: String) -> Result<MountKind, Problem> {
        let locked = match self.take(&["sharing"]).as_deref() {
            None | Some("shared") => false,
            // One that is private would be another folder while the first is in use: to wait for it serves as well.
            Some("locked" | "private") => true,
            Some(_) => return Err(fields_wrong(self.text, "sharing=shared, private or locked")),
        };
        let writable = self.flag(&["readwrite", "rw"])?.unwrap_or(true);
        let read_only = self.flag(&["readonly", "ro"])?.unwrap_or(!writable);
        Ok(MountKind::Cache { id, locked, read_only, mode: self.number("mode", 8, 0o755)?, owner: self.owner()? })
    }

    fn secret(&mut self, id: String) -> Result<MountKind, Problem> {
        let required = self.flag(&["required"])?.unwrap_or(false);
        Ok(MountKind::Secret { id, required, mode: self.number("mode", 8, 0o400)?, owner: self.owner()? })
    }
}

fn fields_wrong(text: &str, form: &'static str) -> Problem {
    Problem::Value { flag: FLAG, value: text.to_owned(), form }
}

#[cfg(test)]
mod tests {
    use super::{MountKind, RunMount};

    #[test]
    fn a_mount_is_read_as_docker_reads_it() {
        let read = |text: &str| RunMount::read(text).unwrap();
        let bind = MountKind::Bind { from: Some("b".to_owned()), source: "/s".to_owned(), writable: true };
        assert_eq!(read("from=b,source=/s,target=/t,rw").kind, bind);
        let secret = read("type=secret,id=key,mode=0440");
        assert_eq!(secret.target, "/run/secrets/key");
        assert_eq!(
            secret.kind,
            MountKind::Secret { id: "key".to_owned(), required: false, mode: 0o440, owner: (0, 0) }
        );
        let cache = read("type=cache,dst=x,sharing=locked,uid=33");
        let wanted =
            MountKind::Cache { id: "x".to_owned(), locked: true, read_only: false, mode: 0o755, owner: (33, 0) };
        assert_eq!((cache.kind, cache.target.as_str()), (wanted, "x"));
        assert_eq!(read("type=tmpfs,target=/x,size=1m").kind, MountKind::Tmpfs { size: Some("1m".to_owned()) });
        assert_eq!(RunMount::place("/srv", "../x/./y").to_str(), Some("x/y"));
        for wrong in
            ["", "type=ssh", "type=cache", "target=/x,what=1", "type=cache,target=/x,sharing=no", "rw=2,target=x"]
        {
            assert!(RunMount::read(wrong).is_err(), "{wrong} was taken");
        }
    }
}
