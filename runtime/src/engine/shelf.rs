//! The shelf: where containers are kept, found, named and taken away.
//!
//! ```text
//! ROOT/containers/ID/             one container; without `container.json` it is not finished, or no more
//! ROOT/containers/ID/lock         held by who changes it
//! ROOT/containers/names/NAME      a link that says whose name it is (`label`): symlink(2) is what lets only one have it
//! ROOT/containers/users.lock      held by who chooses numbers for a container's users
//! ROOT/containers/.tmp-...        what is being removed, or belongs to a command that runs
//! ```
//!
//! A command may be killed between any two of these calls. A folder without a record whose lock nobody holds, and a name
//! that leads nowhere, are known as remnants: the first is removed by `prune`, the second by whoever wants the name.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::fcntl::{Flock, FlockArg};
use tracing::info_span;

use super::error::{EngineError, io_error};
use super::record::Record;
use crate::container::replace;
use crate::image::Temporary;

const RECORD: &str = "container.json";
const LOCK: &str = "lock";
const NAMES: &str = "names";
/// The digits of an id.
const DIGITS: usize = 64;

/// The containers of one root.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    folder: PathBuf,
}

/// A container that nobody else changes while this lives.
#[derive(Debug)]
pub struct Locked {
    folder: PathBuf,
    _lock: Flock<File>,
    /// What is known of it; [`Locked::write`] keeps a change.
    pub record: Record,
    /// Whether its bundle was written under this very lock, so that nothing in it can be old.
    pub(super) fresh: bool,
}

impl Shelf {
    /// The containers below the images' root.
    pub(crate) fn below(root: &Path) -> Self {
        Self { folder: root.join("containers") }
    }

    /// Where a container is, or would be.
    pub(crate) fn folder_of(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    /// Makes a container's folder, which `furnish` fills, and takes its name. It is there for others once its record is
    /// written, which is the last step.
    pub(crate) fn add(
        &self,
        record: Record,
        furnish: impl FnOnce(&Path) -> Result<(), EngineError>,
    ) -> Result<Locked, EngineError> {
        let _span = info_span!(
            "engine.reserve",
            call = "mkdir(2), symlink(2), rename(2)",
            why = "a name that nobody else has, and a record by which every later command finds the container"
        )
        .entered();
        make_folder(&self.folder.join(NAMES))?;
        let folder = self.folder_of(&record.id);
        make_folder(&folder)?;
        let lock = lock(&folder)?.ok_or_else(|| EngineError::NoContainer { name: record.id.clone() })?;
        let locked = Locked { folder, _lock: lock, record, fresh: true };
        let made = furnish(&locked.folder).and_then(|()| self.claim(&locked.record.name, &locked.record.id));
        if let Err(error) = made.and_then(|()| locked.write()) {
            self.disown(&locked.record);
            // On the way out of another error; `prune` knows a folder that stays behind.
            let _ = self.take_away(&locked.folder);
            return Err(error);
        }
        Ok(locked)
    }

    /// Opens a container to change it. Waits for others that do.
    pub(crate) fn lock(&self, id: &str) -> Result<Locked, EngineError> {
        let missing = || EngineError::NoContainer { name: id.to_owned() };
        let folder = self.folder_of(id);
        let lock = lock(&folder)?.ok_or_else(missing)?;
        // Whoever held the lock before may have removed it.
        let record = read(&folder)?.ok_or_else(missing)?;
        Ok(Locked { folder, _lock: lock, record, fresh: false })
    }

    /// What is known of a container.
    pub(crate) fn read(&self, id: &str) -> Result<Option<Record>, EngineError> {
        read(&self.folder_of(id))
    }

    /// The ids of all containers.
    pub(crate) fn ids(&self) -> Result<Vec<String>, EngineError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(io_error("list", &self.folder))?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| is_id(name)).collect())
    }

    /// Finds the container that a person means: by its name, its id, or the beginning of that.
    pub(crate) fn find(&self, text: &str) -> Result<String, EngineError> {
        if let Some(id) = self.owner(text) {
            return Ok(id);
        }
        let hexadecimal = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let missing = || EngineError::NoContainer { name: text.to_owned() };
        if !hexadecimal {
            return Err(missing());
        }
        let mut found = self.ids()?;
        found.retain(|id| id.starts_with(text) && has_record(&self.folder_of(id)));
        match found.as_slice() {
            [] => Err(missing()),
            [id] => Ok(id.clone()),
            several => Err(EngineError::Ambiguous { prefix: text.to_owned(), count: several.len() }),
        }
    }

    /// Gives a container another name.
    pub(crate) fn rename(&self, locked: &mut Locked, name: &str) -> Result<(), EngineError> {
        check_name(name)?;
        if locked.record.name == name {
            return Err(EngineError::NameTaken { name: name.to_owned(), id: locked.record.short_id().to_owned() });
        }
        self.claim(name, &locked.record.id)?;
        let before = std::mem::replace(&mut locked.record.name, name.to_owned());
        locked.write()?;
        self.free(&before, &locked.record.id);
        Ok(())
    }

    /// Takes a container away with all that it wrote. At once for everybody else: its folder is renamed first.
    pub(crate) fn remove(&self, locked: &Locked) -> Result<(), EngineError> {
        let _span = info_span!(
            "engine.remove",
            call = "rename(2), unlink(2)",
            why = "what the container wrote is gone with it; renamed first, it is gone for every other command at once"
        )
        .entered();
        let temporary = self.hide(&locked.folder)?;
        self.disown(&locked.record);
        drop(temporary);
        Ok(())
    }

    /// Removes what killed commands left: folders without a record, and names that lead nowhere.
    pub(crate) fn prune(&self) -> Result<Vec<PathBuf>, EngineError> {
        let mut removed = Vec::new();
        for id in self.ids()? {
            let folder = self.folder_of(&id);
            if let (false, Some(_unused)) = (has_record(&folder), try_lock(&folder)?) {
                self.take_away(&folder)?;
                removed.push(folder);
            }
        }
        let Ok(names) = fs::read_dir(self.folder.join(NAMES)) else { return Ok(removed) };
        let _names = self.lock_names()?;
        for link in names.flatten().map(|entry| entry.path()) {
            let leads = |id: String| self.folder_of(&id).join(LOCK).exists();
            let is_remnant = !said_by(&link).is_some_and(leads) || self.is_of_killed_rename(&link)?;
            if is_remnant && fs::remove_file(&link).is_ok() {
                removed.push(link);
            }
        }
        Ok(removed)
    }

    /// Whether a container is called otherwise than by this link to it, and nobody is about to change that.
    fn is_of_killed_rename(&self, link: &Path) -> Result<bool, EngineError> {
        let Some(id) = said_by(link) else { return Ok(false) };
        let folder = self.folder_of(&id);
        let Some(_unused) = try_lock(&folder)? else { return Ok(false) };
        let record = read(&folder)?.filter(|record| !record.damaged);
        Ok(record.is_some_and(|record| link.file_name().is_none_or(|name| name != record.name.as_str())))
    }

    /// Whose name it is; nothing where it is nobody's.
    fn owner(&self, name: &str) -> Option<String> {
        check_name(name).ok()?;
        let id = said_by(&self.folder.join(NAMES).join(name))?;
        has_record(&self.folder_of(&id)).then_some(id)
    }

    /// Takes a name. One that leads nowhere is a remnant, unless its taker is just about to write its record.
    fn claim(&self, name: &str, id: &str) -> Result<(), EngineError> {
        let link = self.folder.join(NAMES).join(name);
        let _names = self.lock_names()?;
        let owner = said_by(&link);
        if owner.as_deref() == Some(id) {
            // A rename that was killed has taken it already, or not let it go yet.
            return Ok(());
        }
        if let Some(owner) = owner {
            let folder = self.folder_of(&owner);
            if has_record(&folder) || (folder.exists() && try_lock(&folder)?.is_none()) {
                let id = owner.chars().take(12).collect();
                return Err(EngineError::NameTaken { name: name.to_owned(), id });
            }
            fs::remove_file(&link).map_err(io_error("remove", &link))?;
        }
        symlink(label(id), &link).map_err(io_error("make", &link))
    }

    /// Of two who look at a name, one waits: or the second could take a remnant away that is the first one's name by then.
    fn lock_names(&self) -> Result<Flock<File>, EngineError> {
        self.lock_all("names.lock")
    }

    /// Of two who look for numbers that are free, one waits.
    pub(crate) fn lock_users(&self) -> Result<Flock<File>, EngineError> {
        make_folder(&self.folder)?;
        self.lock_all("users.lock")
    }

    fn lock_all(&self, name: &str) -> Result<Flock<File>, EngineError> {
        let path = self.folder.join(name);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let opened = opened.map_err(io_error("open", &path))?;
        Flock::lock(opened, FlockArg::LockExclusive).map_err(|(_, errno)| io_error("lock", path)(errno.into()))
    }

    /// Gives a container's name back.
    fn disown(&self, record: &Record) {
        self.free(&record.name, &record.id);
    }

    fn free(&self, name: &str, id: &str) {
        let link = self.folder.join(NAMES).join(name);
        if said_by(&link).is_some_and(|owner| owner == id) {
            // A name that leads nowhere is as good as free.
            let _ = fs::remove_file(link);
        }
    }

    fn hide(&self, folder: &Path) -> Result<Temporary, EngineError> {
        let temporary = Temporary::name_in(&self.folder);
        fs::rename(folder, temporary.path()).map_err(io_error("remove", folder))?;
        Ok(temporary)
    }

    fn take_away(&self, folder: &Path) -> Result<(), EngineError> {
        self.hide(folder).map(drop)
    }
}

impl Locked {
    /// The container's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps what is known of it.
    pub fn write(&self) -> Result<(), EngineError> {
        let path = self.folder.join(RECORD);
        let new = self.folder.join("container.json.new");
        let text =
            serde_json::to_vec(&self.record).map_err(|source| EngineError::Record { path: path.clone(), source })?;
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&new);
        // One that goes with its end has nothing that a power cut could take from it.
        let replace =
            |new: &PathBuf| if self.record.wishes.remove { replace(new, &path) } else { fs::rename(new, &path) };
        let written = opened.and_then(|mut file| file.write_all(&text)).and_then(|()| replace(&new));
        written.map_err(io_error("write", &path))
    }
}

/// Whether there is a record. An empty one is none: a power cut leaves it of a container that was to go with its end.
fn has_record(folder: &Path) -> bool {
    fs::metadata(folder.join(RECORD)).is_ok_and(|found| found.len() > 0)
}

fn read(folder: &Path) -> Result<Option<Record>, EngineError> {
    let path = folder.join(RECORD);
    match fs::read(&path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(io_error("read", path)(source)),
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => Ok(Some(serde_json::from_slice(&text).unwrap_or_else(|source| {
            // One that cannot be understood keeps nobody from the others, and can be removed.
            let id = folder.file_name().unwrap_or_default().to_string_lossy();
            Record::damaged(&id, format!("{} is no container record: {source}", path.display()))
        }))),
    }
}

fn lock(folder: &Path) -> Result<Option<Flock<File>>, EngineError> {
    let Some((file, path)) = lock_file(folder)? else { return Ok(None) };
    let locked = Flock::lock(file, FlockArg::LockExclusive);
    locked.map(Some).map_err(|(_, errno)| io_error("lock", path)(errno.into()))
}

/// The lock; nothing where another holds it, or the folder is gone.
fn try_lock(folder: &Path) -> Result<Option<Flock<File>>, EngineError> {
    let Some((file, _)) = lock_file(folder)? else { return Ok(None) };
    Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
}

fn lock_file(folder: &Path) -> Result<Option<(File, PathBuf)>, EngineError> {
    let path = folder.join(LOCK);
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    match opened {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(io_error("open", path)(error)),
        Ok(file) => Ok(Some((file, path))),
    }
}

/// What a link says of a container: its id's bytes in base64. ext4 keeps up to 59 letters of a link beside its other facts;
/// the 64 digits of an id need a block of their own, and a disk that is told what is free is waited for when that goes.
fn label(id: &str) -> String {
    let pairs = id.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes: Option<Vec<u8>> = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect();
    bytes.map_or_else(|| id.to_owned(), |bytes| URL_SAFE_NO_PAD.encode(bytes))
}

/// The id that a link leads to. Links of earlier versions have its digits. What is neither is answered as it stands: such a
/// container is nowhere.
fn said_by(link: &Path) -> Option<String> {
    let text = fs::read_link(link).ok()?.to_string_lossy().into_owned();
    let bytes = if is_id(&text) { None } else { URL_SAFE_NO_PAD.decode(&text).ok() };
    Some(bytes.map_or(text, |bytes| hexadecimal(&bytes)))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

fn make_folder(path: &Path) -> Result<(), EngineError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("make", path))
}

fn is_id(name: &str) -> bool {
    name.len() == DIGITS && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A name as docker takes it: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub(crate) fn check_name(name: &str) -> Result<(), EngineError> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && (2..=200).contains(&name.len()) {
        Ok(())
    } else {
        Err(EngineError::Name { name: name.to_owned() })
    }
}

/// A new id.
pub(crate) fn random_id() -> Result<String, EngineError> {
    let mut bytes = [0_u8; DIGITS / 2];
    let path = "/dev/urandom";
    File::open(path).and_then(|mut file| file.read_exact(&mut bytes)).map_err(io_error("read", path))?;
    Ok(hexadecimal(&bytes))
}

#[cfg(test)]
mod tests {
    use super::{Shelf, check_name, random_id};
    use crate::engine::EngineError;
    use crate::engine::record::{Life, Record};

    fn record(name: &str) -> Record {
        Record {
            id: random_id().expect("an id"),
            name: name.to_owned(),
            image: crate::engine::record::ImageOf::default(),
            config: crate::engine::RunConfig::default(),
            wishes: crate::engine::Wishes::default(),
            created: 1,
            life: Life::default(),
            damaged: false,
        }
    }

    #[test]
    fn of_many_who_want_a_name_one_gets_it() {
        let root = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::below(root.path());
        let got: usize = std::thread::scope(|scope| {
            let one = || usize::from(shelf.add(record("web"), |_| Ok(())).is_ok());
            let all: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
            all.into_iter().map(|one| one.join().expect("no panic")).sum()
        });
        assert_eq!(got, 1);
        assert_eq!(shelf.ids().expect("a list").len(), 1);
        assert!(shelf.prune().expect("it is cleaned").is_empty());
    }

    #[test]
    fn a_container_is_found_by_name_id_and_beginning() {
        let root = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::below(root.path());
        let id = shelf.add(record("web"), |_| Ok(())).expect("it is made").record.id.clone();
        for text in ["web", id.as_str(), &id[..12], &id[..1]] {
            assert_eq!(shelf.find(text).ok().as_ref(), Some(&id), "{text}");
        }
        for text in ["", "we", "../web", "names", "zz"] {
            assert!(matches!(shelf.find(text), Err(EngineError::NoContainer { .. })), "{text}");
        }
    }

    #[test]
    fn a_name_leads_to_an_id_by_few_letters_and_by_an_earlier_versions_digits() {
        let root = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::below(root.path());
        let made = shelf.add(record("web"), |_| Ok(())).expect("it is made");
        let names = root.path().join("containers/names");
        let link = std::fs::read_link(names.join("web")).expect("a link");
        assert!(link.as_os_str().len() < 60, "{}", link.display());
        std::os::unix::fs::symlink(&made.record.id, names.join("old")).expect("a link");
        std::os::unix::fs::symlink("no id at all", names.join("wrong")).expect("a link");
        assert!(["web", "old"].iter().all(|name| shelf.find(name).is_ok_and(|id| id == made.record.id)));
        assert!(shelf.find("wrong").is_err());
        assert!(matches!(shelf.add(record("old"), |_| Ok(())), Err(EngineError::NameTaken { .. })));
    }

    #[test]
    fn a_name_whose_owner_is_gone_is_free() {
        let root = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::below(root.path());
        let first = shelf.add(record("web"), |_| Ok(())).expect("it is made");
        assert!(matches!(shelf.add(record("web"), |_| Ok(())), Err(EngineError::NameTaken { .. })));
        // As a power cut may leave it.
        std::fs::write(first.folder().join("container.json"), "").expect("it is there");
        assert!(shelf.find("web").is_err() && shelf.read(&first.record.id).is_ok_and(|it| it.is_none()));
        // As a kill in the middle of a removal leaves it.
        std::fs::remove_file(first.folder().join("container.json")).expect("it is there");
        drop(first);
        let mut second = shelf.add(record("web"), |_| Ok(())).expect("the name is free");
        // As a rename leaves it that is killed before its record.
        shelf.claim("other", &second.record.id).expect("it is free");
        shelf.rename(&mut second, "other").expect("it is its own");
        assert!(shelf.find("web").is_err() && shelf.find("other").is_ok());
        shelf.remove(&second).expect("it is there");
        assert!(shelf.find("other").is_err());
        assert_eq!(shelf.prune().expect("it is cleaned").len(), 1);
    }

    #[test]
    fn a_name_is_a_word() {
        assert!(["web", "a1", "a_b.c-d"].iter().all(|name| check_name(name).is_ok()));
        assert!(["", "a", "-x", ".x", "a/b", "a b", "ä1"].iter().all(|name| check_name(name).is_err()));
    }
}
