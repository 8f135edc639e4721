//! Kernel modules: drivers that are not part of the kernel's file.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use isolab_vmm::guest::linux::init::MODULES;

use crate::InitError;

/// `finit_module(2)`: the file is compressed, and the kernel shall unpack it.
const COMPRESSED: libc::c_int = 4;

/// Loads all modules that lie in their folder.
///
/// A module that needs a symbol of another fails with ENOENT until that is loaded. So what failed is tried again as long as
/// anything else succeeds: no list of dependencies is needed, and no order.
pub(crate) fn load_all() -> Result<(), InitError> {
    let Ok(entries) = fs::read_dir(MODULES) else { return Ok(()) };
    let mut waiting: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    waiting.sort();
    loop {
        let before = waiting.len();
        let mut last = None;
        waiting.retain(|path| match load(path) {
            Ok(()) => false,
            Err(error) => {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                last = Some(InitError::Module { name, source: error });
                true
            }
        });
        match last {
            None => return Ok(()),
            Some(error) if waiting.len() == before => return Err(error),
            Some(_) => {}
        }
    }
}

fn load(path: &PathBuf) -> io::Result<()> {
    let file = File::open(path)?;
    let compressed = path.extension().is_some_and(|end| end != "ko");
    let flags = if compressed { COMPRESSED } else { 0 };
    // SAFETY: the descriptor is open, and the parameters are an empty text.
    let loaded = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), flags) };
    if loaded == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // It is there, or a part of the kernel.
    if error.raw_os_error() == Some(libc::EEXIST) { Ok(()) } else { Err(error) }
}
