//! Images and bundles that try to reach the host: each of these has worked on some runtime.

use std::fs;
use std::os::unix::fs::symlink;

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::lab::{Lab, has, same, text};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_mount_point_behind_a_link_is_made_inside_the_root", &NEEDS, linked_mount_point),
        trial("a_dev_that_is_a_link_to_the_host_reaches_nothing_there", &NEEDS, linked_dev),
        trial("a_proc_that_is_a_link_is_refused", &NEEDS, linked_proc),
        trial("nothing_but_procfs_is_mounted_at_proc", &NEEDS, forged_proc),
        trial("nothing_is_mounted_over_a_process_in_proc", &NEEDS, covered_process),
        trial("a_working_directory_behind_a_descriptor_is_refused", &NEEDS, descriptor_directory),
        trial("a_null_device_of_the_image_masks_nothing", &NEEDS, forged_null),
    ]
}

fn linked_mount_point() -> Result<(), Failed> {
    let mut lab = Lab::new("ls -d /etc/made /away/made; mount | grep -c made");
    let outside = lab.path("outside");
    fs::create_dir(&outside)?;
    symlink(&outside, lab.root().join("absolute"))?;
    symlink("../outside", lab.root().join("relative"))?;
    symlink("/etc", lab.root().join("away"))?;
    lab.set("/mounts/-", json!({ "destination": "/away/made", "type": "tmpfs", "source": "t" }));
    same(lab.output()?.as_str(), "/away/made\n/etc/made\n1\n")?;
    for name in ["absolute", "relative"] {
        let place = format!("/{name}/caught");
        lab.set("/mounts/-", json!({ "destination": place, "type": "tmpfs", "source": "t" }));
        lab.run();
        same(fs::read_dir(&outside)?.count(), 0)?;
        lab.unmount(&place);
    }
    same(fs::metadata("/etc/made").is_err(), true)?;
    lab.is_clean()
}

fn linked_dev() -> Result<(), Failed> {
    for target in ["absolute", "../outside"] {
        let mut lab = Lab::new("true");
        let outside = lab.path("outside");
        fs::create_dir(&outside)?;
        fs::write(outside.join("ptmx"), "the host's")?;
        fs::remove_dir(lab.root().join("dev"))?;
        let link = if target == "absolute" { outside.clone() } else { target.into() };
        symlink(link, lab.root().join("dev"))?;
        lab.unmount("/dev");
        lab.run();
        same(fs::read_dir(&outside)?.count(), 1)?;
        same(fs::read_to_string(outside.join("ptmx"))?.as_str(), "the host's")?;
        lab.is_clean()?;
    }
    Ok(())
}

fn linked_proc() -> Result<(), Failed> {
    let lab = Lab::new("true");
    fs::remove_dir(lab.root().join("proc"))?;
    fs::create_dir(lab.root().join("other"))?;
    symlink("other", lab.root().join("proc"))?;
    has(&text(&lab.run().stderr), "cannot mount /proc")?;
    lab.is_clean()
}

fn forged_proc() -> Result<(), Failed> {
    let mut lab = Lab::new("true");
    let given = lab.path("given");
    fs::create_dir(&given)?;
    lab.set("/mounts/-", json!({ "destination": "/proc", "type": "bind", "source": given, "options": ["rbind"] }));
    has(&text(&lab.run().stderr), "cannot mount /proc")?;
    lab.is_clean()
}

fn covered_process() -> Result<(), Failed> {
    let mut lab = Lab::new("true");
    symlink("/proc/self/attr", lab.root().join("innocent"))?;
    for destination in ["/proc/self/attr", "/proc/sys/kernel", "/innocent"] {
        lab.set("/mounts/-", json!({ "destination": destination, "type": "tmpfs", "source": "t" }));
        let output = lab.run();
        same((destination, output.status.code()), (destination, Some(1)))?;
        has(&text(&output.stderr), "error: cannot m")?;
        lab.unmount(destination);
        lab.is_clean()?;
    }
    // What describes the machine may be described otherwise.
    fs::write(lab.path("cpuinfo"), "abacus\n")?;
    let source = lab.path("cpuinfo");
    lab.set(
        "/mounts/-",
        json!({ "destination": "/proc/cpuinfo", "type": "bind", "source": source, "options": ["bind", "ro"] }),
    );
    lab.set("/process/args", json!(["cat", "/proc/cpuinfo"]));
    same(lab.output()?.as_str(), "abacus\n")
}

fn descriptor_directory() -> Result<(), Failed> {
    for number in 3..100 {
        let mut lab = Lab::new("ls");
        lab.set("/process/cwd", json!(format!("/proc/self/fd/{number}")));
        let output = lab.run();
        same((number, output.status.code()), (number, Some(1)))?;
        same(text(&output.stdout).as_str(), "")?;
        lab.is_clean()?;
    }
    Ok(())
}

fn forged_null() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /hidden");
    fs::write(lab.root().join("hidden"), "secret\n")?;
    fs::write(lab.root().join("dev/null"), "forged\n")?;
    lab.set("/linux/maskedPaths", json!(["/hidden"]));
    lab.unmount("/dev");
    let output = lab.run();
    same(text(&output.stdout).contains("secret"), false)?;
    lab.is_clean()
}
