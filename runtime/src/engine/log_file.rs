//! The file that what a container prints is kept in. Where its size is bounded it is continued in a new file, and the older
//! ones have numbers: `log.json.1` is the one before, `log.json.2` the one before that, up to as many as are wanted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::wishes::{WishError, parse_size, refused};

/// How large the files of a log become, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// A file of so many bytes is not continued.
    pub size: u64,
    /// How many files there are, at least one.
    pub files: u32,
}

impl Rotation {
    /// Reads docker's options of a log: `max-size=10m`, `max-file=3`.
    pub fn parse(options: &[String]) -> Result<Option<Self>, WishError> {
        const EXPECTED: &str = "max-size=SIZE, or max-file=NUMBER beside it";
        let (mut size, mut files) = (None, None);
        for option in options {
            match option.split_once('=') {
                Some(("max-size", "-1")) => size = None,
                Some(("max-size", text)) => size = Some(parse_size(text)?),
                Some(("max-file", text)) => files = text.parse().ok().filter(|count| *count > 0).or(Some(0)),
                _ => return refused(option, EXPECTED),
            }
        }
        match (size, files) {
            (_, Some(0)) | (Some(0), _) | (None, Some(2..)) => refused(&options.join(" "), EXPECTED),
            (None, _) => Ok(None),
            (Some(size), files) => Ok(Some(Self { size, files: files.unwrap_or(1) })),
        }
    }
}

/// The file, for who writes it.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    path: PathBuf,
    size: u64,
    rotation: Option<Rotation>,
    /// Whether the last line has no end, since the disk was full.
    torn: bool,
}

impl LogFile {
    /// Opens it, or makes it.
    pub(super) fn open(path: &Path) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o640).open(path)
    }

    /// One that was opened before, at this path.
    pub(super) fn new(file: OwnedFd, path: PathBuf, rotation: Option<Rotation>) -> Self {
        let file = File::from(file);
        let size = file.metadata().map_or(0, |it| it.size());
        Self { file, path, size, rotation, torn: false }
    }

    /// Adds lines. What cannot be written, as on a full disk, is lost: the container goes on, and so do later lines.
    pub(super) fn append(&mut self, mut lines: &[u8]) {
        while !lines.is_empty() {
            let mut end = lines.len();
            if let Some(rotation) = self.rotation {
                if self.size >= rotation.size {
                    self.rotate(rotation);
                }
                // Up to the line with which the file is full.
                let room = rotation.size.saturating_sub(self.size).max(1) as usize;
                let rest = lines.get(room.min(lines.len()) - 1..).unwrap_or_default();
                let whole = rest.iter().position(|byte| *byte == b'\n').map(|at| room.min(lines.len()) + at);
                end = whole.unwrap_or(lines.len());
            }
            let (part, rest) = lines.split_at(end);
            self.write(part);
            lines = rest;
        }
    }

    fn write(&mut self, lines: &[u8]) {
        let whole = if self.torn { [b"\n", lines].concat() } else { lines.to_vec() };
        let mut rest = whole.as_slice();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(count) => {
                    self.size += count as u64;
                    rest = rest.get(count..).unwrap_or_default();
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Begins a new file. Who reads the old one keeps it open, and finds it by its new name.
    fn rotate(&mut self, rotation: Rotation) {
        for number in (0..rotation.files.saturating_sub(1)).rev() {
            // One that is not there yet need not be moved.
            let _ = fs::rename(older(&self.path, number), older(&self.path, number + 1));
        }
        let begun = match rotation.files {
            // In place of the old one, so that there is always one.
            1 => {
                let new = PathBuf::from(format!("{}.new", self.path.display()));
                Self::open(&new).and_then(|file| fs::rename(&new, &self.path).map(|()| file))
            }
            _ => Self::open(&self.path),
        };
        if let Ok(file) = begun {
            self.file = file;
        }
        // Where there is no place for a new file the old one is continued.
        (self.size, self.torn) = (0, false);
    }
}

/// The log's file of this number; the newest is number 0.
pub(super) fn older(path: &Path, number: u32) -> PathBuf {
    if number == 0 { path.to_owned() } else { PathBuf::from(format!("{}.{number}", path.display())) }
}

/// Opens the oldest file of a log.
pub(super) fn open_oldest(path: &Path) -> io::Result<File> {
    let last = (1..u32::MAX).find(|number| !older(path, *number).exists()).unwrap_or(1) - 1;
    // Between the two calls it may have gone, and the next one is the oldest.
    File::open(older(path, last)).or_else(|_| File::open(path))
}

/// Opens the file that continues this one of a log; nothing where it is the newest.
pub(super) fn open_newer(path: &Path, file: &File) -> io::Result<Option<File>> {
    /// Between a look at a file and its opening a new one may be begun; so often in a row it is not.
    const TRIES: u32 = 100;
    let own = file.metadata()?.ino();
    let mut found = find_newer(path, own);
    for _ in 1..TRIES {
        // One that was just seen has another name by now.
        if !found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            break;
        }
        found = find_newer(path, own);
    }
    found
}

fn find_newer(path: &Path, own: u64) -> io::Result<Option<File>> {
    let (mut at, mut missing) = (0, 0);
    // While a new file is begun each number is missing for a moment, but no two beside each other.
    while missing < 2 {
        match fs::metadata(older(path, at)).map(|found| found.ino()) {
            Ok(inode) if inode == own && at == 0 => return Ok(None),
            Ok(inode) if inode == own => return File::open(older(path, at - 1)).map(Some),
            Ok(_) => missing = 0,
            Err(_) => missing += 1,
        }
        at += 1;
    }
    // There are newer ones only: it was the oldest, and is no longer one of them. Or nothing is left of any.
    if at == 2 { Ok(None) } else { open_oldest(path).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::{LogFile, Rotation, open_newer, open_oldest};
    use std::fs;
    use std::io::Read;

    fn options(texts: &[&str]) -> Result<Option<(u64, u32)>, ()> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Rotation::parse(&texts).map(|it| it.map(|it| (it.size, it.files))).map_err(drop)
    }

    #[test]
    fn options_are_read_as_docker_reads_them() {
        assert_eq!(options(&[]), Ok(None));
        assert_eq!(options(&["max-size=10k"]), Ok(Some((10 << 10, 1))));
        assert_eq!(options(&["max-size=1m", "max-file=3"]), Ok(Some((1 << 20, 3))));
        for wrong in [["max-file=3"], ["max-size=x"], ["max-size=0"], ["tag=x"], ["max-file=0"]] {
            assert_eq!(options(&wrong), Err(()), "{wrong:?}");
        }
    }

    #[test]
    fn a_full_file_is_continued_in_a_new_one_and_the_oldest_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let file = LogFile::open(&path).expect("a file");
        let mut log = LogFile::new(file.into(), path.clone(), Some(Rotation { size: 10, files: 3 }));
        for number in 0..8 {
            log.append(format!("line {number}\nmore {number}\n").as_bytes());
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        assert_eq!([read("log.3"), read("log.2")], [String::new(), "line 5\nmore 5\n".to_owned()]);
        assert_eq!([read("log.1"), read("log")], ["line 6\nmore 6\n", "line 7\nmore 7\n"]);
    }

    #[test]
    fn a_reader_goes_from_file_to_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let file = LogFile::open(&path).expect("a file");
        let mut log = LogFile::new(file.into(), path.clone(), Some(Rotation { size: 4, files: 9 }));
        log.append(b"one\ntwo\nthree\n");
        let mut file = open_oldest(&path).expect("the oldest");
        let mut text = String::new();
        loop {
            file.read_to_string(&mut text).expect("text");
            match open_newer(&path, &file).expect("a look") {
                Some(newer) => file = newer,
                None => break,
            }
        }
        assert_eq!(text, "one\ntwo\nthree\n");
    }
}
