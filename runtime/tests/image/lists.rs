//! Which images a list shows, what their history says, how an imported one is changed, and what an ordinary user gets of one.

use std::fs;
use std::os::unix::fs::{FileTypeExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;

use super::needs::trial;
use super::{CTR, Done, archive, output};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_list_shows_the_images_that_are_asked_for", &[], filtered),
        trial("an_import_is_changed_by_instructions", &[], changed),
        trial("an_ordinary_user_gets_an_image_without_its_devices", &["root"], rootless),
    ]
}

fn ctr(folder: &Path, arguments: &[&str]) -> Result<String, Failed> {
    let mut command = Command::new(CTR);
    output(command.arg("--root").arg(folder.join("store")).args(arguments))
}

/// A folder with an archive of a file of 5,000 bytes, and of one that is as good as empty.
fn lab() -> Result<TempDir, Failed> {
    let folder = tempfile::Builder::new().prefix("isolab-image-").tempdir()?;
    fs::write(folder.path().join("empty.tar"), archive(&["etc/", "etc/motd"])?)?;
    let mut full = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5000);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    full.append_data(&mut header, "zeros", &[0; 5000][..])?;
    fs::write(folder.path().join("full.tar"), full.into_inner()?)?;
    Ok(folder)
}

fn filtered() -> Done {
    let folder = lab()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let ctr = |arguments: &[&str]| ctr(folder.path(), arguments);
    ctr(&["import", "--change", "LABEL stage=first of=a", &path("empty.tar"), "team/a:1"])?;
    ctr(&["import", "--change", "LABEL stage=second", &path("full.tar"), "team/b:2"])?;
    ctr(&["tag", "team/b:2", "localhost:5000/team/b:3"])?;
    ctr(&["import", "--message", "nameless", &path("full.tar")])?;
    let listed = |more: &[&str]| -> Result<Vec<String>, Failed> {
        let told = ctr(&[&["images", "--format", "{{.Repository}}:{{.Tag}}"], more].concat())?;
        Ok(told.lines().map(str::to_owned).collect())
    };
    let table: [(&[&str], &[&str]); 11] = [
        (&["team/a"], &["team/a:1"]),
        (&["team/b:2"], &["team/b:2"]),
        (&["docker.io/team/b"], &["team/b:2"]),
        (&["none"], &[]),
        (&["--filter", "reference=team/*"], &["team/b:2", "team/a:1"]),
        (&["--filter", "reference=*/team/*:3"], &["localhost:5000/team/b:3"]),
        (&["--filter", "label=stage"], &["localhost:5000/team/b:3", "team/b:2", "team/a:1"]),
        (&["--filter", "label=stage=first"], &["team/a:1"]),
        (&["--filter", "dangling=true"], &["<none>:<none>"]),
        (&["--filter", "dangling=false", "--filter", "label=of"], &["team/a:1"]),
        (&["-f", "reference=team/a", "-f", "reference=team/b"], &["team/b:2", "team/a:1"]),
    ];
    for (asked, wanted) in table {
        assert_eq!(listed(asked)?, wanted, "{asked:?}");
    }
    // As docker tells it: what a container finds, and not what was sent.
    let history = ctr(&["history", "team/b:2"])?;
    assert!(history.contains("5.00kB"), "{history}");
    Ok(())
}

fn changed() -> Done {
    let folder = lab()?;
    let full = folder.path().join("full.tar").display().to_string();
    let ctr = |arguments: &[&str]| ctr(folder.path(), arguments);
    let changes = [
        "--change",
        "ENV a=b",
        "--change",
        "CMD [\"x\", \"y\"]",
        "-c",
        "WORKDIR /srv",
        "-c",
        "EXPOSE 80",
        &full,
        "app",
    ];
    let id = ctr(&[&["import"], &changes[..]].concat())?;
    let told: serde_json::Value = serde_json::from_str(&ctr(&["inspect", "app"])?)?;
    let (image, config) = (&told[0], &told[0]["Config"]);
    assert_eq!(image["Id"], id.trim());
    assert_eq!((&config["Env"][0], &config["Cmd"][1]), (&"a=b".into(), &"y".into()));
    assert_eq!((&config["WorkingDir"], config["ExposedPorts"].get("80/tcp").is_some()), (&"/srv".into(), true));
    assert_eq!(image["RootFS"]["Layers"].as_array().map(Vec::len), Some(1));
    // What is no such instruction is refused before anything is kept.
    let refused = Command::new(CTR)
        .arg("--root")
        .arg(folder.path().join("store"))
        .args(["import", "-c", "RUN x", &full, "other"])
        .output()?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--change is"), "{refused:?}");
    assert!(!ctr(&["images"])?.contains("other"));
    Ok(())
}

/// Nobody in particular.
const USER: u32 = 54_321;

fn rootless() -> Done {
    let folder = tempfile::Builder::new().prefix("isolab-image-").tempdir()?;
    let mut all = tar::Builder::new(Vec::new());
    for (path, kind) in [
        ("dev/disk", tar::EntryType::Block),
        ("dev/null", tar::EntryType::Char),
        ("dev/pipe", tar::EntryType::Fifo),
        ("etc/motd", tar::EntryType::Regular),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        // Of another user, which nobody but root can make it.
        header.set_uid(0);
        header.set_gid(42);
        header.set_size(0);
        header.set_device_major(8)?;
        header.set_device_minor(1)?;
        all.append_data(&mut header, path, std::io::empty())?;
    }
    fs::write(folder.path().join("root.tar"), all.into_inner()?)?;
    chown(folder.path(), Some(USER), Some(USER))?;
    let ctr = |arguments: &[&str]| {
        let mut command = Command::new(CTR);
        command.arg("--root").arg(folder.path().join("store")).args(arguments).uid(USER).gid(USER);
        output(&mut command)
    };
    ctr(&["import", &folder.path().join("root.tar").display().to_string(), "app"])?;
    assert!(ctr(&["fsck"])?.contains("all well"));
    let layer = fs::read_dir(folder.path().join("store/layers"))?.flatten().next().ok_or("no layer")?.path();
    let names = |below: &str| -> Result<Vec<String>, Failed> {
        let entries = fs::read_dir(layer.join(below))?.collect::<Result<Vec<_>, _>>()?;
        Ok(entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    };
    assert_eq!((names("dev")?, names("etc")?), (vec!["pipe".to_owned()], vec!["motd".to_owned()]));
    assert!(fs::symlink_metadata(layer.join("dev/pipe"))?.file_type().is_fifo());
    Ok(())
}
