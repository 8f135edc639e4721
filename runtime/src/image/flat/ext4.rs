//! The tree as an ext4: a disk that a machine can write to.
//!
//! e2fsprogs make it. mke2fs(8) could take a directory whole, but of the changes of its inodes it would tell the host's
//! times, and the host would have to mount the layers first; so the tree is told to debugfs(8), entry by entry.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::disk::{DiskError, io_error};
use super::{Entry, Kind, walk};
use crate::image::Temporary;

const PACKAGE: &str = "e2fsprogs";
const BLOCK: u64 = 4096;
/// Of the file system itself, and to seed its hash tables: the same everywhere, or no two disks were the same.
const UUID: &str = "697350c1-ab00-4000-8000-000000000000";

pub(super) fn write(layers: &[PathBuf], to: &Path) -> Result<(), DiskError> {
    let folder = to.parent().unwrap_or(Path::new("."));
    let values = Temporary::name_in(folder);
    fs::create_dir(values.path()).map_err(io_error("make", values.path()))?;
    let script = script(layers, values.path())?; //               1. what there is, and how much of it
    make(script.blocks, script.inodes, to)?; //                   2. an empty file system
    let commands = values.path().join("commands");
    let written = File::create_new(&commands).and_then(|mut file| file.write_all(&script.commands));
    written.map_err(io_error("write", &commands))?;
    fill(&commands, to) //                                        3. all of it
}

fn make(blocks: u64, inodes: u64, to: &Path) -> Result<(), DiskError> {
    let file = File::create_new(to).map_err(io_error("make", to))?;
    file.set_len(blocks * BLOCK).map_err(io_error("lengthen", to))?;
    let mut command = tool("mke2fs");
    let extended = format!("hash_seed={UUID},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,nodiscard");
    command.args(["-q", "-F", "-t", "ext4", "-b", &BLOCK.to_string(), "-N", &inodes.to_string(), "-m", "0"]);
    command.args(["-U", UUID, "-E", &extended]).arg(to);
    told(command, "mke2fs").map(drop)
}

fn fill(commands: &Path, to: &Path) -> Result<(), DiskError> {
    let mut command = tool("debugfs");
    command.args(["-w", "-f"]).arg(commands).arg(to);
    let told = told(command, "debugfs")?;
    // It goes on after an error and ends well; what it says beside its own name is one.
    match told.lines().find(|line| !line.starts_with("debugfs ") && !line.trim().is_empty()) {
        Some(line) => Err(DiskError::Failed { program: "debugfs", told: line.to_owned() }),
        None => Ok(()),
    }
}

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    // Where no time is given they take this one, not the clock's.
    command.env("E2FSPROGS_FAKE_TIME", "1").env("LC_ALL", "C").stdin(Stdio::null());
    // For who is not root these folders are not on the way.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// Runs a tool to its end, and answers what it complained of.
fn told(mut command: Command, program: &'static str) -> Result<String, DiskError> {
    let output = command.output().map_err(|source| DiskError::Program { program, package: PACKAGE, source })?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(told) } else { Err(DiskError::Failed { program, told: told.trim().to_owned() }) }
}

/// What debugfs shall do, and how much room that takes.
#[derive(Default)]
struct Script {
    commands: Vec<u8>,
    blocks: u64,
    inodes: u64,
    /// The directory that debugfs is in.
    at: PathBuf,
    /// How many names each file with several has, by its first.
    names: BTreeMap<PathBuf, u64>,
    values: usize,
}

/// Tells the tree; values of attributes go to files in a folder.
fn script(layers: &[PathBuf], values: &Path) -> Result<Script, DiskError> {
    let mut script = Script::default();
    walk(layers, &mut |entry| script.entry(entry, values))?;
    for (first, names) in std::mem::take(&mut script.names) {
        script.say_of(&absolute(&first), "links_count", &names.to_string())?;
    }
    // As much again, for what will be written; a journal; the tables of the file system itself. All of it is holes.
    script.blocks = script.blocks * 2 + (64 << 20) / BLOCK;
    script.inodes = script.inodes * 2 + 1024;
    Ok(script)
}

impl Script {
    fn entry(&mut self, entry: &Entry<'_>, values: &Path) -> Result<(), DiskError> {
        let (Some(folder), Some(name)) = (entry.path.parent(), entry.path.file_name()) else {
            return self.describe(entry, OsStr::new("/"), values);
        };
        if self.at != folder {
            self.say(&["cd".as_ref(), &absolute(folder)])?;
            folder.clone_into(&mut self.at);
        }
        self.inodes += 1;
        self.blocks += entry.described.size.div_ceil(BLOCK) + 1;
        let link = entry.described.link.as_deref().unwrap_or_default();
        match &entry.kind {
            // It is there already, as in every ext4.
            Kind::Directory if entry.path == Path::new("lost+found") => {}
            Kind::Directory => self.say(&["mkdir".as_ref(), name])?,
            Kind::File => {
                let from = entry.place().map_err(io_error("find", entry.path))?;
                self.say(&["write".as_ref(), from.as_os_str(), name])?;
            }
            Kind::Symlink => self.say(&["symlink".as_ref(), name, link])?,
            Kind::Character => self.device(name, "c", entry)?,
            Kind::Block => self.device(name, "b", entry)?,
            Kind::Fifo => self.say(&["mknod".as_ref(), name, "p".as_ref()])?,
            Kind::Link(first) => {
                *self.names.entry(first.clone()).or_insert(1) += 1;
                // All else is said of the first name.
                return self.say(&["ln".as_ref(), &absolute(first), name]);
            }
        }
        self.describe(entry, name, values)
    }

    fn device(&mut self, name: &OsStr, letter: &str, entry: &Entry<'_>) -> Result<(), DiskError> {
        let (major, minor) = entry.described.device.unwrap_or_default();
        let (major, minor) = (major.to_string(), minor.to_string());
        self.say(&["mknod".as_ref(), name, letter.as_ref(), major.as_ref(), minor.as_ref()])
    }

    fn describe(&mut self, entry: &Entry<'_>, name: &OsStr, values: &Path) -> Result<(), DiskError> {
        let described = &entry.described;
        let kind = match entry.kind {
            Kind::Directory => libc::S_IFDIR,
            Kind::Symlink => libc::S_IFLNK,
            Kind::Character => libc::S_IFCHR,
            Kind::Block => libc::S_IFBLK,
            Kind::Fifo => libc::S_IFIFO,
            Kind::File | Kind::Link(_) => libc::S_IFREG,
        };
        // The root's own time is that of its unpacking where no layer says one.
        let time = if entry.path.as_os_str().is_empty() { 0 } else { described.modified };
        self.say_of(name, "mode", &format!("0{:o}", kind | described.mode))?;
        self.say_of(name, "uid", &described.uid.to_string())?;
        self.say_of(name, "gid", &described.gid.to_string())?;
        for field in ["atime", "ctime", "mtime", "crtime"] {
            self.say_of(name, field, &format!("@{time}"))?;
        }
        for (attribute, value) in &described.xattrs {
            let file = values.join(self.values.to_string());
            self.values += 1;
            fs::write(&file, value).map_err(io_error("write", &file))?;
            self.say(&["ea_set".as_ref(), "-f".as_ref(), file.as_os_str(), name, attribute])?;
        }
        Ok(())
    }

    fn say_of(&mut self, name: &OsStr, field: &str, value: &str) -> Result<(), DiskError> {
        self.say(&["sif".as_ref(), name, field.as_ref(), value.as_ref()])
    }

    /// A line, each word in quotes; a quote in one is written twice.
    fn say(&mut self, words: &[&OsStr]) -> Result<(), DiskError> {
        for word in words {
            if word.as_bytes().contains(&b'\n') {
                return Err(DiskError::Name { name: (*word).to_owned() });
            }
            self.commands.push(b'"');
            for byte in word.as_bytes() {
                self.commands.extend(std::iter::repeat_n(*byte, if *byte == b'"' { 2 } else { 1 }));
            }
            self.commands.extend_from_slice(b"\" ");
        }
        self.commands.push(b'\n');
        Ok(())
    }
}

fn absolute(path: &Path) -> OsString {
    Path::new("/").join(path).into_os_string()
}
