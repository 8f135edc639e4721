//! Archives, documents, names, Dockerfiles, requests and configurations with anything in them: bytes in, and nothing must
//! come of it but an error.
//!
//! Fuzzers call these functions with bytes that they think up (`runtime/fuzz`), and a trial with those that were kept.
#![allow(dead_code, reason = "each of those who include this file uses a part of it")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use isolab_runtime::build::dockerfile::Dockerfile;
use isolab_runtime::container::rehearse;
use isolab_runtime::image::{Limits, Manifest, Reference, Store, descriptor, unpack};
use isolab_runtime::registry::server::{Settings, serve};
use oci_spec::image::MediaType;
use tempfile::TempDir;

/// More would only be slower.
const SMALL: Limits = Limits { bytes: 1 << 20, entries: 1000 };

/// Where a request wants the address of an upload.
const MARK: &[u8] = b"UPLOAD";

fn folder() -> TempDir {
    // In memory where there is such a place: nothing here has to last.
    let place = Some(Path::new("/dev/shm")).filter(|place| place.is_dir());
    let place = place.map_or_else(std::env::temp_dir, Path::to_owned);
    tempfile::Builder::new().prefix("isolab-chaos-").tempdir_in(place).expect("a folder")
}

/// A layer. Nothing outside of the folder that it is unpacked to may change.
pub(crate) fn layer(bytes: &[u8]) {
    let folder = folder();
    let into = folder.path().join("into");
    fs::create_dir(&into).expect("a folder");
    fs::write(folder.path().join("beside"), "as it was").expect("a file");
    drop(unpack(bytes, &into, SMALL));
    let beside = fs::read_to_string(folder.path().join("beside")).expect("the file is still there");
    assert_eq!(beside, "as it was");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2, "something came beside the layer");
}

/// A configuration and, behind a zero, a manifest or an index, in which `CONFIG` stands for the configuration's digest.
pub(crate) fn manifest(bytes: &[u8]) {
    let folder = folder();
    let store = Store::open(folder.path().join("store")).expect("a store");
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (config, manifest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (id, _) = store.add_bytes(config).expect("a blob");
    let manifest = String::from_utf8_lossy(manifest).replace("CONFIG", &id.to_string());
    let (digest, size) = store.add_bytes(manifest.as_bytes()).expect("a blob");
    let leads = descriptor(MediaType::ImageManifest, &digest, size).expect("a descriptor");
    if let Ok(manifest) = Manifest::read(&store, &leads) {
        drop(manifest.layers());
    }
    store.keep_unnamed(leads).expect("a name");
    // What can be kept can be looked through and removed.
    drop(store.verify().expect("a store that can be verified"));
    store.remove_manifest(&digest).expect("no name");
    store.collect().expect("a store that can be cleaned up");
    assert!(!store.has(&digest), "it is still there");
}

/// A name. What is understood is written as what is understood again, and means the same.
pub(crate) fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(reference) = text.parse::<Reference>() else { return };
    for form in [reference.to_string(), reference.familiar()] {
        let again: Reference = form.parse().unwrap_or_else(|error| panic!("{text:?} became {form:?}: {error}"));
        assert_eq!(again.to_string(), reference.to_string(), "{text:?} became {form:?}");
    }
}

/// A Dockerfile.
pub(crate) fn dockerfile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = Dockerfile::parse(text) {
        drop((error.to_string(), error.hint()));
    }
}

/// The configuration of a container: it can be planned, or the reason why not be told. Nothing is made.
pub(crate) fn config(bytes: &[u8]) {
    let folder = folder();
    fs::create_dir(folder.path().join("rootfs")).expect("a folder");
    fs::write(folder.path().join("config.json"), bytes).expect("a file");
    let id = "chaos".parse().expect("an id");
    if let Err(error) = rehearse(&id, folder.path()) {
        drop((error.to_string(), error.hint()));
    }
}

/// A registry that serves for as long as the process lives, with its folder removed when this is dropped.
pub(crate) struct Served {
    _folder: TempDir,
    address: SocketAddr,
}

impl Served {
    pub(crate) fn start() -> Self {
        let folder = folder();
        let settings = Settings {
            folder: folder.path().to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
            htpasswd: None,
            read_only: false,
        };
        let (told, hears) = channel();
        std::thread::spawn(move || {
            serve(&settings, move |address| {
                let _ = told.send(address);
            })
        });
        Self { address: hears.recv().expect("an address"), _folder: folder }
    }

    /// What a client sends, in which `UPLOAD` stands for the address of an upload that has begun. The registry must
    /// neither fail nor say that it has.
    pub(crate) fn request(&self, bytes: &[u8]) {
        let reply = match bytes.windows(MARK.len()).position(|window| window == MARK) {
            None => self.exchange(bytes),
            Some(at) => {
                let begun =
                    self.exchange(b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
                let place = begun.lines().find_map(|line| line.strip_prefix("location: ")).expect("an upload begins");
                self.exchange(&[&bytes[..at], place.as_bytes(), &bytes[at + MARK.len()..]].concat())
            }
        };
        for line in reply.lines() {
            assert!(!line.starts_with("HTTP/1.1 5"), "{line}");
        }
    }

    fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).expect("the registry listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
        // Who has been answered may be gone before all is sent.
        drop(stream.write_all(bytes));
        drop(stream.shutdown(Shutdown::Write));
        let mut reply = Vec::new();
        drop(stream.read_to_end(&mut reply));
        String::from_utf8_lossy(&reply).into_owned()
    }
}
