//! Containers of one image with files in it: what `isolab-ctr clone` and `commit` work on.
//!
//! The first of them has written its nonce to a file. A clone proves itself by that file: it was told nothing.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::launch::{Launch, Remembered};
use super::{Held, Lab, Nonce, errand, next_number};

/// Where the proof lies in each container.
const PROOF: &str = "/proof";
const QUESTION: &str = "read /proof\n";
const IMAGE: &str = "files";
/// The name of the first container.
pub(crate) const ORIGIN: &str = "origin";

/// Images and containers in a folder of their own; containers are removed when dropped.
#[derive(Debug)]
pub(crate) struct Family<'a> {
    lab: &'a Lab,
    program: &'a Path,
    root: PathBuf,
    nonce: Nonce,
    names: Mutex<Vec<String>>,
}

/// The files that the image has beside the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) count: u32,
    pub(crate) bytes: u64,
}

impl Files {
    /// The path of one, in a container.
    pub(crate) fn path(number: u32) -> String {
        format!("/data/{number:03}")
    }
}

impl<'a> Family<'a> {
    /// Makes the image, and the first container, which has written its nonce to a file, and ended.
    pub(crate) fn settle(lab: &'a Lab, program: &'a Path, files: Files) -> Result<Self, String> {
        let family = Self::with_image(lab, program, files)?;
        let mut parent = family.run(ORIGIN, &family.nonce)?;
        parent.write(PROOF)?;
        parent.dismiss();
        parent.end()?;
        Ok(family)
    }

    /// Makes the image alone.
    pub(crate) fn with_image(lab: &'a Lab, program: &'a Path, files: Files) -> Result<Self, String> {
        let root = lab.scratch().path().join(format!("family-{}", next_number()));
        let family = Self { lab, program, root, nonce: Nonce::new(), names: Mutex::default() };
        let archive = family.root.join("image.tar");
        fs::create_dir_all(&family.root)
            .and_then(|()| write_image(&archive, lab.payload(), files))
            .map_err(|error| format!("cannot write the image: {error}"))?;
        family.errand(&["import", &archive.to_string_lossy(), IMAGE])?;
        let _ = fs::remove_file(&archive);
        Ok(family)
    }

    /// Starts a container of the image that stays.
    pub(crate) fn run(&self, name: &str, nonce: &Nonce) -> Result<Held, String> {
        self.run_of(IMAGE, name, nonce, nonce.token(), None)
    }

    /// Starts a container of an image that was made of the first one, whose proof it has.
    pub(crate) fn go_on(&self, image: &str, name: &str, nonce: &Nonce) -> Result<Held, String> {
        let remembered = Remembered { nonce: nonce.clone(), question: QUESTION };
        self.run_of(image, name, &Nonce::new(), format!("read {nonce}\n").into_bytes(), Some(remembered))
    }

    fn run_of(
        &self,
        image: &str,
        name: &str,
        own: &Nonce,
        token: Vec<u8>,
        remembers: Option<Remembered>,
    ) -> Result<Held, String> {
        self.names().push(name.to_owned());
        let own_text = own.to_string();
        let words = ["run", "-i", "--network", "none", "--name", name, image, "/isolab-payload", &own_text];
        self.launch(&words, token, remembers).poise()?.hold(own)
    }

    /// Makes a clone; how long the command took, in nanoseconds.
    pub(crate) fn clone_of(&self, from: &str, name: &str, full: bool) -> Result<u64, String> {
        self.names().push(name.to_owned());
        self.errand(&["clone", if full { "--full" } else { "--linked" }, from, name])
    }

    /// Starts a clone; it must find what the first container wrote.
    pub(crate) fn start(&self, name: &str) -> Result<Held, String> {
        let remembered = Remembered { nonce: self.nonce.clone(), question: QUESTION };
        let token = format!("read {}\n", self.nonce).into_bytes();
        self.launch(&["start", "-a", "-i", name], token, Some(remembered)).poise()?.hold(&self.nonce)
    }

    /// Makes `name` a clone of `from` that has changed a file of its own: one link of a chain.
    pub(crate) fn link(&self, from: &str, name: &str) -> Result<(), String> {
        self.clone_of(from, name, false)?;
        let mut held = self.start(name)?;
        held.write(&format!("/{name}"))?;
        held.dismiss();
        held.end()
    }

    /// Makes an image of what a container has changed; how long the command took, in nanoseconds.
    pub(crate) fn commit(&self, container: &str, image: &str) -> Result<u64, String> {
        self.errand(&["commit", container, image])
    }

    /// Removes a container.
    pub(crate) fn remove(&self, name: &str) -> Result<(), String> {
        self.errand(&["rm", "--force", name])?;
        self.names().retain(|other| other != name);
        Ok(())
    }

    /// Removes an image.
    pub(crate) fn remove_image(&self, image: &str) -> Result<(), String> {
        self.errand(&["rmi", image]).map(drop)
    }

    /// Where they were made.
    pub(crate) fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// Where they are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The containers that there are.
    fn names(&self) -> MutexGuard<'_, Vec<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn errand(&self, words: &[&str]) -> Result<u64, String> {
        let took = errand::run(self.program, &self.words(words), self.lab.scratch().path());
        took.map_err(|reason| format!("isolab-ctr {}: {reason}", words.first().unwrap_or(&"")))
    }

    fn words(&self, words: &[&str]) -> Vec<OsString> {
        let root = ["--root".into(), self.root.clone().into_os_string()];
        root.into_iter().chain(words.iter().map(OsString::from)).collect()
    }

    fn launch(&self, words: &[&str], token: Vec<u8>, remembers: Option<Remembered>) -> Launch {
        Launch { remembers, ..Launch::new(self.lab, self.program, self.words(words), token) }
    }
}

impl Drop for Family<'_> {
    fn drop(&mut self) {
        for name in std::mem::take(&mut *self.names()) {
            let _ = self.errand(&["rm", "--force", &name]);
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// An archive of a root file system: the payload, and files in which no block is all zeroes, which would take no room.
pub(super) fn write_image(path: &Path, payload: &Path, files: Files) -> io::Result<()> {
    let mut archive = tar::Builder::new(File::create(path)?);
    archive.append_path_with_name(payload, "isolab-payload")?;
    let bytes: Vec<u8> = (0..files.bytes).map(|place| ((place * 7919) >> 3) as u8 | 1).collect();
    for number in 0..files.count {
        let mut header = tar::Header::new_ustar();
        header.set_size(files.bytes);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        archive.append_data(&mut header, Files::path(number).trim_start_matches('/'), bytes.as_slice())?;
    }
    archive.finish()
}
