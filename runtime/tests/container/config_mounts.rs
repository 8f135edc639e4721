//! `config.json` about mounts: every kind of option, seen in the container's own list of mounts and in what it can do.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::lab::{Lab, OCI, has, same, text};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];
const IDMAP: [&str; 3] = ["root", "busybox", "idmapped-tmpfs"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("each_option_of_a_mount_has_its_effect", &NEEDS, options),
        trial("a_recursive_option_reaches_the_mounts_below", &NEEDS, recursive),
        trial("a_mount_spreads_as_its_option_says", &NEEDS, propagation),
        trial("the_root_spreads_as_rootfs_propagation_says", &NEEDS, root_propagation),
        trial("what_is_mounted_in_a_shared_bind_reaches_the_host", &["root", "busybox", "unshare"], shared),
        trial("a_tmpfs_begins_with_what_the_image_has_there", &NEEDS, copy_up),
        trial("a_tmpfs_that_is_too_small_for_the_image_is_told_of", &NEEDS, copy_up_fails),
        trial("a_remount_changes_what_is_mounted_already", &NEEDS, remount),
        trial("a_bind_of_a_file_makes_a_file_where_there_is_none", &NEEDS, files),
        trial("a_bind_over_a_link_to_nothing_makes_what_it_names", &NEEDS, dangling),
        trial("an_id_mapped_mount_shows_other_owners", &IDMAP, id_mapped),
        trial("an_id_mapped_mount_can_use_the_containers_own_map", &IDMAP, id_mapped_as_container),
        trial("an_id_mapped_mount_without_a_map_is_refused", &NEEDS, id_mapped_without_map),
    ]
}

fn remount() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /proc/self/mountinfo");
    let mount =
        |options: &[&str]| json!({ "destination": "/data", "type": "tmpfs", "source": "t", "options": options });
    lab.set("/mounts/-", mount(&["size=4m", "sync"]));
    lab.set("/mounts/-", mount(&["remount", "size=8m", "nosuid"]));
    let (options, _, filesystem) = line(&lab.output()?, "/data")?;
    same(options.as_str(), "rw,nosuid,relatime")?;
    has(&filesystem, "size=8192k")?;
    // Of the mount alone: the file system itself can still be written elsewhere.
    lab.set("/mounts/-", mount(&["remount", "bind", "ro", "nodev"]));
    let (options, _, filesystem) = line(&lab.output()?, "/data")?;
    same(options.as_str(), "ro,nosuid,nodev,relatime")?;
    has(&filesystem, " rw")?;
    lab.set("/mounts/-", json!({ "destination": "/tmp", "options": ["remount", "ro"] }));
    has(&text(&lab.run().stderr), "cannot change what is mounted at /tmp")?;
    lab.is_clean()
}

/// The last line of mountinfo about one mount point: its options, its propagation fields, and the file system's options.
fn line(mounts: &str, point: &str) -> Result<(String, String, String), Failed> {
    let found = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(point));
    let found = found.ok_or_else(|| format!("{point} is not in {mounts}"))?;
    let (mount, filesystem) = found.split_once(" - ").ok_or("a line without a dash")?;
    let mut fields = mount.split(' ').skip(5);
    let options = fields.next().unwrap_or_default().to_owned();
    Ok((options, fields.collect::<Vec<_>>().join(" "), filesystem.to_owned()))
}

fn options() -> Result<(), Failed> {
    let table = [
        (vec!["ro"], "ro,relatime"),
        (vec!["ro", "rw"], "rw,relatime"),
        (vec!["nosuid", "nodev", "noexec"], "rw,nosuid,nodev,noexec,relatime"),
        (vec!["nosuid", "suid", "nodev", "dev", "noexec", "exec"], "rw,relatime"),
        (vec!["noatime"], "rw,noatime"),
        (vec!["nodiratime"], "rw,nodiratime,relatime"),
        (vec!["strictatime"], "rw"),
        (vec!["strictatime", "nostrictatime"], "rw,relatime"),
        (vec!["nosymfollow"], "rw,relatime,nosymfollow"),
        (vec!["nosymfollow", "symfollow", "norelatime", "diratime"], "rw,relatime"),
        (vec!["defaults", "async", "silent", "loud", "iversion", "noiversion", "nomand", "nolazytime"], "rw,relatime"),
    ];
    let mut lab = Lab::new("cat /proc/self/mountinfo");
    fs::create_dir(lab.path("given"))?;
    let source = lab.path("given");
    for (index, (options, _)) in table.iter().enumerate() {
        let new = json!({ "destination": format!("/new/{index}"), "type": "tmpfs", "source": "t", "options": options });
        let mut words = options.clone();
        words.push("bind");
        let bind = json!({ "destination": format!("/bound/{index}"), "source": source, "options": words });
        lab.set("/mounts/-", new).set("/mounts/-", bind);
    }
    let synchronous =
        json!({ "destination": "/sync", "type": "tmpfs", "source": "t", "options": ["sync", "dirsync", "size=8k"] });
    lab.set("/mounts/-", synchronous);
    let mounts = lab.output()?;
    for (index, (options, expected)) in table.iter().enumerate() {
        same((options, line(&mounts, &format!("/new/{index}"))?.0.as_str()), (options, *expected))?;
        let bound = line(&mounts, &format!("/bound/{index}"))?.0;
        // A bind keeps the access-time mode of what it shows unless it is told otherwise.
        if !expected.ends_with("rw") && options.iter().all(|word| !word.contains("atime")) {
            let but_time = |text: &str| text.replace(",relatime", "");
            same((options, but_time(&bound)), (options, but_time(expected)))?;
        }
    }
    has(&line(&mounts, "/sync")?.2, "rw,sync,dirsync,size=8k")?;
    lab.is_clean()
}

fn recursive() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /proc/self/mountinfo");
    for (name, options) in [
        ("one", json!(["rbind", "ro"])),
        ("all", json!(["rbind", "rro", "rnosuid", "rnoexec", "rnodev", "rnoatime"])),
        ("mixed", json!(["rbind", "rro", "rnosymfollow", "rw"])),
    ] {
        lab.set("/mounts/-", json!({ "destination": format!("/{name}"), "source": "/dev", "options": options }));
    }
    let mounts = lab.output()?;
    same(line(&mounts, "/one")?.0.starts_with("ro,"), true)?;
    same(line(&mounts, "/one/shm")?.0.starts_with("rw,"), true)?;
    for point in ["/all", "/all/shm"] {
        same((point, line(&mounts, point)?.0.as_str()), (point, "ro,nosuid,nodev,noexec,noatime"))?;
    }
    same(line(&mounts, "/mixed/shm")?.0.starts_with("ro,"), true)?;
    has(&line(&mounts, "/mixed/shm")?.0, "nosymfollow")?;
    lab.is_clean()
}

fn propagation() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /proc/self/mountinfo");
    for word in ["private", "rprivate", "shared", "rshared", "unbindable", "runbindable"] {
        lab.set(
            "/mounts/-",
            json!({ "destination": format!("/{word}"), "type": "tmpfs", "source": "t", "options": [word] }),
        );
    }
    // First shared, then a follower of what it was shared with: of nobody.
    lab.set(
        "/mounts/-",
        json!({ "destination": "/slave", "type": "tmpfs", "source": "t", "options": ["shared", "slave"] }),
    );
    let mounts = lab.output()?;
    for word in ["private", "rprivate", "slave"] {
        same((word, line(&mounts, &format!("/{word}"))?.1.as_str()), (word, ""))?;
    }
    for word in ["shared", "rshared"] {
        has(&line(&mounts, &format!("/{word}"))?.1, "shared:")?;
    }
    for word in ["unbindable", "runbindable"] {
        same((word, line(&mounts, &format!("/{word}"))?.1.as_str()), (word, "unbindable"))?;
    }
    lab.is_clean()
}

fn root_propagation() -> Result<(), Failed> {
    for (word, expected) in [("private", ""), ("rprivate", ""), ("unbindable", "unbindable"), ("shared", "shared:")] {
        let mut lab = Lab::new("cat /proc/self/mountinfo");
        lab.set("/linux/rootfsPropagation", json!(word));
        let found = line(&lab.output()?, "/")?.1;
        same((word, found.starts_with(expected), found.is_empty()), (word, true, expected.is_empty()))?;
        lab.is_clean()?;
    }
    let mut lab = Lab::new("true");
    lab.set("/linux/rootfsPropagation", json!("everywhere"));
    has(&text(&lab.run().stderr), "linux.rootfsPropagation")
}

/// In a mount namespace of the trial's own, which plays the host.
fn shared() -> Result<(), Failed> {
    let mut lab = Lab::new("mount -t tmpfs made /shared/sub && mount -t tmpfs made /followed/sub && echo mounted");
    let admin = json!(["CAP_SYS_ADMIN"]);
    lab.set("/process/capabilities", json!({ "bounding": admin, "permitted": admin, "effective": admin }));
    lab.set("/linux/rootfsPropagation", json!("rshared"));
    for name in ["shared", "followed"] {
        fs::create_dir(lab.path(name))?;
    }
    for (name, word) in [("shared", "rshared"), ("followed", "rslave")] {
        let source = lab.path(name);
        lab.set(
            "/mounts/-",
            json!({ "destination": format!("/{name}"), "source": source, "options": ["rbind", word] }),
        );
    }
    lab.command(&["list"]);
    let script = format!(
        "for d in shared followed; do mount -t tmpfs here $d && mount --make-shared $d && mkdir $d/sub; done; \
         {OCI} --root {} run {}; grep -o '/[a-z]*/sub .* made' /proc/self/mountinfo",
        lab.states().display(),
        lab.id
    );
    let mut host = Command::new("unshare");
    host.args(["--mount", "--propagation", "private", "sh", "-c", &script]).current_dir(lab.bundle());
    let output = host.output()?;
    let said = text(&output.stdout);
    same((said.lines().next(), text(&output.stderr).as_str()), (Some("mounted"), ""))?;
    has(&said, "/shared/sub ")?;
    same(said.contains("/followed/sub "), false)?;
    lab.is_clean()
}

fn copy_up() -> Result<(), Failed> {
    let mut lab = Lab::new(
        "cd /data; cat file deep/er/file; readlink link; readlink out; stat -c '%n %a %u:%g %Y' . file deep deep/er/file run; \
         echo changed > file; touch new; stat -c %a /other; cat /other/file; touch /other/x",
    );
    let data = lab.root().join("data");
    fs::create_dir_all(data.join("deep/er"))?;
    for (name, content) in [("file", "one\n"), ("deep/er/file", "two\n"), ("run", "")] {
        fs::write(data.join(name), content)?;
        fs::File::options().write(true).open(data.join(name))?.set_modified(std::time::UNIX_EPOCH)?;
    }
    for (name, mode) in [("", 0o751), ("file", 0o640), ("deep", 0o700), ("deep/er/file", 0o444), ("run", 0o4755)] {
        chown(data.join(name), Some(7), Some(8))?;
        fs::set_permissions(data.join(name), fs::Permissions::from_mode(mode))?;
    }
    symlink("file", data.join("link"))?;
    symlink("/etc/passwd", data.join("out"))?;
    fs::create_dir(lab.root().join("other"))?;
    fs::write(lab.root().join("other/file"), "three\n")?;
    let tmpfs = |destination: &str, more: &[&str]| {
        let options: Vec<&str> = ["tmpcopyup", "nosuid"].iter().chain(more).copied().collect();
        json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options })
    };
    lab.set("/mounts/-", tmpfs("/data", &[])).set("/mounts/-", tmpfs("/other", &["ro", "mode=0711"]));
    // Nothing to copy is fine too.
    lab.set("/mounts/-", tmpfs("/made/by/the/way", &[]));
    let output = lab.run();
    let said = text(&output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    let head = ["one", "two", "file", "/etc/passwd"];
    same(lines.get(..4), Some(head.as_slice()))?;
    has(&said, ". 751 7:8 ")?;
    has(&said, "file 640 7:8 0\n")?;
    has(&said, "deep 700 7:8 ")?;
    has(&said, "deep/er/file 444 7:8 0\nrun 4755 7:8 0\n")?;
    same(lines.get(9..), Some(["711", "three"].as_slice()))?;
    has(&text(&output.stderr), "Read-only file system")?;
    // The image is as it was.
    same(fs::read_to_string(data.join("file"))?.as_str(), "one\n")?;
    same((data.join("new").exists(), lab.root().join("other/x").exists()), (false, false))?;
    lab.is_clean()
}

fn copy_up_fails() -> Result<(), Failed> {
    let mut lab = Lab::new("touch /tmp/ran");
    fs::create_dir(lab.root().join("data"))?;
    fs::write(lab.root().join("data/file"), vec![1; 100_000])?;
    let tmpfs = json!({ "destination": "/data", "type": "tmpfs", "source": "t", "options": ["tmpcopyup", "size=16k"] });
    lab.set("/mounts/-", tmpfs);
    let output = lab.run();
    same(output.status.code(), Some(1))?;
    has(
        &text(&output.stderr),
        "cannot copy what the image has at /data into its tmpfs: ENOSPC: No space left on device",
    )?;
    same(lab.root().join("tmp/ran").exists(), false)?;
    lab.is_clean()
}

fn files() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /made/for/it /etc/given; echo over > /etc/given; cat /relative/file");
    fs::write(lab.path("given"), "given\n")?;
    fs::write(lab.root().join("etc/given"), "the image's\n")?;
    let source = lab.path("given");
    let bind = |destination: &str, option: &str| json!({ "destination": destination, "source": source, "options": ["bind", option] });
    lab.set("/mounts/-", bind("/made/for/it", "ro")).set("/mounts/-", bind("/etc/given", "ro"));
    // Seen from the root, as the specification once allowed.
    lab.set("/mounts/-", bind("relative/file", "rw"));
    let output = lab.run();
    same(text(&output.stdout).as_str(), "given\ngiven\ngiven\n")?;
    has(&text(&output.stderr), "Read-only file system")?;
    same(fs::read_to_string(lab.root().join("etc/given"))?.as_str(), "the image's\n")?;
    lab.is_clean()
}

/// As an image does that expects systemd to write its /etc/resolv.conf.
fn dangling() -> Result<(), Failed> {
    let mut lab = Lab::new("cat /etc/resolv.conf /run/systemd/resolve/stub; ls -d /var/run/made");
    fs::create_dir(lab.root().join("var"))?;
    symlink("../run/systemd/resolve/stub", lab.root().join("etc/resolv.conf"))?;
    symlink("/run", lab.root().join("var/run"))?;
    fs::write(lab.path("given"), "given\n")?;
    let source = lab.path("given");
    lab.set("/mounts/-", json!({ "destination": "/var/run/made", "type": "tmpfs", "source": "t" }));
    lab.set("/mounts/-", json!({ "destination": "/etc/resolv.conf", "source": source, "options": ["bind", "ro"] }));
    same(lab.output()?.as_str(), "given\ngiven\n/var/run/made\n")?;
    same(lab.root().join("run/systemd/resolve/stub").is_file(), true)?;
    lab.is_clean()
}

/// A folder on a file system that can be mounted with other ids, with a file of root's and one of user 5's.
fn given() -> Result<tempfile::TempDir, Failed> {
    let folder = tempfile::Builder::new().prefix("isolab-oci-").tempdir_in("/dev/shm")?;
    for (name, owner) in [("root", 0), ("five", 5)] {
        fs::write(folder.path().join(name), "")?;
        chown(folder.path().join(name), Some(owner), Some(owner))?;
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    Ok(folder)
}

fn map(host: u32) -> Value {
    json!([{ "containerID": 0, "hostID": host, "size": 100 }])
}

fn id_mapped() -> Result<(), Failed> {
    let folder = given()?;
    let mut lab = Lab::new("stat -c '%n %u:%g' /ids/root /ids/five /same/root");
    let source = folder.path();
    for (destination, option) in [("/ids", "bind"), ("/deep", "rbind")] {
        lab.set(
            "/mounts/-",
            json!({ "destination": destination, "source": source, "options": [option, "idmap"],
                "uidMappings": map(1000), "gidMappings": map(2000) }),
        );
    }
    lab.set("/mounts/-", json!({ "destination": "/same", "source": source, "options": ["bind"] }));
    same(lab.output()?.as_str(), "/ids/root 1000:2000\n/ids/five 1005:2005\n/same/root 0:0\n")?;
    // Who is 1003 in the container is 3 on the disk.
    let mut lab = Lab::new("touch /ids/written");
    lab.set("/process/user", json!({ "uid": 1003, "gid": 2004 }));
    lab.set(
        "/mounts/-",
        json!({ "destination": "/ids", "source": source, "options": ["bind", "ridmap"],
            "uidMappings": map(1000), "gidMappings": map(2000) }),
    );
    lab.output()?;
    let found = fs::metadata(source.join("written"))?;
    same((found.uid(), found.gid()), (3, 4))?;
    lab.is_clean()
}

fn id_mapped_as_container() -> Result<(), Failed> {
    let folder = given()?;
    let mut lab = Lab::new("stat -c '%n %u:%g' /ids/root /ids/five /plain/root; touch /ids/written");
    let big = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
    lab.set("/linux/uidMappings", big.clone()).set("/linux/gidMappings", big);
    lab.set("/linux/namespaces/-", json!({ "type": "user" }));
    for path in [lab.root(), lab.root().join("tmp")] {
        chown(path, Some(200_000), Some(200_000))?;
    }
    let source = folder.path();
    lab.set("/mounts/-", json!({ "destination": "/ids", "source": source, "options": ["rbind", "ridmap"] }));
    lab.set("/mounts/-", json!({ "destination": "/plain", "source": source, "options": ["bind"] }));
    same(lab.output()?.as_str(), "/ids/root 0:0\n/ids/five 5:5\n/plain/root 65534:65534\n")?;
    same(fs::metadata(source.join("written"))?.uid(), 0)?;
    lab.is_clean()
}

fn id_mapped_without_map() -> Result<(), Failed> {
    let mut lab = Lab::new("true");
    let source = lab.bundle().to_owned();
    lab.set("/mounts/-", json!({ "destination": "/ids", "source": source, "options": ["bind", "idmap"] }));
    let output = lab.run();
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "hint: the option idmap needs uidMappings")?;
    lab.is_clean()
}
