//! Images against other people's programs: the kernel's overlayfs, which has to understand our whiteouts, and skopeo,
//! which has to understand our store.

mod bad;
mod chaos;
mod disks;
mod exchange;
mod interrupted;
mod lists;
#[path = "../container/needs.rs"]
mod needs;
mod stacks;

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use isolab_runtime::image::{Details, Entry, Image, LayerContent, Limits, Store, default_image, unpack};
use libtest_mimic::{Arguments, Failed, Trial};
use tar::{Builder, EntryType, Header};

/// The command under test.
const CTR: &str = env!("CARGO_BIN_EXE_isolab-ctr");

type Done = Result<(), Failed>;

fn main() {
    let mut trials: Vec<Trial> = vec![
        needs::trial(
            "overlayfs_hides_what_a_layer_removes",
            &["root", "overlay"],
            overlayfs_hides_what_a_layer_removes,
        ),
        needs::trial(
            "the_default_image_stacks_to_one_root",
            &["root", "overlay"],
            the_default_image_stacks_to_one_root,
        ),
        needs::trial("skopeo_reads_our_store", &["skopeo"], skopeo_reads_our_store),
    ];
    trials.extend(bad::trials());
    trials.extend(disks::trials());
    trials.extend(exchange::trials());
    trials.extend(interrupted::trials());
    trials.extend(lists::trials());
    trials.extend(stacks::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// What a program prints; an error with its complaint if it fails.
fn output(command: &mut Command) -> Result<String, Failed> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// The files of a stack of directories, the uppermost first, as overlayfs shows them; in a mount namespace of its own,
/// so that nothing has to be unmounted.
fn stacked(layers: &[&Path], at: &Path) -> Result<Vec<String>, Failed> {
    let lower: Vec<String> = layers.iter().map(|layer| layer.display().to_string()).collect();
    let script = "mount -t overlay overlay -o \"lowerdir=$0\" \"$1\" && cd \"$1\" && find . -mindepth 1 | sort";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, &lower.join(":")]).arg(at);
    Ok(output(&mut command)?.lines().map(str::to_owned).collect())
}

fn archive(paths: &[&str]) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for path in paths {
        let mut header = Header::new_gnu();
        let folder = path.ends_with('/');
        header.set_entry_type(if folder { EntryType::Directory } else { EntryType::Regular });
        header.set_mode(if folder { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        archive.append_data(&mut header, path, io::empty())?;
    }
    archive.into_inner()
}

fn overlayfs_hides_what_a_layer_removes() -> Done {
    let folder = tempfile::tempdir()?;
    let [lower, upper, at] = ["lower", "upper", "at"].map(|name| folder.path().join(name));
    for path in [&lower, &upper, &at] {
        fs::create_dir(path)?;
    }
    let below = archive(&[
        "etc/",
        "etc/passwd",
        "etc/motd",
        "opt/",
        "opt/old",
        "var/",
        "var/log/",
        "var/log/old",
        "srv/",
        "srv/old",
    ])?;
    let above =
        archive(&["etc/.wh.motd", "opt/", "opt/.wh..wh..opq", "opt/new", ".wh.var", "var/", "var/new", ".wh.srv"])?;
    unpack(below.as_slice(), &lower, Limits::default())?;
    unpack(above.as_slice(), &upper, Limits::default())?;
    let shown = stacked(&[&upper, &lower], &at)?;
    assert_eq!(shown, ["./etc", "./etc/passwd", "./opt", "./opt/new", "./var", "./var/new"]);
    Ok(())
}

fn the_default_image_stacks_to_one_root() -> Done {
    let folder = tempfile::tempdir()?;
    let (payload, at) = (folder.path().join("payload"), folder.path().join("at"));
    fs::write(&payload, "payload")?;
    fs::create_dir(&at)?;
    let store = Store::open(folder.path().join("store"))?;
    let lower = default_image(&store, &payload)?.lower_dirs();
    let shown = stacked(&lower.iter().map(std::path::PathBuf::as_path).collect::<Vec<_>>(), &at)?;
    for path in ["./isolab-payload", "./etc/passwd", "./proc", "./sys", "./dev", "./tmp"] {
        assert!(shown.iter().any(|other| other == path), "{path} in {shown:?}");
    }
    Ok(())
}

fn skopeo_reads_our_store() -> Done {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("store"))?;
    let layer = LayerContent { created_by: "a test".to_owned(), entries: vec![Entry::file("a", 0o644, &b"a"[..])] };
    let image = Image::assemble(&store, "sample", Details::default(), [layer])?;
    let source = format!("oci:{}:sample", store.root().display());
    let told: serde_json::Value = serde_json::from_str(&output(Command::new("skopeo").args(["inspect", &source]))?)?;
    assert_eq!(told["Digest"], image.manifest().to_string());
    assert_eq!(told["Layers"][0], image.layers()[0].blob.to_string());
    let copy = format!("dir:{}", folder.path().join("copy").display());
    output(Command::new("skopeo").args(["--insecure-policy", "copy", &source, &copy]))?;
    let config = folder.path().join("copy").join(image.id().hex());
    assert_eq!(fs::read(config)?, store.blob(&image.id())?, "its id is the digest of the same bytes");
    Ok(())
}
