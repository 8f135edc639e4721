//! Machines with disks that go on from snapshots, at the hands of a kernel of a few instructions.
//!
//! It reads the port that counts how often its machine has gone on, until that is not zero, and ends with what it read.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use isolab_vmm::devices::virtio::block::image::base_of;
use isolab_vmm::machine::pc::{Disk, Paused, Pc, Renewal, Wiring};
use isolab_vmm::machine::{BootError, Ended, Standing, Template};
use isolab_vmm::memory::Loading;
use isolab_vmm::snapshot::Snapshot;
use libtest_mimic::{Failed, Trial};

use super::tiny::{CONFIG, boot_with};
use super::{Done, Screen, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_machine_that_goes_on_is_told_so_and_has_disks_of_its_own", &["kvm"], goes_on),
        trial("a_snapshot_whose_disk_is_another_is_refused", &["kvm"], another_disk),
        trial("qemu_reads_the_disks_of_snapshots_and_of_what_goes_on", &["kvm", "qemu-img"], qemu_reads),
        trial("a_disk_whose_place_matters_is_not_saved", &["kvm", "qemu-img"], relative_base),
    ]
}

/// `again: in al, 0xf6; test al, al; jz again; out 0xf4, al`
const COUNTS: [u8; 8] = [0xe4, 0xf6, 0x84, 0xc0, 0x74, 0xfa, 0xe6, 0xf4];

/// A disk with something on it.
fn disk(path: &Path) -> Result<Wiring, Failed> {
    fs::write(path, [7; 8192])?;
    Ok(Wiring::Disk(Disk::new(path.to_owned(), false, None)))
}

/// A machine with these devices that has not run yet.
pub(super) fn boots(devices: Vec<Wiring>) -> Result<Pc, Failed> {
    Ok(boot_with(&CONFIG, &COUNTS, devices)?.0)
}

/// One that has run and stands still.
fn stands(devices: Vec<Wiring>) -> Result<Pc, Failed> {
    let running = boots(devices)?.resume()?;
    std::thread::sleep(Duration::from_millis(5));
    match running.pause()? {
        Paused::Still(pc) => Ok(pc),
        Paused::Ended(ended) => Err(format!("it ended: {ended:?}").into()),
    }
}

pub(super) fn restored(at: &Path, disks: Option<&Path>, loading: Loading) -> Result<Pc, Failed> {
    let template = Template::new(Snapshot::open(at)?)?;
    let renewal = Renewal { disks: disks.map(Path::to_owned), ..Renewal::default() };
    let patience = Some(Duration::from_secs(20));
    Ok(Pc::restore(&template, loading, patience, Box::new(Screen::default()), &renewal)?)
}

fn goes_on() -> Done {
    let folder = tempfile::tempdir()?;
    let place = |name: &str| folder.path().join(name);
    let read_only = Wiring::Disk(Disk::new(place("image"), true, None));
    fs::write(place("image"), [9; 4096])?;
    let devices = vec![disk(&place("data"))?, read_only, Wiring::Rng, Wiring::Balloon(1)];
    stands(devices)?.save(&place("one"))?;
    assert_eq!(fs::read(place("one/disk-0"))?, [7; 8192]);
    assert!(!place("one/disk-1").exists(), "what is only read is not copied");
    fs::write(place("data"), [1; 8192])?; // what becomes of it later is nobody's business
    for name in ["clone-a", "clone-b"] {
        fs::create_dir(place(name))?;
        let pc = restored(&place("one"), Some(&place(name)), Loading::Lazy)?;
        assert_eq!(base_of(&place(name).join("0.qcow2"))?, Some(place("one/disk-0")));
        assert_eq!(pc.resume()?.wait(None)?, Ended::Status(1));
    }
    // And once more from what has gone on: an overlay of an overlay.
    fs::create_dir(place("clone-c"))?;
    restored(&place("one"), Some(&place("clone-c")), Loading::Lazy)?.save(&place("two"))?;
    assert_eq!(base_of(&place("two/disk-0"))?, Some(place("one/disk-0")));
    assert_eq!(restored(&place("two"), None, Loading::Lazy)?.resume()?.wait(None)?, Ended::Status(2));
    Ok(())
}

fn another_disk() -> Done {
    let folder = tempfile::tempdir()?;
    let place = |name: &str| folder.path().join(name);
    stands(vec![disk(&place("data"))?])?.save(&place("one"))?;
    let refused = |what: &str| -> Done {
        let template = Template::new(Snapshot::open(&place("one"))?)?;
        let renewal = Renewal::default();
        let restored = Pc::restore(&template, Loading::Lazy, None, Box::new(Screen::default()), &renewal);
        match restored.err() {
            Some(BootError::Wiring(error)) => assert!(format!("{error}").contains(what), "{error}"),
            Some(BootError::Device(error)) => assert!(format!("{error}").contains(what), "{error}"),
            other => return Err(format!("{what}: {other:?}").into()),
        }
        Ok(())
    };
    let kept = place("one/disk-0");
    fs::remove_file(&kept)?;
    refused("cannot open the disk")?;
    fs::write(&kept, [7; 4096])?;
    refused("what was saved of a device is not of this block device")?;
    fs::write(&kept, [])?;
    refused("the disk")?;
    fs::write(&kept, [7; 8192])?;
    assert_eq!(restored(&place("one"), None, Loading::Lazy)?.resume()?.wait(None)?, Ended::Status(1));
    Ok(())
}

fn qemu_img(words: &[&str]) -> Result<String, Failed> {
    let output = Command::new("qemu-img").args(words).output()?;
    if !output.status.success() {
        return Err(format!("qemu-img {words:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn qemu_reads() -> Done {
    let folder = tempfile::tempdir()?;
    let place = |name: &str| folder.path().join(name);
    stands(vec![disk(&place("data"))?])?.save(&place("one"))?;
    fs::create_dir(place("now"))?;
    restored(&place("one"), Some(&place("now")), Loading::Lazy)?.save(&place("two"))?;
    for image in [place("now/0.qcow2"), place("two/disk-0")] {
        let image = image.to_str().ok_or("a path in UTF-8")?;
        qemu_img(&["check", "-q", "-f", "qcow2", image])?;
        let told: serde_json::Value =
            serde_json::from_str(&qemu_img(&["info", "--output=json", "-f", "qcow2", image])?)?;
        assert_eq!(told["virtual-size"], 8192);
        assert_eq!(told["full-backing-filename"].as_str(), place("one/disk-0").to_str());
        assert_eq!(told["backing-filename-format"], "raw");
        qemu_img(&["compare", "-q", "-f", "qcow2", "-F", "raw", image, &place("data").to_string_lossy()])?;
    }
    Ok(())
}

fn relative_base() -> Done {
    let folder = tempfile::tempdir()?;
    let place = |name: &str| folder.path().join(name);
    fs::write(place("base"), [7; 8192])?;
    let image = place("data.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", image.to_str().ok_or("a path in UTF-8")?])?;
    let mut pc = stands(vec![Wiring::Disk(Disk::new(image, false, None))])?;
    let error = pc.save(&place("one")).err().ok_or("it was saved")?;
    assert!(error.to_string().contains("stands on base, a name that would lead elsewhere"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("qemu-img rebase")));
    let left: Vec<_> = fs::read_dir(folder.path())?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    Ok(())
}
