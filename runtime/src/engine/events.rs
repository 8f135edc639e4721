//! What happened: a line an event in one file of the root, in the order in which it happened.
//!
//! There is no daemon that could tell, so each verb writes down what it did, while it holds the container that it did it to:
//! for one container the order is the true one. A line is written by one write(2) to a file that is only appended to, so lines
//! never mix. The file is put aside when it grows large, once; what is older is forgotten.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::{Deserialize, Serialize};

use super::Engine;
use super::error::{EngineError, io_error};
use super::record::{Record, now};
use crate::container::{rfc3339, since_epoch};

/// How large the file may grow, in bytes; as much again is kept of what was before.
const LARGEST: u64 = 4 << 20;
/// In milliseconds.
const SHORTLY: u8 = 200;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event {
    /// When, in nanoseconds since the epoch.
    pub time_nano: u64,
    /// To what: `container`, `image` or `volume`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What: `create`, `start`, `die` and so on, docker's words.
    pub action: String,
    /// The id of what it happened to.
    #[serde(rename = "ID")]
    pub id: String,
    /// More about it.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// When it happened, as RFC 3339 writes it.
    pub fn time(&self) -> String {
        rfc3339(Duration::from_nanos(self.time_nano))
    }
}

impl Engine {
    /// Writes down what happened to a container. That it could not be written is a warning: the deed is done.
    pub(crate) fn note(&self, record: &Record, action: &str, more: &[(&str, String)]) {
        let mut attributes: BTreeMap<String, String> = record.config.labels.clone();
        attributes.extend(record.wishes.labels.clone());
        attributes.insert("image".to_owned(), record.image.name.clone());
        attributes.insert("name".to_owned(), record.name.clone());
        attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self.note_event("container", action, &record.id, attributes);
    }

    pub(crate) fn note_event(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let (kind, action, id) = (kind.to_owned(), action.to_owned(), id.to_owned());
        let event = Event { time_nano: now(), kind, action, id, attributes };
        if let Err(error) = append(&self.events_file(), &event) {
            self.runtime.warn(&format!("cannot note what happened in {}: {error}", self.events_file().display()));
        }
    }

    /// What happened from one time to another, each as RFC 3339 writes it, to the nanosecond. With `follow` what happens from now on, too:
    /// until that time, or without end. `each` answers whether it wants more.
    pub fn events(
        &self,
        since: Option<&str>,
        until: Option<&str>,
        follow: bool,
        each: &mut dyn FnMut(&Event) -> bool,
    ) -> Result<(), EngineError> {
        let path = self.events_file();
        let failed = || io_error("read", &path);
        let watch = if follow { Some(Watch::over(self.store.root()).map_err(failed())?) } else { None };
        let mut wanted = |event: &Event| {
            let time = event.time();
            let early = since.is_some_and(|since| time.as_str() < since);
            if until.is_some_and(|until| time.as_str() > until) { false } else { early || each(event) }
        };
        let before = if since.is_some() || !follow { open(&old(&path)).map_err(failed())? } else { None };
        if !read(&mut { before }, &mut wanted).map_err(failed())? {
            return Ok(());
        }
        let mut file = open(&path).map_err(failed())?;
        if let (true, None, Some(file)) = (follow, since, &mut file) {
            file.seek(SeekFrom::End(0)).map_err(failed())?;
        }
        loop {
            if !read(&mut file, &mut wanted).map_err(failed())? {
                return Ok(());
            }
            let Some(watch) = &watch else { return Ok(()) };
            if until.is_some_and(|until| rfc3339(since_epoch()).as_str() > until) {
                return Ok(());
            }
            watch.wait(until.is_some()).map_err(failed())?;
            // A new file in its place, or the first one: what the old one had is read already.
            let replaced = file.as_ref().is_none_or(|file| !is_at(file.get_ref(), &path));
            if replaced {
                if !read(&mut file, &mut wanted).map_err(failed())? {
                    return Ok(());
                }
                file = open(&path).map_err(failed())?;
            }
        }
    }

    fn events_file(&self) -> PathBuf {
        self.store.root().join("events.log")
    }
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

fn append(path: &Path, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    if file.metadata()?.len() > LARGEST {
        // Of two who do this at once the second puts aside what is nearly empty, and the first's is forgotten: so look again.
        let still = fs::metadata(path).is_ok_and(|data| data.len() > LARGEST);
        if still {
            fs::rename(path, old(path))?;
        }
        file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    }
    file.write_all(&line)
}

fn open(path: &Path) -> io::Result<Option<BufReader<File>>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(|file| Some(BufReader::new(file))),
    }
}

/// Hands on every whole line. Answers whether more is wanted.
fn read(file: &mut Option<BufReader<File>>, each: &mut dyn FnMut(&Event) -> bool) -> io::Result<bool> {
    let Some(file) = file else { return Ok(true) };
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 {
        if line.last() != Some(&b'\n') {
            // Half a line, of somebody who was killed or is just writing: its rest may come.
            file.seek_relative(-(line.len() as i64))?;
            break;
        }
        // A line that says nothing is passed over: the others are still true.
        if let Ok(event) = serde_json::from_slice(&line)
            && !each(&event)
        {
            return Ok(false);
        }
        line.clear();
    }
    Ok(true)
}

fn is_at(file: &File, path: &Path) -> bool {
    let of = |data: &fs::Metadata| (data.dev(), data.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(one), Ok(other)) if of(&one) == of(&other))
}

/// Waits for changes of files in a folder (inotify(7)).
struct Watch(Inotify);

impl Watch {
    fn over(folder: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify
            .add_watch(folder, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_FROM)?;
        Ok(Self(inotify))
    }

    /// Until something changes; a short while at most where the time is to be looked at.
    fn wait(&self, shortly: bool) -> io::Result<()> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let most = if shortly { PollTimeout::from(SHORTLY) } else { PollTimeout::NONE };
        match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], most) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        match self.0.read_events() {
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
