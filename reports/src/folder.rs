//! The folder of a report: what may be written where, and how, so that no reader ever sees half a file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::model::Run;
use crate::page::GENERATOR;
use crate::report;

/// Files of every report.
const FILES: [&str; 11] = [
    "copies.csv",
    "costs.csv",
    "density.csv",
    "index.html",
    "report.md",
    "report.pdf",
    "run.json",
    "samples.csv",
    "slopes.csv",
    "summary.csv",
    "trends.csv",
];
/// The folder for charts within it.
const CHARTS: &str = "charts";
/// What the name of an unfinished file begins with.
const UNFINISHED: &str = ".tmp-";

/// Why a folder takes no report.
#[derive(Debug, Error)]
pub enum FolderError {
    /// Something that is no folder has its name.
    #[error("{0} is not a folder")]
    NotAFolder(PathBuf),
    /// It holds what no report of ours put there.
    #[error("{folder} is not empty and not an earlier report: it holds {stranger}")]
    NotOurs {
        /// The folder.
        folder: PathBuf,
        /// The first name that is not ours.
        stranger: String,
    },
    /// The system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl FolderError {
    /// What to try next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotAFolder(_) | Self::NotOurs { .. } => {
                "name a new folder, an empty one, or one with an earlier report"
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "name a folder that you may write to, with --out DIR"
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free some space; a report takes a few megabytes"
                }
                _ => "look at the path: is each folder on the way there?",
            },
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Makes sure that a report can be written to a folder, which is made where it is missing: it must be empty or hold an
/// earlier report. To be asked before a run, which would be lost to a wrong folder after it.
pub fn check(folder: &Path) -> Result<(), FolderError> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).map_err(FolderError::io("make the folder", folder))?;
        }
        Err(error) => return Err(FolderError::io("look at", folder)(error)),
        Ok(_) if !folder.is_dir() => return Err(FolderError::NotAFolder(folder.to_owned())),
        Ok(_) => {}
    }
    if let Some(stranger) = stranger_in(folder)? {
        return Err(FolderError::NotOurs { folder: folder.to_owned(), stranger });
    }
    // Whether one may write is found out by writing: permissions, read-only mounts and full disks answer alike.
    let probe = unfinished(folder, "probe");
    let probed = File::create(&probe).and_then(|mut file| file.write_all(b"?"));
    let removed = fs::remove_file(&probe);
    probed.and(removed).map_err(FolderError::io("write to", folder))
}

/// Writes a report: each file whole under another name, then renamed, the page last. Files of an earlier report that this one
/// does not have are removed.
pub fn write(folder: &Path, files: &[report::File]) -> Result<(), FolderError> {
    check(folder)?;
    put_all(folder, files)
}

/// The run that a report is of.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// It was just made, and is nowhere but here.
    New(&'a Run),
    /// It lies in this file, which is repeated byte for byte.
    At(&'a Path),
}

/// Writes a report as [`write`] does, and before it the run that it is of.
pub fn write_run(folder: &Path, record: Record<'_>, files: &[report::File]) -> Result<(), FolderError> {
    check(folder)?;
    let place = folder.join("run.json");
    match record {
        // Synced: of all files it alone can't be made again.
        Record::New(run) => put(&place, |file| {
            let mut file = BufWriter::new(file);
            serde_json::to_writer(&mut file, run)?;
            file.flush()?;
            file.get_ref().sync_all()
        })?,
        Record::At(path) if same(path, &place) => {}
        Record::At(path) => put(&place, |file| io::copy(&mut File::open(path)?, file).map(drop))?,
    }
    put_all(folder, files)
}

fn put_all(folder: &Path, files: &[report::File]) -> Result<(), FolderError> {
    for file in files {
        put(&folder.join(&file.name), |out| out.write_all(&file.bytes))?;
    }
    remove_leftovers(folder, files)
}

/// Whether two names stand for one file.
fn same(a: &Path, b: &Path) -> bool {
    let known = |path: &Path| fs::metadata(path).map(|known| (known.dev(), known.ino())).ok();
    known(a).is_some() && known(a) == known(b)
}

/// The first entry that no report of ours would have made.
fn stranger_in(folder: &Path) -> Result<Option<String>, FolderError> {
    for name in names_in(folder)? {
        let path = folder.join(&name);
        let ours = if name == CHARTS {
            path.is_dir() && names_in(&path)?.iter().all(|chart| is_chart(chart) || chart.starts_with(UNFINISHED))
        } else if name == "index.html" {
            begins_like(&path, &format!("<meta name=\"generator\" content=\"{GENERATOR}\">"))
        } else if name == "run.json" {
            begins_like(&path, "\"schema_version\"")
        } else {
            FILES.contains(&name.as_str()) || name.starts_with(UNFINISHED)
        };
        if !ours {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn is_chart(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "svg")
}

/// Whether a mark stands near the beginning of a file.
fn begins_like(path: &Path, mark: &str) -> bool {
    let mut beginning = Vec::new();
    let read = File::open(path).and_then(|file| file.take(1024).read_to_end(&mut beginning));
    read.is_ok() && String::from_utf8_lossy(&beginning).contains(mark)
}

/// What is in a folder, in order.
fn names_in(folder: &Path) -> Result<Vec<String>, FolderError> {
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let read = || fs::read_dir(folder)?.map(|entry| entry.map(name)).collect::<io::Result<Vec<_>>>();
    let mut names = read().map_err(FolderError::io("list", folder))?;
    names.sort_unstable();
    Ok(names)
}

fn unfinished(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{UNFINISHED}{}-{name}", std::process::id()))
}

/// Writes one file so that its name only ever stands for all of it.
fn put(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), FolderError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(FolderError::NotAFolder(path.to_owned()));
    };
    fs::create_dir_all(folder).map_err(FolderError::io("make the folder", folder))?;
    let temporary = unfinished(folder, &name.to_string_lossy());
    let written = File::create(&temporary).and_then(|mut file| write(&mut file));
    let written = written.map_err(FolderError::io("write", &temporary));
    let renamed = written.and_then(|()| fs::rename(&temporary, path).map_err(FolderError::io("write", path)));
    if renamed.is_err() {
        // The error that matters is the first.
        drop(fs::remove_file(&temporary));
    }
    renamed
}

/// Removes charts that the new report does not have, and what an earlier writer that was killed left unfinished.
fn remove_leftovers(folder: &Path, files: &[report::File]) -> Result<(), FolderError> {
    let charts = folder.join(CHARTS);
    let remove = |path: &Path| fs::remove_file(path).map_err(FolderError::io("remove", path));
    if charts.is_dir() {
        for name in names_in(&charts)? {
            if !files.iter().any(|file| file.name == format!("{CHARTS}/{name}")) {
                remove(&charts.join(name))?;
            }
        }
    }
    for name in names_in(folder)?.iter().filter(|name| name.starts_with(UNFINISHED)) {
        remove(&folder.join(name))?;
    }
    Ok(())
}
