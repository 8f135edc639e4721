//! Commands that are killed in the middle, and several at once: the store stays whole.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;

use super::needs::trial;
use super::{CTR, output};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_load_that_is_killed_leaves_a_whole_store", &[], killed),
        trial("loads_tags_and_removals_at_once_leave_a_whole_store", &[], at_once),
    ]
}

/// A file with an image of some megabytes, and a store beside it.
struct Lab {
    folder: TempDir,
}

impl Lab {
    fn new() -> Result<Self, Failed> {
        let lab = Self { folder: tempfile::Builder::new().prefix("isolab-image-").tempdir()? };
        let mut archive = tar::Builder::new(fs::File::create(lab.path("root.tar"))?);
        for number in 0..200_u32 {
            let noise: Vec<u8> = (0..20_000_u32).map(|byte| ((byte * 7919 + number * 104_729) >> 5) as u8).collect();
            let mut header = tar::Header::new_gnu();
            header.set_size(noise.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            archive.append_data(&mut header, format!("files/{number}"), noise.as_slice())?;
        }
        archive.finish()?;
        output(&mut lab.ctr("first", &["import", &lab.path("root.tar"), "sample:1"]))?;
        output(&mut lab.ctr("first", &["save", "--output", &lab.path("saved.tar"), "sample:1"]))?;
        Ok(lab)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn ctr(&self, store: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(CTR);
        command.arg("--root").arg(self.folder.path().join(store)).args(arguments);
        command
    }

    fn start(&self, arguments: &[&str]) -> Result<Child, Failed> {
        Ok(self.ctr("store", arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
    }
}

fn killed() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let saved = lab.path("saved.tar");
    for verb in [["load", "--input", &saved], ["import", &lab.path("root.tar"), "sample:2"]] {
        for milliseconds in [1, 3, 6, 10, 15, 25, 40, 60, 90, 130] {
            let mut child = lab.start(&verb)?;
            sleep(Duration::from_millis(milliseconds));
            child.kill()?;
            child.wait()?;
            output(&mut lab.ctr("store", &["fsck"]))?;
        }
    }
    output(&mut lab.ctr("store", &["prune"]))?;
    output(&mut lab.ctr("store", &["load", "--input", &saved]))?;
    output(&mut lab.ctr("store", &["fsck"]))?;
    let rest = output(Command::new("find").args([lab.path("store").as_str(), "-name", ".tmp-*"]))?;
    assert_eq!(rest, "", "what was half done is still there");
    Ok(())
}

fn at_once() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let saved = lab.path("saved.tar");
    for _ in 0..4 {
        let load = ["load", "--input", saved.as_str()];
        let children = [&load[..], &load, &["rmi", "sample:1"], &load, &["prune"]].map(|verb| lab.start(verb));
        for child in children {
            // One that removes may come before there is anything; nothing else may fail.
            let ended = child?.wait_with_output()?;
            let told = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(ended.status.success() || told.contains("no image is called"), "{told}");
        }
        output(&mut lab.ctr("store", &["fsck"]))?;
    }
    Ok(())
}
