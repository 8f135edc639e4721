//! The folder of machines: making, finding, starting, stopping and removing them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::record::{Base, Identity, Inside, Name, Record};
use super::tree::{About, Branch};
use super::{
    NEW, NamedError, REMOVED, UNFINISHED, failed, lock, remove_remains, remove_unwritten, remove_whole, write_whole,
};
use crate::api::{Answer, ClientError, Doing, Request, Status, ask};

/// How long a machine may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The folder.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) path: PathBuf,
}

/// A machine in it.
#[derive(Debug, Clone)]
pub struct Machine {
    pub(super) path: PathBuf,
    /// Its name.
    pub name: Name,
    /// What is kept of it.
    pub record: Record,
}

/// The right to run a machine: one process has it. It ends with this value, however that comes about.
#[derive(Debug)]
pub struct Running {
    _lock: File,
}

/// A line of the list of machines.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// What it does.
    pub state: Doing,
    /// What is kept of it.
    #[serde(flatten)]
    pub record: Record,
    /// Its snapshots.
    pub snapshots: Vec<Branch>,
}

impl Store {
    /// The folder of machines beneath `root`, made if need be.
    pub fn open(root: &Path) -> Result<Self, NamedError> {
        let path = root.join("vm");
        // What machines print and remember is nobody else's business.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(failed("make the folder", &path))?;
        Ok(Self { path })
    }

    /// The right to make and remove machines; waited for. What others began and never finished is removed.
    pub(super) fn change(&self) -> Result<File, NamedError> {
        let path = self.path.join(".lock");
        let file = File::options().create(true).append(true).open(&path).map_err(failed("open", &path))?;
        file.lock().map_err(failed("lock", &path))?;
        remove_remains(&self.path, &[NEW, REMOVED])?;
        Ok(file)
    }

    /// Makes a machine; it does not run yet.
    pub fn create(&self, name: &Name, memory: u64, inside: Inside) -> Result<Machine, NamedError> {
        let identity = Identity::new().map_err(failed("make an identity for", &self.path))?;
        let record = Record { memory, inside, identity, base: Base::Boot, current: None };
        let _lock = self.change()?;
        self.add::<NamedError>(&[(name.clone(), record)], &|_| Ok(()))?;
        self.find(name)
    }

    /// Adds machines: all of them or, where one fails, those before it. `fill` may put more into each folder before it is
    /// there. One sync is for all.
    pub(super) fn add<E: From<NamedError>>(
        &self,
        machines: &[(Name, Record)],
        fill: &dyn Fn(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some((taken, _)) = machines.iter().find(|(name, _)| self.path.join(name).exists()) {
            return Err(NamedError::MachineExists(taken.clone()).into());
        }
        let added = self.add_whole(machines, fill);
        if added.is_err() {
            // Else the next change would: but a disk that is full wants the room now.
            let _ = remove_remains(&self.path, &[NEW]);
        }
        added
    }

    fn add_whole<E: From<NamedError>>(
        &self,
        machines: &[(Name, Record)],
        fill: &dyn Fn(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let folder = |name: &Name| self.path.join(format!("{NEW}{name}"));
        for (name, record) in machines {
            let path = folder(name);
            let text = serde_json::to_vec_pretty(record).map_err(|error| NamedError::Garbled(path.clone(), error))?;
            let make = || {
                fs::create_dir(&path)?;
                fs::create_dir(path.join("snapshots"))?;
                fs::write(path.join("machine.json"), text)
            };
            make().map_err(failed("make", &path))?;
            fill(&path)?;
        }
        let root = File::open(&self.path).map_err(failed("open", &self.path))?;
        nix::unistd::syncfs(&root).map_err(|errno| failed("sync", &self.path)(errno.into()))?;
        for (name, _) in machines {
            fs::rename(folder(name), self.path.join(name)).map_err(failed("name", &folder(name)))?;
        }
        Ok(root.sync_all().map_err(failed("sync", &self.path))?)
    }

    /// Makes a machine that starts from a snapshot which `fill` writes to a folder: it comes from elsewhere. It is somebody
    /// of its own here.
    pub(crate) fn adopt<E: From<NamedError>>(
        &self,
        name: &Name,
        record: &Record,
        snapshot: &Name,
        about: &About,
        fill: &dyn Fn(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let identity = Identity::new().map_err(failed("make an identity for", &self.path))?;
        let base = Base::Snapshot { machine: None, snapshot: snapshot.clone(), id: about.id.clone() };
        let record = Record { identity, base, current: Some(about.id.clone()), ..record.clone() };
        let _lock = self.change()?;
        self.add(&[(name.clone(), record)], &|folder| {
            let folder = folder.join("snapshots").join(snapshot);
            fs::create_dir(&folder).map_err(failed("make", &folder))?;
            let path = folder.join("about.json");
            let text = serde_json::to_vec_pretty(about).map_err(|error| NamedError::Garbled(path.clone(), error))?;
            fs::write(&path, text).map_err(failed("write", &path))?;
            fill(&folder)
        })
    }

    /// The machine of that name.
    pub fn find(&self, name: &Name) -> Result<Machine, NamedError> {
        let path = self.path.join(name);
        let file = path.join("machine.json");
        match fs::read(&file) {
            Ok(bytes) => {
                let record = serde_json::from_slice(&bytes).map_err(|error| NamedError::Garbled(file, error))?;
                Ok(Machine { path, name: name.clone(), record })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(NamedError::NoMachine(name.clone())),
            Err(error) => Err(failed("read", &file)(error)),
        }
    }

    /// All machines, by name.
    pub fn all(&self) -> Result<Vec<Machine>, NamedError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed("list", &self.path))? {
            let entry = entry.map_err(failed("list", &self.path))?;
            // What begins with a dot is no name, and no machine.
            let Some(name) = entry.file_name().to_str().and_then(|text| text.parse().ok()) else { continue };
            match self.find(&name) {
                Ok(machine) => found.push(machine),
                Err(NamedError::NoMachine(_)) => {} // just removed
                Err(error) => return Err(error),
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Removes a machine and its snapshots; refused while it runs or others are linked to a snapshot of it.
    pub fn remove(&self, name: &Name) -> Result<(), NamedError> {
        let _lock = self.change()?;
        let machine = self.find(name)?;
        let mut needed_by = self.linked_to(name, None)?;
        let ids: Vec<String> = machine.tree()?.into_iter().map(|branch| branch.about.id).collect();
        needed_by.extend(self.standing_on(&ids, Some(name))?);
        if !needed_by.is_empty() {
            return Err(NamedError::Needed { what: format!("the machine {name}"), needed_by });
        }
        let _running = machine.run()?;
        remove_whole(&machine.path)
    }

    /// Which machines are linked to a snapshot of `name`, in words.
    pub(super) fn linked_to(&self, name: &Name, which: Option<&Name>) -> Result<Vec<String>, NamedError> {
        let mut linked = Vec::new();
        for machine in self.all()? {
            if let Base::Snapshot { machine: Some(owner), snapshot, .. } = &machine.record.base
                && owner == name
                && which.is_none_or(|which| which == snapshot)
            {
                linked.push(format!("the machine {} is a linked clone of {owner}@{snapshot}", machine.name));
            }
        }
        Ok(linked)
    }
}

impl Machine {
    /// Where it can be asked while it runs.
    pub fn socket(&self) -> PathBuf {
        self.path.join("socket")
    }

    /// Where what it prints is kept, if it was started to run by itself.
    pub fn console(&self) -> PathBuf {
        self.path.join("console.log")
    }

    /// Where what it reads can be written to, if it was started to run by itself.
    pub fn input(&self) -> PathBuf {
        self.path.join("console.in")
    }

    /// Takes the right to run it; the socket of one that was killed is removed.
    pub fn run(&self) -> Result<Running, NamedError> {
        let lock = lock(&self.path.join("running"))?.ok_or_else(|| NamedError::Runs(self.name.clone()))?;
        match fs::remove_file(self.socket()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &self.socket())(error)),
            _ => Ok(Running { _lock: lock }),
        }
    }

    /// What it does.
    pub fn status(&self) -> Result<Status, NamedError> {
        match self.ask(&Request::Status)? {
            Answer::Status(status) => Ok(status),
            Answer::Snapshot { .. } => Err(NamedError::DoesNotRun(self.name.clone())),
        }
    }

    /// Asks it, while it runs.
    pub fn ask(&self, request: &Request) -> Result<Answer, NamedError> {
        match ask(&self.socket(), request) {
            Err(ClientError::Connect(..)) => Err(NamedError::DoesNotRun(self.name.clone())),
            other => Ok(other?),
        }
    }

    /// Ends it, and waits until it is gone. Where it has a power button that is pressed first, and its guest has so long to
    /// end by itself.
    pub fn stop(&self, grace: Duration) -> Result<(), NamedError> {
        // One that stands still hears no button.
        let pressed = !grace.is_zero()
            && matches!(self.ask(&Request::Button), Ok(Answer::Status(status)) if status.state == Doing::Running);
        if pressed && self.ends_within(grace)? {
            return Ok(());
        }
        match self.ask(&Request::Stop) {
            Ok(_) | Err(NamedError::Asked(ClientError::Gone(_))) => {}
            Err(NamedError::DoesNotRun(_)) if pressed => {} // at last
            Err(error) => return Err(error),
        }
        if self.ends_within(PATIENCE)? { Ok(()) } else { Err(NamedError::DoesNotEnd(self.name.clone())) }
    }

    /// Whether nobody runs it any more, now or within this time.
    fn ends_within(&self, time: Duration) -> Result<bool, NamedError> {
        let since = Instant::now();
        loop {
            if lock(&self.path.join("running"))?.is_some() {
                return Ok(true);
            }
            if since.elapsed() >= time {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What a list shows of it.
    pub fn entry(&self) -> Result<Entry, NamedError> {
        let state = match self.status() {
            Ok(status) => status.state,
            // Between its last answer and its end it is as good as stopped.
            Err(NamedError::DoesNotRun(_) | NamedError::Asked(_)) => Doing::Stopped,
            Err(error) => return Err(error),
        };
        Ok(Entry { name: self.name.clone(), state, record: self.record.clone(), snapshots: self.tree()? })
    }

    /// The right to change its snapshots and its record.
    pub(super) fn change(&self) -> Result<File, NamedError> {
        let changing = lock(&self.path.join("changing"))?.ok_or_else(|| NamedError::Busy(self.name.clone()))?;
        remove_remains(&self.path.join("snapshots"), &[UNFINISHED, REMOVED])?;
        remove_unwritten(&self.path)?;
        Ok(changing)
    }

    /// Keeps `record` in place of what was kept.
    pub(super) fn keep(&mut self, record: Record) -> Result<(), NamedError> {
        let path = self.path.join("machine.json");
        let text = serde_json::to_vec_pretty(&record).map_err(|error| NamedError::Garbled(path.clone(), error))?;
        write_whole(&path, &text)?;
        self.record = record;
        Ok(())
    }

    /// It has begun to run from its base: what comes next comes of that.
    pub fn begun(&mut self) -> Result<(), NamedError> {
        let current = match &self.record.base {
            Base::Snapshot { machine: None, id, .. } => Some(id.clone()),
            Base::Snapshot { machine: Some(_), .. } | Base::Boot => None,
        };
        if current == self.record.current {
            return Ok(());
        }
        self.keep(Record { current, ..self.record.clone() })
    }
}
