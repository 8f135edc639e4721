//! An image as a disk: the kernel's own file systems, and GNU cpio, find in it what overlayfs shows of its layers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use isolab_runtime::image::{Digest, Image, Store};
use libtest_mimic::{Failed, Trial};
use serde_json::json;
use tempfile::TempDir;

use super::needs::trial;
use super::{CTR, output};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_squashfs_has_what_overlayfs_shows", &["root", "overlay", "loop", "sqfstar", "setfattr"], || {
            mounted("squashfs")
        }),
        trial("an_ext4_has_what_overlayfs_shows", &["root", "overlay", "loop", "debugfs", "setfattr"], || {
            mounted("ext4")
        }),
        trial("an_initramfs_has_what_overlayfs_shows", &["root", "overlay", "cpio", "setfattr"], initramfs),
        trial("a_disk_is_the_same_bytes_wherever_it_is_made", &["root", "sqfstar", "debugfs", "setfattr"], twice),
        trial("a_disk_that_cannot_be_written_leaves_the_old_one", &["root", "setfattr"], unwritten),
        trial("a_machine_is_told_what_a_container_of_the_image_would_run", &["root"], told),
    ]
}

/// A store with an image `sample:1` of two layers, in which is one of each thing that a file system can have.
struct Lab {
    folder: TempDir,
}

/// What the upper layer hides and changes, and what is in the lower one.
const LAYERS: &str = r#"
    cd "$0"
    mkdir -p one/etc one/dev "one/a b" one/opt/old one/tmp one/lost+found
    echo root > one/etc/passwd; echo secret > one/etc/shadow; chmod 600 one/etc/shadow; chown 0:42 one/etc/shadow
    echo gone > one/etc/gone; echo old > one/opt/old/file
    printf 'quote' > 'one/a b/it is "quoted" $HOME \ here'
    echo program > one/program; chown 1000:100000 one/program; chmod 4755 one/program
    setfattr -n user.note -v 'a "note"' one/program; setfattr -n security.capability \
        -v 0x0100000200200000000000000000000000000000 one/program
    ln one/program one/second; ln one/program "one/a b/third"
    ln -s '/etc/pass wd' one/link; ln -s "$(printf '%0200d' 0)" one/etc/long
    mknod one/dev/null c 1 3; mknod one/dev/disk b 8 17; mkfifo one/dev/pipe; chmod 1777 one/tmp
    truncate -s 1M one/holes; printf end >> one/holes; touch -d 1999-12-31T23:59:59Z one/etc/passwd one/etc
    touch -h -d 2001-01-01 one/link; chown -h 7:8 one/link
    tar -C one --xattrs --xattrs-include='*' --sort=name -cf one.tar .
    mkdir -p two/etc two/opt two/new; echo added > two/etc/added; echo new > two/new/file
    touch two/etc/.wh.gone two/opt/.wh..wh..opq; echo fresh > two/opt/fresh
    tar -C two --sort=name -cf two.tar etc opt new
"#;

impl Lab {
    fn new() -> Result<Self, Failed> {
        let lab = Self { folder: tempfile::Builder::new().prefix("isolab-disk-").tempdir()? };
        output(Command::new("sh").args(["-ec", LAYERS]).arg(lab.folder.path()))?;
        let layers = [fs::read(lab.path("one.tar"))?, fs::read(lab.path("two.tar"))?];
        let diff_ids = layers.each_ref().map(|layer| Digest::of(layer).to_string());
        let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
        let config = json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs });
        let manifest = json!([{ "Config": "config.json", "RepoTags": ["sample:1"], "Layers": ["one.tar", "two.tar"] }]);
        fs::write(lab.path("config.json"), config.to_string())?;
        fs::write(lab.path("manifest.json"), manifest.to_string())?;
        let files = ["manifest.json", "config.json", "one.tar", "two.tar"];
        output(Command::new("tar").arg("-C").arg(lab.folder.path()).args(["-cf", &lab.text("saved.tar")]).args(files))?;
        lab.ctr("store", &["load", "--input", &lab.text("saved.tar")])?;
        Ok(lab)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn ctr(&self, store: &str, arguments: &[&str]) -> Result<String, Failed> {
        output(Command::new(CTR).arg("--root").arg(self.path(store)).args(arguments))
    }

    fn export(&self, store: &str, format: &str, name: &str) -> Result<PathBuf, Failed> {
        self.ctr(store, &["image", "export", "--format", format, "sample:1", &self.text(name)])?;
        Ok(self.path(name))
    }

    /// What overlayfs shows.
    fn expected(&self) -> Result<Vec<String>, Failed> {
        let store = Store::open(self.path("store"))?;
        let image = Image::from_manifest(&store, &store.resolve("sample:1")?.descriptor)?;
        let lower: Vec<String> = image.lower_dirs().iter().map(|path| path.display().to_string()).collect();
        let options = format!("lowerdir={}", lower.join(":"));
        let mounted = Mounted::new(&self.path("overlay"), &["-t", "overlay", "-o", &options, "overlay"])?;
        list(&mounted.0)
    }
}

/// What is mounted there is unmounted at the end.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path, arguments: &[&str]) -> Result<Self, Failed> {
        fs::create_dir_all(at)?;
        output(Command::new("mount").args(arguments).arg(at))?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A line for each path: what it is, whose, since when, how many names it has, what is in it, and its attributes. Of the
/// root the time is left out, which is that of its unpacking, and so is the folder that every ext4 has.
fn list(root: &Path) -> Result<Vec<String>, Failed> {
    let mut lines = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let at = root.join(&path);
        let it = at.symlink_metadata()?;
        let content = match it.mode() & libc::S_IFMT {
            libc::S_IFREG => Digest::of(&fs::read(&at)?).short(),
            libc::S_IFLNK => fs::read_link(&at)?.display().to_string(),
            libc::S_IFDIR => String::new(),
            _ => it.rdev().to_string(),
        };
        // A directory's names are counted otherwise by each file system.
        let names = if it.is_dir() { 0 } else { it.nlink() };
        let time = if path.as_os_str().is_empty() { 0 } else { it.mtime() };
        let (mode, owner) = (it.mode(), format!("{}:{}", it.uid(), it.gid()));
        lines.push(format!("{mode:o} {time} {owner} {names} {content} {}", path.display()));
        if it.is_dir() {
            let names = fs::read_dir(&at)?.collect::<Result<Vec<_>, _>>()?;
            waiting.extend(names.into_iter().map(|entry| path.join(entry.file_name())));
        }
    }
    let mut command = Command::new("getfattr");
    command.args(["-R", "-P", "-h", "-d", "-m", "^(user|security)", "-e", "hex", "."]).current_dir(root);
    lines.extend(String::from_utf8(command.output()?.stdout)?.split("\n\n").map(str::to_owned));
    lines.sort();
    Ok(lines)
}

fn same(found: &[String], expected: &[String]) -> Result<(), Failed> {
    let of = |all: &[String], other: &[String]| {
        all.iter().filter(|line| !other.contains(line)).cloned().collect::<Vec<_>>().join("\n")
    };
    if found == expected {
        return Ok(());
    }
    Err(format!("only found:\n{}\nonly expected:\n{}", of(found, expected), of(expected, found)).into())
}

fn mounted(format: &str) -> Result<(), Failed> {
    let lab = Lab::new()?;
    let file = lab.export("store", format, "disk")?;
    if format == "ext4" {
        output(Command::new("e2fsck").args(["-f", "-n"]).arg(&file))?;
    }
    let source = file.display().to_string();
    let mounted = Mounted::new(&lab.path("at"), &["-t", format, "-o", "loop,ro", &source])?;
    same(&list(&mounted.0)?, &lab.expected()?)
}

/// GNU cpio unpacks it; attributes have no place in it, which is said.
fn initramfs() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let at = lab.path("at");
    fs::create_dir(&at)?;
    let export = ["image", "export", "--format", "initramfs", "sample:1", &lab.text("archive")];
    let told = Command::new(CTR).arg("--root").arg(lab.path("store")).args(export).output()?;
    let told = String::from_utf8(told.stderr)?;
    assert!(told.contains("attributes of /a b/third"), "{told}");
    let script = "cd \"$1\" && cpio --quiet --extract --make-directories --preserve-modification-time < \"$0\"";
    output(Command::new("sh").args(["-c", script]).arg(lab.path("archive")).arg(&at))?;
    let (found, expected) = (list(&at)?, lab.expected()?);
    // GNU cpio writes to directories after it has given them their time, and gives links none.
    let plain = |lines: Vec<String>| -> Vec<String> {
        let lines = lines.into_iter().filter(|line| !line.starts_with('4') && !line.starts_with("# file"));
        let timeless = |line: String| match line.strip_prefix("120777 ").and_then(|rest| rest.split_once(' ')) {
            Some((_, rest)) => rest.to_owned(),
            None => line,
        };
        lines.map(timeless).collect()
    };
    same(&plain(found), &plain(expected))
}

fn twice() -> Result<(), Failed> {
    const FORMATS: [(&str, &str); 4] =
        [("squashfs", "gzip"), ("ext4", "none"), ("initramfs", "zstd"), ("initramfs", "gzip")];
    let lab = Lab::new()?;
    let disks = |store: &str| -> Result<Vec<Digest>, Failed> {
        let export = |(format, compress): (&str, &str)| -> Result<Digest, Failed> {
            let arguments = ["image", "export", "--format", format, "--compress", compress, "sample:1"];
            lab.ctr(store, &[&arguments[..], &[&lab.text("disk")]].concat())?;
            Ok(Digest::of(&fs::read(lab.path("disk"))?))
        };
        FORMATS.into_iter().map(export).collect()
    };
    let first = disks("store")?;
    // Whatever takes a time from the clock takes another one now, be it at the unpacking or at the writing.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    lab.ctr("other", &["load", "--input", &lab.text("saved.tar")])?;
    for ((format, first), second) in FORMATS.into_iter().zip(first).zip(disks("other")?) {
        assert_eq!(first, second, "{format:?} differs");
    }
    Ok(())
}

fn unwritten() -> Result<(), Failed> {
    let lab = Lab::new()?;
    fs::write(lab.path("disk"), "old")?;
    let failing = [
        ("squashfs", "zstd", "/nowhere", "hint: install Debian's package squashfs-tools"),
        ("ext4", "zstd", "/usr/bin:/bin", "an ext4 is not written with the packing zstd"),
    ];
    for (format, packing, path, expected) in failing {
        let arguments = ["image", "export", "--format", format, "--compress", packing, "sample:1", &lab.text("disk")];
        let failed =
            Command::new(CTR).arg("--root").arg(lab.path("store")).args(arguments).env("PATH", path).output()?;
        let told = String::from_utf8(failed.stderr)?;
        assert!(told.contains(expected), "{told}");
        assert_eq!(failed.status.code(), Some(1));
    }
    assert_eq!(fs::read(lab.path("disk"))?, b"old");
    let mut beside = fs::read_dir(lab.folder.path())?.flatten();
    assert!(!beside.any(|one| one.file_name().to_string_lossy().starts_with(".tmp")), "something half made is left");
    Ok(())
}

/// What `import --change` is told, and what `image export --init` then writes for each format.
fn told() -> Result<(), Failed> {
    let lab = Lab { folder: tempfile::Builder::new().prefix("isolab-disk-").tempdir()? };
    fs::create_dir_all(lab.path("tree/etc"))?;
    fs::write(lab.path("tree/etc/passwd"), "web:x:33:34::/srv:/bin/sh\n")?;
    fs::write(lab.path("tree/etc/group"), "web:x:34:\nlog:x:4:web\n")?;
    output(Command::new("tar").arg("-C").arg(lab.path("tree")).args(["-cf", &lab.text("tree.tar"), "."]))?;
    let run = ["ENTRYPOINT [\"/serve\"]", "CMD [\"--port\", \"80\"]", "ENV LANG=C", "USER web", "WORKDIR /srv/www"];
    let tree = lab.text("tree.tar");
    let changes = run.iter().flat_map(|change| ["--change", *change]);
    let words: Vec<&str> = std::iter::once("import").chain(changes).chain([tree.as_str(), "web:1"]).collect();
    let id = lab.ctr("store", &words)?;
    let name = id.trim().trim_start_matches("sha256:").chars().take(12).collect::<String>();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut expected = json!({
        "hostname": name,
        "process": {
            "args": ["/serve", "--port", "80"],
            "env": [path, format!("HOSTNAME={name}"), "HOME=/srv", "LANG=C"],
            "cwd": "/srv/www", "uid": 33, "gid": 34, "groups": [4],
        },
    });
    let (init, disk) = (lab.text("isolab.json"), lab.text("disk"));
    let export = |format| ["image", "export", "--format", format, "--init", &init, "web:1", &disk];
    lab.ctr("store", &export("initramfs"))?;
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&fs::read(&init)?)?, expected);
    lab.ctr("store", &export("ext4"))?;
    expected["root"] = json!({"device": "/dev/vda", "filesystem": "ext4"});
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&fs::read(&init)?)?, expected);

    lab.ctr("store", &["import", &tree, "silent:1"])?;
    let words = ["image", "export", "--format", "initramfs", "--init", &init, "silent:1", &lab.text("none")];
    let refused = Command::new(CTR).arg("--root").arg(lab.path("store")).args(words).output()?;
    assert!(String::from_utf8(refused.stderr)?.contains("the image says nothing to run"));
    assert!(!lab.path("none").exists());
    Ok(())
}
