//! The port to the host, shared by all that have something to say.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::super::wire::{Frame, HEARTBEAT, PORT};
use super::InitError;

/// How long the driver may take to find the port after it was loaded.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Port(Mutex<File>);

impl Port {
    /// Opens it, once the driver has found it.
    pub(super) fn open() -> Result<Self, InitError> {
        let deadline = Instant::now() + PATIENCE;
        let path = loop {
            match find() {
                Some(path) => break path,
                None if Instant::now() > deadline => return Err(InitError::NoPort("the driver found none")),
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        let name = path.display().to_string();
        let failed = |source: io::Error| InitError::step("open", name.clone())(source);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        take_nudges(file.try_clone().map_err(failed)?);
        Ok(Self(Mutex::new(file)))
    }

    /// Says from here on that the machine is there.
    pub(super) fn beat(self: &Arc<Self>) {
        let port = Arc::clone(self);
        thread::spawn(move || {
            loop {
                // Where nobody hears it, nobody hears of that either: who speaks next will tell the console.
                let _ = port.send(&Frame::Alive);
                thread::sleep(HEARTBEAT);
            }
        });
    }

    /// Sends a frame whole: no other gets in between.
    pub(super) fn send(&self, frame: &Frame) -> io::Result<()> {
        frame.write(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Takes what the host sends, which is nothing to be read: left alone it would fill the port, and come no more.
fn take_nudges(mut port: File) {
    thread::spawn(move || {
        let mut nudges = [0; 64];
        while port.read(&mut nudges).is_ok_and(|count| count > 0) {}
    });
}

/// The device of the port with our name. Without udev there are no links in `/dev/virtio-ports`, but `/sys` tells.
fn find() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?.flatten();
    let ours = |port: &fs::DirEntry| fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT);
    let port = ports.into_iter().find(ours)?;
    let device = PathBuf::from("/dev").join(port.file_name());
    device.exists().then_some(device)
}
