//! Images in files, handed from one engine to another.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;

use super::needs::trial;
use super::{CTR, output};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("podman_and_we_load_each_other_s_images", &["root", "podman"], podman),
        trial("skopeo_reads_our_files_and_we_read_its", &["skopeo"], skopeo),
        trial("an_archive_from_before_digests_is_told_apart_from_none", &[], old_archive),
        trial("a_saved_image_is_the_same_bytes_wherever_it_is_saved", &[], saved_twice),
    ]
}

/// A store with an image `sample:1` in it.
struct Lab {
    folder: TempDir,
}

impl Lab {
    fn new() -> Result<Self, Failed> {
        let lab = Self { folder: tempfile::Builder::new().prefix("isolab-image-").tempdir()? };
        let root = lab.folder.path().join("root");
        fs::create_dir_all(root.join("etc"))?;
        fs::write(root.join("etc/motd"), "hello")?;
        let mut archive = tar::Builder::new(fs::File::create(lab.path("root.tar"))?);
        archive.append_dir_all(".", &root)?;
        archive.finish()?;
        lab.ctr("store", &["import", &lab.path("root.tar"), "sample:1"])?;
        Ok(lab)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn ctr(&self, store: &str, arguments: &[&str]) -> Result<String, Failed> {
        output(Command::new(CTR).arg("--root").arg(self.folder.path().join(store)).args(arguments))
    }

    fn id(&self, store: &str) -> Result<String, Failed> {
        Ok(self.ctr(store, &["images", "--quiet", "--no-trunc"])?.trim().to_owned())
    }
}

fn podman() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.args(["--storage-driver", "vfs", "--root", &lab.path("pod"), "--runroot", &lab.path("podrun")]);
        output(command.args(arguments))
    };
    lab.ctr("store", &["save", "--output", &lab.path("ours.tar"), "sample:1"])?;
    podman(&["load", "--input", &lab.path("ours.tar")])?;
    let id = podman(&["images", "--quiet", "--no-trunc"])?;
    assert_eq!(id.trim(), lab.id("store")?, "podman knows it by another id");
    for format in ["docker-archive", "oci-archive"] {
        let file = lab.path(&format!("{format}.tar"));
        podman(&["save", "--format", format, "--output", &file, "docker.io/library/sample:1"])?;
        let loaded = lab.ctr(format, &["load", "--input", &file])?;
        assert_eq!(loaded, "Loaded image: sample:1\n", "{format}");
        assert_eq!(lab.id(format)?, lab.id("store")?, "{format}");
        let owner = lab.ctr(format, &["image", "layers", "--owner", "/etc/motd", "sample:1"])?;
        assert_eq!(owner.trim().len(), 12, "{format}");
        lab.ctr(format, &["fsck"])?;
    }
    Ok(())
}

fn skopeo() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let file = lab.path("ours.tar");
    lab.ctr("store", &["save", "--output", &file, "sample:1"])?;
    for (from, to) in [("oci-archive", "docker-archive"), ("docker-archive", "oci-archive")] {
        let copy = lab.path(&format!("{to}.tar"));
        let name = "docker.io/library/sample:1";
        let (from, target) = (format!("{from}:{file}:{name}"), format!("{to}:{copy}:{name}"));
        output(Command::new("skopeo").args(["--insecure-policy", "copy", &from, &target]))?;
        let loaded = lab.ctr(to, &["load", "--input", &copy])?;
        assert_eq!(loaded, "Loaded image: sample:1\n", "{from}");
        // From docker's form to OCI's skopeo writes a configuration of its own, which is another id.
        if to == "docker-archive" {
            assert_eq!(lab.id(to)?, lab.id("store")?, "{from}");
        }
        let owner = lab.ctr(to, &["image", "layers", "--owner", "/etc/motd", "sample:1"])?;
        assert_eq!(owner.trim().len(), 12, "{from}");
    }
    Ok(())
}

/// docker before 1.10: a list of names, and a folder for each layer.
fn old_archive() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let id = "0123456789abcdef".repeat(4);
    for (name, told) in [("repositories", "before 1.10"), ("readme", "the file holds no image")] {
        let file = lab.path(name);
        let mut archive = tar::Builder::new(fs::File::create(&file)?);
        for (path, text) in [
            (format!("{id}/VERSION"), "1.0".to_owned()),
            (format!("{id}/json"), format!("{{\"id\":\"{id}\",\"os\":\"linux\"}}")),
            (name.to_owned(), format!("{{\"sample\":{{\"1\":\"{id}\"}}}}")),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            archive.append_data(&mut header, path, text.as_bytes())?;
        }
        archive.finish()?;
        let said = Command::new(CTR).arg("--root").arg(lab.path("other")).args(["load", "--input", &file]).output()?;
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains(told) && said.contains("hint: "), "{name}: {said}");
    }
    Ok(())
}

fn saved_twice() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.ctr("store", &["save", "--output", &lab.path("first"), "sample:1"])?;
    lab.ctr("other", &["load", "--input", &lab.path("first")])?;
    lab.ctr("other", &["save", "--output", &lab.path("second"), "sample:1"])?;
    let read = |name: &str| fs::read(Path::new(&lab.path(name)));
    assert!(read("first")? == read("second")?, "the two files differ");
    Ok(())
}
