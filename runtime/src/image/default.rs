//! The image that comes with the lab: the payload, and around it as little of a system as a program may look for.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci_spec::image::Config;

use super::store::io_error;
use super::{Details, Entry, Image, ImageError, LayerContent, Store};

const NAME: &str = "docker.io/isolab/default:latest";
/// Where the payload lies in it.
const PAYLOAD: &str = "isolab-payload";
/// Which file of the host the image was made of, as an annotation of its name.
const SOURCE: &str = "org.isolab.payload";

const PASSWD: &str = "root:x:0:0:root:/:/isolab-payload\nnobody:x:65534:65534:nobody:/:/isolab-payload\n";
const GROUP: &str = "root:x:0:\nnobody:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";
const OS_RELEASE: &str = "NAME=isolab\nID=isolab\nPRETTY_NAME=\"isolab default image\"\n";

/// The default image around a payload: made and unpacked at its first use, and whenever the payload is another file than
/// it was; otherwise found by looking at that file's inode, not at its bytes.
pub fn default_image(store: &Store, payload: &Path) -> Result<Image, ImageError> {
    let source = source(payload)?;
    let known = store.named(NAME)?.and_then(|manifest| manifest.annotations().as_ref()?.get(SOURCE).cloned());
    if known.as_ref() == Some(&source)
        && let Some(image) = Image::load(store, NAME)?
    {
        return Ok(image);
    }
    let mut run = Config::default();
    run.set_entrypoint(Some(vec![format!("/{PAYLOAD}")])).set_working_dir(Some("/".to_owned()));
    run.set_env(Some(vec!["PATH=/usr/bin:/bin".to_owned()]));
    let details = Details { run, notes: &[(SOURCE, &source)] };
    Image::assemble(store, NAME, details, [payload_layer(payload), system_layer()])
}

/// What tells one state of a file from another without reading it.
fn source(payload: &Path) -> Result<String, ImageError> {
    let file = fs::metadata(payload).map_err(io_error("read", payload))?;
    let changed = format!("{}.{:09}", file.ctime(), file.ctime_nsec());
    Ok(format!("{}:{}:{}:{}.{:09}:{changed}", file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

fn payload_layer(payload: &Path) -> LayerContent {
    LayerContent { created_by: format!("COPY {PAYLOAD} /"), entries: vec![Entry::copy(PAYLOAD, 0o755, payload)] }
}

/// The files that C libraries and shells read, and the places where a runtime mounts.
fn system_layer() -> LayerContent {
    let folders = [("dev", 0o755), ("etc", 0o755), ("proc", 0o555), ("sys", 0o555), ("tmp", 0o1777)];
    let files = [
        ("etc/group", GROUP),
        ("etc/hostname", "isolab\n"),
        ("etc/hosts", HOSTS),
        ("etc/os-release", OS_RELEASE),
        ("etc/passwd", PASSWD),
        ("etc/resolv.conf", ""),
    ];
    let folders = folders.into_iter().map(|(path, mode)| Entry::directory(path, mode));
    let files = files.into_iter().map(|(path, text)| Entry::file(path, 0o644, text.as_bytes()));
    LayerContent { created_by: "COPY etc /etc".to_owned(), entries: folders.chain(files).collect() }
}
